"""What rank 0 does before a run starts: reads the input, takes the run directory, decides who does what."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.text import Text

from ..config import Config, dump, load
from ..config.older_inputs import completed
from ..config.restart_changes import differences, refusals
from ..engines.label.level_of_theory import Levels, levels_of
from ..errors import InputError
from ..log import console
from ..parallel.layout import Layout, plan_layout
from ..store.lock import RunLock
from ..store.run_directory import RunFolder
from .stages import check_kind, config_of, enter, goes_on, is_complete, n_stages


@dataclass(frozen=True)
class Plan:
    """What rank 0 found out before anything starts, for all ranks."""

    config: Config
    layout: Layout
    levels: Levels  # of theory
    changes: tuple[tuple[str, Any, Any], ...]  # mutable keys that differ from the run so far
    directory: Path  # as the input names it
    number: int  # of this run, among those of the input
    last: bool  # of them


class JobSetup:
    """Of the runs an input stands for, one after the other. The input is read once: what is edited later, later counts.

    Holds their directories until :meth:`release`.
    """

    def __init__(self, path: Path, world_size: int):
        self._path, self._world_size = path, world_size
        self._whole: Config | None = None
        self._locks: list[RunLock] = []
        self._number = 0

    def next(self) -> Plan | None:
        """The next run that is not complete, or the last one; None where the input is bad, which is told."""
        try:
            return self._next()
        except InputError as error:
            print_problems(error)
            return None

    def release(self) -> None:
        for lock in self._locks:
            lock.release()

    def _next(self) -> Plan:
        if self._whole is None:
            self._whole = load(self._path)
            check_kind(self._whole)
            if n_stages(self._whole) > 1:
                self._locks.append(_taken(self._whole.run.directory))
        whole, number = self._whole, self._number
        self._number += 1
        config, last = config_of(whole, number), number + 1 >= n_stages(whole)
        folder = RunFolder(config.run.directory)
        changes = _changes(config, folder)
        if not last and is_complete(config):
            if not changes:
                return self._next()
            goes_on(whole, changes)
        layout = plan_layout(config.ranks, self._world_size)
        self._locks.append(_taken(folder.directory))
        if n_stages(whole) > 1:
            enter(whole.run.directory, number)
        return Plan(config, layout, levels_of(config.label), tuple(changes), whole.run.directory, number, last)


def print_problems(error: InputError) -> None:
    for problem in error.problems:
        console.print(Text.assemble(("input error: ", "bold red"), problem))


def _taken(directory: Path) -> RunLock:
    try:
        directory.mkdir(0o775, parents=True, exist_ok=True)  # never writable for all
    except OSError as error:
        raise InputError(f"run.directory: {directory} cannot be made: {error.strerror}") from None
    return RunLock(directory)


def _changes(config: Config, folder: RunFolder) -> list[tuple[str, Any, Any]]:
    """The keys that differ from the run in the folder; raises InputError if one of them may not."""
    if not folder.input.exists():
        return []
    try:
        kept = json.loads(folder.input.read_text())
    except (ValueError, OSError) as error:
        raise InputError(f"run.directory: {folder.input} cannot be read ({error}); restore it from a backup") from None
    changes = differences(completed(kept), json.loads(dump(config)))
    if problems := refusals(changes, folder.directory):
        raise InputError(problems)
    return changes
