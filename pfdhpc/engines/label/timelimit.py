"""A time-out for serial calculations in this process."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ...errors import LabelError


class _TimeUp(BaseException):
    """Not an Exception: calculators that catch those must not swallow it."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise LabelError when the block takes longer than ``seconds``.

    On the main thread it is interrupted by SIGALRM, as soon as Python code runs again (a call
    into compiled code ends first); elsewhere, where signals do not arrive, it is judged at its end.
    """
    begin = time.monotonic()
    message = f"time-out: longer than {seconds:g} s (label.timeout)"
    try:
        with _alarm(seconds):
            yield
    except _TimeUp:
        raise LabelError(message) from None
    if time.monotonic() - begin > seconds:
        raise LabelError(message)


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_):
        raise _TimeUp

    previous = signal.signal(signal.SIGALRM, stop)
    try:
        # Apart from the restoring below: the alarm may still ring while it is turned off.
        try:
            signal.setitimer(signal.ITIMER_REAL, seconds)
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.signal(signal.SIGALRM, previous)
