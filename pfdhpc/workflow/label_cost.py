"""What the labels of a run will cost, told once the first of them is made: before they are paid in bulk. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil

from ..config import Config
from ..parallel.layout import FLEXIBLE, LABELER, Layout
from ..units import duration
from .aimd import unfinished
from .state import RunState
from .time_forecast import SAFETY, label_seconds


@dataclass(frozen=True)
class Estimate:
    """Of all labels a run may ask for: ``first`` before the first exploration, ``later`` those of the rounds.

    ``each``: seconds of a label by number of atoms, as measured; larger cells than that by the cube of the number.
    ``seconds``: of wall time. ``core_hours``: ranks x threads x hours, as converge.max_core_hours counts them.
    """

    first: int
    later: int
    each: Mapping[int, float]
    seconds: float
    core_hours: float

    def __str__(self) -> str:
        each = ", ".join(f"{seconds:.3g} s of {atoms} atoms" for atoms, seconds in _ends(self.each))
        return (
            f"{self.first + self.later} labels at most ({self.first} first ones, {self.later} in the rounds), {each}:"
            f" about {figure(self.core_hours)} core hours, {duration(self.seconds)} on these ranks"
        )


def estimate(config: Config, state: RunState, layout: Layout) -> Estimate | None:
    """None before a label was measured, and where none has to be paid for."""
    if config.label.type in ("teacher", "offline", "pool") or not state.replicas:
        return None
    waiting = [record for record in state.pending if record.origin.round == 0]
    going = unfinished(config, state.aimd) if state.aimd else []
    steps = [config.init.aimd.steps - item.step + (item.point.label is None) for item in going]
    sizes = [len(item.start) for item in state.replicas]
    atoms = {*sizes, *(len(record.frame) for record in waiting), *(len(item.point.frame) for item in going)}
    each = dict(_measured(state, atoms))
    if not each:
        return None
    kept = sum(ceil(count / item.interval) for count, item in zip(steps, going, strict=True))
    first = state.history[0].labelled + state.history[0].rejected + len(waiting) + kept
    later = _later(config, state, len(waiting) + kept)
    ahead = sum(each[len(record.frame)] for record in waiting)
    ahead += sum(count * each[len(item.point.frame)] for count, item in zip(steps, going, strict=True))
    teams = 1 if layout.world_size == 1 else len(layout.of_role(LABELER)) + len(layout.of_role(FLEXIBLE))
    typical = sum(each[size] for size in sizes) / len(sizes)
    seconds = (state.seconds.get("labeler", 0.0) + ahead) / teams + typical * _turns(config, later, teams)
    hours = layout.world_size * config.ranks.threads * seconds / 3600
    made = sum(item.labelled + item.rejected for item in state.history[1:])
    return Estimate(first, made + later, each, seconds, hours)


def unconfirmed(config: Config, state: RunState, layout: Layout) -> str:
    """Why no further label is begun without a word from the user; empty if it may be.

    Only before the first training on labels that were paid for: from then on the run has been agreed to.
    """
    limit = config.run.confirm_core_hours
    if limit is None or state.n_labels - len(state.fresh) > state.given or not (state.pending or state.aimd):
        return ""
    found = estimate(config, state, layout)
    if found is None or found.core_hours <= limit:
        return ""
    return (
        f"the labels may cost {figure(found.core_hours)} core hours, run.confirm_core_hours allows {limit:g}; to go on,"
        f" raise it to {figure(1.2 * found.core_hours)} (or lower converge.max_rounds, select.max_sel or"
        f" converge.max_labels) and run again. The estimate: {found}"
    )


def figure(value: float) -> str:
    """Two digits that count, and no powers of ten for what can be said without."""
    return f"{value:.0f}" if value >= 100 else f"{value:.2g}"


def _measured(state: RunState, atoms: set[int]) -> Iterator[tuple[int, float]]:
    """Seconds by number of atoms, as they were on the median; nothing if no label was measured."""
    for count in sorted(atoms):
        if (seconds := label_seconds(state, count)) is not None:
            yield count, seconds / SAFETY["label"]


def _later(config: Config, state: RunState, first: int) -> int:
    """Labels the rounds may still ask for, ``first`` of others being on their way."""
    made = sum(item.labelled + item.rejected for item in state.history[1:])
    later = max(0, config.converge.max_rounds * config.select.max_sel - made)
    budget = config.converge.max_labels
    return later if budget is None else min(later, max(0, budget - state.n_paid - first))


def _turns(config: Config, labels: int, teams: int) -> float:
    """So many labels one after another it takes; in lock-step the last turn of a round is waited for."""
    if config.overlapped or not labels:
        return labels / teams
    picks, batch = config.select.max_sel, config.label.batch
    orders = ceil(picks / batch)
    return labels / picks * ceil(orders / teams) * min(batch, picks)


def _ends(each: Mapping[int, float]) -> list[tuple[int, float]]:
    """Of the smallest and the largest cell."""
    return sorted({count: each[count] for count in (min(each), max(each))}.items())
