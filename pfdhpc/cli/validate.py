"""``pfdhpc validate``: equation of state, elastic constants, dynamics of a run's model beside the one it came from."""

import argparse
from functools import partial
from math import inf
from pathlib import Path
from statistics import median
from typing import Any

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from ..errors import EXIT_COMPLETE, InputError, LabelError, StoreError
from ..log import console

HERE = ("ase", "deepmd", "gpaw")
"""Labelers that run in this process."""
SHORTEST = 20
"""Steps of a dynamics that anything can be read off."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="run directory")
    source = "crystals to ask about, any format ASE reads (default: the structures of the run's systems)"
    add("--structures", type=Path, nargs="+", metavar="FILE", help=source)
    add("--label", action="store_true", help="equation of state by the labeler of the run, too: costs labels")
    add("--temperature", type=float, metavar="K", help="of the dynamics (the run's lowest)")
    add("--md-steps", type=int, default=200, metavar="N", help="steps of the dynamics; 0: none (200)")
    add("--phonons", action="store_true", help="phonon density of states")


def validate(options: argparse.Namespace) -> int:
    """Ask, show and write to ``RUN/validation``; raises InputError, StoreError."""
    from ..report.card import temperatures
    from ..report.reading import read_run
    from ..report.validation import CAPTION, FOLDER, HEAD, Questions, remarks, rows, save

    _check(options)
    run = read_run(options.run)
    structures = _structures(run, options.structures)
    models = _models(run)
    explore = run.config["explore"]
    temperature = temperatures(run)[0] if options.temperature is None else options.temperature
    questions = Questions(temperature, explore["timestep"], options.md_steps, options.phonons)
    console.print(_estimate(run, len(structures), options.label), style="dim", markup=False)
    answers = _asked(run, structures, models, questions, options.label)
    table = Table(title=f"{len(structures)} structures, dynamics at {temperature:g} K", title_justify="left")
    for name in HEAD:
        left = name in HEAD[:2]
        table.add_column(name, justify="left" if left else "right", no_wrap=True)
    for row in rows(answers):
        table.add_row(*row)
    console.print(table)
    console.print(CAPTION, style="dim", markup=False)
    for remark in remarks(answers):
        console.print(remark, style="yellow", markup=False)
    try:
        save(options.run / FOLDER, answers)
    except OSError as error:
        raise StoreError(f"{error.filename}: cannot be written: {error.strerror}") from error
    console.print(f"written to {options.run / FOLDER}; pfdhpc report shows it too", markup=False)
    return EXIT_COMPLETE


def _check(options: argparse.Namespace) -> None:
    """Raises InputError for numbers no dynamics can have."""
    problems = []
    if options.md_steps != 0 and options.md_steps < SHORTEST:
        problems.append(f"--md-steps {options.md_steps}: give 0 for no dynamics, or {SHORTEST} or more")
    if options.temperature is not None and not 0 < options.temperature < inf:
        problems.append(f"--temperature {options.temperature:g}: give kelvins above 0")
    if problems:
        raise InputError(problems)


def _structures(run: Any, given: list[Path] | None) -> dict[str, Any]:
    """Atoms by name; raises InputError with everything that cannot be read."""
    from ase.io import read

    named = {path.stem: path for path in given or []}
    if given is None:
        named = {item["name"]: Path(item["structures"][0]) for item in run.config["system"]}
        if not named:
            raise InputError("validate: this run began with a pool, not with structures; name some: --structures FILE")
    elif len(named) < len(given):
        raise InputError("--structures: two files have the same name; results are told by it")
    found, problems = {}, []
    for name, path in named.items():
        try:
            found[name] = read(path, parallel=False)
        except Exception as error:  # ASE's readers raise anything
            hint = "" if given else "; the run's input has moved? name one: --structures FILE"
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            problems.append(f"{path}: cannot be read as a structure: {reason}{hint}")
    strange = {name: set(atoms.symbols) - set(run.state["type_map"]) for name, atoms in found.items()}
    strange = {named[name]: ", ".join(sorted(some)) for name, some in strange.items() if some}
    problems += [f"{path}: the model does not know {elements}" for path, elements in strange.items()]
    if problems:
        raise InputError(problems)
    return found


def _models(run: Any) -> list[tuple[str, Path]]:
    """The model before and the one at the end, by name; raises InputError where there is none yet."""
    if not run.models:
        raise InputError(f"{run.directory}: this run has no model yet; validate it after its first training")
    before = run.state["teacher"] or run.models[0]
    final = run.directory / "final" / "model.pth"
    newest = final if final.is_file() else run.directory / "models" / f"{run.models[-1]['digest']}.pth"
    found = [(run.product, newest)]
    if newest == final or len(run.models) > 1 or run.state["teacher"]:
        name = "teacher" if run.distilling else "pre-trained"
        found.insert(0, (name, run.directory / "models" / f"{before['digest']}.pth"))
    if missing := [str(path) for _, path in found if not path.is_file()]:
        raise InputError([f"{path}: this model of the run is gone" for path in missing])
    return found


def _estimate(run: Any, n_structures: int, wanted: bool) -> str:
    """What labels cost, by those the run made."""
    from ..report.validation import LABELS

    seconds = [record.labelling.seconds for record in run.labelled if record.labelling.seconds > 0]
    count = n_structures * LABELS
    time = f", about {count * median(seconds):.0f} s by this run's" if seconds else ""
    return f"{count} labels will be made{time}" if wanted else f"--label would make {count} labels{time}"


def _asked(run: Any, structures: dict, models: list, questions: Any, labels: bool) -> list[Any]:
    """All answers, with what is being done shown."""
    from ..engines.inference import interpreted
    from ..report.validation import ask, ask_labels

    label = _labeler(run) if labels else None
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    answers = []
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    with interpreted(), bar as progress:
        task = progress.add_task("loading models")
        calculators = [(name, _calculator(path)) for name, path in models]
        for name, atoms in structures.items():
            for model, calculator in calculators:
                tell = lambda what, of=f"{name}, {model}": progress.update(task, description=f"{of}: {what}")  # noqa: E731
                answers.append(ask(name, atoms, model, calculator, questions, tell))
            if label is not None:
                tell = lambda what, of=name: progress.update(task, description=f"{of}: {what}")  # noqa: E731
                answers.append(ask_labels(name, atoms, answers[-1], partial(label, name), tell))
    return answers


def _calculator(path: Path) -> Any:
    """deepmd's for ASE; raises InputError."""
    try:
        from deepmd.calculator import DP

        return DP(str(path))
    except Exception as error:  # torch and deepmd raise anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path}: cannot be used as a model: {reason}") from error


def _labeler(run: Any) -> Any:
    """The energy of a structure of a system, eV, by the run's labeler on this rank; raises InputError.

    A system of ``label.systems`` has options of its own.
    """
    from ..config.label import LabelSection
    from ..config.load import parse_section
    from ..data import Frame
    from ..engines.registry import make_labeler
    from ..report.physics import NoCrystal

    values = run.config["label"]
    if values["type"] == "teacher":
        raise InputError("--label: the teacher labels here, which is among the models already; leave it out")
    if values["type"] not in HERE:
        text = f'--label: label.type = "{values["type"]}" needs a job of its own; here {", ".join(HERE)} can label'
        raise InputError(text)
    section = parse_section("label", LabelSection, {**values, "isolation": "none"})
    engine = make_labeler(section, None)

    def label(system: str, atoms: Any) -> float:
        changes = section.of(system).attempts[0]
        try:
            return engine.label(Frame.from_atoms(atoms), changes, section.timeout).energy
        except LabelError as error:
            raise NoCrystal(f"a label failed: {error}") from error

    return label
