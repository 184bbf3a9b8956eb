"""Labels from a program that stays: started once, it takes one geometry after the other.

A label so saves the program's start and begins with the charge density of the one before, from which it
then depends a little, within the convergence. The program is started anew for other atoms, another cell (unless it
makes its basis anew for each: most keep the plane waves of the cell they began with), other options, after a failure
and after ``resident_labels``. How it is spoken to is its own:
:class:`pfdhpc.engines.label.programs.base.ProgramConnection`.
"""

import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ....data import Frame, Label
from ....data.geometry import right_handed
from ....errors import LabelError
from ..programs.base import Output, Program, ProgramConnection
from ..programs.common import last_words
from .exit_reason import End
from .one_shot import FAREWELL, OUTPUT, ExternalLabeler, failed

GOODBYE = 2.0
"""Seconds that a program which waits for a frame has to end at the end of a job."""


@dataclass
class Running:
    """A program that takes geometries."""

    pid: int
    changes: dict[str, Any]
    first: Frame
    directory: Path
    line: ProgramConnection
    labels: int = 0

    def suits(self, frame: Frame, changes: dict[str, Any], any_cell: bool) -> bool:
        first = self.first
        same = np.array_equal(frame.numbers, first.numbers) and np.array_equal(frame.pbc, first.pbc)
        same = same and (any_cell or np.array_equal(frame.cell, first.cell))
        return same and changes == self.changes


class Ended(LabelError):
    """Why the program must end."""

    def __init__(self, end: End):
        super().__init__(end.reason, end.killed)
        self.patience = end.patience


class ResidentLabeler(ExternalLabeler):
    """One program at a time; its first process must be on the leader's node."""

    _running: Running | None = None

    def close(self) -> None:
        if self._running is not None:
            self._dismiss(keep=self.section.launch.keep, patience=GOODBYE)
        super().close()

    def _label(self, frame: Frame, changes: dict[str, Any], timeout: float) -> Label:
        program = self._program(frame, changes)
        if self._running is not None and not self._running.suits(frame, changes, self._class.any_cell):
            self._dismiss(keep=self.section.launch.keep)
        running = self._running = self._running or self._started(program, frame, changes)
        try:
            output = self._ask(running, program, frame, timeout)
            self._check_processes(program, output.processes)
        except Ended as error:
            self._ask_to_end(running.directory)
            kept = self._dismiss(keep=True, patience=error.patience)  # which also tells one that waits for a frame
            raise LabelError(f"{error}; see {kept}", error.killed) from None
        except LabelError as error:
            by_itself = self._spawner.ended(running.pid)
            code = self._end(patience=0.0)
            error = failed(error, code if by_itself else 0, running.directory)
            raise LabelError(f"{error}; see {self._keep(running.directory)}", error.killed) from error
        running.labels += 1
        if running.labels >= self.section.launch.resident_labels:
            self._dismiss(keep=self.section.launch.keep)
        return self._as_label(frame, output)

    def _started(self, program: Program, frame: Frame, changes: dict[str, Any]) -> Running:
        directory = self._new_directory(frame)
        program.write(right_handed(frame), directory)
        line = program.line(directory, directory / OUTPUT, self.section.launch.resident)
        try:
            pid = self._launch([*self._command, *line.arguments], directory, line.stdin)
        except BaseException:
            line.close()
            raise
        return Running(pid, changes, frame, directory, line)

    def _ask(self, running: Running, program: Program, frame: Frame, timeout: float) -> Output:
        """Raises Ended when it must end before, LabelError if it ends by itself or answers no sense."""
        output = running.directory / OUTPUT
        try:
            running.line.ask(right_handed(frame))
            end = self._watch(timeout, lambda seconds: self._answers(running, seconds))
            if end is None:
                return running.line.answer()
        except ConnectionError:
            self._wait(running.pid, program.patience)  # it may still be saying why
            program.check(output)
            raise LabelError(
                f"{program.name}: it ended without an answer{last_words(output, output.with_suffix('.err'))}"
            ) from None
        raise Ended(end)

    def _answers(self, running: Running, seconds: float) -> bool:
        if running.line.wait(seconds):
            return True
        if self._spawner.ended(running.pid) and not running.line.wait(0.0):  # not while we waited
            raise ConnectionError
        return False

    def _dismiss(self, keep: bool, patience: float | None = None) -> str:
        """End the program, which has so many seconds (None: its own); the name of its folder, if that is to be kept."""
        directory = self._running.directory
        self._end(self._class.patience if patience is None else patience)
        if keep:
            return self._keep(directory)
        shutil.rmtree(directory, ignore_errors=True)
        return ""

    def _end(self, patience: float) -> int:
        """The exit code of the program, which has so many seconds to end when it is told that nothing more comes."""
        running, self._running = self._running, None
        with suppress(OSError):
            running.line.farewell()
            self._wait(running.pid, patience)
        code = self._spawner.stop(running.pid, FAREWELL)
        running.line.close()
        return code
