"""First-principles programs that run as processes of their own, by the name ``label.type`` takes."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .base import Program

PROGRAMS = {"qe": "qe:QuantumEspresso", "vasp": "vasp:Vasp", "abacus": "abacus:Abacus", "cp2k": "cp2k:Cp2k"}
"""A new program: see pfdhpc/ARCHITECTURE.md."""


def program_class(name: str) -> type["Program"]:
    """What writes the input and reads the output of a program."""
    module, found = PROGRAMS[name].split(":")
    return getattr(import_module(f".{module}", __name__), found)
