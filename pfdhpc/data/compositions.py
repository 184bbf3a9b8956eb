"""Compositions and the energies per element they determine.

An energy per element (a pseudopotential's, an all-electron code's) adds ``sum over elements of n_z c_z`` to the energy
of a frame. Labels determine the c_z only along the compositions they have: from Cu3Au alone nobody knows c_Cu and
c_Au, and nothing at all of c_Ag. A composition is *determined* by others if constants fitted to those predict its
energy per atom with an error of at most :data:`REACH` times theirs: a direction in which known compositions hardly
differ is as good as unknown.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from math import gcd

import numpy as np
from ase.data import chemical_symbols

from .frame import Frame, Record

REACH = 5.5
"""Error of an energy per atom, over that of the energies it was fitted to, up to which a composition is determined.

No pair of simple compositions comes near it: Au has 5 by Cu and Cu3Au, and 6.4 by Cu and Cu4Au.
"""
FLOOR = 0.3
"""eV/atom below which the energies of a composition are never called off: models of little data are, by a third."""
FACTOR = 10.0
"""Times their own scatter by which energies of a composition must be off together to be called off."""
SCATTER = 0.03
"""eV/atom by which energies are taken to scatter as long as none of that composition can be compared."""


def formula(numbers: Sequence[int] | np.ndarray) -> str:
    """Reduced formula of atomic numbers, elements by atomic number: ``Cu3Au`` for 12 Cu and 4 Au."""
    found, counts = np.unique(numbers, return_counts=True)
    unit = gcd(*counts.tolist())
    parts = zip(found.tolist(), (counts // unit).tolist(), strict=True)
    return "".join(chemical_symbols[z] + (str(n) if n > 1 else "") for z, n in parts)


def formula_of(item: Frame | Record) -> str:
    """Reduced formula of a frame, or of a record's."""
    return formula(item.numbers if isinstance(item, Frame) else item.frame.numbers)


@lru_cache(maxsize=2**16)
def amounts(text: str) -> dict[str, float]:
    """Atomic fraction of each element in a :func:`formula`; nothing for an empty one."""
    parts = [(name, int(n or 1)) for name, n in re.findall(r"([A-Z][a-z]?)(\d*)", text)]
    total = sum(n for _, n in parts)
    return {name: n / total for name, n in parts}


def fractions(formulas: Sequence[str], elements: Sequence[str]) -> np.ndarray:
    """Atomic fractions, (n_formulas, n_elements)."""
    rows = [[amounts(text).get(name, 0.0) for name in elements] for text in formulas]
    return np.array(rows, float).reshape(len(formulas), len(elements))


def undetermined(known: Sequence[str], formulas: Sequence[str]) -> list[bool]:
    """Which of ``formulas`` labels of the ``known`` ones do not determine (see above)."""
    elements = sorted({name for text in (*known, *formulas) for name in amounts(text)})
    found = _amplified(fractions(known, elements), fractions(formulas, elements))
    return (found > REACH).tolist()


def determining(known: Sequence[str], formulas: Sequence[str]) -> list[str]:
    """The first of ``formulas`` that determine all of them together with ``known`` ones; few, but in their order."""
    distinct = list(dict.fromkeys(formulas))
    elements = sorted({name for text in (*known, *distinct) for name in amounts(text)})
    rows, basis = fractions(distinct, elements), fractions(known, elements)
    chosen: list[str] = []
    while (lacking := np.flatnonzero(_amplified(basis, rows) > REACH)).size:
        chosen.append(distinct[lacking[0]])
        basis = np.vstack([basis, rows[lacking[0]]])
    return chosen


def _amplified(known: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Standard error of x·c for each of ``rows`` x, the constants c fitted to ``known`` rows of error 1; (n_rows,).

    The square root of the leverage x (KᵀK)⁺ xᵀ, infinite for what K does not span.
    """
    values, vectors = np.linalg.eigh(known.T @ known)
    spanned = values > 1e-12 * max(values.max(initial=0.0), 1e-12)
    inside = rows @ vectors[:, spanned]
    outside = np.linalg.norm(rows - inside @ vectors[:, spanned].T, axis=1)
    return np.where(outside > 1e-6, np.inf, np.sqrt((inside**2 / values[spanned]).sum(axis=1)))


def open_directions(known: np.ndarray, added: np.ndarray) -> np.ndarray:
    """Directions of the constants that ``added`` compositions determine and ``known`` ones do not; (n_elements, k).

    Both are atomic fractions (n, n_elements), each row once. Along these directions the known compositions have no
    energy (exactly, where they do not span them), or one smaller than the added ones by more than :data:`REACH`.
    Generalised singular values of the two sets, from a whitened basis of both.
    """
    both = np.vstack([known, added])
    _, size, directions = np.linalg.svd(both, full_matrices=False)
    kept = size > 1e-9 * max(size.max(initial=0.0), 1e-9)
    white = directions[kept].T / size[kept]
    shares, turned = np.linalg.eigh((known @ white).T @ (known @ white))  # the known rows' share, 0 to 1
    return white @ turned[:, shares < 1 / (1 + REACH**2)]


def systematic(
    formulas: Sequence[str], differences: np.ndarray, squares: float = 0.0, n_free: int = 0, floor: float = FLOOR
) -> dict[str, float]:
    """Mean energy differences, eV/atom, by composition, of those that are off as a whole and not by scatter.

    ``differences``: of each frame, eV/atom. The scatter is that about the means; ``squares`` and ``n_free`` add a sum
    of squares and degrees of freedom known from elsewhere. The mean of a composition is off if it exceeds both
    ``floor`` and :data:`FACTOR` times the scatter.
    """
    groups: dict[str, list[float]] = {}
    for text, value in zip(formulas, differences, strict=True):
        groups.setdefault(text, []).append(float(value))
    means = {text: float(np.mean(values)) for text, values in groups.items()}
    squares += sum(float(np.sum((np.array(values) - means[text]) ** 2)) for text, values in groups.items())
    n_free += len(formulas) - len(groups)
    scatter = np.sqrt((squares + SCATTER**2) / (n_free + 1))
    return {text: mean for text, mean in sorted(means.items()) if abs(mean) > max(floor, FACTOR * scatter)}


def listed(formulas: Sequence[str], most: int = 4) -> str:
    """Some formulas in words."""
    found = sorted(formulas)
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(found[:most]) + more
