"""``pfdhpc init``: an input file and a job script to start from, filled in from the user's own files."""

import argparse
import os
import shutil
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from ...config.train import RANDOM
from ...errors import EXIT_COMPLETE, InputError, StoreError
from ...log import console
from ...parallel.devices import visible_gpus
from ..schema_keys import toml
from .annotate import annotated
from .jobscript import SCHEDULERS, Seats, filled, job_script, share, templates
from .user_files import Material, Parent, likely_branch, read_materials, read_parent

WORKFLOWS = {
    "finetune": "Fine-tunes a pre-trained model to first-principles accuracy",
    "distill": "Distils an accurate model, the teacher, into a small fast one",
    "pfd": "Fine-tunes a pre-trained model to first-principles accuracy, then distils it into a small fast one",
    "simplify": "Labels the part of a pool of frames that a model needs, and trains it on that",
}
PLACEHOLDER = "EDIT-ME"
TEMPERATURES = 2
"""Temperatures in the templates: replicas of each start."""


def labelers() -> tuple[str, ...]:
    """Those there is a template for."""
    names = [path.name for path in templates().iterdir() if path.name.startswith("label-")]
    return tuple(sorted(name.removeprefix("label-").removesuffix(".toml") for name in names))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("workflow", choices=tuple(WORKFLOWS), metavar="WORKFLOW", help=" or ".join(WORKFLOWS))
    text = "start structures, any format ASE reads: a system for each file; for simplify the files of the pool"
    add("--from", dest="structures", type=Path, nargs="+", default=[], metavar="FILE", help=text)
    add("--model", type=Path, metavar="FILE", help="pre-trained checkpoint, .pt; for distill the teacher")
    add("--branch", help="branch of a model that has several")
    add("--labeler", choices=labelers(), metavar="NAME", help=f"{', '.join(labelers())}; default: gpaw")
    add("--scheduler", choices=tuple(SCHEDULERS), help="default: whose commands are found here")
    add("--gpu", type=int, metavar="N", help="GPUs of a node; default: those visible here; 0: none")
    add("-o", "--output", type=Path, default=Path("."), metavar="DIR", help="folder to write to; default: this one")
    add("--force", action="store_true", help="replace files that are there")


def init(options: argparse.Namespace) -> int:
    """Write both files and say what to edit; raises InputError."""
    if options.workflow == "distill" and options.labeler:
        raise InputError("init --labeler: in a distillation the model labels; leave it out")
    labeler = "teacher" if options.workflow == "distill" else options.labeler or "gpaw"
    system = options.scheduler or _scheduler()
    targets = [options.output / "input.toml", options.output / SCHEDULERS[system]]
    _check(options, targets)
    materials = read_materials(options.structures)
    parent = read_parent(options.model) if options.model else None
    n_gpus = len(visible_gpus()) if options.gpu is None else options.gpu
    seats = share(n_gpus, system, labeler)
    text = annotated(input_text(options.workflow, labeler, materials, parent, options.branch, seats, options.output))
    script = job_script(system, materials, seats, n_gpus)
    _write(targets, [text, script])
    _report(targets, [text, script], materials, parent, seats)
    return EXIT_COMPLETE


def _check(options: argparse.Namespace, targets: Sequence[Path]) -> None:
    there = [path for path in targets if path.exists()]
    if there and not options.force:
        raise InputError(f"init: {path} is there already; give --force, or another folder by -o" for path in there)
    if options.gpu is not None and options.gpu < 0:
        raise InputError(f"init --gpu {options.gpu}: give 0 or more")
    if options.branch and not options.model:
        raise InputError(f'init --branch "{options.branch}": of which model? give --model too')


def _scheduler() -> str:
    return "slurm" if shutil.which("sbatch") else "pbs" if shutil.which("qsub") else "none"


def input_text(
    workflow: str,
    labeler: str,
    materials: Sequence[Material],
    parent: Parent | None,
    branch: str | None,
    seats: Seats,
    folder: Path,
) -> str:
    """The input file, before the models' own comments. Raises InputError for a branch the model does not have."""
    elements = tuple(sorted({symbol for material in materials for symbol in material.elements}))
    copies = _copies(materials, seats.explorers)
    systems = [_system(material, parent, copies, folder) for material in materials] or [_no_system(copies)]
    values = {
        "workflow": workflow,
        "purpose": WORKFLOWS[workflow],
        "names": ", ".join(material.name for material in materials) or "no structures yet",
        "explorers": seats.explorer_teams,
        "team": str(seats.team),
        "model": _model(parent, branch, labeler, elements, folder),
        "systems": "\n\n".join(systems),
        "timestep": "0.5" if "H" in elements else "1.0",
        "preset": "se_e2_a" if len(elements) <= 3 else "dpa1",
        "ecut": "800" if "O" in elements else "400",  # the stress of oxides converges slowly
        "upf": toml({symbol: f"{symbol}.upf" for symbol in elements}),
        "potcar": toml({symbol: f"{symbol}/POTCAR" for symbol in elements}),
    }
    if workflow == "simplify":
        values |= _pool(materials, seats.explorers, folder)
    values["label"] = "" if labeler == "teacher" else filled(f"label-{labeler}.toml", values).rstrip()
    if workflow == "pfd":
        return filled("finetune.toml", values) + filled("pfd.toml", values)
    return filled(f"{workflow}.toml", values)


def _model(parent: Parent | None, branch: str | None, labeler: str, elements: Sequence[str], folder: Path) -> str:
    if parent is None:
        line = f'checkpoint = "{PLACEHOLDER}/pretrained.pt"  # EDIT: a deepmd checkpoint; pfdhpc fetch-model --list'
        return f'{line}\n# branch = "..."  # of a model that has several; pfdhpc check names them'
    if missing := [symbol for symbol in elements if symbol not in parent.elements]:
        remedy = "use one that does"
        if labeler != "teacher" and parent.takes_elements:
            remedy += f"; or leave --model out and give it by hand, with model.type_map = {toml(list(elements))}"
        raise InputError(f"init --model: {parent.path} does not know {', '.join(missing)}; {remedy}")
    if branch and branch != RANDOM and branch.lower() not in parent.names:
        has = f"choose {' or '.join(parent.branches)}" if parent.branches else "it has none, leave --branch out"
        raise InputError(f'init --branch: {parent.path} has no "{branch}"; {has}')
    cutoff = f", cutoff {parent.cutoff:g} Å" if parent.cutoff else ""
    lines = [f"# {parent.kind}{cutoff}, knows {len(parent.elements)} elements: {_some(parent.elements)}"]
    lines.append(f"checkpoint = {toml(_relative(parent.path, folder))}")
    if parent.branches:
        chosen, note = branch or likely_branch(parent.branches, labeler), f"of {', '.join(parent.branches)}"
        mark = "" if branch else "EDIT: the level of theory nearest to your labels, "
        lines.append(f"branch = {toml(chosen)}  # {mark}{note}")
    elif branch:
        lines.append(f"branch = {toml(branch)}")
    return "\n".join(lines)


def _some(words: Sequence[str]) -> str:
    return " ".join(words) if len(words) <= 20 else f"{' '.join(words[:20])} ..."


def _system(material: Material, parent: Parent | None, copies: int, folder: Path) -> str:
    lengths = " x ".join(f"{length:.2f}" for length in material.cell)
    facts = f"# {material.n_images} structure{'s' if material.n_images > 1 else ''}, {material.n_atoms} atoms"
    facts += f" ({material.formula}), cell {lengths} Å"
    short = material.periodic and parent is not None and min(material.cell) < parent.cutoff
    repeat = "  # EDIT: the cell is shorter than the model's cutoff; larger cells move in more ways" if short else ""
    lines = ["[[system]]", facts]
    if not material.periodic:
        lines.append("# EDIT: not periodic in three directions, as LAMMPS needs: put it into a cell with vacuum")
    lines += [
        f"name = {toml(material.name)}",
        f"structures = {toml([_relative(material.path, folder)])}",
        f"supercell = [1, 1, 1]{repeat}",
        *_perturbed(copies),
    ]
    return "\n".join(lines)


def _pool(materials: Sequence[Material], explorers: int, folder: Path) -> dict[str, str]:
    """The frames there are to choose from, in chunks of which every explorer has some, and how many are labelled."""
    n_frames = sum(material.n_images for material in materials)
    facts = [
        f"# {item.path.name}: {item.n_images} frames, the first of {item.n_atoms} atoms ({item.formula})"
        for item in materials
    ]
    data = f"data = {toml([_relative(material.path, folder) for material in materials])}"
    if not materials:
        note = "your frames: extxyz, OUTCAR, deepmd/npy, ..., labelled or not"
        data = f'data = ["{PLACEHOLDER}/pool.extxyz"]  # EDIT: {note}'
    some = max(1, n_frames // 10) if n_frames else 100
    chunk = min(500, -(-n_frames // explorers)) if n_frames else 500
    return {"pool": "\n".join([*facts, data]), "init_pick": str(some), "max_sel": str(some), "chunk": str(chunk)}


def _copies(materials: Sequence[Material], explorers: int) -> int:
    """Perturbed copies of each start, 4 or more, with which every turn of the explorers is full."""
    starts = sum(material.n_images for material in materials) or 1
    return next(copies for copies in count(4) if starts * copies * TEMPERATURES % explorers == 0)


def _perturbed(copies: int) -> list[str]:
    return [f"perturb.count = {copies}", "perturb.strain = 0.03", "perturb.displacement = 0.05"]


def _no_system(copies: int) -> str:
    lines = [
        "[[system]]",
        'name = "material"',
        f'structures = ["{PLACEHOLDER}/POSCAR"]  # EDIT: your start structures, a [[system]] for every material',
        "supercell = [1, 1, 1]",
        *_perturbed(copies),
    ]
    return "\n".join(lines)


def _relative(path: Path, folder: Path) -> str:
    """As one would write it: from the input's folder where that is near, else in full."""
    near = os.path.relpath(path.resolve(), folder.resolve())
    return str(path.resolve()) if near.startswith("../../../") else near


def _write(targets: Sequence[Path], texts: Sequence[str]) -> None:
    try:
        targets[0].parent.mkdir(parents=True, exist_ok=True)
        for path, text in zip(targets, texts, strict=True):
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StoreError(f"init: {targets[0].parent} cannot be written: {error.strerror}") from None


def _report(
    targets: Sequence[Path], texts: Sequence[str], materials: Sequence[Material], parent: Parent | None, seats: Seats
) -> None:
    """What was written, what was found, what is left to do."""
    for path in targets:
        console.print(f"wrote {path}", markup=False)
    console.print("to settle (lines with EDIT):")
    for path, text in zip(targets, texts, strict=True):
        for number, line in enumerate(text.splitlines(), 1):
            head, mark, what = line.partition("EDIT: ")
            if mark:
                console.print(f"  {path.name}:{number:<4} {head.strip(' #')[:60]:<60} {what}".rstrip(), markup=False)
    console.print("then:")
    console.print(f"  pfdhpc check {targets[0]}", markup=False)
    console.print(f"  pfdhpc plan {targets[0]} -n {seats.tasks}", markup=False)
    start = {"job.sbatch": "sbatch", "job.pbs": "qsub", "job.sh": "bash"}[targets[1].name]
    there = "" if targets[1].parent == Path(".") else f"cd {targets[1].parent} && "
    console.print(f"  {there}{start} {targets[1].name}", markup=False)
