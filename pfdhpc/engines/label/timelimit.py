"""A time-out for serial calculations in this process."""

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from ...errors import LabelError


class _TimeUp(BaseException):
    """Not an Exception: calculators that catch those must not swallow it."""


@contextmanager
def time_limit(seconds: float, interrupt: bool = True) -> Iterator[None]:
    """Raise LabelError when the block takes longer than ``seconds``.

    On the main thread it is interrupted by SIGALRM, as soon as Python code runs again (a call
    into compiled code ends first); elsewhere, where signals do not arrive, it is judged at its end. So it is
    without ``interrupt``, for what leaves more behind than torch with its gradients off, which are put right.
    """
    begin, gradients = time.monotonic(), _gradients()
    message = f"time-out: longer than {seconds:g} s (label.timeout)"
    try:
        with _alarm(seconds) if interrupt else nullcontext():
            yield
    except _TimeUp:
        if torch := sys.modules.get("torch"):
            torch.set_grad_enabled(gradients)
        raise LabelError(message) from None
    if time.monotonic() - begin > seconds:
        raise LabelError(message)


def _gradients() -> bool:
    """Whether torch keeps track of gradients, or will when it is loaded."""
    torch = sys.modules.get("torch")
    return torch is None or torch.is_grad_enabled()


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
