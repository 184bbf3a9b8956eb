"""ASE calculators named by their import path: whether one exists, found without importing it, and loading it."""

import ast
import difflib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
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


def load_calculator(key: str, path: str) -> Any:
    """The class or function at an import path; raises InputError naming ``key`` when it cannot be imported."""
    module, _, name = path.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except Exception as error:  # importing runs code, which may raise anything
        raise InputError(f"{key}: {path} cannot be imported: {type(error).__name__}: {error}") from error


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
