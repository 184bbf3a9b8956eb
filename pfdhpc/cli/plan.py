"""``pfdhpc plan``: which rank would do what, with which GPU and memory, and what of it would be wasted."""

import argparse
from collections.abc import Iterator, Sequence
from itertools import groupby
from math import ceil

from rich.table import Table

from ..config import Config, load
from ..errors import EXIT_COMPLETE, InputError
from ..log import console
from ..parallel.devices import Seat, seats, visible_gpus
from ..parallel.layout import EXPLORER, FLEXIBLE, IDLE, LABELER, TRAINER, Layout, Team, plan_layout

LOADED = {TRAINER: 1.0, EXPLORER: 0.7, LABELER: 0.3, FLEXIBLE: 0.7, IDLE: 0.1, "coordinator": 0.2}
"""GB of main memory a rank takes before there is any model or structure: its programs (as measured)."""
DEEPMD_LOADED = 0.8
"""The same of a labeler that is a deepmd model."""
SHOWN = 8
"""Teams of a role that have a row each; more are shown by node."""
WASTED = 0.25
"""Share of an explorer's turns that may be empty before that is worth a word."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from .arguments import input_file, run_path

    input_file(parser)
    parser.add_argument("-n", type=int, required=True, metavar="N", help="number of ranks")
    parser.add_argument("--ranks-per-node", type=int, metavar="R", help="ranks on each node; default: all on one")
    text = "GPUs of each node; default: those visible here"
    parser.add_argument("--gpus-per-node", type=int, metavar="G", help=text)
    text = "a run of this input, on any ranks: which split of N ranks would finish its rounds soonest"
    parser.add_argument("--measured", type=run_path, metavar="RUN", help=text)


def plan(options: argparse.Namespace) -> int:
    """Print the table and the warnings; raises InputError."""
    _check_counts(options)
    per_node = options.ranks_per_node or options.n
    config = load(options.input)
    layout = plan_layout(config.ranks, options.n)
    gpus = _gpus(options, config)
    hosts = [f"node {rank // per_node + 1}" for rank in range(options.n)]
    taken = seats(layout, hosts, [gpus] * options.n)
    console.print(_table(config, layout, taken))
    if layout.world_size == 1:
        console.print("one rank plays all of these roles in turn")
        return EXIT_COMPLETE
    for line in warnings(config, layout, taken, gpus):
        console.print(f"warning: {line}", style="yellow", markup=False)
    if options.measured is not None and config.pool:
        raise InputError("plan --measured: the runs of workflow simplify cannot be simulated; leave it out")
    if options.measured is not None:
        from .plan_measured import compare_splits

        compare_splits(config, options.n, options.measured)
    return EXIT_COMPLETE


def _check_counts(options: argparse.Namespace) -> None:
    least = {"-n": (options.n, 1), "--ranks-per-node": (options.ranks_per_node, 1)}
    least["--gpus-per-node"] = options.gpus_per_node, 0
    given = {name: pair for name, pair in least.items() if pair[0] is not None}
    problems = [f"plan {name} {value}: give {low} or more" for name, (value, low) in given.items() if value < low]
    if problems:
        raise InputError(problems)


def _gpus(options: argparse.Namespace, config: Config) -> list[str]:
    if config.ranks.gpus == "none":
        return []
    return visible_gpus() if options.gpus_per_node is None else list(map(str, range(options.gpus_per_node)))


def _table(config: Config, layout: Layout, taken: Sequence[Seat]) -> Table:
    threads = config.ranks.threads
    about = f"{layout.world_size} ranks of {threads} thread{'s' if threads > 1 else ''}"
    table = Table(title=about, caption="GB: the programs of all these ranks; models and structures come on top")
    for name in ("team", "role", "ranks", "node", "GPU", "GB"):
        table.add_column(name, justify="right" if name == "GB" else "left")
    table.add_row("-", "coordinator", "0", taken[0].host, "-", f"{LOADED['coordinator']:.1f}")
    for teams in _rows(layout, taken):
        ranks = [rank for team in teams for rank in team.ranks]
        used = [taken[min(rank, len(taken) - 1)] for rank in ranks]  # one rank alone plays ranks 1 to 3
        cards = ",".join(dict.fromkeys(seat.gpu or "-" for seat in used))
        memory = len(ranks) * _loaded(config, teams[0].role)
        name = teams[0].name if len(teams) == 1 else f"{teams[0].name} to {teams[-1].name.rpartition('-')[2]}"
        table.add_row(name, teams[0].role, _span(ranks), _nodes(used), cards, f"{memory:.1f}")
    return table


def _rows(layout: Layout, taken: Sequence[Seat]) -> Iterator[list[Team]]:
    """The teams by row: each in its own, or, where a role has many, all that begin on a node in one."""
    for role in dict.fromkeys(team.role for team in layout.teams):
        teams = layout.of_role(role)
        if len(teams) <= SHOWN:
            yield from ([team] for team in teams)
            continue
        for _, some in groupby(teams, key=lambda team: taken[team.leader].host):
            yield list(some)


def _loaded(config: Config, role: str) -> float:
    return DEEPMD_LOADED if role == LABELER and _loads_deepmd(config) else LOADED[role]


def _loads_deepmd(config: Config) -> bool:
    """Whether the labelers evaluate a deep-potential model."""
    return config.label.type in ("deepmd", "teacher")


def _span(ranks: Sequence[int]) -> str:
    return str(ranks[0]) if len(ranks) == 1 else f"{ranks[0]}-{ranks[-1]}"


def _nodes(used: Sequence[Seat]) -> str:
    first, last = used[0].host, used[-1].host
    return first if first == last else f"{first}-{last.removeprefix('node ')}"


def warnings(config: Config, layout: Layout, taken: Sequence[Seat], gpus: Sequence[str]) -> Iterator[str]:
    """What of the ranks would wait or share, each with what to do; raises InputError for structures that do not read.

    ``taken`` has the seat of each rank, ``gpus`` are those of a node.
    """
    flexible = len(layout.of_role(FLEXIBLE))
    explorers, labelers = len(layout.of_role(EXPLORER)) + flexible, len(layout.of_role(LABELER))
    if idle := len(layout.of_role(IDLE)):
        yield f'{idle} ranks have nothing to do; teams = "rest" in [ranks], or other team sizes, would use them'
    replicas = _count_replicas(config)
    turns = ceil(replicas / explorers)
    if explorers > replicas:
        yield (
            f"{explorers} explorers, but {replicas} chunks of the pool: take a smaller pool.chunk, or fewer explorers"
            if config.pool
            else f"{explorers} explorers, but {replicas} replicas (starts x temperatures x pressures): "
            f"{explorers - replicas} never explore; ask for more starts (system.perturb.count), or fewer explorers"
        )
    elif 1 - replicas / (explorers * turns) > WASTED:
        yield (
            f"{replicas} replicas on {explorers} explorers take {turns} turns, the last one with "
            f"{replicas - explorers * (turns - 1)}; a multiple of {explorers} replicas would fill them"
        )
    frames = max(config.select.max_sel, config.init.frames)
    if labelers * config.label.batch > frames and labelers > 1:
        yield (
            f"{labelers} labeler teams for {config.select.max_sel} frames a round (select.max_sel) and "
            f"{config.init.frames} at first (init.frames), {config.label.batch} at a time: some never label; "
            "raise max_sel, or take larger teams (ranks.labeler.ranks) or more explorers"
        )
    yield from _cards(config, layout, taken, gpus)


def _cards(config: Config, layout: Layout, taken: Sequence[Seat], gpus: Sequence[str]) -> Iterator[str]:
    """Ranks that use a deep-potential model and have no GPU of their own."""
    teams = [team.ranks for team in layout.of_role(TRAINER)]
    trainer = [rank for ranks in teams for rank in ranks]
    if not gpus:
        if len(teams[0]) > 1:
            yield f"{len(teams[0])} trainer ranks without GPUs: they train data parallel on the processor"
        return
    roles = (TRAINER, EXPLORER, FLEXIBLE, LABELER) if _loads_deepmd(config) else (TRAINER, EXPLORER, FLEXIBLE)
    users = [rank for role in roles for team in layout.of_role(role) for rank in team.ranks]
    cards = [(taken[rank].host, taken[rank].gpu) for rank in users]
    shared = [rank for rank, card in zip(users, cards, strict=True) if cards.count(card) > 1]
    if training := [rank for rank in trainer if rank in shared]:
        yield (
            f"trainer ranks {', '.join(map(str, training))} share a GPU with others: there are more ranks with a model "
            "on a node than GPUs; ask for fewer explorers (or labelers) a node, or put ranks on more nodes"
        )
    elif shared:
        yield f"{len(shared)} ranks with a model share GPUs; fewer of them, or more GPUs, would do without"
    used = {(seat.host, seat.gpu) for seat in taken if seat.gpu is not None}
    if spare := len(gpus) * len({seat.host for seat in taken}) - len(used):
        yield f"{spare} GPUs are given to no rank; more explorers (or trainer ranks) would use them"


def _count_replicas(config: Config) -> int:
    from ..start.fresh_state import begin

    return len(begin(config, ()).state.replicas)
