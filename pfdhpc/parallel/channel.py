"""How messages travel: point to point, never blocking, never spinning.

Two transports carry the same messages: MPI between ranks, and queues inside one process (one
thread per rank in the tests, or all roles in turn in one thread).
"""

import queue
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Any

SHORTEST, LONGEST = 5e-5, 5e-3
"""Seconds between two looks for a message, right after something happened and after a while."""
PATIENCE = 1 / 8
"""The pause grows with the wait, to this share of it: a message comes late by no more than that, and a rank that waits
for long costs less than 1 % of a core."""


def pause(waited: float) -> float:
    """Seconds to sleep before the next look, after ``waited`` seconds without one that found anything."""
    return min(max(SHORTEST, PATIENCE * waited), LONGEST)


class Channel(ABC):
    """One end of the transport, owned by one rank."""

    rank: int

    @abstractmethod
    def send(self, dest: int, message: Any) -> None:
        """Hand a message over; returns at once."""

    @abstractmethod
    def poll(self) -> tuple[int, Any] | None:
        """The next message as ``(source, message)``, or None if none is here yet."""

    def receive(
        self, timeout: float = float("inf"), enough: Callable[[], bool] = lambda: False
    ) -> tuple[int, Any] | None:
        """Wait up to ``timeout`` seconds for a message, or until ``enough()`` holds; asleep in between."""
        started = time.monotonic()
        while (found := self.poll()) is None:
            waited = time.monotonic() - started
            if waited >= timeout or enough():
                return None
            time.sleep(min(pause(waited), timeout - waited))
        return found

    def flush(self, timeout: float) -> bool:
        """Wait until everything sent has left; False if it has not after ``timeout`` seconds."""
        return True


class MpiChannel(Channel):
    """Messages over an MPI communicator; arrays travel as buffers (pickle protocol 5, out of band)."""

    def __init__(self, comm: Any):
        from mpi4py.util import pkl5

        self._comm = pkl5.Intracomm(comm)
        self.rank = comm.Get_rank()
        self.size = comm.Get_size()
        self._pending: list[Any] = []

    def send(self, dest: int, message: Any) -> None:
        self._reap()
        self._pending.append(self._comm.isend(message, dest, 0))

    def poll(self) -> tuple[int, Any] | None:
        from mpi4py import MPI

        self._reap()
        status = MPI.Status()
        found = self._comm.improbe(MPI.ANY_SOURCE, 0, status)
        if found is None:
            return None
        return status.Get_source(), found.recv()

    def flush(self, timeout: float) -> bool:
        started = time.monotonic()
        while self._pending and (waited := time.monotonic() - started) < timeout:
            self._reap()
            time.sleep(pause(waited))
        return not self._pending

    def settle(self) -> None:
        """Receive and drop what nobody waits for any more, until all that any rank sent has left. Collective."""
        others = None
        while others is None or not others.Test():
            self.poll()
            if others is None and not self._pending:
                others = self._comm.Ibarrier()
            time.sleep(SHORTEST)

    def _reap(self) -> None:
        self._pending = [request for request in self._pending if not request.test()[0]]


class LocalChannel(Channel):
    """The in-process twin: a queue per rank."""

    def __init__(self, rank: int, boxes: list[queue.SimpleQueue]):
        self.rank = rank
        self.size = len(boxes)
        self._boxes = boxes

    def send(self, dest: int, message: Any) -> None:
        self._boxes[dest].put((self.rank, message))

    def poll(self) -> tuple[int, Any] | None:
        try:
            return self._boxes[self.rank].get_nowait()
        except queue.Empty:
            return None


def local_channels(size: int) -> list[LocalChannel]:
    """Channels of ``size`` ranks that live in one process, one thread each."""
    boxes = [queue.SimpleQueue() for _ in range(size)]
    return [LocalChannel(rank, boxes) for rank in range(size)]


class InlineChannel(Channel):
    """The coordinator's end when all roles take turns in one thread.

    ``handlers`` maps a rank to what answers its orders; an order is worked on when the coordinator
    looks for messages.
    """

    rank = 0

    def __init__(self, handlers: dict[int, Callable[[Any], Any]]):
        self._handlers = handlers
        self._orders: deque[tuple[int, Any]] = deque()
        self._greetings: deque[tuple[int, Any]] = deque()

    def greet(self, source: int, message: Any) -> None:
        """A message that answers no order."""
        self._greetings.append((source, message))

    def send(self, dest: int, message: Any) -> None:
        self._orders.append((dest, message))

    def poll(self) -> tuple[int, Any] | None:
        if self._greetings:
            return self._greetings.popleft()
        while self._orders:
            dest, order = self._orders.popleft()
            answer = self._handlers[dest](order)
            if answer is not None:
                return dest, answer
        return None
