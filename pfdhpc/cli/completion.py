"""``pfdhpc completion``: a script for the shell, made from the parser by shtab."""

import argparse
from pathlib import Path

from ..errors import EXIT_COMPLETE, InputError

SHELLS = ("bash", "zsh")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS, help="print the script for this shell")


def completion(options: argparse.Namespace) -> int:
    """Print it; raises InputError where shtab is not installed."""
    try:
        import shtab
    except ImportError:
        raise InputError("completion: needs the package shtab; pip install 'pfdhpc[completion]'") from None
    from .main import _parser

    parser = _parser()
    _complete_paths(parser, shtab.FILE)
    print(shtab.complete(parser, shell=options.shell))
    return EXIT_COMPLETE


def _complete_paths(parser: argparse.ArgumentParser, kind: object) -> None:
    """Arguments that are paths complete as such, in the sub-commands too."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                _complete_paths(inner, kind)
        elif action.type is Path:
            action.complete = kind  # type: ignore[attr-defined]
