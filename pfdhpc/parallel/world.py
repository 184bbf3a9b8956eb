"""The one place that names the world communicator."""

from dataclasses import dataclass
from typing import Any

from .devices import Seat, seats
from .layout import Layout, Team


@dataclass(frozen=True)
class Place:
    """Where this rank stands: its team, the team's communicator, and the channels' communicators."""

    rank: int
    team: Team | None  # None: the coordinator
    team_comm: Any
    orders_comm: Any  # coordinator <-> leaders
    peers_comm: Any  # leader <-> leader, for reductions over several teams


def communicator() -> Any:
    """The world communicator; starts MPI."""
    from mpi4py import MPI

    return MPI.COMM_WORLD


def world_size() -> int:
    return communicator().Get_size()


def take_seat(comm: Any, layout: Layout, gpus: list[str]) -> Seat:
    """This rank's node-local GPU, agreed by all ranks from their host names and roles."""
    from mpi4py import MPI

    hosts = comm.allgather((MPI.Get_processor_name(), gpus))
    return seats(layout, [host for host, _ in hosts], [found for _, found in hosts])[comm.Get_rank()]


def split(comm: Any, layout: Layout) -> Place:
    """Give every rank its team communicator. The last collective call that spans teams."""
    rank = comm.Get_rank()
    team = layout.team_of(rank)
    color = 0 if team is None else 1 + layout.teams.index(team)
    return Place(rank, team, comm.Split(color, rank), comm.Dup(), comm.Dup())
