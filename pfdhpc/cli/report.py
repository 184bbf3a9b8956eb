"""``pfdhpc report``: what a run did and what it is worth, in one file."""

import argparse
import json
from pathlib import Path

from ..errors import EXIT_COMPLETE, InputError, StoreError
from ..log import console
from .arguments import run_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("run", type=run_path, metavar="RUN", help="run directory; the run may be going on")
    add("-o", "--output", type=Path, metavar="FILE", help="HTML file to write (RUN/report.html)")
    add("--png", type=Path, metavar="DIR", help="write the pictures as files, too")
    add("--test", type=Path, metavar="DATA", help="labelled frames, or a run, to test the models on: DFT for a student")


def report(options: argparse.Namespace) -> int:
    """Write the report; raises InputError, StoreError."""
    from ..report.html_document import page, write_pictures
    from ..report.novelty import describer
    from ..report.report_sections import compose, tiles
    from ..report.run_data import read_run
    from ..report.validation.validation import FOLDER, load, section_of

    run = read_run(options.run)
    output = options.output or options.run / "report.html"
    if not output.parent.is_dir():
        raise InputError(f"{output}: there is no folder {output.parent}; make it first")
    describe = describer(run.config["select"]["descriptor"], run.species, _newest(run))
    answers = load(options.run / FOLDER)
    extra = [_tested(run, options.test)] if options.test else []
    extra += [section_of(answers)] if answers else []
    sections = compose(run, describe, extra)
    try:
        output.write_text(page(run, standing(run), tiles(run), sections), encoding="utf-8")
        pictures = write_pictures(options.png, sections) if options.png else []
    except OSError as error:
        raise StoreError(f"{error.filename}: cannot be written: {error.strerror}") from error
    console.print(f"{output}: {len(run.labelled)} labels, {len(run.rounds) - 1} rounds; {standing(run)}", markup=False)
    if pictures:
        console.print(f"{len(pictures)} pictures in {options.png}", markup=False)
    return EXIT_COMPLETE


def standing(run) -> str:
    """Where a run stands, in a sentence."""
    results = run.directory / "final" / "RESULTS.json"
    if run.complete and results.is_file():
        return json.loads(results.read_text())["verdict"]
    condition, reason = run.status.get("state", "unknown"), run.status.get("reason", "")
    where = f"round {run.state['round']}, {run.state['phase']}"
    return f"{condition}: {reason}; {where}" if reason not in ("", run.state["phase"]) else f"{condition}: {where}"


def _newest(run) -> Path | None:
    """The frozen model the descriptors of the last selection came from, where they were a model's."""
    from ..store.run_directory import RunFolder

    used = run.state["teacher"] or (run.models[-1] if run.models else None)
    return used and RunFolder(run.directory).frozen(used["digest"])


def _tested(run, data: Path):
    """The section on labels of the user's own."""
    from ..data.error_metrics import error_table
    from ..report import error_plots
    from ..report.html_document import Figure, Section, Table, error
    from ..report.plot_style import AFTER, BEFORE
    from ..store.run_directory import RunFolder
    from .test import labelled, predicted

    if not run.models:
        raise InputError(f"{run.directory}: this run has no model yet; leave --test out")
    records = labelled(data)
    parent = run.state["teacher"] or (run.models[0] if run.models else None)
    paths = [("teacher" if run.distilling else "pre-trained", BEFORE, parent), (run.product, AFTER, run.models[-1])]
    if run.taught_by_calculator:  # which is no file of the run
        del paths[0]
    models, rows = [], []
    for name, shade, model in paths:
        labels = predicted(RunFolder(run.directory).frozen(model["digest"]), records, align=True)
        total = error_table(records, labels).total
        models.append((name, shade, labels))
        rows.append([name, *(error(getattr(total, key), scale) for key, _, scale in error_plots.QUANTITIES)])
    text = f"{len(records)} frames of {data.name}; energies are aligned by element, as their origin may be another."
    figure = Figure(
        "parity-own", error_plots.parity(records, models), "Above: predicted against true. Below: what is left."
    )
    head = "RMSE", *(name for _, name, _ in error_plots.QUANTITIES)
    return Section("Against labels of your own", [text], [figure], [Table(head, rows)])
