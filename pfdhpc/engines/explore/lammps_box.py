"""The box LAMMPS wants for a cell of any orientation and tilt."""

import numpy as np

ROUNDING = 1e-14
"""A tilt below this part of the largest box length is none."""


FACE = 1e-9
"""Fraction of a box vector within which an atom lies on a face."""
STEP = 1e-6
"""Fraction of a box vector by which atoms are moved off its faces, all of them together."""


def off_faces(fractions: np.ndarray) -> np.ndarray:
    """A shift (3,) of the fractional coordinates (n, 3) of all atoms after which none lies on a face of the box.

    In a tilted box LAMMPS finds an atom on a face on neither side of it, as the last digits are, and then "did not
    assign all restart atoms correctly".
    """
    return np.array([_off(column) for column in fractions.T])


def _off(column: np.ndarray) -> float:
    shifts = STEP * np.arange(len(column) + 1)  # each atom forbids one at most
    return next(shift for shift in shifts if (np.abs(column + shift - np.round(column + shift)) > FACE).all())


def reduced_box(cell: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``(box, rotation, basis)`` with ``cell = basis @ box @ rotation.T``.

    ``box`` is what LAMMPS takes: rows lower triangular, diagonal positive, no tilt above half the
    box length it runs along (``fix npt`` gives up at 1.5). ``basis`` holds integers. A left-handed cell is
    reflected, which leaves energies and, turned back, forces and virial as they are.
    """
    rotation, upper = np.linalg.qr(np.asarray(cell).T)
    signs = np.sign(np.diag(upper))
    box, basis = np.tril((upper * signs[:, None]).T), np.eye(3)
    for i, j in ((1, 0), (2, 1), (2, 0)):
        multiple = np.round(box[i, j] / box[j, j])
        box[i] -= multiple * box[j]
        basis[:, j] += multiple * basis[:, i]
    box[np.abs(box) < ROUNDING * box.max()] = 0.0
    return box, rotation * signs, basis
