"""``pfdhpc import``: labels computed elsewhere, into a run."""

import argparse
from pathlib import Path

from ..errors import EXIT_COMPLETE, InputError
from ..log import console
from .arguments import run_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="labelled frames, or a run to take them of")
    parser.add_argument("--into", type=run_path, required=True, metavar="RUN", help="run directory; no job may be on")
    text = "what they are to the run: labels to train on (so far the only kind)"
    parser.add_argument("--as", dest="kind", choices=["labels"], default="labels", help=text)
    parser.add_argument("--level", default="elsewhere", metavar="NAME", help="name of their level of theory")
    parser.add_argument("--take", default="", metavar="LEVEL", help="of a run with several levels of theory: which one")
    parser.add_argument("--format", default="", metavar="F", help="format by dpdata's or ASE's name, e.g. abacus/scf")


def import_(options: argparse.Namespace) -> int:
    """Commit the labels; the next job of the run trains on them."""
    from ..job.import_labels import import_labels
    from ..report.run_data import config_of
    from ..store.run_directory import RunFolder

    folder = RunFolder(options.into)
    config_of(options.into)
    if ":" in options.level or not options.level.strip():
        raise InputError(f"--level {options.level!r}: give it a name without a colon")
    report = import_labels(folder, options.files, options.level, options.format, options.take)
    console.print(
        f"{report.taken} labels taken into {options.into}; the next job of the run trains on them", markup=False
    )
    for line in report.told:
        console.print(line, markup=False)
    if report.there:
        other = f"; {report.others} of them another one in the files: the run's stays" if report.others else ""
        console.print(f"{report.there} frames left out: they have a label already{other}")
    if report.tested:
        console.print(f"{report.tested} frames left out: the run is tested on them")
    return EXIT_COMPLETE
