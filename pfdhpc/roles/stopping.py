"""Why and when a run must stop before it is done: signals and the time limit. Rank 0 only."""

import signal
import time

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Stopping:
    """Remembers a signal, and knows the deadline (``time_limit`` seconds from now)."""

    def __init__(self, time_limit: float | None = None):
        self._deadline = None if time_limit is None else time.monotonic() + time_limit
        self._signal: str = ""

    def listen(self) -> None:
        """Take the signals as a wish to stop; the second SIGINT kills as usual."""
        for number in SIGNALS:
            signal.signal(number, self._note)

    def reason(self) -> str:
        """Why to stop now; empty if there is no reason."""
        if self._signal:
            return self._signal
        if self._deadline is not None and time.monotonic() >= self._deadline:
            return "run.time_limit was reached"
        return ""

    def _note(self, number: int, frame) -> None:
        if self._signal and number == signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)
        self._signal = f"received {signal.Signals(number).name}"


def ignore_signals() -> None:
    """For all ranks but the coordinator: the launcher sends signals to everyone."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
