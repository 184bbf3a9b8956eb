"""Values of atoms among a labeler's options, as magnetic moments: a table by element, or a list with one for each."""

from typing import Any

import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from ...data import Frame
from ...errors import LabelError

Given = dict[str, float] | list[float]


def per_atom(given: Given, frame: Frame, key: str) -> np.ndarray:
    """The values (n,), or (n, 3) of vectors, of a frame's atoms; elements that a table lacks have 0.

    Raises LabelError naming the option ``key`` where a list is not as long as the frame.
    """
    if isinstance(given, dict):
        return np.array([given.get(chemical_symbols[number], 0.0) for number in frame.numbers], float)
    if len(given) != len(frame):
        raise LabelError(
            f"label.options.{key}: {len(given)} values, but the frame has {len(frame)} atoms; give a table by element"
        )
    return np.array(given, float)


def check_per_atom(options: dict[str, Any], key: str, vectors: bool = False) -> list[str]:
    """Problems of such an option; ``vectors``: three numbers for each atom will do too."""
    given = options.get(key, {})
    table = isinstance(given, dict)
    values = given.values() if table else given if isinstance(given, list) else [None]
    if all(_is_number(value) or (vectors and not table and _is_vector(value)) for value in values):
        unknown = [name for name in given if name not in atomic_numbers] if table else []
        return [f"label.options.{key}.{name}: not a chemical element" for name in unknown]
    return [
        f"label.options.{key}: {given!r}; a number for every element, e.g. {{ Fe = 3.0, O = 0.0 }}, or a list with one"
        " for each atom"
    ]


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _is_vector(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(map(_is_number, value))
