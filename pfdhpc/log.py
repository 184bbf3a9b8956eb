"""Log files per rank, and the terminal lines of the coordinator."""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from rich.console import Console

OF_OPEN_MPI = "OMPI_UNIVERSE_SIZE"
"""A variable that Open MPI's launcher sets."""
_OF_LAUNCHER = OF_OPEN_MPI in os.environ
"""Open MPI's gives each rank a terminal, also where its own output is a file, which a live panel would spoil."""
console = Console(
    highlight=False,
    emoji=False,
    soft_wrap=True,
    width=None if sys.stdout.isatty() and not _OF_LAUNCHER else 110,
    force_terminal=False if _OF_LAUNCHER else None,
)
"""The terminal; only the coordinator and the command line write to it."""


def open_log(path: Path, rank: int) -> None:
    """Send this rank's log records to a file of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter(f"%(asctime)s [{rank}] %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("pfdhpc")
    for old in logger.handlers[:]:  # of the run before in this process
        logger.removeHandler(old)
        old.close()
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    logger.propagate = False


_remarks = logging.getLogger("pfdhpc.input")


@cache
def remark(text: str) -> None:
    """Warn of something in the input, once in a process, however often the input is read."""
    _remarks.warning(text)


class _Listener(logging.Handler):
    def __init__(self, say: Callable[[str], None]):
        super().__init__()
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        self._say(f"note: {record.getMessage()}")


@contextmanager
def remarks_told(say: Callable[[str], None]) -> Iterator[None]:
    """Remarks on the input are told by ``say`` meanwhile, and not logged."""
    listener = _Listener(say)
    _remarks.addHandler(listener)
    _remarks.propagate = False
    try:
        yield
    finally:
        _remarks.removeHandler(listener)
        _remarks.propagate = True


class Clock:
    """Seconds since the job's start, as the lines on the terminal show them."""

    def __init__(self):
        self._start = time.monotonic()

    def seconds(self) -> float:
        return time.monotonic() - self._start

    def stamp(self) -> str:
        minutes, seconds = divmod(int(self.seconds()), 60)
        return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
