"""``pfdhpc status``: how a run is going, from any other shell; with ``-f`` until it ends."""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.live import Live

from ..errors import EXIT_COMPLETE
from ..log import console
from .arguments import run_path

REFRESH = 2.0
"""Seconds between two looks at the run's files."""
LEDGERS = 30.0
"""Seconds between two readings of the ledgers, which are files of all ranks."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=run_path, metavar="RUN", help="run directory")
    parser.add_argument("-f", "--follow", action="store_true", help="stay, and refresh until the run ends")
    parser.add_argument("--json", action="store_true", help="one JSON object; with -f one a line whenever it changes")


def status(options: argparse.Namespace) -> int:
    """Show it once, or until the run ends or Ctrl-C; raises InputError."""
    from ..report.terminal.progress_table import board
    from ..report.terminal.run_progress import read_progress

    found = read_progress(options.run)
    try:
        if options.json:
            _as_json(options, found)
        elif options.follow and not found.over:
            _follow(options.run, found)
        else:
            console.print(board(found, str(options.run)))
    except KeyboardInterrupt:
        pass  # the watching ends, not the run
    return EXIT_COMPLETE


def _follow(directory: Path, found: Any) -> None:
    from ..report.terminal.progress_table import board

    with Live(board(found, str(directory)), console=console, auto_refresh=False) as live:
        for now in _looks(directory, found):
            live.update(board(now, str(directory)), refresh=True)


def _looks(directory: Path, found: Any) -> Iterator[Any]:
    """The run as it is now and again, until it ends."""
    from ..report.terminal.run_progress import read_progress

    read = time.monotonic()
    while not found.over:
        time.sleep(REFRESH)
        fresh = time.monotonic() - read < LEDGERS
        read = read if fresh else time.monotonic()
        found = read_progress(directory, utilization=found.utilization if fresh else None)
        yield found


def _as_json(options: argparse.Namespace, found: Any) -> None:
    print(json.dumps(asdict(found)), flush=True)
    for now in _looks(options.run, found) if options.follow else ():
        if now.moment != found.moment:
            print(json.dumps(asdict(now)), flush=True)
        found = now
