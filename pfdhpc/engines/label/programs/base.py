"""What a first-principles program is: files written, arguments, and an output that is judged before it is believed.

A program knows nothing of how it is launched, timed or repeated; :mod:`pfdhpc.engines.label.launch.one_shot` does.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ....data import Frame
from ....errors import LabelError

MOVED = 1e-3
"""Å (and Å of a lattice vector) by which an output may differ from the frame: programs print few digits."""


@dataclass(frozen=True)
class Output:
    """What a program computed.

    ``energy`` eV, the one the forces are derivatives of (with smearing: the free energy); ``forces`` (n, 3)
    eV/Å in the frame's order of atoms; ``virial`` (3, 3) eV, :func:`pfdhpc.units.virial_from_stress`, or None;
    ``processes``: how many MPI processes the program says it really ran on, None if it does not say.
    """

    energy: float
    forces: np.ndarray
    virial: np.ndarray | None = None
    processes: int | None = None


class ProgramConnection(ABC):
    """How a program that stays is spoken to, one frame after the other, all of the same atoms.

    ``arguments`` are added to the command, ``stdin`` is the file that is its standard input.
    """

    arguments: tuple[str, ...] = ()
    stdin: Path | None = None

    @abstractmethod
    def ask(self, frame: Frame) -> None:
        """Hand over a frame; the first one is also in the files the program begins with. May raise ConnectionError."""

    @abstractmethod
    def wait(self, seconds: float) -> bool:
        """Whether :meth:`answer` has something to take, after so many seconds at most."""

    @abstractmethod
    def answer(self) -> Output:
        """What the program computed. Raises LabelError, or ConnectionError when it has hung up."""

    def farewell(self) -> None:
        """Tell the program, which waits for a frame, that nothing more comes. May raise OSError."""
        raise NotImplementedError

    def close(self) -> None:
        """Leave nothing behind; may be called at any time, and again."""
        raise NotImplementedError


class Program(ABC):
    """One set of options; made anew for every attempt, so that making one must be cheap."""

    name: ClassVar[str]
    """As people call it, for messages."""
    keys: ClassVar[tuple[str, ...]]
    """The options of [label.options] it knows; others are refused before it is made."""
    soft_stop: ClassVar[tuple[str, str]]
    """Name and content of the file that asks the running program to end by itself."""
    patience: ClassVar[float] = 10.0
    """Seconds it has to end by itself after it was asked to."""
    residents: ClassVar[tuple[bool | str, ...]] = ()
    """The ways, values of label.launch.resident, in which it can stay and take one frame after the other.

    If there are any, it has :meth:`line` and :meth:`check`.
    """
    any_cell: ClassVar[bool] = False
    """Whether one that stays takes frames of any cell, and makes its basis anew for each."""
    periodic: tuple[bool, bool, bool] = (True, True, True)
    """The directions in which its options leave the electrostatics periodic."""
    bulky: ClassVar[tuple[str, ...]] = ()
    """Globs of files that are deleted from the kept folder of a rejected label: wave functions and the like."""

    @abstractmethod
    def __init__(self, options: dict[str, Any], virial: bool = True):
        """``options`` as in [label.options], its paths absolute; ``virial``: whether the stress is wanted.

        Raises InputError listing every problem, ``label.options.KEY: what; remedy``: missing options,
        templates, pseudopotential files, ...
        """

    @abstractmethod
    def write(self, frame: Frame, directory: Path) -> None:
        """All input files; raises LabelError for a frame it cannot describe (an element without a potential)."""

    @abstractmethod
    def arguments(self) -> tuple[list[str], str | None]:
        """The arguments after the program's own command, and the name of the file for standard input, if any."""

    @abstractmethod
    def read(self, frame: Frame, directory: Path, stdout: Path) -> Output:
        """The output of a program that has ended; raises LabelError with the reason why there is none.

        Reasons: not converged, failed (with the program's own words), incomplete, another geometry
        (:func:`check_geometry`).
        """

    @abstractmethod
    def files(self) -> dict[str, Any]:
        """By option, the content hash (or a table of hashes) of every file whose content changes the numbers.

        They take the place of the options of these names in the hash of the level of theory, which the
        other options enter as they are; options that are paths (pfdhpc.config.label.PATHS) enter only here.
        """

    def line(self, directory: Path, stdout: Path, way: bool | str) -> ProgramConnection:
        """The line to one that is going to be started in a folder :meth:`write` was called for, and that stays."""
        raise NotImplementedError

    def check(self, stdout: Path) -> int | None:
        """The processes of one that stays, if its screen says how many; raises LabelError if it says what failed."""
        raise NotImplementedError

    def refuses_to_stay(self) -> list[str]:
        """Problems of the options, lines as of InputError, for one that is to stay."""
        return []

    def elements(self) -> set[str] | None:
        """The elements it has potentials for; None: this is not for the options to say."""
        return None


def check_geometry(frame: Frame, numbers: Any, cell: Any, positions: Any) -> None:
    """Raise LabelError unless an output is of the frame: species (n,), cell (3, 3) Å and positions (n, 3) Å.

    The order must be the frame's; atoms may sit in other cells.
    """
    if not np.array_equal(numbers, frame.numbers):
        raise LabelError("the output is of other atoms than the frame")
    moved = float(np.abs(np.asarray(cell) - frame.cell).max())
    if moved > MOVED:
        raise LabelError(f"the program changed the cell by {moved:.3g} Å; turn off its relaxation or symmetrization")
    steps = np.asarray(positions) - frame.positions
    fractions = np.linalg.solve(frame.cell.T, steps.T).T
    steps = (fractions - np.where(frame.pbc, np.round(fractions), 0.0)) @ frame.cell
    moved = float(np.linalg.norm(steps, axis=1).max(initial=0.0))
    if moved > MOVED:
        raise LabelError(f"the program moved an atom by {moved:.3g} Å; turn off its relaxation or symmetrization")
