"""Labels from a program that stays: started once, it takes one geometry after the other over an i-PI socket.

A label so saves the program's start and begins with the charge density of the one before, from which it
then depends a little, within the convergence. The program is started anew for other atoms, another cell (its plane
waves are those of the cell it began with), other options, after a failure and after ``resident_labels``.

Source: the i-PI protocol as ASE speaks it (ase.calculators.socketio).
"""

import os
import select
import shutil
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...data import Frame, Label
from ...errors import LabelError
from .external import FAREWELL, OUTPUT, ExternalLabeler, failed
from .programs.base import Output, Program
from .programs.parts import last_words

LOOK = 0.05
"""Seconds between two looks whether a program that has not connected yet is still there."""


@dataclass
class Running:
    """A program that takes geometries; ``stack`` closes its socket, ``protocol`` speaks over it."""

    pid: int
    changes: dict[str, Any]
    first: Frame
    directory: Path
    stack: ExitStack
    server: Any
    protocol: Any = None
    labels: int = 0

    def suits(self, frame: Frame, changes: dict[str, Any]) -> bool:
        same = np.array_equal(frame.numbers, self.first.numbers) and np.array_equal(frame.cell, self.first.cell)
        return same and changes == self.changes


class ResidentLabeler(ExternalLabeler):
    """One program at a time; its first process must be on the leader's node."""

    _running: Running | None = None

    def _label(self, frame: Frame, changes: dict[str, Any], timeout: float) -> Label:
        program, deadline = self._program(changes), time.monotonic() + timeout
        if self._running is not None and not self._running.suits(frame, changes):
            self._dismiss(keep=self.section.launch.keep)
        running = self._running = self._running or self._started(program, frame, changes)
        try:
            output = self._ask(running, program, frame, deadline)
            self._check_processes(program, output.processes)
        except TimeoutError:
            kept = self._dismiss(keep=True)
            raise LabelError(f"time-out: longer than {timeout:g} s (label.timeout); see {kept}") from None
        except LabelError as error:
            by_itself = self._spawner.ended(running.pid)
            code = self._end(patience=0.0)
            error = failed(error, code if by_itself else 0, running.directory)
            raise LabelError(f"{error}; see {self._keep(running.directory)}", error.killed) from error
        running.labels += 1
        if running.labels >= self.section.launch.resident_labels:
            self._dismiss(keep=self.section.launch.keep)
        return self._as_label(output)

    def _started(self, program: Program, frame: Frame, changes: dict[str, Any]) -> Running:
        from ase.calculators.socketio import actualunixsocketname, bind_unixsocket

        directory, stack = self._new_directory(frame), ExitStack()
        program.write(frame, directory)
        name = f"pfdhpc-{os.getpid()}-{directory.name}"
        server = stack.enter_context(bind_unixsocket(actualunixsocketname(name)))
        server.listen(1)
        try:
            pid = self._launch([*self._command, *program.socket_arguments(name)], directory)
        except BaseException:
            stack.close()
            raise
        return Running(pid, changes, frame, directory, stack, server)

    def _ask(self, running: Running, program: Program, frame: Frame, deadline: float) -> Output:
        """Raises TimeoutError at the deadline, LabelError if the program ends or answers no sense."""
        from ase.calculators.socketio import SocketClosed

        output = running.directory / OUTPUT
        try:
            if running.protocol is None:
                self._accept(running, deadline)
            running.protocol.socket.settimeout(max(deadline - time.monotonic(), 1e-3))
            answer = running.protocol.calculate(frame.positions, frame.cell)
        except (SocketClosed, ConnectionError):
            self._wait(running.pid, time.monotonic() + program.patience)  # it may still be saying why
            program.check(output)
            raise LabelError(
                f"{program.name}: it ended without an answer{last_words(output, output.with_suffix('.err'))}"
            ) from None
        except (AssertionError, ValueError) as error:
            raise LabelError(f"{program.name}: an answer that is none: {error}") from error
        return Output(answer["energy"], answer["forces"], answer["virial"], program.check(output))

    def _accept(self, running: Running, deadline: float) -> None:
        from ase.calculators.socketio import IPIProtocol

        while not select.select([running.server], [], [], LOOK)[0]:
            if time.monotonic() > deadline:
                raise TimeoutError
            if self._spawner.ended(running.pid):
                raise ConnectionError
        line = running.server.accept()[0]
        running.stack.close()  # nobody else is to come, and no file is left when a job is killed
        running.protocol = IPIProtocol(running.stack.enter_context(line))

    def _dismiss(self, keep: bool) -> str:
        """End the program; the name of its folder, if that is to be kept."""
        directory = self._running.directory
        self._end(0.0 if keep else self._class.patience)
        if keep:
            return self._keep(directory)
        shutil.rmtree(directory, ignore_errors=True)
        return ""

    def _end(self, patience: float) -> int:
        """The exit code of the program, which has so many seconds to end when it is told that nothing more comes."""
        running, self._running = self._running, None
        if running.protocol is not None:
            with suppress(OSError):
                running.protocol.end()
                self._wait(running.pid, time.monotonic() + patience)
        code = self._spawner.stop(running.pid, FAREWELL)
        running.stack.close()
        return code
