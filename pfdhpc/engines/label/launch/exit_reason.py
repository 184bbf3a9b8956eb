"""Why a program of its own must end, and how it ended: by itself, or by a signal, which says nothing of the frame."""

import re
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

STOPS = (signal.SIGHUP, signal.SIGINT, signal.SIGUSR1, signal.SIGTERM)
"""What a batch system or a person sends to all processes of a job, or of a step of it."""
OUTSIDE = (*STOPS, signal.SIGKILL)
"""Signals no program raises itself; the last one also comes from the kernel, where memory is short."""
SHELL = 128
"""Shells, srun and Open MPI add this to the number of the signal a program died of."""
WORDS = re.compile(
    r"signal:? (?P<number>\d+)\b"  # MPICH, Open MPI, Intel MPI
    r"|\(SIG(?P<name>[A-Z]+\d?)\)"  # Intel Fortran
    r"|tasks? [\d,-]+: (?P<words>Hangup|Interrupt|Killed|User defined signal 1|Terminated)$"  # srun
    r"|(?P<cancelled>CANCELLED AT)",
    re.MULTILINE | re.IGNORECASE,
)
NAMES = {signal.strsignal(number): number for number in OUTSIDE}
LOOKED_AT = 8192
"""Bytes at the end of an output in which a launcher says what happened."""

Wish = Callable[[], float | None]
"""Asked while a program runs: None, or the seconds it has to end by itself now that its label is not wanted."""


def never() -> None:
    """The wish of those who wait as long as it takes."""


@dataclass(frozen=True)
class End:
    """Why a program must end before it is done, and the seconds it has to do so by itself; ``killed`` of LabelError."""

    reason: str
    patience: float
    killed: int | None = None


def end_of_job(seconds: float) -> End:
    """The job is about to end: as if the program had been stopped from outside, its frame is asked for again."""
    return End("stopped: this job is about to end, and the label would not be there in time", seconds, signal.SIGTERM)


def killed_by(code: int, *outputs: Path) -> int:
    """The signal from outside that ended a program with this exit code (as subprocess gives it); 0: none is known.

    Launchers end with codes of their own; then what the first of the ``outputs`` says of a signal counts.
    """
    for number in (-code, code - SHELL):
        if number in OUTSIDE:
            return int(number)
    for said in (WORDS.search(_end(path)) for path in outputs if code > 0):
        if said is not None:
            return _number(said) if _number(said) in OUTSIDE else 0
    return 0


def _number(said: re.Match) -> int:
    if said["number"]:
        return int(said["number"])
    if said["name"]:
        return int(getattr(signal, f"SIG{said['name'].upper()}", 0))
    return int(NAMES[said["words"].capitalize()] if said["words"] else signal.SIGTERM)


def _end(path: Path) -> str:
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - LOOKED_AT, 0))
        return file.read().decode(errors="replace")
