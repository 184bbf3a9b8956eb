"""Runs to look at: toy runs that kept everything a real one keeps, made once for all tests."""

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from toys import ToyRun, make_config

from pfdhpc.report.report_data import Evidence
from pfdhpc.report.terminal.summary import conclude


def listening(run: ToyRun) -> ToyRun:
    """With the listeners of a real job."""
    listener = run.context.listener
    listener.event = Evidence(run.folder, listener.event).event
    listener.conclude = conclude
    return run


@cache
def finished() -> Path:
    """The run directory of a toy run that came to its end; tests must not change it."""
    run = listening(ToyRun(make_config(_folder())))
    assert run.run() == 0
    return run.folder.directory


@cache
def stopped() -> Path:
    """One that was stopped in its first round of labels."""
    run = listening(ToyRun(make_config(_folder()))).stop_after(12)
    assert run.run() == 3
    return run.folder.directory


def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="pfdhpc-specimen-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
