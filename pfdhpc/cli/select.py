"""``pfdhpc select``: which of some frames to label, from data that is there already."""

import argparse
import time
import tomllib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ..errors import EXIT_COMPLETE, InputError, StoreError, TaskError
from ..log import console

OPTIONS = {
    "method": "method",
    "max_sel": "max_sel",
    "chunk": "chunk",
    "min_gain": "min_gain",
    "score": "score",
    "bandwidth": "bandwidth",
    "descriptor": "descriptor.type",
    "neighbours": "descriptor.neighbours",
    "cutoff": "descriptor.cutoff",
}
"""Options of the command line that are keys of [select]."""
MAX_SEL = 200
PICTURES = (".png", ".pdf", ".svg")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    source = "file ASE or dpdata reads, deepmd folder or HDF5 file, or run directory"
    add("candidates", type=Path, nargs="+", metavar="CANDIDATES", help=source)
    add("--reference", type=Path, nargs="+", default=[], metavar="FILE", help="what is known already; formats as above")
    add("-o", "--output", type=Path, required=True, metavar="OUT", help="file for the picked frames, in any ASE format")
    add("--force", action="store_true", help="replace OUT if it is there")
    add("--max-sel", type=int, metavar="N", help=f"frames to pick, at most ({MAX_SEL})")
    add("--method", help="greedy (default), pfd or random")
    add("--chunk", type=int, metavar="N", help="frames method pfd picks at a time")
    add("--min-gain", type=float, metavar="G", help="nats; stop when no frame adds more")
    add("--descriptor", help="chemistry (default), quests or model")
    add("--model", type=Path, metavar="FILE", help="deep-potential model, with --descriptor model")
    add("--branch", help="of a multi-task model")
    add("--neighbours", type=int, metavar="K", help="of the QUESTS descriptor")
    add("--cutoff", type=float, metavar="R", help="of the QUESTS descriptor, Å")
    add("--bandwidth", type=_number_or_word, metavar="H", help="1/Å, or density or spread")
    add("--score", help="neutral (default) or sum")
    add("--seed", type=int, default=0, metavar="N", help="of all that is random (0)")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="any key of [select], its value as in TOML")
    add("--no-entropy", action="store_true", help="do not compute H, which takes the reference against itself")
    add("--plot", type=Path, metavar="FILE", help="picture of the gains and of the novelty of all (png, pdf, svg)")


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """The keys of [select] that the options give; raises InputError for one that is given twice."""
    found: dict[str, Any] = {}
    for option, key in OPTIONS.items():
        if (value := getattr(options, option)) is not None:
            _put(found, key, value)
    for text in options.set:
        _put(found, *_assignment(text))
    found.setdefault("max_sel", MAX_SEL)
    return found


def _assignment(text: str) -> tuple[str, Any]:
    key, equals, value = (part.strip() for part in text.partition("="))
    try:
        if not (key and equals):
            raise ValueError("it is not KEY=VALUE")
        return key, tomllib.loads(f"value = {value}")["value"]
    except ValueError as error:
        raise InputError(f"--set {text}: {error}; for example filter.max_skew=70 or 'method=\"pfd\"'") from None


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    *sections, name = key.split(".")
    for section in sections:
        values = values.setdefault(section, {})
    if not isinstance(values, dict) or name in values:
        raise InputError(f"select.{key}: given twice")
    values[name] = value


def _number_or_word(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def select(options: argparse.Namespace, comm: Any) -> int:
    """The command, on every rank; raises InputError on all of them or on none."""
    from ..parallel.channel import MpiChannel
    from ..selection.standalone import Material, choose, standalone_section
    from .select_report import report

    section = standalone_section(settings(options))
    agreed(comm, lambda: comm.rank == 0 and check_files(options))
    with Phases(comm.rank == 0) as phases:
        model = agreed(comm, lambda: opened(section, options))
        material = Material(section, comm.rank, comm.size)
        held = agreed(comm, lambda: read(options, material, phases))
        channel = MpiChannel(comm.Dup()) if comm.size > 1 else None  # apart from any other selection's messages
        entropies = not options.no_entropy
        found = agreed(comm, lambda: choose(section, material, model, channel, options.seed, entropies, phases))
        indices = comm.bcast(found.indices if found else None)
        parts = comm.gather({index: held[index] for index in indices if index in held})
        if channel is not None:
            channel.settle()
        agreed(comm, lambda: comm.rank == 0 and write(options, found, parts, phases))
    if comm.rank == 0:
        report(options, section, material, found, phases.seconds)
    return EXIT_COMPLETE


def agreed(comm: Any, work: Callable[[], Any]) -> Any:
    """What ``work`` returns; where it fails on one rank, all raise InputError."""
    from ..selection.peer_messages import Over

    problem = found = None
    try:
        found = work()
    except Over:
        pass  # another rank knows why
    except (InputError, StoreError, TaskError) as error:
        problem = str(error)
    if problems := [text for text in comm.allgather(problem) if text]:
        raise InputError(dict.fromkeys("\n".join(problems).splitlines()))
    return found


def opened(section: Any, options: argparse.Namespace) -> Any:
    """What describes frames by the model, where one is given; raises InputError."""
    from ..selection.standalone import load_model

    try:
        return load_model(section, options.model, options.branch)
    except InputError as error:
        raise error.about({"branch": "--branch"}) from None


def check_files(options: argparse.Namespace) -> None:
    """Refuse, before anything is read, what could not be written in the end."""
    from ase.io.formats import UnknownFileTypeError, filetype, ioformats

    output, problems = options.output, []
    for path in filter(None, (output, options.plot)):
        if not path.parent.is_dir():
            problems.append(f"{path}: there is no folder {path.parent}; make it first")
    if any(output.exists() and source.exists() and output.samefile(source) for source in _sources(options)):
        problems.append(f"{output}: it is one of the inputs; name another file")
    elif output.is_dir() or (output.exists() and not options.force):
        problems.append(f"{output}: is there already; name a new file, or give --force to replace it")
    try:
        form = ioformats.get(filetype(str(output), read=False))
    except UnknownFileTypeError:
        form = None
    if form is None or not form.can_write or form.single:
        problems.append(f"{output}: ASE writes no series of frames in a file of this name; end it in .extxyz")
    if options.plot and options.plot.suffix not in PICTURES:
        problems.append(f"{options.plot}: pictures end in {', '.join(PICTURES)}")
    if problems:
        raise InputError(problems)


def _sources(options: argparse.Namespace) -> list[Path]:
    return [*options.reference, *options.candidates]


def read(options: argparse.Namespace, material: Any, phases: "Phases") -> dict[int, Any]:
    """Show everything to ``material``; returns the candidates this rank holds, by their place."""
    from ..data import Frame
    from ..selection.standalone import read_structures

    held, seen = {}, 0
    for path in options.reference:
        for index, atoms in enumerate(read_structures(path)):
            material.refer(Frame.from_atoms(atoms), f"{path}, frame {index}")
            phases("reading", seen := seen + 1)
    for path in options.candidates:
        for index, atoms in enumerate(read_structures(path)):
            if material.consider(Frame.from_atoms(atoms), f"{path}, frame {index}"):
                held[material.n_candidates - 1] = atoms
            phases("reading", seen := seen + 1)
    return held


def write(options: argparse.Namespace, found: Any, parts: list[dict[int, Any]], phases: "Phases") -> None:
    """The picked frames, in their order; no file where nothing was picked. Raises StoreError."""
    import ase.io

    atoms = {index: item for part in parts for index, item in part.items()}
    unfinished = options.output.with_name(f".unfinished-{options.output.name}")
    try:
        options.output.unlink(missing_ok=True)
        if found.indices:
            ase.io.write(unfinished, [atoms[index] for index in found.indices], parallel=False)
            unfinished.replace(options.output)
        if options.plot:
            from ..report.selection_plot import draw

            draw(options.plot, found)
        phases("writing", len(found.indices))
    except (OSError, ValueError) as error:
        raise StoreError(f"{options.output}: cannot be written: {error}") from error


class Phases(AbstractContextManager):
    """What is being done, shown on a terminal, and the seconds each phase has taken."""

    def __init__(self, visible: bool):
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        self._bar = Progress(*columns, console=console, transient=True, disable=not (visible and console.is_terminal))
        self.seconds: dict[str, float] = {}
        self._phase, self._task, self._since = "", None, time.monotonic()

    def __call__(self, phase: str, done: int, total: int | None = None) -> None:
        """Some of a phase has been done since the last call."""
        now = time.monotonic()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._since
        self._since = now
        if phase != self._phase:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._phase, self._task = phase, self._bar.add_task(phase, total=total)
        self._bar.update(self._task, completed=done, total=total)

    def __enter__(self) -> "Phases":
        self._bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._bar.stop()
