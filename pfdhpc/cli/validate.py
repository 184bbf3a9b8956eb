"""``pfdhpc validate``: equation of state, elastic constants, dynamics of a run's model beside the one it came from."""

import argparse
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from ..config.trainers import TRAINERS
from ..errors import EXIT_COMPLETE, InputError, StoreError
from ..log import console
from .arguments import quiet, run_path
from .validate_labels import MINUTES, Plan, planned, spawner

SHORTEST = 20
"""Steps of a dynamics that anything can be read off."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("run", type=run_path, metavar="RUN", help="run directory")
    source = "crystals to ask about, any format ASE reads (default: the structures of the run's systems)"
    add("--structures", type=Path, nargs="+", metavar="FILE", help=source)
    text = (
        f"the labeler of the run answers too, as far as its labels take no more than MIN minutes ({MINUTES:g});"
        " programs are launched on the cores here"
    )
    add("--label", type=float, nargs="?", const=MINUTES, metavar="MIN", help=text)
    add("--temperature", type=float, metavar="K", help="of the dynamics (the run's lowest)")
    add("--md-steps", type=int, default=200, metavar="N", help="steps of the dynamics; 0: none (200)")
    add("--phonons", action="store_true", help="phonon density of states")


def validate(options: argparse.Namespace) -> int:
    """Ask, show and write to ``RUN/validation``; raises InputError, StoreError."""
    from ..report.model_card import temperatures
    from ..report.run_data import read_run
    from ..report.validation.validation import CAPTION, FOLDER, Questions, remarks, save, table

    _check(options)
    quiet()
    run = read_run(options.run)
    structures = _structures(run, options.structures)
    models = _models(run)
    explore = run.config["explore"]
    temperature = temperatures(run)[0] if options.temperature is None else options.temperature
    questions = Questions(temperature, explore["timestep"], options.md_steps, options.phonons)
    with spawner(run, options.label) as starts:
        plan = planned(run, structures, options.phonons, options.label, starts)
        for line in plan.lines():
            console.print(line, style="dim", markup=False, soft_wrap=True)
        answers = _asked(run, structures, models, questions, plan)
    count = f"{len(structures)} structure{'s' * (len(structures) > 1)}"
    shown = Table(title=f"{count}, dynamics at {temperature:g} K", title_justify="left")
    head, rows = table(answers)
    for index, name in enumerate(head):
        shown.add_column(name, justify="left" if index < 2 else "right", no_wrap=True)
    for row in rows:
        shown.add_row(*row)
    console.print(shown)
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
    if options.label is not None and not 0 < options.label < inf:
        problems.append(f"--label {options.label:g}: give minutes above 0")
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
    from ase.data import chemical_symbols

    found, problems = {}, []
    for name, path in named.items():
        try:
            found[name] = read(path, parallel=False)
        except Exception as error:  # ASE's readers raise anything
            hint = "" if given else "; the run's input has moved? name one: --structures FILE"
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            problems.append(f"{path}: cannot be read as a structure: {reason}{hint}")
    known = set(run.state["type_map"]) or {chemical_symbols[number] for number in run.species}
    strange = {name: set(atoms.symbols) - known for name, atoms in found.items()}
    strange = {named[name]: ", ".join(sorted(some)) for name, some in strange.items() if some}
    problems += [f"{path}: the model does not know {elements}" for path, elements in strange.items()]
    if problems:
        raise InputError(problems)
    return found


def _models(run: Any) -> list[tuple[str, Path]]:
    """The model before and the one at the end, by name; raises InputError where there is none yet."""
    if not run.models:
        raise InputError(f"{run.directory}: this run has no model yet; validate it after its first training")
    from ..store.run_directory import RunFolder

    before = run.state["teacher"] or run.models[0]
    final = run.directory / "final" / TRAINERS[run.trainer].final_names[1]
    models = RunFolder(run.directory)
    newest = final if final.is_file() else models.frozen(run.models[-1]["digest"])
    only = newest != final and len(run.models) == 1 and not run.distilling
    found = [("pre-trained" if only else run.product, newest)]
    if not run.taught_by_calculator and (newest == final or len(run.models) > 1 or run.state["teacher"]):
        name = "teacher" if run.distilling else "pre-trained"
        found.insert(0, (name, models.frozen(before["digest"])))
    if missing := [str(path) for _, path in found if not path.is_file()]:
        raise InputError([f"{path}: this model of the run is gone" for path in missing])
    return found


def _asked(run: Any, structures: dict, models: list, questions: Any, plan: Plan) -> list[Any]:
    """All answers, with what is being done shown; those of the labeler come last of each structure."""
    from ..engines.deepmd_inference import interpreted
    from ..report.validation.first_principles import ask_labels
    from ..report.validation.rdf_comparison import comparable, of_labels
    from ..report.validation.validation import LABELS, Answers, ask

    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    answers = []
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    with interpreted(), bar as progress:
        task = progress.add_task("loading models")
        calculators = [(name, _calculator(path)) for name, path in models]
        for name, atoms in structures.items():
            labelled = comparable(run.labelled, name)
            for model, calculator in calculators:
                tell = lambda what, of=f"{name}, {model}": progress.update(task, description=f"{of}: {what}")  # noqa: E731
                answers.append(ask(name, atoms, model, calculator, questions, tell, labelled))
            found = Answers(name, LABELS, likeness=of_labels(labelled) if labelled else None)
            if asked := plan.of(name):
                tell = lambda what, of=name: progress.update(task, description=f"{of}: {what}")  # noqa: E731
                ask_labels(found, atoms, calculators[-1][1], partial(plan.label, name), asked, tell)
            if labelled or asked:
                answers.append(found)
    return answers


def _calculator(path: Path) -> Any:
    """The model's for ASE; raises InputError."""
    from ..engines.models import open_calculator

    try:
        return open_calculator(path)
    except InputError as error:
        raise error.about({"model.checkpoint": ""}) from None
