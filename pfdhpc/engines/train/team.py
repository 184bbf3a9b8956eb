"""One answer, or one exception, on all ranks of a team."""

from collections.abc import Callable
from typing import Any, TypeVar

from ...errors import InputError, TaskError

T = TypeVar("T")


def leads(comm: Any) -> bool:
    """Whether this rank is the first of the team; ``comm`` is None for a team of one."""
    return comm is None or comm.rank == 0


def by_leader(comm: Any, work: Callable[[], T]) -> T:
    """The leader does ``work``; its value is returned, or its exception raised, on every rank."""
    if comm is None:
        return work()
    value = failure = None
    if comm.rank == 0:
        try:
            value = work()
        except Exception as error:
            failure = error
    value, failure = comm.bcast((value, failure))
    if failure is not None:
        raise failure
    return value


def together(comm: Any, work: Callable[[], T]) -> T:
    """Every rank does ``work``, which makes no MPI call of its own; if it fails on one rank, all raise.

    All raise the failure that came first: a failed task (TaskError), any other error (RuntimeError), and
    last a broken collective, which is only how a rank notices that another one has failed.
    """
    if comm is None:
        return work()
    value = failure = None
    try:
        value = work()
    except Exception as error:
        failure = error
    reports = comm.allgather(failure and (_order_of(failure), comm.rank, f"{type(failure).__name__}: {failure}"))
    known = [report for report in reports if report]
    if not known:
        return value
    kind, rank, text = min(known)
    if rank == comm.rank:
        raise failure
    raise (TaskError if kind == 0 else RuntimeError)(f"rank {rank} of the trainer team: {text}") from failure


def _order_of(failure: Exception) -> int:
    """0: a failed task, 1: any other error, 2: a collective that another rank has left."""
    if isinstance(failure, TaskError | InputError):
        return 0
    return 2 if isinstance(failure, RuntimeError) and any(word in str(failure) for word in ("gloo", "NCCL")) else 1
