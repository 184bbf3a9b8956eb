"""The parent's side: a child that holds an engine, is killed when it takes too long, and replaced when it dies."""

import json
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...errors import EngineLost, InputError, TaskError
from .spawner import FAREWELL, Program, Spawner, clean_environment

BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]);"
    " from pfdhpc.engines.isolated.child_main import main; main()"
)
"""The child finds what its parent finds; its second argument, the log, is for those who look at a list of processes."""
START_PATIENCE = 600.0
"""Seconds a child may need to load its programs, and to take a model."""
PAUSES = (1.0, 10.0, 60.0)
"""Seconds before each further attempt to start a child in the place of one that died: memory comes free again."""
GRACE = 2.0
"""Seconds beyond a time-out before the kill: an engine that can stop by itself tells more, and lives on."""
LONGEST = 1e6
"""Seconds; more than a poll takes."""
LAST_WORDS = 300
"""Characters of a dead child's output that go into the reason; all of it is in the log."""


class Resident:
    """An engine of [explore] or [label] (``kind``) in a child process.

    Its output is appended to ``log``.
    """

    def __init__(self, kind: str, section: Any, spawner: Spawner, log: Path):
        """Starts the child. Raises InputError when the engine refuses its section or the child dies."""
        self._kind, self._section = kind, section
        self._spawner, self._log = spawner, log
        self._settings: dict[str, tuple] = {}
        self._program: Program | None = None
        self._scratch: Path | None = None
        log.parent.mkdir(parents=True, exist_ok=True)
        self._start()

    def set(self, method: str, *arguments: Any) -> None:
        """Call a method that is called again, with the same arguments, in every child to come."""
        self._settings[method] = arguments
        if self._program is None:
            self._start_again()
        self._ask(method, arguments, START_PATIENCE)

    def call(self, method: str, *arguments: Any, timeout: float) -> Any:
        """Call a method of the engine. What the engine raises of TaskError and InputError is raised here.

        Raises TaskError too when the child dies or does not answer in ``timeout`` seconds (and a little), and
        EngineLost when no other one can be started in its place.
        """
        if self._program is None:
            self._start_again()
            for name, given in self._settings.items():
                self._ask(name, given, START_PATIENCE)
        return self._ask(method, arguments, timeout)

    def _start(self) -> None:
        command = [sys.executable, "-c", BOOT, json.dumps(sys.path), str(self._log)]
        try:
            self._written = self._log.stat().st_size if self._log.exists() else 0
            self._program = self._spawner.start(command, clean_environment(), self._log)
            facts = self._ask("make", (self._kind, self._section), START_PATIENCE)
        except (TaskError, OSError) as error:
            raise InputError(f"{self._kind}.isolation: the engine's process does not start: {error}") from error
        self._scratch = facts["scratch"]

    def _start_again(self) -> None:
        """In the place of a child that died: what kept it from starting may pass."""
        for pause in (0.0, *PAUSES):
            time.sleep(pause)
            try:
                return self._start()
            except InputError as error:
                reason = str(error)
                if self._program is not None:  # it lives, but has no engine
                    self._bury(0.0)
        raise EngineLost(f"its engine could not be started again, {1 + len(PAUSES)} times; {reason}")

    def _ask(self, method: str, arguments: tuple, timeout: float) -> Any:
        with self._child_death_as_task_error():
            self._program.line.send((method, arguments))
            if not self._program.line.poll(min(timeout + GRACE, LONGEST)):
                self._bury(0.0)
                raise TaskError(f"no answer in {timeout:g} s: killed; see {self._name}")
            outcome, value = self._program.line.recv()
        if outcome == "error":
            raise value
        if outcome == "bug":
            raise RuntimeError(f"in the process of the {self._kind} engine:\n{value}")
        return value

    @contextmanager
    def _child_death_as_task_error(self) -> Iterator[None]:
        """The end of the line is the child's end, and a TaskError with its cause."""
        try:
            yield
        except (EOFError, ConnectionError):
            code = self._bury(FAREWELL)
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            how += " (out of memory?)" if code == -signal.SIGKILL else ""
            raise TaskError(f"the engine's process {how}{self._last_words()}; see {self._name}") from None

    def _bury(self, patience: float) -> int:
        """The exit code of a child that is dead by then; the next call starts another."""
        program, self._program = self._program, None
        code = self._spawner.end(program, patience)
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
        return code

    def _last_words(self) -> str:
        with open(self._log, "rb") as file:
            file.seek(self._written)
            text = file.read().decode(errors="replace")
        own = text.partition("Fatal Python error")[0]  # what follows is where it was, for the log
        line = " | ".join(filter(None, (line.strip() for line in own.splitlines())))
        return f" after saying: {line[-LAST_WORDS:]}" if line else ""

    @property
    def _name(self) -> str:
        return f"{self._log.parent.name}/{self._log.name}"
