"""The ``pfdhpc`` command: a table of sub-commands, each loaded when it is asked for."""

import argparse
import os
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib import import_module

from ..errors import EXIT_BAD_INPUT, EXIT_COMPLETE, InputError, StoreError
from ..lazy_imports import end_without_search


@dataclass(frozen=True)
class Command:
    """A sub-command. ``work(options)`` returns the exit code, ``arguments(parser)`` adds what it takes;
    both are given as ``module:function`` of this package."""

    name: str
    work: str
    arguments: str
    help: str
    example: str


COMMANDS = (
    Command("init", "init.init:init", "init.init:add_arguments", "write an input file and a job script to start from",
            "pfdhpc init finetune --from POSCAR --model model.pt --labeler gpaw -o mgo"),
    Command("convert", "convert.convert:convert", "convert.convert:add_arguments",
            "an input of DP-GEN simplify or PFD-kit as one of pfdhpc", "pfdhpc convert simplify.json -o input.toml"),
    Command("check", "commands:check", "arguments:input_file",
            "report everything wrong with an input, without MPI or GPU", "pfdhpc check input.toml"),
    Command("plan", "plan:plan", "plan:add_arguments",
            "show which rank would do what, and what would be wasted", "pfdhpc plan input.toml -n 64"),
    Command("run", "commands:run", "arguments:run",
            "run or resume a job (under mpirun or srun)", "mpiexec -n 4 python -m mpi4py -m pfdhpc run input.toml"),
    Command("where", "commands:where", "arguments:input_file",
            "print the run directory of an input", "pfdhpc where input.toml"),
    Command("status", "status:status", "status:add_arguments",
            "how a run is going, from another shell; -f until it ends", "pfdhpc status run -f"),
    Command("report", "report:report", "report:add_arguments",
            "one HTML file: what a run did, and what its model is worth", "pfdhpc report run -o report.html"),
    Command("test", "test:test", "test:add_arguments",
            "errors of a model on labelled frames, and whether training covered them",
            "pfdhpc test run/final/model.pth frames.extxyz --novelty --plot parity.png"),
    Command("validate", "validate:validate", "validate:add_arguments",
            "lattice, stiffness and dynamics by a run's model and the one it came from", "pfdhpc validate run"),
    Command("compare", "compare:compare", "compare:add_arguments",
            "runs side by side: labels, errors, cost", "pfdhpc compare run-a run-b --plot curves.png"),
    Command("export", "commands:export", "arguments:export",
            "write the labelled frames in another format", "pfdhpc export run frames.extxyz"),
    Command("import", "import_:import_", "import_:add_arguments",
            "take labels computed elsewhere into a run", "pfdhpc import OUTCAR more.extxyz --into run --as labels"),
    Command("select", "commands:select", "select:add_arguments",
            "which frames of existing data to label (also under mpirun)",
            "pfdhpc select md.traj --reference train.extxyz --max-sel 200 -o picked.extxyz"),
    Command("store", "commands:store", "store:add_arguments",
            "check, repair, merge or list the frames of runs", "pfdhpc store ls run"),
    Command("schema", "schema:schema", "schema:add_arguments",
            "every key of the input: type, unit, default, meaning", "pfdhpc schema explore"),
    Command("doctor", "doctor.doctor:doctor", "doctor.doctor:add_arguments",
            "find out whether this machine and installation are right (also under mpirun)", "pfdhpc doctor"),
    Command("fetch-model", "fetch:fetch", "fetch:add_arguments",
            "download a pre-trained model that deepmd-kit knows", "pfdhpc fetch-model DPA-3.1-3M -o models"),
    Command("docs", "docs:docs", "docs:add_arguments",
            "the manual, in the terminal or as HTML", "pfdhpc docs concepts"),
    Command("completion", "completion:completion", "completion:add_arguments",
            "print a script that completes commands in a shell", 'eval "$(pfdhpc completion bash)"'),
)  # fmt: skip
"""One row a command: to add one, write its two functions and its row."""
NAMES = tuple(command.name for command in COMMANDS)


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and run one command; returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser([word for word in arguments if word in NAMES][:1]).parse_args(arguments)
    end_without_search()
    work = next(command.work for command in COMMANDS if command.name == options.command)
    try:
        return _function(work)(options)
    except BrokenPipeError:  # its reader has seen enough: pfdhpc schema | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_COMPLETE
    except (InputError, StoreError) as error:
        for line in str(error).splitlines():
            print(f"pfdhpc: {line}", file=sys.stderr)
        return EXIT_BAD_INPUT


def _parser(names: Collection[str] = NAMES) -> argparse.ArgumentParser:
    """The command line; arguments are known of the commands in ``names``, as finding them out loads modules."""
    parser = argparse.ArgumentParser(
        prog="pfdhpc",
        description="Fine-tune and distil universal atomic models inside one MPI batch job.",
        epilog="exit codes: 0 complete, 1 failed, 2 bad input, 3 incomplete (submit again)",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the versions of this program and its stack")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        about = command.help[0].upper() + command.help[1:] + "."
        added = commands.add_parser(
            command.name, help=command.help, description=about, epilog=f"example: {command.example}"
        )
        if command.name in names:
            _function(command.arguments)(added)
    return parser


def _function(place: str) -> Callable:
    module, name = place.split(":")
    return getattr(import_module(f".{module}", __package__), name)


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from .versions import lines

        print(*lines(), sep="\n")
        parser.exit()
