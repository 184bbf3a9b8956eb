"""Why and when a run must stop before it is done: signals and the time limit. Rank 0 only."""

import signal
import time

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Stopping:
    """Remembers a signal, and knows the deadline."""

    def __init__(self):
        self._started = time.monotonic()
        self._deadline: float | None = None
        self._signal: str = ""

    def limit(self, seconds: float | None) -> None:
        """Stop so many seconds after this object was made; None: no limit."""
        self._deadline = None if seconds is None else self._started + seconds

    def listen(self) -> None:
        """Take the signals as a wish to stop; a second SIGINT kills as usual."""
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
            signal.default_int_handler(number, frame)
        self._signal = f"received {signal.Signals(number).name}"


def ignore_signals() -> None:
    """For all ranks but the coordinator: the launcher sends signals to everyone."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
