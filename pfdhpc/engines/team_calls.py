"""One answer, or one exception, on all ranks of a team."""

import pickle
import time
from collections.abc import Callable
from typing import Any, TypeVar

from ..errors import TaskError

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
            failure = _portable(error)
    value, failure = comm.bcast((value, failure))
    if failure is not None:
        raise failure
    return value


def _portable(error: Exception) -> Exception:
    """The error, or what it says where its kind does not survive the way to other ranks: they wait for one."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # what the constructors of foreign errors raise
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def together(comm: Any, work: Callable[[], T]) -> T:
    """Every rank does ``work``, which makes no MPI call of its own; if it fails on one rank, all raise.

    All raise the same failure: that of a task (TaskError) if there is one, else the earliest (RuntimeError).
    Later ones are collectives timing out, which is how the other ranks notice.
    """
    if comm is None:
        return work()
    value = failure = report = None
    try:
        value = work()
    except Exception as error:
        failure = error
        unexpected = not isinstance(error, TaskError)
        report = (unexpected, time.time(), comm.rank, f"{type(error).__name__}: {error}")
    reports = [item for item in comm.allgather(report) if item]
    if not reports:
        return value
    unexpected, _, rank, text = min(reports)
    if rank == comm.rank:
        raise failure
    raise (RuntimeError if unexpected else TaskError)(f"rank {rank} of the trainer team: {text}") from failure
