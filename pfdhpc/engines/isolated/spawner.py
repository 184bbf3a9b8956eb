"""A small process that starts others for this one, forked while forking is still safe.

Forking is unsafe once MPI, CUDA or threads run. So a rank forks its spawner first of all, and asks it for
every child it needs later. No child outlives its rank: when the rank is gone the spawner ends them, and
when the spawner is gone the kernel does. No shell is involved.
"""

import os
import signal
import subprocess
import threading
import time
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
from multiprocessing.reduction import recv_handle, send_handle
from pathlib import Path
from typing import Any

from ...errors import EngineLost
from .processes import descendants, die_with, kill

LAUNCHERS = (
    "PMI", "HYD", "MPI_LOCAL", "OMPI_", "OPAL_", "PRTE", "PALS_",
    "SLURM_STEP", "SLURM_SRUN", "SLURM_PMI", "SLURM_MPI_TYPE", "SLURM_CPU_BIND", "SLURM_LAUNCH_NODE",
    "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_GTIDS", "SLURM_TASK_PID",
)  # fmt: skip
"""How variables begin by which a launcher tells a rank its place; a child that saw them would take it for its own."""
KEPT = ("OPAL_PREFIX", "OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM")
"""Where a moved Open MPI lies, and what it may do in a container: a user's word, not a launcher's."""

IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""A launcher sends these to every process of a job; what they mean is for the coordinator to decide."""
FAREWELL = 2.0
"""Seconds the children of a rank that is gone have to end by themselves."""


def clean_environment(variables: Mapping[str, str] = os.environ) -> dict[str, str]:
    """This process' variables without the launcher's: with them an MPI program starts as a job of its own."""
    return {name: value for name, value in variables.items() if name in KEPT or not name.startswith(LAUNCHERS)}


@dataclass(frozen=True)
class Program:
    """A program that was started: its process, which leads a group of its own, and the line to it."""

    pid: int
    line: Connection


class Spawner:
    """Starts and ends programs for this process; several threads may use it."""

    def __init__(self):
        """Forks: to be made before MPI, CUDA and threads start."""
        self._line, theirs = Pipe()
        self._lock = threading.Lock()
        self._programs: dict[int, Program] = {}
        self._farewells: list[Callable[[], None]] = []
        self.pid = os.fork()
        if self.pid == 0:
            _serve(theirs)
        theirs.close()

    def start(self, command: Sequence[str], environment: dict[str, str], log: Path) -> Program:
        """Start a program whose standard input is the other end of the line; its output is appended to ``log``.

        The signals INT, TERM and USR1 are ignored in it. Raises OSError when it cannot be started.
        """
        ours, theirs = Pipe()
        with theirs:
            found = self._ask(("start", tuple(command), environment, log), theirs)
        if isinstance(found, OSError):
            ours.close()
            raise found
        self._programs[found] = Program(found, ours)
        return self._programs[found]

    def end(self, program: Program, patience: float) -> int:
        """Kill what is left of a program's process group after ``patience`` seconds.

        Returns the program's exit code, or the negative number of the signal it died of.
        """
        self._programs.pop(program.pid).line.close()
        return self._ask(("end", program.pid, patience))

    def launch(
        self,
        command: Sequence[str],
        environment: dict[str, str],
        directory: Path,
        stdin: Path | None,
        output: Path,
        cores: Collection[int] = (),
    ) -> int:
        """Start a program without a line, in a folder; returns its process id, for :meth:`ended` and :meth:`stop`.

        Standard input comes from a file (None: it is empty); standard output goes to ``output``, standard
        error beside it, with the ending ``.err``. It may run on ``cores``, as far as this job has them; none given:
        on those of this process. It begins with the signals INT, TERM and USR1 ignored, which
        launchers change. Raises OSError when it cannot be started.
        """
        found = self._ask(("launch", tuple(command), environment, directory, stdin, output, frozenset(cores)))
        if isinstance(found, OSError):
            raise found
        return found

    def ended(self, pid: int) -> bool:
        """Whether a launched program has ended; :meth:`stop` then tells its exit code."""
        return self._ask(("ended", pid))

    def stop(self, pid: int, patience: float) -> int:
        """End a launched program and everything it started, also in other process groups.

        One that still runs gets TERM, which launchers hand on to other nodes, and is killed after
        ``patience`` seconds. Returns its exit code, or the negative number of the signal it died of.
        """
        return self._ask(("stop", pid, patience))

    def before_close(self, farewell: Callable[[], None]) -> None:
        """Call this while programs can still be ended by their own way."""
        self._farewells.append(farewell)

    def close(self) -> None:
        """End the spawner and, with it, every program it started."""
        for farewell in self._farewells:
            farewell()
        for program in self._programs.values():
            program.line.close()
        self._line.close()
        os.waitpid(self.pid, 0)

    def __enter__(self) -> "Spawner":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _ask(self, request: tuple, handle: Connection | None = None) -> Any:
        try:
            with self._lock:
                self._line.send(request)
                if handle is not None:
                    send_handle(self._line, handle.fileno(), self.pid)
                return self._line.recv()
        except (EOFError, ConnectionError):
            raise EngineLost(f"process {self.pid}, which starts others for this one, is gone") from None


def _serve(line: Connection) -> None:
    """The spawner's own life, from the fork to its end."""
    code = 1
    try:
        for number in IGNORED:
            signal.signal(number, signal.SIG_IGN)
        _close_all_but(line.fileno())
        _answer_all(line)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)  # nothing of the process it was forked from may run here at the end


def _answer_all(line: Connection) -> None:
    """Until the rank is gone, by which the line ends."""
    programs: dict[int, subprocess.Popen] = {}
    try:
        while True:
            kind, *given = line.recv()
            given = (line, *given) if kind == "start" else given
            line.send(REQUESTS[kind](programs, *given))
    except (EOFError, ConnectionError):
        return
    finally:
        _end_all(programs)


def _end_all(programs: dict[int, subprocess.Popen]) -> None:
    """End all programs and what they started, which is no longer theirs once they are gone."""
    started: dict[int, str] = {}
    deadline = time.monotonic() + FAREWELL
    for pid in programs:
        started |= descendants(pid)
        os.killpg(pid, signal.SIGTERM)  # launchers tell other nodes
    for pid in list(programs):
        _end(programs, pid, deadline - time.monotonic())
    kill(started)


def _start(programs: dict, line: Connection, command: tuple, environment: dict, log: Path) -> int | OSError:
    handle, me = recv_handle(line), os.getpid()
    try:
        with open(log, "ab") as output:
            program = subprocess.Popen(
                command, stdin=handle, stdout=output, stderr=output, env=environment,
                start_new_session=True, preexec_fn=lambda: die_with(me),
            )  # fmt: skip
    except OSError as error:
        return error
    finally:
        os.close(handle)
    programs[program.pid] = program
    return program.pid


def _launch(
    programs: dict,
    command: tuple,
    environment: dict,
    directory: Path,
    stdin: Path | None,
    output: Path,
    cores: frozenset[int],
) -> int | OSError:
    me = os.getpid()

    def prepare() -> None:
        die_with(me)
        if cores:
            with suppress(OSError):  # a batch system that lends each process its own cores alone
                os.sched_setaffinity(0, cores)

    try:
        with (
            open(stdin or os.devnull, "rb") as words,
            open(output, "wb") as out,
            open(output.with_suffix(".err"), "wb") as err,
        ):
            program = subprocess.Popen(
                command, cwd=directory, stdin=words, stdout=out, stderr=err, env=environment,
                start_new_session=True, preexec_fn=prepare,
            )  # fmt: skip
    except OSError as error:
        return error
    programs[program.pid] = program
    return program.pid


def _ended(_: dict, pid: int) -> bool:
    # Dead but not collected, its number still stands for its group alone.
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _stop(programs: dict, pid: int, patience: float) -> int:
    started = {}
    if not _ended(programs, pid):
        started = descendants(pid)  # launchers put some into groups of their own
        os.killpg(pid, signal.SIGTERM)
    code = _end(programs, pid, patience)
    kill(started)
    return code


def _end(programs: dict, pid: int, patience: float) -> int:
    program, deadline = programs.pop(pid), time.monotonic() + patience
    while not _ended(programs, pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(pid, signal.SIGKILL)
    return program.wait()


REQUESTS = {"start": _start, "end": _end, "launch": _launch, "ended": _ended, "stop": _stop}
"""What a spawner does, by the first word of a request."""


def _close_all_but(kept: int) -> None:
    """Close what was inherited: other ends of lines, which would never end, and the launcher's."""
    for number in map(int, os.listdir("/proc/self/fd")):
        if number > 2 and number != kept:
            try:
                os.close(number)
            except OSError:  # the listing's own
                continue
