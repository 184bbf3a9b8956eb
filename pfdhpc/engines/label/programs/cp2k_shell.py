"""The line to CP2K's shell: commands on its standard input, answers on its standard output.

What it computes is printed on the same screen, in front of the answers: nothing of it is still in a buffer once the
answers are there.

Source: src/start/cp2k_shell.F of CP2K 7.1 to 2024.3, ase.calculators.cp2k.
"""

import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ase.units import Bohr, Hartree

from ....data import Frame
from ....errors import LabelError
from .base import Output, ProgramConnection, check_geometry
from .stdin_pipe import StdinPipe

READY = re.compile(r"^\* READY *$", re.MULTILINE)
"""Said before the first command, and after each."""
VERSION = re.compile(r"^CP2K Shell Version: *(\d+)", re.MULTILINE)
FROM_FILE = 7
"""The version from which on the shell reads positions from a file; through some launchers many of them get stuck."""
POSITIONS = "positions.txt"
SCREEN = "__STD_OUT__"
ANGSTROM, ATOMIC = "UNITS_EV_A", "UNITS_AU"
"""What goes in is in Å, as in an input file, and what comes out in atomic units, as in an output."""
QUESTIONS = ("GET_CELL", "GET_POS", "GET_E", "GET_F")
STRESS = "GET_STRESS"
END, DEAF = "* END", "* EOF"
EXPONENT = re.compile(r"(?<=\d)(?=[-+]\d{3}\b)")
"""Where Fortran leaves out the E, for an exponent of three digits."""
LOOK = 0.01
"""Seconds between two looks at the screen."""


class ShellLine(ProgramConnection):
    """All commands of a frame are typed at once: so each label waits once, and not for every answer."""

    arguments = ("--shell",)

    def __init__(self, directory: Path, stdout: Path, virial: bool, check: Callable[[], int | None]):
        """``check`` gives the number of processes of CP2K; it raises LabelError if its output tells why not."""
        self._directory, self._stdout, self._check = directory, stdout, check
        self._questions = (*QUESTIONS, STRESS) if virial else QUESTIONS
        self._stdin = StdinPipe()
        self.stdin = self._stdin.path
        self._frame, self._version, self._begin, self._awaited = None, 0, 0, 0

    def ask(self, frame: Frame) -> None:
        first = self._frame is None
        begin = ["HARSH", "VERSION", f"LOAD cp2k.inp {SCREEN}"] if first else self._changed(frame)
        commands = [*begin, "EVAL_EF", *self._questions]
        self._begin = 0 if first else self._stdout.stat().st_size
        self._frame, self._awaited = frame, len(commands) + first
        self._stdin.opened()
        self._stdin.type("".join(f"{command}\n" for command in commands))

    def wait(self, seconds: float) -> bool:
        self._stdin.flush()
        if len(READY.findall(self._screen())) >= self._awaited:
            return True
        time.sleep(min(seconds, LOOK))
        return False

    def answer(self) -> Output:
        processes, screen, frame = self._check(), self._screen(), self._frame
        if DEAF in screen:  # which one that is typed to does not say
            raise LabelError(
                "CP2K: a copy of it ran without standard input: the launcher in label.launch.command is not of the MPI"
                " it is built with"
            )
        if found := VERSION.search(screen):
            self._version = int(found[1])
        answers = READY.split(screen)[-1 - len(self._questions) : -1]
        shapes = ((3, 3), frame.positions.shape, (), frame.positions.shape, (3, 3))
        try:
            cell, positions, energy, forces, *stress = map(_numbers, answers, shapes)
        except ValueError as error:
            raise LabelError(f"CP2K: an answer that is none: {error}") from error
        check_geometry(frame, frame.numbers, cell * Bohr, positions * Bohr)
        virial = stress[0] * Hartree / Bohr**3 * frame.volume if stress else None
        return Output(float(energy) * Hartree, forces * Hartree / Bohr, virial, processes)

    def farewell(self) -> None:
        self._stdin.type("EXIT\n")

    def close(self) -> None:
        self._stdin.close()

    def _screen(self) -> str:
        """What was said since the frame was handed over; it is empty as long as nothing was."""
        with self._stdout.open("rb") as file:
            file.seek(self._begin)
            return file.read().decode(errors="replace")

    def _changed(self, frame: Frame) -> list[str]:
        """The commands that put another cell and other positions in place of the last ones."""
        positions = f"{frame.positions.size}\n{_rows(frame.positions)}"
        if self._version < FROM_FILE:
            move = f"SET_POS\n{positions}\n*END"
        else:
            (self._directory / POSITIONS).write_text(f"{positions}\n")
            move = f"SET_POS_FILE {POSITIONS}"
        return [ANGSTROM, f"SET_CELL\n{_rows(frame.cell)}", move, ATOMIC]


def _rows(array: np.ndarray) -> str:
    return "\n".join(" ".join(f"{value:.12f}" for value in row) for row in array)


def _numbers(answer: str, shape: tuple[int, ...]) -> np.ndarray:
    """What was answered; many numbers are preceded by how many they are, and followed by END. Raises ValueError."""
    words = EXPONENT.sub("E", answer.replace(END, "")).split()
    return np.array(words[END in answer :], float).reshape(shape)
