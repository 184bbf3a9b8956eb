"""What the stand-ins share: they are told by variables of their environment how to behave.

STANDIN: "" (work), fail, unconverged, hang, truncated (end early, exit code 0), picky (converge only with the
setting each names), copies (as two do that a wrong launcher started), nan, fewer (forces than atoms); some also
moves, other (atoms), dies, deaf (a copy of it gets no input). STANDIN_PROCESSES: how many to claim.
STANDIN_VERSION: old or new formats.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np

RADIUS, DEPTH = 5.0, 0.4
BEHAVIOUR = os.environ.get("STANDIN", "")
PROCESSES = int(os.environ.get("STANDIN_PROCESSES", "1"))
COPIES = 2 if BEHAVIOUR == "copies" else 1
NEW = os.environ.get("STANDIN_VERSION", "old") == "new"


def obstruct(words: str, soft_stop: str) -> None:
    """Crash with ``words``, or run until the file ``soft_stop`` is there, if told to."""
    if BEHAVIOUR == "fail":
        print(words, flush=True)
        sys.exit(3)
    if BEHAVIOUR == "hang":
        print("iterating", flush=True)
        while not Path(soft_stop).exists():
            time.sleep(0.02)


def converges(chosen: bool) -> bool:
    return BEHAVIOUR not in ("unconverged", "hang") and (BEHAVIOUR != "picky" or chosen)


def compute(symbols, cell, positions):
    """Energy (eV), forces (n, 3) eV/Å, stress (3, 3) eV/Å³ in ASE's sign; another one for every element."""
    energy, forces, stress = potential(symbols, np.asarray(cell), np.asarray(positions))
    energy = float("nan") if BEHAVIOUR == "nan" else energy
    return energy, forces[:-1] if BEHAVIOUR == "fewer" else forces, stress


def potential(symbols, cell, positions):
    """A sum over pairs in a crystal, c_i c_j (1 - r²/R²)⁴ with c of the element: it takes no time to load."""
    charges = np.array([0.5 + 0.1 * (sum(map(ord, symbol)) % 29) for symbol in symbols])
    heights = 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    reach = [range(-n, n + 1) for n in np.ceil(RADIUS / heights + 1).astype(int)]
    shifts = np.array(np.meshgrid(*reach)).reshape(3, -1).T @ cell
    vectors = positions[None, :, None] + shifts - positions[:, None, None]  # (i, j, image, xyz), from i to j
    squares = (vectors**2).sum(-1)
    inside = (squares < RADIUS**2) & (squares > 1e-8)
    rest = np.where(inside, 1 - squares / RADIUS**2, 0.0)
    weights = DEPTH * charges[:, None, None] * charges[None, :, None]
    energy = 0.5 * (weights * rest**4).sum()
    pulls = (-8 * weights * rest**3 / RADIUS**2)[..., None] * vectors  # the derivative by the vector
    stress = 0.5 * np.einsum("ijma,ijmb->ab", pulls, vectors) / abs(np.linalg.det(cell))
    return float(energy), pulls.sum((1, 2)), stress
