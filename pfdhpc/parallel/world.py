"""The one place that names the world communicator."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import EXIT_BAD_INPUT, InputError
from .devices import Seat, seats
from .layout import Layout, Team
from .scheduler import is_first

SIZE_VARIABLES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
"""Where launchers tell a process how many of it there are."""


@dataclass(frozen=True)
class Place:
    """Where this rank stands: its team, the team's communicator, and the channels' communicators."""

    rank: int
    team: Team | None  # None: the coordinator
    team_comm: Any
    orders_comm: Any  # coordinator <-> leaders
    peers_comm: Any  # leader <-> leader, for reductions over several teams


def launched(environ: Mapping[str, str]) -> int:
    """How many processes a launcher says it started, this one among them; 1 outside of one. Does not start MPI."""
    sizes = [int(environ[name]) for name in SIZE_VARIABLES if environ.get(name, "").isdigit()]
    return max(sizes, default=1)


def communicator() -> Any:
    """The world communicator; starts MPI."""
    from mpi4py import MPI

    return MPI.COMM_WORLD


def whole_world() -> Any:
    """As :func:`communicator`, of a command that wants all processes a launcher started.

    Raises InputError on the first of them where each finds itself alone; the others leave without a word.
    """
    comm, n_started = communicator(), launched(os.environ)
    if comm.Get_size() > 1 or n_started == 1:
        return comm
    from mpi4py import MPI

    leave()
    if not is_first(os.environ):
        raise SystemExit(EXIT_BAD_INPUT)
    known = " ".join(MPI.Get_library_version().partition(",")[0].split()[:3])
    raise InputError(
        f"{n_started} processes were started, but each of them finds itself alone: the launcher is not of the MPI that "
        f"mpi4py has loaded ({known}), or does not speak its protocol; `pfdhpc doctor` says which one to take"
    )


def leave() -> None:
    """Finalize MPI, on every rank, so that the exit code that follows is a plain one.

    Under ``python -m mpi4py`` a non-zero exit before that is an MPI_Abort, which some launchers turn
    into an exit code of their own. (Leaving by ``os._exit`` instead makes MPICH's launcher kill the rest.)
    """
    from mpi4py import MPI

    MPI.Finalize()


def abandon(comm: Any, code: int) -> None:
    """End the job although some rank is inside a task and does not hear; all that matters is on disk."""
    sys.stdout.flush()
    sys.stderr.flush()
    comm.Abort(code)


def take_seat(comm: Any, layout: Layout, gpus: list[str]) -> Seat:
    """This rank's node-local GPU, agreed by all ranks from their host names and roles."""
    from mpi4py import MPI

    hosts = comm.allgather((MPI.Get_processor_name(), gpus))
    return seats(layout, [host for host, _ in hosts], [found for _, found in hosts])[comm.Get_rank()]


def next_gpu(comm: Any, gpus: list[str]) -> Seat:
    """This rank's GPU where all ranks do the same: a node's ranks take its GPUs in turn."""
    from mpi4py import MPI

    host = MPI.Get_processor_name()
    before = comm.allgather(host)[: comm.Get_rank()].count(host)
    return Seat(host, gpus[before % len(gpus)] if gpus else None)


def split(comm: Any, layout: Layout) -> Place:
    """Give every rank its team communicator. The last collective call that spans teams."""
    rank = comm.Get_rank()
    team = layout.team_of(rank)
    color = 0 if team is None else 1 + layout.teams.index(team)
    return Place(rank, team, comm.Split(color, rank), comm.Dup(), comm.Dup())
