"""``pfdhpc plan --measured RUN``: a run played through on other shares of the ranks."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.progress import track
from rich.table import Table

from ..config import Config
from ..config.load import stage_config
from ..errors import InputError
from ..log import console
from ..parallel.layout import EXPLORER, LABELER, TRAINER, Layout, plan_layout
from ..start.fresh_state import begin
from ..store.checkpoint import load_checkpoint
from ..store.run_directory import RunFolder
from ..workflow.simulate_run import Outcome, simulate, splits
from ..workflow.state import RunState
from ..workflow.state_codec import from_tree

DRAWS = 5
"""Simulations of each split."""
SHOWN = 12
"""Splits in the table, the best ones."""
SATURATED = 0.7
"""Share of its time from which on the coordinator holds others up."""


def compare_splits(config: Config, world_size: int, measured: Path) -> None:
    """Print how long the rounds the run did would take on each split, and on the one asked for. Raises InputError."""
    if config.workflow == "simplify":
        raise InputError("--measured: a run of workflow simplify cannot be played through yet; leave it out")
    before = measured_in(measured)
    config, start, picks = to_play(config, before)
    asked = _typical(config, start, plan_layout(config.ranks, world_size), picks)
    found = []
    for explorers, ranks in track(list(splits(config, world_size)), "simulating", transient=True, console=console):
        layout = plan_layout(ranks, world_size)
        outcome = _typical(config.model_copy(update={"ranks": ranks}), start, layout, picks)
        found.append((outcome, explorers, len(layout.of_role(LABELER))))
    found.sort(key=lambda row: row[0].seconds)
    console.print(_table(before, asked, found))
    fastest, explorers, labelers = found[0]
    gain = asked.seconds / fastest.seconds
    console.print(f"soonest: {explorers} explorers and {labelers} labeler teams, {gain:.2f} times as fast as asked for")
    if fastest.coordinator > SATURATED:
        console.print(
            f"the coordinator would be busy {fastest.coordinator:.0%} of the time: it can do"
            f" {1 / fastest.service:.0f} messages a second with so many teams; put more frames into an order with"
            " label.batch, or run several materials as a job array",
            style="yellow",
        )


def to_play(config: Config, before: RunState) -> tuple[Config, RunState, list[int]]:
    """What :func:`simulate` needs to do again what a run did: an input with its rounds as the only limit, the state
    to begin with, and the frames picked in each round."""
    if config.workflow == "pfd":
        config = stage_config(config, 1 if before.teacher else 0)
    bounds = {"max_labels": None, "max_seconds": None, "max_core_hours": None, "max_rounds": max(before.round, 1)}
    config = config.model_copy(update={"converge": config.converge.model_copy(update=bounds)})
    start = replace(begin(config, before.type_map).state, durations=before.durations)
    return config, start, [item.selected for item in before.history]


def _typical(config: Config, start: RunState, layout: Layout, picks: Sequence[int]) -> Outcome:
    """The one in the middle of several that differ in the times they draw."""
    try:
        outcomes = [simulate(config, start, layout, seed, picks) for seed in range(DRAWS)]
    except ValueError as error:
        raise InputError(f"--measured: {error}") from None
    return sorted(outcomes, key=lambda outcome: outcome.seconds)[DRAWS // 2]


def measured_in(directory: Path) -> RunState:
    tree = load_checkpoint(RunFolder(directory).checkpoints)
    if tree is None:
        raise InputError(f"--measured {directory}: there is no checkpoint; give a run that has done a round or more")
    state = from_tree(tree["state"])
    if not any(key.endswith("train.step") for key in state.durations):
        raise InputError(f"--measured {directory}: it has not trained yet; give a run that has done a round or more")
    return state


def _table(before: RunState, asked: Outcome, found: list[tuple[Outcome, int, int]]) -> Table:
    title = (
        f"{asked.rounds} rounds with the task times of a run that did {before.round}; share of its time each role works"
    )
    table = Table(title=title, title_justify="left")
    for name in ("explorers", "labeler teams", "seconds", "labels", "trainer", "explorer", "labeler", "coordinator"):
        table.add_column(name, justify="right")
    for outcome, explorers, labelers in [*found[:SHOWN], (asked, "as asked", "")]:
        shares = [outcome.busy.get(role, 0.0) for role in (TRAINER, EXPLORER, LABELER)]
        cells = (*shares, outcome.coordinator)
        table.add_row(
            str(explorers),
            str(labelers),
            f"{outcome.seconds:.0f}",
            str(outcome.labels),
            *(f"{cell:.0%}" for cell in cells),
        )
    return table
