"""Commits off the event loop: a thread keeps what has come in, all of it in one go."""

import threading
from collections.abc import Sequence

from ..data import Record
from .labelled_rejected import check_labels
from .store import Store

Rejection = tuple[Record, str, str]
"""Record, reason, level."""


class Writer:
    """The one thread that writes to a store; to be called by one other thread.

    That thread may read from the store at any time, and finds in it what is on the disk. A StoreError of
    the thread ends it: it is raised by the next call and by all later ones; nothing that waited is kept.
    """

    def __init__(self, store: Store):
        self._store = store
        self._waiting: list[tuple[int, Sequence[Record], Sequence[Rejection]]] = []
        self._tickets = self._committed = self._told = 0
        self._error: BaseException | None = None
        self._closing = False
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)
        self._thread.start()

    def submit(self, labelled: Sequence[Record], rejected: Sequence[Rejection] = ()) -> int:
        """Hand over records to be kept; returns a ticket, one higher each time.

        Raises ValueError for a record without a finite label; nothing of the call is kept then.
        """
        check_labels(labelled)
        with self._change:
            self._complain()
            self._tickets += 1
            self._waiting.append((self._tickets, tuple(labelled), tuple(rejected)))
            self._change.notify_all()
            return self._tickets

    @property
    def pending(self) -> int:
        """Tickets that :meth:`done` has not told yet."""
        return self._tickets - self._told

    def done(self) -> list[int]:
        """Tickets whose records came to the disk since the last call, in order; returns at once."""
        with self._change:
            self._complain()
            first, self._told = self._told + 1, self._committed
            return list(range(first, self._told + 1))

    @property
    def ready(self) -> bool:
        """Whether :meth:`done` has something to tell, or to complain of."""
        return self._told < self._committed or self._error is not None

    def flush(self) -> None:
        """Return when all that was submitted is on the disk."""
        with self._change:
            self._change.wait_for(lambda: self._error or self._committed == self._tickets)
            self._complain()

    def close(self) -> None:
        """Keep what waits, and end the thread."""
        with self._change:
            self._closing = True
            self._change.notify_all()
        self._thread.join()
        self._complain()

    def _run(self) -> None:
        while batch := self._take():
            try:
                self._store.append(
                    [record for _, labelled, _ in batch for record in labelled],
                    [item for _, _, rejected in batch for item in rejected],
                )
                with self._change:
                    self._committed = batch[-1][0]
                    self._change.notify_all()
                self._store.merge()  # nobody waits for that
            except BaseException as error:  # a bug too is for the other thread to tell
                with self._change:
                    self._error = error
                    self._change.notify_all()
                return

    def _take(self) -> list[tuple[int, Sequence[Record], Sequence[Rejection]]]:
        """All that waits, once there is something; nothing at the end."""
        with self._change:
            self._change.wait_for(lambda: self._waiting or self._closing)
            batch, self._waiting = self._waiting, []
            return batch

    def _complain(self) -> None:
        if self._error is not None:
            raise self._error
