"""Why and when a run must stop before it is done: signals, the file STOP, the end of the job. Rank 0 only."""

import math
import signal
import time
from datetime import datetime, timedelta
from pathlib import Path

from ..config.schema import RunSection
from ..parallel.scheduler import job_end

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
HURRIED = (signal.SIGINT, signal.SIGTERM)
"""Signals after which a kill may follow soon, whenever the job was to end."""
STOP = "STOP"
"""The file in the run directory that stops the job."""
LOOK = 2.0
"""Seconds between two looks at that file."""


class Stopping:
    """Remembers who asked for a stop, and knows when the job ends.

    The end is kept on the monotonic clock: a wall clock that is set during the job moves nothing.
    """

    def __init__(self):
        self.margin = 0.0  # seconds before the end in which nothing is worked on any more
        self._started = time.monotonic()
        self._end, self._source = math.inf, ""
        self._silent = ""  # a batch system that does not tell the end
        self.asked = ""  # who asked for a stop
        self._hurried_at = -math.inf
        self._files: tuple[Path, ...] = ()
        self._looked = -math.inf
        self._began = math.inf  # when a program was first asked about a stop

    def limit(self, seconds: float | None, source: str = "run.time_limit") -> None:
        """The job ends so many seconds after this object was made (None: no limit); the earliest end counts."""
        if seconds is not None and self._started + seconds < self._end:
            self._end, self._source = self._started + seconds, source

    def ask_scheduler(self) -> None:
        """Learn the end of the job from the batch system; call it before MPI starts."""
        notice = job_end()
        if notice is None:
            return
        if notice.seconds is None:
            self._silent = notice.system
        else:
            self.limit(time.monotonic() - self._started + notice.seconds, notice.system)

    def obey(self, section: RunSection, *more: Path) -> None:
        """Take the limit and the margin of the input, and a file STOP in the run directory as a wish to stop.

        ``more`` are folders where that file may be too.
        """
        self.limit(section.time_limit)
        self.margin = section.margin
        self._files = tuple(folder / STOP for folder in dict.fromkeys((section.directory, *more)))

    def listen(self) -> None:
        """Take the signals as a wish to stop; a SIGINT after another one, or after a SIGTERM, kills as usual."""
        for number in SIGNALS:
            signal.signal(number, self._note)

    def describe(self) -> str:
        """When the job ends and who says so, in one line; empty where there is nothing to tell."""
        if self._end < math.inf:
            left = timedelta(seconds=round(self._end - time.monotonic()))
            return f"this job ends at {self._ends():%Y-%m-%d %H:%M:%S}, in {left} ({self._source})"
        return f"{self._silent} does not tell when this job ends; say it by --time" if self._silent else ""

    def ends_at(self) -> str | None:
        """The end of the job, ISO format; None if it has no known end."""
        return self._ends().isoformat(timespec="seconds") if self._end < math.inf else None

    def left(self) -> float | None:
        """Seconds to work in, to the end less the margin; None: no limit."""
        return None if self._end == math.inf else self._end - self.margin - time.monotonic()

    def reason(self) -> str:
        """Why to stop now; empty if there is no reason. A file STOP is removed: it stops one job."""
        self._look()
        if self.asked:
            return self.asked
        if (left := self.left()) is not None and left <= 0:
            left = max(left + self.margin, 0.0)
            return f"{left:.0f} s are left of this job ({self._source}); run.margin keeps {self.margin:g} s for saving"
        return ""

    def latest(self, began: float, grace: float) -> float:
        """Monotonic time up to which a stop that ``began`` then may wait for labels.

        That is the end less the margin; ``grace`` seconds where the end is not known or a kill may follow soon.
        """
        latest = self._end - self.margin
        hurried = self._hurried_at > -math.inf
        return min(latest, max(began, self._hurried_at) + grace) if hurried or latest == math.inf else latest

    def farewell(self, grace: float) -> float:
        """Seconds a program has to end by itself when its label is given up: a third of what is left at most."""
        return min(grace, max(self._end - time.monotonic(), 0.0) / 3)

    def called_off(self, grace: float) -> float | None:
        """As :meth:`farewell`, once there is a reason to stop and nothing is waited for any more; None before that."""
        if not self.reason():
            return None
        now = time.monotonic()
        self._began = min(self._began, now)
        return self.farewell(grace) if now >= self.latest(self._began, grace) else None

    def _ends(self) -> datetime:
        return datetime.now().astimezone() + timedelta(seconds=self._end - time.monotonic())

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._looked < LOOK:
            return
        self._looked = now
        for file in self._files:
            if file.exists():
                file.unlink(missing_ok=True)
                self.asked = self.asked or f"{file} was there (and is removed)"

    def _note(self, number: int, frame) -> None:
        if number == signal.SIGINT and self._hurried_at > -math.inf:
            signal.default_int_handler(number, frame)
        self.asked = f"received {signal.Signals(number).name}"
        if number in HURRIED:
            self._hurried_at = time.monotonic()


def ignore_signals() -> None:
    """For all ranks but the coordinator: the launcher sends signals to everyone."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
