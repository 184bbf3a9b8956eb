"""``pfdhpc compare``: runs side by side."""

import argparse
from pathlib import Path

from rich.table import Table

from ..errors import EXIT_COMPLETE, InputError, StoreError
from ..log import console
from .arguments import run_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", type=run_path, nargs="+", metavar="RUN", help="run directories, also of runs going on")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="learning curves of all, as a picture (png)")


def compare(options: argparse.Namespace) -> int:
    """Print the table; raises InputError, StoreError."""
    from ..report.compare_runs import comparison, learning_curves, names
    from ..report.run_data import read_run

    if len(options.runs) < 2:
        raise InputError(f"{options.runs[0]}: one run is no comparison; name two or more (pfdhpc report is for one)")
    if len({path.resolve() for path in options.runs}) < len(options.runs):
        raise InputError("compare: the same run is named twice")
    if options.plot and options.plot.suffix != ".png":
        raise InputError(f"--plot {options.plot}: pictures end in .png")
    runs, problems = [], []
    for path in options.runs:
        try:
            runs.append(read_run(path, frames=False))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    table = Table()
    for name in ("", *names(runs)):
        table.add_column(name, justify="right" if name else "left")
    for name, values in comparison(runs):
        table.add_row(name, *values)
    console.print(table)
    if options.plot:
        try:
            options.plot.write_bytes(learning_curves(runs))
        except OSError as error:
            raise StoreError(f"{options.plot}: cannot be written: {error.strerror}") from error
        console.print(f"learning curves: {options.plot}", markup=False)
    return EXIT_COMPLETE
