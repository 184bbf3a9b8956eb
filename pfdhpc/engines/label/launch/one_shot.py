"""Labels from programs of their own, started from inside the job: one process, or a parallel launch, for every label.

The leader of a team starts the program through the :class:`Spawner`, forked before MPI, on the cores of all of the
team's ranks, which sleep and leave them to it. What goes wrong, from a launch to a doubtful number, is a LabelError
with the reason and the folder where everything lies.
"""

import errno
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any

from ....config.label import LabelSection, merged
from ....data import Frame, Label
from ....data.geometry import right_handed
from ....errors import InputError, LabelError
from ...base import Labeler
from ...isolated.spawner import Spawner
from ..input_checks import check_labeler
from ..level_of_theory import level_hash
from ..programs import program_class
from ..programs.base import Output, Program
from ..programs.common import last_words
from ..vacuum import check_vacuum
from .cores_and_hosts import places_of
from .environment import program_environment
from .exit_reason import End, Wish, end_of_job, killed_by, never

OUTPUT = "standard.out"
FOR_EVER = (errno.ENOENT, errno.EACCES, errno.ENOEXEC)
"""A program that cannot be started for one of these cannot be started for any frame."""
SHORTEST, LONGEST = 0.001, 0.05
"""Seconds between two looks whether a program has ended: the longer it runs, the less often."""
FAREWELL = 3.0
"""Seconds between TERM, which launchers hand on to other nodes, and the kill."""
TEAM_POLL = 0.005
"""Seconds between two looks of the ranks that wait for their leader."""


class ExternalLabeler(Labeler):
    """A program started anew for every label, which so depends on nothing that came before."""

    def __init__(
        self,
        section: LabelSection,
        comm: Any,
        spawner: Spawner,
        folder: Path,
        team: str = "labels",
        called_off: Wish = never,
    ):
        """``folder`` is where kept labels go; ``team`` names this team among those that share it. Raises InputError.

        ``called_off`` is asked again and again while a program runs.
        """
        size = 1 if comm is None else comm.Get_size()
        if problems := check_labeler(section, size):
            raise InputError(problems)
        self.section, self.level = section, level_hash(section)
        self._comm, self._leads = (comm if size > 1 else None), comm is None or comm.Get_rank() == 0
        self._spawner, self._kept, self._called_off = spawner, folder, called_off
        self._class, self._processes = program_class(section.type), section.launch.processes or size
        self._places = places = places_of(self._comm)
        if self._leads:
            self._scratch = self._emptied(team)
            self._command = places.command(section.launch.command, self._processes, self._scratch / "hosts")
            self._environment = program_environment(section.launch, places.gpus, spawner, self._scratch)
            spawner.before_close(self.close)

    def label(self, frame: Frame, changes: dict[str, Any], timeout: float) -> Label:
        answer: Label | Exception | None = None
        if self._leads:
            try:
                self._check_wanted()
                answer = self._label(frame, changes, timeout)
            except (LabelError, InputError) as error:
                answer = error
            except OSError as error:  # a full disk, a folder that is gone: the next frame may fare better
                answer = LabelError(said_by(error))
        answer = _shared(answer, self._comm)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        """Leave nothing but kept labels behind, at the end of a job."""
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _check_wanted(self) -> None:
        """Raise LabelError if nothing is to be begun any more, as in an order of many frames that was called off."""
        if (seconds := self._called_off()) is not None:
            end = end_of_job(seconds)
            raise LabelError(end.reason, end.killed)

    def _label(self, frame: Frame, changes: dict[str, Any], timeout: float) -> Label:
        """The leader's part."""
        program = self._program(frame, changes)
        directory = self._new_directory(frame)
        try:
            output = self._compute(program, frame, directory, timeout)
            self._check_processes(program, output.processes)
        except (LabelError, OSError) as error:
            reason, killed = (said_by(error), None) if isinstance(error, OSError) else (error, error.killed)
            raise LabelError(f"{reason}; see {self._keep(directory)}", killed) from error
        if self.section.launch.keep:
            self._keep(directory)
        shutil.rmtree(directory, ignore_errors=True)
        return self._as_label(frame, output)

    def _program(self, frame: Frame, changes: dict[str, Any]) -> Program:
        """The program with the options of an attempt; raises LabelError if they, or its boundaries, do not fit."""
        try:
            program = self._class(merged(self.section.options, changes), self._wants_virial(frame))
        except InputError as error:  # those of a system and of a retry together
            raise LabelError(f"the options of this attempt: {error}") from error
        check_vacuum(frame, program.name, program.periodic)
        return program

    def _wants_virial(self, frame: Frame) -> bool:
        return self.section.virial and frame.has_virial

    def _as_label(self, frame: Frame, output: Output) -> Label:
        return Label(output.energy, output.forces, output.virial if self._wants_virial(frame) else None)

    def _compute(self, program: Program, frame: Frame, directory: Path, timeout: float) -> Output:
        frame = right_handed(frame)
        program.write(frame, directory)
        arguments, stdin = program.arguments()
        pid = self._launch([*self._command, *arguments], directory, stdin and directory / stdin)
        try:
            end = self._watch(timeout, lambda seconds: self._ended(pid, seconds))
            if end is not None:
                self._ask_to_end(directory)
                self._wait(pid, end.patience)
        finally:
            code = self._spawner.stop(pid, FAREWELL)
        if end is not None:
            said = last_words(directory / OUTPUT, (directory / OUTPUT).with_suffix(".err"))
            raise LabelError(f"{end.reason}{said}", end.killed)
        try:
            return program.read(frame, directory, directory / OUTPUT)
        except LabelError as error:
            raise failed(error, code, directory) from error

    def _launch(self, command: list[str], directory: Path, stdin: Path | None = None) -> int:
        output, cores = directory / OUTPUT, self._places.cores
        try:
            return self._spawner.launch(command, self._environment, directory, stdin, output, cores)
        except OSError as error:
            reason = f"label.launch.command: {command[0]} cannot be started: {error.strerror}"
            raise (InputError if error.errno in FOR_EVER else LabelError)(reason) from error

    def _watch(self, timeout: float, over: Callable[[float], bool]) -> End | None:
        """Asleep until ``over(seconds)``, which waits so long at most; why the program must end before that, if so."""
        deadline, pause = time.monotonic() + timeout, SHORTEST
        while not over(pause):
            if time.monotonic() > deadline:
                return End(f"time-out: longer than {timeout:g} s (label.timeout)", self._class.patience)
            if (seconds := self._called_off()) is not None:
                return end_of_job(seconds)
            pause = min(1.2 * pause, LONGEST)
        return None

    def _ended(self, pid: int, seconds: float) -> bool:
        """Whether the program has ended; if not, that is known after so many seconds."""
        if self._spawner.ended(pid):
            return True
        time.sleep(seconds)
        return False

    def _ask_to_end(self, directory: Path) -> None:
        """By the file that a program in the middle of a calculation looks for."""
        name, content = self._class.soft_stop
        (directory / name).write_text(content)

    def _wait(self, pid: int, patience: float) -> None:
        """Until the program has ended, so many seconds at most."""
        deadline = time.monotonic() + patience
        while not self._ended(pid, min(LONGEST, patience)) and time.monotonic() < deadline:
            continue

    def _check_processes(self, program: Program, found: int | None) -> None:
        """A launcher of another MPI starts so many programs of one process each, which may look like success."""
        if found is not None and found != self._processes:
            raise LabelError(
                f"{program.name} ran on {found} processes, and {self._processes} were asked for: is the launcher in"
                f" label.launch.command ({self._command[0]}) of the MPI it is built with?"
            )

    def _new_directory(self, frame: Frame) -> Path:
        return Path(tempfile.mkdtemp(prefix=f"{frame.frame_id[:12]}-", dir=self._scratch))

    def _keep(self, directory: Path) -> str:
        """Move what is worth keeping of a label's folder into the run; how it is called there."""
        for pattern in self._class.bulky:
            for path in directory.glob(pattern):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        self._kept.mkdir(parents=True, exist_ok=True)
        shutil.move(directory, self._kept / directory.name)
        return f"{self._kept.name}/{directory.name}"

    def _emptied(self, team: str) -> Path:
        """This team's folder for labels being made, without what a killed job left there."""
        chosen = self.section.launch.scratch
        run = blake2b(str(self._kept).encode(), digest_size=4).hexdigest()
        path = self._kept / f".{team}" if chosen is None else chosen / f"pfdhpc-{run}-{team}"
        try:
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"label.launch.scratch: {path} cannot be made: {error.strerror}") from None
        return path


def said_by(error: OSError) -> str:
    """What the system says of a file."""
    return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)


def failed(error: LabelError, code: int, directory: Path) -> LabelError:
    """The error of a program that ended with an exit code, of its own or by a signal."""
    if not code:
        return error
    output = directory / OUTPUT
    killed = killed_by(code, output.with_suffix(".err"), output)
    how = f"killed by {signal.Signals(killed).name}" if killed else f"killed by signal {-code}"
    return LabelError(f"{error} ({how if killed or code < 0 else f'exit code {code}'})", killed)


def _shared(answer: Any, comm: Any) -> Any:
    """The leader's answer on all ranks of a team; those that wait for it sleep, which collectives do not."""
    if comm is None:
        return answer
    arrived = comm.Ibarrier()
    while not arrived.Test():
        time.sleep(TEAM_POLL)
    return comm.bcast(answer, root=0)
