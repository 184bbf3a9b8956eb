"""When the batch system will end this job, asked by a child process, which must come before MPI."""

import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

RANK_VARIABLES = ("PMI_RANK", "PMIX_RANK", "PALS_RANKID", "SLURM_PROCID")
"""Where launchers tell a process its rank. That of srun comes last: processes of an mpiexec inside a
Slurm job all inherit the 0 of the batch script."""
PATIENCE = 10.0
"""Seconds in which the batch system must answer."""

Ask = Callable[[Sequence[str]], str]
"""Runs a command; what it printed, or nothing if it failed."""


@dataclass(frozen=True)
class Notice:
    """What a batch system says: seconds from now to the end of the job; None if it does not tell."""

    system: str
    seconds: float | None


def is_first(environ: Mapping[str, str]) -> bool:
    """Whether this process is the first of those a launcher started, or the only one. Does not start MPI."""
    return next((environ[name] for name in RANK_VARIABLES if name in environ), "0") == "0"


def job_end(environ: Mapping[str, str] = os.environ, ask: Ask | None = None) -> Notice | None:
    """The end of this job as the batch system knows it; None outside of one, and on all ranks but the first."""
    ask = ask or _ask
    if not is_first(environ):
        return None
    if environ.get("SLURM_JOB_ID"):
        return Notice("Slurm", _slurm(environ, ask))
    if environ.get("PBS_JOBID"):
        return Notice("PBS", pbs_left(ask(["qstat", "-f", environ["PBS_JOBID"]]), datetime.now()))
    return None


def _slurm(environ: Mapping[str, str], ask: Ask) -> float | None:
    """From the environment (a UNIX time), where this Slurm sets it; else the time left as squeue prints it."""
    stamp = environ.get("SLURM_JOB_END_TIME", "")
    if stamp.isdigit() and int(stamp) > 0:
        return int(stamp) - time.time()
    return seconds_of(ask(["squeue", "-h", "-j", environ["SLURM_JOB_ID"], "-o", "%L"]))


def pbs_left(text: str, now: datetime) -> float | None:
    """Seconds left, from what ``qstat -f`` prints: Torque says it; PBS tells the limit, the start and the time used.

    The time used is some minutes old, so the start is believed where it can be true (its clock may be in
    another time zone).
    """
    found = dict(re.findall(r"^\s*([\w.]+) = (.*?)\s*$", text, re.MULTILINE))
    if (left := seconds_of(found.get("Walltime.Remaining", ""))) is not None:
        return left
    limit = seconds_of(found.get("Resource_List.walltime", ""))
    if limit is None:
        return None
    used = seconds_of(found.get("resources_used.walltime", "")) or 0.0
    try:
        started = datetime.strptime(found.get("stime", ""), "%a %b %d %H:%M:%S %Y")
    except ValueError:
        return limit - used
    elapsed = (now - started).total_seconds()
    return limit - (elapsed if used <= elapsed <= limit else used)


def seconds_of(text: str) -> float | None:
    """Seconds of ``SECONDS``, ``M:S``, ``H:M:S``, ``D:H:M:S`` or ``D-H:M:S``; None if the text is none of these."""
    match = re.fullmatch(r"(?:(\d+)-(?=\d+:\d+:))?((?:\d+:){0,3}\d+)", text.strip())
    if match is None:
        return None
    parts = [int(part) for part in match[2].split(":")]
    units = (1, 60, 3600, 86400)
    days = 86400.0 * int(match[1] or 0)
    return days + sum(unit * part for unit, part in zip(units, reversed(parts), strict=False))


def _ask(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
