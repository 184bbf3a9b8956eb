"""Where the time of every rank goes: a state at every instant, a small text file per rank, always on.

A rank is in one state at a time: ``start``, a kind of work (``explore``, ``select``, ``label``, ``train``, ...),
``talk`` (sending and receiving), ``disk``, ``decide``, or ``wait``, with the cause where it is known (``wait others``).
A line of the file is an interval: its start (seconds since 1970, from a clock that never jumps), its length in
seconds, and the state. A job that goes on in the same directory appends; so nothing of a killed one is lost but
the last :data:`FLUSH` seconds.
"""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

FLUSH = 2.0
"""Seconds between two writes to the file."""
SHORTEST = 1e-3
"""Seconds; a shorter interval is counted to the one after it."""
WAIT, START = "wait", "start"
NUMBER = re.compile(r"\d+\.\d{6}")


class Ledger:
    """The states of one rank; without a ``path`` nothing is kept."""

    def __init__(self, path: Path | None = None, role: str = "", team: str = "", host: str = ""):
        self._offset = time.time() - time.monotonic()
        self._state, self._since = START, time.monotonic()
        self._lines: list[str] = []
        self._last: tuple[float, float, str] | None = None  # an interval that may still go on
        self._flushed = self._since
        self._file: TextIO | None = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(path, "a")  # noqa: SIM115 (for the length of the job)
            cut_off = "\n" if self._file.tell() else ""  # a killed job may have left half a line
            self._lines.append(cut_off + f"# {role} {team} {host}".rstrip() + "\n")

    def switch(self, state: str) -> str:
        """Enter a state; returns the one left."""
        now, left = time.monotonic(), self._state
        if state != left and now - self._since >= SHORTEST:
            self._keep(now)
        self._state = state
        return left

    @contextmanager
    def during(self, state: str) -> Iterator[None]:
        """In a state for a while, then back in the one before."""
        before = self.switch(state)
        try:
            yield
        finally:
            self.switch(before)

    def close(self) -> None:
        """Write what is left; nothing is kept after it."""
        self._keep(time.monotonic())
        self._write()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _keep(self, now: float) -> None:
        start = self._since
        if self._last is not None and self._last[2] == self._state and self._last[1] == start:
            start = self._last[0]
        else:
            self._put_last()
        self._last, self._since = (start, now, self._state), now
        if now - self._flushed >= FLUSH:
            self._write()
            self._flushed = now

    def _put_last(self) -> None:
        if self._last is not None:
            start, end, state = self._last
            self._lines.append(f"{start + self._offset:.6f} {end - start:.6f} {state}\n")
            self._last = None

    def _write(self) -> None:
        self._put_last()
        if self._file is None:
            self._lines.clear()
            return
        try:
            self._file.writelines(self._lines)
            self._file.flush()
        except OSError:  # a full disk ends the run where frames are concerned, not for the sake of a ledger
            self._file = None
        self._lines.clear()


_here = threading.local()


def ledger() -> Ledger:
    """This rank's ledger (in tests: this thread's); one that keeps nothing until :func:`keep` was called."""
    if not hasattr(_here, "ledger"):
        _here.ledger = Ledger()
    return _here.ledger


def keep(path: Path, role: str, team: str, host: str = "") -> Ledger:
    """Begin this rank's ledger in a file."""
    _here.ledger = Ledger(path, role, team, host)
    return _here.ledger


@dataclass(frozen=True)
class Track:
    """What one rank did: ``starts`` (seconds since 1970), ``lengths`` (seconds) and ``states``, in order."""

    rank: int
    role: str
    team: str
    starts: np.ndarray
    lengths: np.ndarray
    states: tuple[str, ...]
    host: str = ""  # the node, where that is on record

    def seconds(self, *states: str) -> float:
        """Time in some states, whatever the cause: ``wait`` counts ``wait others`` too."""
        chosen = [state.split()[0] in states for state in self.states]
        return float(self.lengths[chosen].sum()) if len(self.states) else 0.0

    @property
    def busy(self) -> float:
        """Share of the time since it started in which it worked: neither waited nor talked."""
        working = float(self.lengths.sum()) - self.seconds(START)
        return 1 - self.seconds(WAIT, "talk") / working if working > 0 else float("nan")


def read_track(path: Path) -> Track:
    """The ledger of one rank; a line cut off by a kill is left out."""
    role, team, host, starts, lengths, states = "", "", "", [], [], []
    for line in path.read_text().splitlines():
        parts = line.split(maxsplit=2)
        if parts[:1] == ["#"]:
            role, team, host = (*line.split()[1:], "", "", "")[:3]
        elif len(parts) == 3 and all(NUMBER.fullmatch(part) for part in parts[:2]):
            starts.append(float(parts[0]))
            lengths.append(float(parts[1]))
            states.append(parts[2])
    rank = int(path.stem.split("-")[1])
    return Track(rank, role, team, np.array(starts), np.array(lengths), tuple(states), host)


def read_tracks(folder: Path) -> list[Track]:
    """The ledgers of all ranks, by rank."""
    return [read_track(path) for path in sorted(folder.glob("rank-*.txt"))]
