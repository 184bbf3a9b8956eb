"""The child's side: an engine that answers calls which come over standard input's line.

Started by :mod:`pfdhpc.engines.isolated.child_engine`, which is the only one to talk to it.
"""

import faulthandler
import os
import traceback
from multiprocessing.connection import Connection
from typing import Any

from ...errors import InputError, TaskError
from ...lazy_imports import end_without_search, many_imports
from ..registry import make_explorer, make_labeler

CHOICE = ("MPI4PY_MPIABI", "MPI4PY_LIBMPI")
"""How mpi4py is told the MPI of a job; LAMMPS, here a job of its own, needs the one that it is built for."""


def main() -> None:
    """Answer until the parent is gone. The first call, ``make``, gives the engine."""
    line = _take_line()
    end_without_search()
    faulthandler.enable()  # where it crashed, for the log
    engine = None
    while True:
        try:
            method, arguments = line.recv()
        except (EOFError, ConnectionError):
            return
        try:
            if method == "make":
                with many_imports():
                    engine = _make(*arguments)
                value = {"scratch": getattr(engine, "scratch", None)}
            else:
                value = getattr(engine, method)(*arguments)
            outcome = "value", value
        except (TaskError, InputError) as error:
            outcome = "error", error
        except Exception:
            outcome = "bug", traceback.format_exc()
        line.send(outcome)


def _take_line() -> Connection:
    """The line on standard input, out of the way of programs that read theirs and of children."""
    line = Connection(os.dup(0))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return line


def _make(kind: str, section: Any) -> Any:
    here = section.model_copy(update={"isolation": "none"})
    if kind != "explore":
        return make_labeler(here, None)
    for name in CHOICE:
        os.environ.pop(name, None)
    return make_explorer(here)
