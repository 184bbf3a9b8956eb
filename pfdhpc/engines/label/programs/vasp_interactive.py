"""The line to a VASP that stays: positions on its standard input, results in its OUTCAR.

With INTERACTIVE = .TRUE. VASP asks on the screen for the next positions when a step is done, in fractions of the cell,
which stays as it is. ASE's VaspInteractive speaks so too, but starts VASP by itself, waits without end,
and reads the vasprun.xml, whose last step is not complete as long as VASP waits.

Source: the VASP wiki (INTERACTIVE, STOPCAR), ase.calculators.vasp.interactive.
"""

import re
import time
from pathlib import Path
from typing import Any

import numpy as np

from ....data import Frame
from ....errors import LabelError
from ....units import virial_from_stress
from . import common
from .base import Output, ProgramConnection, check_geometry
from .stdin_pipe import StdinPipe
from .vasp import Vasp
from .vasp_output import RUNNING, check_converged

ASKS = b"POSITIONS: read"
"""VASP 5.3 goes on with "read from stdin", later ones with "reading from stdin"."""
TAGS = {
    "INTERACTIVE": ".TRUE.", "NSW": "9999", "IBRION": "-1", "POTIM": "0", "EDIFFG": "0", "IWAVPR": "11",
}  # fmt: skip
"""Steps without end; the charge of the atoms is moved along with them."""
LOOK = 0.02
"""Seconds between two looks at the screen."""
COMPLETE = 5.0
"""Seconds in which the OUTCAR of a step must be there once VASP asks for the next one: file systems are slow."""
LAST = re.compile(r"^ *energy  without entropy=.*\n", re.MULTILINE)
"""The last line of a step that is read."""


class KeyboardLine(ProgramConnection):
    """VASP ends when the keyboard is closed, as it is when this process is gone."""

    def __init__(self, directory: Path, stdout: Path, program: Vasp):
        self._log, self._stdout, self._virial = directory / "OUTCAR", stdout, program.virial
        self._check = lambda: program.check(stdout)
        self._frame, self._asked = None, 0
        self._read, self._processes = 0, None
        self._stdin = StdinPipe()
        self.stdin = self._stdin.path
        _set_tags(directory / "INCAR", TAGS)

    def ask(self, frame: Frame) -> None:
        if self._asked:  # the first frame is in the POSCAR
            self._type(frame)
        self._stdin.opened()
        self._frame, self._asked = frame, self._asked + 1

    def wait(self, seconds: float) -> bool:
        self._stdin.flush()
        if self._stdout.read_bytes().count(ASKS) >= self._asked:
            return True
        time.sleep(min(seconds, LOOK))
        return False

    def answer(self) -> Output:
        self._check()
        deadline = time.monotonic() + COMPLETE
        while not (found := LAST.search(text := self._news())):
            if time.monotonic() > deadline:
                raise LabelError(
                    "VASP asks for the next positions before its OUTCAR is complete, as some builds of VASP 5 do: take"
                    " label.launch.resident = false"
                )
            time.sleep(LOOK)
        text = text[: found.end()]
        self._read += len(text.encode())
        if ranks := re.search(RUNNING, text):
            self._processes = int(ranks[1] or ranks[2])
        check_converged(text)
        return self._output(text)

    def farewell(self) -> None:
        """It looks for the file in the step after the one it waits for."""
        name, content = Vasp.soft_stop
        (self._log.parent / name).write_text(content)
        self._type(self._frame)

    def close(self) -> None:
        self._stdin.close()

    def _type(self, frame: Frame) -> None:
        order, _ = common.grouped(frame)
        fractions = np.linalg.solve(frame.cell.T, frame.positions[order].T).T % 1.0
        self._stdin.type("".join(" ".join(f"{x:19.16f}" for x in row) + "\n" for row in fractions))

    def _news(self) -> str:
        """The OUTCAR since the last step; it is empty as long as there is none."""
        return self._log.read_bytes()[self._read :].decode(errors="replace") if self._log.is_file() else ""

    def _output(self, text: str) -> Output:
        frame, (order, _) = self._frame, common.grouped(self._frame)
        try:
            found = _parsed(text, frame, order)
            energy, forces = found.get_potential_energy(force_consistent=True), found.get_forces()
            stress = found.get_stress(voigt=False) if self._virial else None
        except Exception as error:  # a damaged file: the parser raises many kinds
            raise LabelError(f"VASP: OUTCAR cannot be read: {type(error).__name__}: {error}") from error
        positions, forces = (common.ungrouped(values, order) for values in (found.positions, forces))
        check_geometry(frame, frame.numbers, found.cell.array, positions)
        virial = virial_from_stress(stress, frame.volume) if self._virial else None
        return Output(energy, forces, virial, self._processes)


def _parsed(text: str, frame: Frame, order: np.ndarray) -> Any:
    """The atoms of one step, as VASP orders them, with its results."""
    from ase.io.vasp_parsers import vasp_outcar_parsers as theirs

    header = {"symbols": frame.to_atoms()[order].get_chemical_symbols(), "natoms": len(frame)}
    blocks = [theirs.Cell(), theirs.PositionsAndForces(), theirs.Stress(), theirs.Energy()]
    return theirs.OutcarChunkParser(header, blocks).build(text.splitlines())


def _set_tags(incar: Path, tags: dict[str, str]) -> None:
    lines = [line for line in incar.read_text().splitlines() if line.split(" = ")[0] not in tags]
    incar.write_text("\n".join([*lines, *(f"{tag} = {value}" for tag, value in tags.items()), ""]))
