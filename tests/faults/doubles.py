"""Calculators that fail as first-principles programs do; ``label.options.path`` leads to this folder."""

import signal
import time
from hashlib import blake2b
from pathlib import Path

import numpy as np
from ase.calculators.calculator import SCFError
from ase.calculators.emt import EMT


class Slow(EMT):
    """Takes ``seconds`` for a label."""

    def __init__(self, seconds: float = 0.0):
        super().__init__()
        self.seconds = seconds

    def calculate(self, atoms, *args):
        time.sleep(self.seconds)
        super().calculate(atoms, *args)


class Unsteady(Slow):
    """No self-consistency for a share ``scf`` of all frames, forces that are not numbers for a share ``nan``.

    Which frames follows from the positions: a label tried again fails again.
    """

    def __init__(self, seconds: float = 0.0, scf: float = 0.2, nan: float = 0.0):
        super().__init__(seconds)
        self.scf, self.nan = scf, nan

    def calculate(self, atoms, *args):
        fate = int.from_bytes(blake2b(atoms.positions.tobytes(), digest_size=4).digest()) / 2**32
        if fate < self.scf:
            raise SCFError("no convergence in 100 steps")
        super().calculate(atoms, *args)
        if fate < self.scf + self.nan:
            self.results["forces"] = np.full((len(atoms), 3), np.nan)


class Hanging(Slow):
    """The first label of all hangs for ever, deaf to any time-out; ``met`` is the file that remembers it."""

    def __init__(self, met: str, seconds: float = 0.0):
        super().__init__(seconds)
        self.met = Path(met)

    def calculate(self, atoms, *args):
        try:
            self.met.touch(exist_ok=False)
        except FileExistsError:
            return super().calculate(atoms, *args)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
        while True:
            time.sleep(1000)
