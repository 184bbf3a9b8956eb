"""``pfdhpc store``: check, repair, merge and list the frames of runs."""

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from ..errors import EXIT_COMPLETE, InputError
from ..log import console

PROBLEMS = 1
"""Exit code of ``verify`` when something is wrong."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    folder = "run directory, or its frames folder"
    verify = actions.add_parser("verify", help="check every frame and checkpoint; exit code 1 when one is not right")
    verify.add_argument("directory", type=Path, metavar="DIR", help=folder)
    verify.add_argument("--repair", action="store_true", help="save what is good of damaged files; removes none")
    merge = actions.add_parser("merge", help="one frames folder from several, each label once")
    merge.add_argument("sources", type=Path, nargs="+", metavar="DIR", help=folder)
    merge.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="frames folder to write")
    listing = actions.add_parser("ls", help="what is there, by system and level of theory")
    listing.add_argument("directory", type=Path, metavar="DIR", help=folder)
    listing.add_argument("--json", action="store_true", help="for programs")


def store(options: argparse.Namespace) -> int:
    return {"verify": verify, "merge": merge, "ls": ls}[options.action](options)


def verify(options: argparse.Namespace) -> int:
    """Check; with --repair, mend and check again."""
    frames, checkpoints = _folders(options.directory)
    with _lock(frames) if options.repair else nullcontext():
        parts = _check(frames, checkpoints)
        if options.repair:
            _show(parts)
            for line in _repair(frames, checkpoints, parts):
                console.print(line, markup=False)
            parts = _check(frames, checkpoints)
    _show(parts)
    found = [problem for part in parts for problem in part.problems]
    for what, remedy in found:
        console.print(f"[red]{escape(what)}[/]; {escape(remedy)}")
    console.print(f"{len(found)} problems" if found else "no problem found")
    return PROBLEMS if found else EXIT_COMPLETE


def merge(options: argparse.Namespace) -> int:
    """Several into one."""
    from ..store.merge import merge as work

    sources = [_folders(source)[0] for source in options.sources]
    if len(sources) < 2:
        raise InputError("store merge: one folder alone; name two or more")
    labelled, rejected = work(sources, options.output)
    console.print(f"{options.output}: {labelled} labelled frames, {rejected} rejected", markup=False)
    return EXIT_COMPLETE


def ls(options: argparse.Namespace) -> int:
    """What is there."""
    from ..store.listing import groups, size

    frames, _ = _folders(options.directory)
    found, (files, bytes_) = groups(frames), size(frames)
    if options.json:
        plain = [vars(group) for group in found]
        for group in plain:
            group |= {key: sorted(group[key]) for key in ("rounds", "model_versions")}
        print(json.dumps({"groups": plain, "files": files, "bytes": bytes_}, indent=1))
        return EXIT_COMPLETE
    table = Table(title=f"{frames}: {files} files, {_megabytes(bytes_)}", title_justify="left")
    for name in ("system", "level"):
        table.add_column(name)
    for name in ("frames", "atoms", "rounds", "models", "rejected"):
        table.add_column(name, justify="right")
    for group in found:
        counts = str(group.frames), str(group.atoms), _ranges(group.rounds), _ranges(group.model_versions)
        table.add_row(escape(group.system), escape(group.level), *counts, str(group.rejected.total()))
    console.print(table)
    for group in found:
        for reason, count in group.rejected.most_common():
            console.print(f"rejected {group.system or 'given'}: {count} x {reason}", markup=False)
    return EXIT_COMPLETE


def _folders(directory: Path) -> tuple[Path, Path | None]:
    """The frames folder, and that of the checkpoints when a run directory was named."""
    from ..store.run_directory import RunFolder

    run = RunFolder(directory)
    if run.frames.is_dir():
        return run.frames, run.checkpoints
    if (directory / "labelled").is_dir():
        return directory, None
    raise InputError(f"{directory}: neither a run directory nor a frames folder (no frames or labelled in it)")


def _check(frames: Path, checkpoints: Path | None) -> list:
    from ..store.verify import check_checkpoints, check_store

    return check_store(frames) + ([] if checkpoints is None else [check_checkpoints(checkpoints)])


def _repair(frames: Path, checkpoints: Path | None, parts: Sequence) -> list[str]:
    from ..store.repair import repair_checkpoints, repair_frames

    done = repair_frames(frames, [part for part in parts if part.name != "checkpoints"])
    return done + (repair_checkpoints(checkpoints, parts[-1]) if checkpoints else [])


@contextmanager
def _lock(frames: Path) -> Iterator[None]:
    """The run's lock, which a live one holds; a frames folder without a run has none."""
    from ..store.lock import RunLock
    from ..store.run_directory import RunFolder

    if frames != RunFolder(frames.parent).frames:
        yield
        return
    lock = RunLock(frames.parent)
    try:
        yield
    finally:
        lock.release()


def _show(parts: Sequence) -> None:
    table = Table()
    table.add_column("part")
    for name in ("files", "frames", "size", "damaged", "leftovers", "unfinished", "problems"):
        table.add_column(name, justify="right")
    for part in parts:
        frames = "-" if part.name == "checkpoints" else str(part.frames)
        counts = len(part.damaged), part.leftovers, part.unfinished, len(part.problems)
        table.add_row(part.name, str(part.files), frames, _megabytes(part.size), *map(str, counts))
    console.print(table)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def _ranges(numbers: Iterable[int]) -> str:
    """``0-3, 5``; -1, of what was given, is ``-``."""
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and number == ranges[-1][1] + 1 and number > 0:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ", ".join("-" if a < 0 else str(a) if a == b else f"{a}-{b}" for a, b in ranges)
