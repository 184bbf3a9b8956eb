"""The box LAMMPS wants for a cell of any orientation and tilt."""

import numpy as np

ROUNDING = 1e-14
"""A tilt below this part of the largest box length is none."""


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
