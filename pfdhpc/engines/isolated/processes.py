"""Processes and their children, as Linux knows them."""

import ctypes
import os
import signal
from contextlib import suppress
from pathlib import Path

PR_SET_PDEATHSIG = 1
"""Of prctl: the signal a process gets when its parent dies."""

_libc = ctypes.CDLL(None)


def die_with(parent: int) -> None:
    """Between fork and exec: be killed when the parent dies, also if it just did."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def descendants(pid: int) -> dict[int, str]:
    """The processes that ``pid`` started, and those that these did, with the time each began at."""
    facts = {int(name): _parent_and_begin(int(name)) for name in os.listdir("/proc") if name.isdigit()}
    found, parents = {}, {pid}
    while parents:
        children = {child: begin for child, (parent, begin) in facts.items() if parent in parents}
        found |= children
        parents = children.keys()
    return found


def kill(processes: dict[int, str]) -> None:
    """Kill those of :func:`descendants` that are still there; a number may be another process' by now."""
    for pid, begin in processes.items():
        if _parent_and_begin(pid)[1] == begin:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _parent_and_begin(pid: int) -> tuple[int, str]:
    try:
        facts = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:  # gone
        return 0, ""
    return int(facts[1]), facts[19]
