"""What can be wrong with [label], found before a job starts and without importing the programs."""

import difflib
import importlib.util
import os
import shlex
import shutil
from pathlib import Path
from typing import Any

from ...config.label import EXTERNAL, LabelSection, merged
from ...errors import InputError
from ..calculators import check_calculator_of
from .per_atom import check_per_atom
from .programs import program_class

_OPTIONS = {
    "ase": ("calculator", "arguments", "path", "reuse", "magmoms", "charges"),
    "deepmd": ("model", "branch"),
    "offline": ("level", "wait"),
}
# The keywords of gpaw.dft.GPAW in GPAW 26.7, without those the labeler sets itself (txt, communicator).
_OPTIONS["gpaw"] = (
    "basis", "charge", "convergence", "eigensolver", "experimental", "extensions", "gpts", "h", "hund",
    "kpts", "magmoms", "maxiter", "mixer", "mode", "nbands", "occupations", "parallel", "poissonsolver",
    "random", "setups", "soc", "spinpol", "symmetry", "xc",
)  # fmt: skip


def check_labeler(section: LabelSection, ranks_per_team: int) -> list[str]:
    """Every problem as one line ``section.key: what; remedy``; empty when the labeler can be built.

    Only the packages above a calculator's module are imported, the module itself is read.
    """
    if section.type in ("teacher", "pool"):  # any team can use a published model, and labels that are there
        return []
    problems: list[str] = []
    for where, options in _tables(section).items():
        problems += _unknown(options, section.type, f"label.{where}")
    if section.type in EXTERNAL:
        return problems or _check_external(section, ranks_per_team)
    if section.type != "gpaw" and ranks_per_team > 1:
        problems.append(
            f"ranks.labeler.ranks: {ranks_per_team} ranks a team, but the {section.type} labeler runs on one "
            "rank; set ranks.labeler.ranks = 1 and take more teams"
        )
    elif section.isolation == "process" and ranks_per_team > 1:
        problems.append(
            f'label.isolation: "process" is for teams of one rank, and ranks.labeler.ranks is {ranks_per_team}: ranks '
            'that work together share a communicator, which a child has no part in; use "none", or ranks = 1'
        )
    problems += _check_per_atom(section)
    return problems + _CHECKS[section.type](section)


def _check_per_atom(section: LabelSection) -> list[str]:
    """Problems of moments and charges, also of those of each system and each retry."""
    problems: list[str] = []
    for where, options in _tables(section).items():
        found = [line for key in ("magmoms", "charges") for line in check_per_atom(options, key, vectors=True)]
        problems += [line.replace("label.options", f"label.{where}", 1) for line in found]
    return problems


def _tables(section: LabelSection) -> dict[str, dict[str, Any]]:
    """The options, and what of them each system and each retry changes, by where they are written."""
    systems = {f"systems.{name}": changes for name, changes in section.systems.items()}
    return {"options": section.options, **systems, **{f"retries[{i}]": own for i, own in enumerate(section.retries)}}


def _unknown(options: dict[str, Any], kind: str, where: str) -> list[str]:
    problems, known = [], program_class(kind).keys if kind in EXTERNAL else _OPTIONS[kind]
    for key in options:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            meant = f'did you mean "{near[0]}"?' if near else f"known here: {', '.join(known)}"
            problems.append(f"{where}.{key}: not an option of the {kind} labeler; {meant}")
    return problems


def _check_gpaw(section: LabelSection) -> list[str]:
    problems = []
    if "mode" not in section.options:
        problems.append('label.options.mode: missing; e.g. options.mode = { name = "pw", ecut = 400 }')
    if not all(importlib.util.find_spec(name) for name in ("gpaw", "gpaw_data")):
        problems.append(
            "label.type: gpaw is not installed; pip install pfdhpc[gpaw] with GPAW_CONFIG set so that it "
            "compiles against this MPI, as jobscripts/setup_env.sh does"
        )
    return problems


def _check_deepmd(section: LabelSection) -> list[str]:
    model = Path(section.options["model"])
    problems = [] if model.is_file() else [f"label.options.model: no such file: {model}"]
    if model.suffix not in (".pt", ".pth"):
        problems.append(f"label.options.model: {model.name} is neither .pth nor .pt of deepmd's PyTorch backend")
    if section.systems:
        problems.append("label.systems: a model has no options to change; remove them")
    if section.retries:
        problems.append("label.retries: a model gives the same answer again; remove them")
    return problems


def _check_ase(section: LabelSection) -> list[str]:
    wrong = not isinstance(section.options.get("reuse", False), bool)
    problems = ["label.options.reuse: must be true or false"] if wrong else []
    return problems + check_calculator_of("label.options", section.options)


def _check_offline(section: LabelSection) -> list[str]:
    level = section.options["level"]
    if level.startswith("EDIT-ME"):  # as `pfdhpc init` and `convert` write it
        return [f'label.options.level: still "{level}"; name the level of theory, e.g. "VASP PBE 520 eV"']
    return []


def _check_external(section: LabelSection, ranks_per_team: int) -> list[str]:
    program, launch = program_class(section.type), section.launch
    problems = _refused(section)
    try:
        words = shlex.split(launch.command)
    except ValueError as error:
        return [*problems, f"label.launch.command: {launch.command!r}: {error}"]
    if not words:
        return [*problems, f'label.launch.command: empty; e.g. "mpiexec -n {{ranks}} {program.name}"']
    path = launch.env.get("PATH", os.environ.get("PATH"))
    if "/" in words[0] and not Path(words[0]).is_absolute():
        problems.append(
            f"label.launch.command: {words[0]} would be looked for in the folder of each label; give its full path,"
            f" e.g. {Path(words[0]).resolve()}"
        )
    elif launch.env_script is None and shutil.which(words[0], path=path) is None:
        problems.append(
            f"label.launch.command: there is no program {words[0]} here; give its full path, or the modules it needs as"
            " label.launch.env_script"
        )
    processes = launch.processes or ranks_per_team
    if processes > 1 and launch.processes is None and "{ranks}" not in launch.command:
        problems.append(
            f"label.launch.command: {ranks_per_team} ranks a team (ranks.labeler.ranks), but no {{ranks}} in it; write"
            f' e.g. "mpiexec -n {{ranks}} {words[0]}", or say how many it starts as label.launch.processes'
        )
    if launch.resident and not program.residents:
        problems.append(f"label.launch.resident: {program.name} is started for every label; remove it")
    elif launch.resident and launch.resident not in program.residents:
        problems.append(
            f'label.launch.resident: "{launch.resident}" is no way in which {program.name} stays; write true'
        )
    return problems


def _refused(section: LabelSection) -> list[str]:
    """What the program says of its options, and of those of each system and each retry."""
    attempts = _tables(section) | {"options": {}}
    problems: dict[str, None] = {}  # said once, in order
    for where, changes in attempts.items():
        try:
            program = program_class(section.type)(merged(section.options, changes), section.virial)
            found = program.refuses_to_stay() if section.launch.resident else []
        except InputError as error:
            found = error.problems
        new = [line for line in found if line not in problems]
        problems |= dict.fromkeys(line.replace("label.options", f"label.{where}", 1) for line in new)
    return list(problems)


_CHECKS = {"gpaw": _check_gpaw, "deepmd": _check_deepmd, "ase": _check_ase, "offline": _check_offline}
