"""What can be wrong with [label], found before a job starts and without importing the programs."""

import difflib
import importlib.util
from pathlib import Path
from typing import Any

from ...config.label import LabelSection
from ..calculators import check_calculator

_OPTIONS = {"ase": ("calculator", "arguments", "path"), "deepmd": ("model", "branch")}
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
    if section.type == "teacher":  # a published model: any team can use it, rank by rank
        return []
    problems = _unknown(section.options, section.type, "label.options")
    for index, changes in enumerate(section.retries):
        problems += _unknown(changes, section.type, f"label.retries[{index}]")
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
    return problems + _CHECKS[section.type](section)


def _unknown(options: dict[str, Any], kind: str, where: str) -> list[str]:
    problems = []
    for key in options:
        if key not in _OPTIONS[kind]:
            near = difflib.get_close_matches(key, _OPTIONS[kind], 1)
            meant = f'did you mean "{near[0]}"?' if near else f"known here: {', '.join(_OPTIONS[kind])}"
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
    if section.retries:
        problems.append("label.retries: a model gives the same answer again; remove them")
    return problems


def _check_ase(section: LabelSection) -> list[str]:
    folder = section.options.get("path")
    if folder and not Path(folder).is_dir():
        return [f"label.options.path: no such folder: {folder}"]
    remedy = "install its package, give its folder as label.options.path"
    return check_calculator("label.options.calculator", section.options["calculator"], folder, remedy)


_CHECKS = {"gpaw": _check_gpaw, "deepmd": _check_deepmd, "ase": _check_ase}
