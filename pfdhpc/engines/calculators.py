"""ASE calculators named by their import path: whether one exists, found without importing it, and loading it."""

import ast
import difflib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import InputError


def check_calculator(key: str, path: object, folder: str | None = None, remedy: str = "install it") -> list[str]:
    """Problems of an import path ``package.module.Name`` given under ``key``; empty when it exists.

    Only the packages above the module are imported, the module's own source is read. ``folder`` is
    searched first, as if it headed ``sys.path``; ``remedy`` is said where there is no such module.
    """
    where = f"{key}: {path}"
    module, _, name = path.rpartition(".") if isinstance(path, str) else ("", "", "")
    if not module:
        return [f'{where}: not an import path; write e.g. "ase.calculators.emt.EMT"']
    try:
        spec = _find(module, folder)
        names = None if spec is None else _names(spec.origin)
    except Exception as error:  # the packages above run, and may raise anything
        return [f"{where}: {module} cannot be imported: {error}; install it or correct the path"]
    if spec is None:
        return [f"{where}: no module {module}; {remedy}, or correct the path"]
    if names is None or name in names:
        return []
    near = difflib.get_close_matches(name, names, 1)
    hint = f"did you mean {near[0]}?" if near else f"look into {spec.origin}"
    return [f"{where}: {module} has no {name}; {hint}"]


def check_calculator_of(section: str, options: dict[str, Any]) -> list[str]:
    """The same of the options ``calculator`` and ``path`` of a ``section``, e.g. "label.options"."""
    folder = options.get("path")
    if folder and not Path(folder).is_dir():
        return [f"{section}.path: no such folder: {folder}"]
    remedy = f"install its package, give its folder as {section}.path"
    return check_calculator(f"{section}.calculator", options["calculator"], folder, remedy)


DEEPMD = "deepmd.calculator.DP"
"""The calculator of deepmd models: files are seen to be whole before it has them."""


def named(arguments: str) -> dict[str, str]:
    """The keys under which :data:`DEEPMD` is given its model, for :meth:`InputError.about`."""
    return {"model.checkpoint": f"{arguments}.model", "model.branch": f"{arguments}.head"}


def check_dp(arguments: dict[str, Any], keys: dict[str, str]) -> list[str]:
    """What is wrong with the model that :data:`DEEPMD` is given, if it is given one; ``keys``: as of :func:`named`."""
    from .deep_potential import open_potential

    path = arguments.get("model")
    if not isinstance(path, str | Path):
        return []
    try:
        open_potential(Path(path), arguments.get("head"))
    except InputError as error:
        return error.about(keys).problems
    return []


def load_calculator(key: str, path: str, folder: str | None = None) -> Any:
    """The class or function at an import path; raises InputError naming ``key`` when it cannot be imported.

    ``folder`` heads ``sys.path`` from now on.
    """
    if folder and folder not in sys.path:
        sys.path.insert(0, folder)
    if path == DEEPMD:
        from .deep_potential import open_dp_calculator

        return open_dp_calculator
    module, _, name = path.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except Exception as error:  # importing runs code, which may raise anything
        raise InputError(f"{key}: {path} cannot be imported: {type(error).__name__}: {error}") from error


class Maker:
    """Makes calculators of one kind from the options ``calculator``, ``path`` and ``reuse`` of a section.

    Each is a new one, that remembers nothing; or with ``reuse``, for interatomic potentials, which take long to load
    and have little to remember, one for each set of keywords, reset whenever it is handed out.
    """

    def __init__(self, key: str, options: dict[str, Any]):
        """Raises InputError naming ``key``."""
        self._make = load_calculator(f"{key}.calculator", options["calculator"], options.get("path"))
        self._reuse = bool(options.get("reuse"))
        self._made: dict[str, Any] = {}
        self.name = options["calculator"].rpartition(".")[2]

    def __call__(self, arguments: dict[str, Any]) -> Any:
        """A calculator; raises whatever it raises."""
        if not self._reuse:
            return self._new(arguments)
        keywords = repr(sorted(arguments.items()))
        if keywords not in self._made:
            self._made[keywords] = self._new(arguments)
        calculator = self._made[keywords]
        if hasattr(calculator, "reset"):
            calculator.reset()
        return calculator

    def _new(self, arguments: dict[str, Any]) -> Any:
        return self._make(**_on_this_rank(self.name), **deepcopy(arguments))

    def forget(self) -> None:
        """Let go of those it has handed out."""
        self._made = {}


def _on_this_rank(name: str) -> dict[str, Any]:
    """Keywords by which a calculator keeps to this rank: LAMMPS would wait for all ranks of the job to start it."""
    if name != "LAMMPSlib":
        return {}
    from mpi4py import MPI

    return {"comm": MPI.COMM_SELF}


def _find(module: str, folder: str | None) -> ModuleSpec | None:
    with _searched(folder):
        return find_spec(module)


@contextmanager
def _searched(folder: str | None) -> Iterator[None]:
    """``folder`` heads ``sys.path`` for a while."""
    if not folder:
        yield
        return
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def _names(origin: str | None) -> set[str] | None:
    """The names a Python file defines or imports anywhere; None where only running it would tell."""
    if origin is None or not origin.endswith(".py"):
        return None
    found: set[str] = set()
    for node in ast.walk(ast.parse(Path(origin).read_text(encoding="utf-8"))):
        match node:
            case ast.ClassDef() | ast.FunctionDef():
                found.add(node.name)
            case ast.Import() | ast.ImportFrom():
                found.update(alias.asname or alias.name for alias in node.names)
            case ast.Assign():
                found.update(target.id for target in node.targets if isinstance(target, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                found.add(name)
    return None if found & {"*", "__getattr__"} else found
