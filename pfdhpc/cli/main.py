"""The ``pfdhpc`` command."""

import argparse
import sys
from pathlib import Path

from .. import __version__
from ..errors import EXIT_BAD_INPUT, InputError, StoreError
from .select import add_arguments
from .store import add_arguments as add_store_arguments


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and run one command; returns the exit code."""
    options = _parser().parse_args(arguments)
    from . import commands

    try:
        return getattr(commands, options.command)(options)
    except (InputError, StoreError) as error:
        for line in str(error).splitlines():
            print(f"pfdhpc: {line}", file=sys.stderr)
        return EXIT_BAD_INPUT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pfdhpc",
        description="Fine-tune and distil universal atomic models inside one MPI batch job.",
        epilog="exit codes: 0 complete, 1 failed, 2 bad input, 3 incomplete (submit again)",
    )
    parser.add_argument("--version", action="version", version=f"pfdhpc {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    check = commands.add_parser("check", help="report everything wrong with an input, without MPI or GPU")
    _add_input(check)
    plan = commands.add_parser("plan", help="show which rank would do what")
    _add_input(plan)
    plan.add_argument("-n", type=int, required=True, metavar="N", help="number of ranks")
    run = commands.add_parser("run", help="run or resume a job (under mpirun or srun)")
    _add_input(run)
    run.add_argument(
        "--time", type=_seconds, metavar="H:M:S", help="wall time of this job, or seconds; an earlier end counts"
    )
    where = commands.add_parser("where", help="print the run directory of an input")
    _add_input(where)
    status = commands.add_parser("status", help="how a run is going")
    status.add_argument("run", type=Path, metavar="RUN", help="run directory")
    export = commands.add_parser("export", help="write the labelled frames in another format")
    export.add_argument("run", type=Path, metavar="RUN", help="run directory")
    export.add_argument("destination", type=Path, metavar="OUT", help="file or folder to write")
    export.add_argument("--format", help="deepmd/npy, deepmd/hdf5 or extxyz; by default from OUT's ending")
    select = commands.add_parser("select", help="which frames of existing data to label (also under mpirun)")
    add_arguments(select)
    add_store_arguments(commands.add_parser("store", help="check, repair, merge or list the frames of runs"))
    return parser


def _seconds(text: str) -> float:
    from ..parallel.scheduler import seconds_of

    seconds = seconds_of(text)
    if not seconds or text.count(":") == 1:  # 11:30: hours or minutes?
        raise argparse.ArgumentTypeError(f"{text!r} is no time: give H:M:S, D-H:M:S or seconds")
    return seconds


def _add_input(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", type=Path, metavar="INPUT", help="input file (TOML)")
