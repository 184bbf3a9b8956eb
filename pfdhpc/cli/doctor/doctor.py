"""``pfdhpc doctor``: whether this machine and this installation can run a job; alone, or under mpirun or srun."""

import argparse
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from ...engines.isolated.child_main import CHOICE
from ...errors import EXIT_BUG, EXIT_COMPLETE, InputError
from ...log import OF_OPEN_MPI, console
from ...parallel.devices import visible_gpus
from ...parallel.scheduler import is_first, job_end
from ...parallel.world import communicator, launched, leave
from . import checks, device_checks
from .checks import FAIL, OK, PAGE, WARN, Finding
from .machine import OPEN_MPI, Site, cases, look
from .probes import ask

COLOURS = {OK: "green", WARN: "yellow", FAIL: "red"}
PATIENCE, LAUNCHES, ADDRESSES = 60.0, 30.0, 6.0
"""Seconds LAMMPS and deepmd may take to load, two ranks to start, and a host to answer."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    text = "where a run would write; default: the current folder"
    parser.add_argument("directory", type=Path, nargs="?", default=Path("."), metavar="DIR", help=text)


def doctor(options: argparse.Namespace) -> int:
    """Everything that can be found out in a minute; exit code 1 when something fails."""
    if not options.directory.is_dir():
        raise InputError(f"doctor: {options.directory}: no such folder; name the one a run would write to")
    first = is_first(os.environ)
    mine = {"host": os.uname().nodename, "gpus": visible_gpus(), "cores": sorted(os.sched_getaffinity(0))}
    expected = launched(os.environ)
    # All children first: forking is unsafe once MPI runs.
    told = _stack() if first else {}
    strange = OF_OPEN_MPI in os.environ and not is_open_mpi(ask("vendor", PATIENCE))
    site = look(ask("internet", ADDRESSES).get("internet") == "True") if first else Site()
    found = examine(site, told, options.directory, expected > 1) if first else []
    ranks = [mine]
    if strange:  # MPI would end the job
        found.append(checks.STRANGE)
    elif expected > 1:
        ranks = _gather(mine)
        if ranks is None:
            return EXIT_COMPLETE  # the first rank speaks, and its code counts
        if first:
            found.append(guarded("ranks", lambda: checks.ranks(expected, len(ranks))))
    if not first:
        return EXIT_COMPLETE
    threads = int(os.environ.get("OMP_NUM_THREADS") or 1)
    found.append(guarded("GPUs", lambda: device_checks.gpus(ranks)))
    found.append(guarded("cores", lambda: device_checks.cores(ranks, threads)))
    return _tell(found, site, told)


def is_open_mpi(told: Mapping[str, str]) -> bool:
    """Of the MPI that a probe loaded."""
    return told.get("mpi", "").startswith(OPEN_MPI)


def _stack() -> dict[str, str]:
    """What loads together; where LAMMPS does not, beside Open MPI, also what does in a process of its own."""
    told = ask("stack", PATIENCE)
    if is_open_mpi(told) and "lammps" not in told:
        alone = ask("stack", PATIENCE, without=CHOICE)
        told |= {f"own_{key}": alone[key] for key in ("lammps", "deepmd") if key in alone}
    return told


def guarded(name: str, work: Callable[[], Finding]) -> Finding:
    """What ``work`` finds; what it raises is a finding too, as a doctor must not fall ill."""
    try:
        return work()
    except Exception as error:
        return Finding(name, f"{type(error).__name__}: {error}", FAIL, "please report this: the check itself failed")


def examine(site: Site, told: Mapping[str, str], directory: Path, inside: bool) -> list[Finding]:
    """What one process can find out, with children of its own; ``told`` by the one that loaded the stack."""
    found = checks.stack(site, told)
    begin = time.monotonic()
    started = _started(site)
    found += checks.launches(site, started, time.monotonic() - begin, inside, told.get("mpi", ""))
    local = {
        "disk": lambda: checks.disk(directory),
        "scheduler": lambda: checks.scheduler(site),
        "wall-time": lambda: checks.wall_time(job_end()),
        "internet": lambda: checks.internet(site),
        "CUDA driver": lambda: device_checks.driver(site, partial(ask, "gpu", PATIENCE)),
    }
    return found + [guarded(name, work) for name, work in local.items()]


def _started(site: Site) -> Mapping[str, str]:
    if "mpiexec" not in site.commands:
        return {}
    os.environ["PFDHPC_MPIEXEC"] = site.commands["mpiexec"]
    return ask("launch", LAUNCHES, [site.commands["mpiexec"], "-n", "2"])


def _gather(mine: dict[str, Any]) -> list[dict[str, Any]] | None:
    """The facts of all ranks, on the first; None on the others."""
    comm = communicator()
    everything = comm.gather(mine)
    leave()
    return everything


def _tell(found: Sequence[Finding], site: Site, told: Mapping[str, str]) -> int:
    """The table, the case this machine is, and the exit code."""
    console.print(_table(found))
    console.print(f"installed in {site.prefix}", markup=False)
    for case in cases(site, told):
        console.print(f'this is: {case.name}; {PAGE}, "{case.heading}"', markup=False, soft_wrap=True)
    failed = sum(finding.state == FAIL for finding in found)
    broken = f"{failed} check{'s' * (failed > 1)} failed"
    console.print(f"[red]{broken}[/]" if failed else "[green]nothing stands in the way of a run[/]")
    return EXIT_BUG if failed else EXIT_COMPLETE


def _table(found: Sequence[Finding]) -> Table:
    table = Table(title="pfdhpc doctor", show_lines=False)
    for name in ("check", "found", "", "what to do"):
        table.add_column(name, overflow="fold")
    for finding in found:
        state = f"[{COLOURS[finding.state]}]{finding.state}[/]"
        table.add_row(finding.check, escape(finding.found), state, escape(finding.remedy))
    return table
