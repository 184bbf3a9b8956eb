"""The arguments of the commands in :mod:`pfdhpc.cli.commands`; apart from them, so that ``--help`` loads nothing."""

import argparse
import os
from pathlib import Path

from ..parallel.devices import limit_threads


def input_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", type=Path, metavar="INPUT", help="input file (TOML)")


def run(parser: argparse.ArgumentParser) -> None:
    input_file(parser)
    text = "wall time of this job, or seconds; an earlier end counts"
    parser.add_argument("--time", type=_seconds, metavar="H:M:S", help=text)


def run_directory(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=run_path, metavar="RUN", help="run directory")


def run_path(text: str) -> Path:
    """A run directory; of a ``pfd`` run the folder of the fine-tuning or distillation that is on."""
    path = Path(text)
    current = path / "current"
    return path / current.readlink() if current.is_symlink() else path


def export(parser: argparse.ArgumentParser) -> None:
    run_directory(parser)
    parser.add_argument("destination", type=Path, metavar="OUT", help="file or folder to write")
    parser.add_argument("--format", help="deepmd/npy, deepmd/hdf5 or extxyz; by default from OUT's ending")


def _seconds(text: str) -> float:
    from ..parallel.scheduler import seconds_of

    seconds = seconds_of(text)
    if not seconds or text.count(":") == 1:  # 11:30: hours or minutes?
        raise argparse.ArgumentTypeError(f"{text!r} is no time: give H:M:S, D-H:M:S or seconds")
    return seconds


def quiet() -> None:
    """Before torch or deepmd-kit load: OMP_NUM_THREADS threads, one where it is not set."""
    limit_threads(int(os.environ.get("OMP_NUM_THREADS") or 1))
    os.environ.setdefault("DP_INFER_BATCH_SIZE", "1024")  # deepmd-kit's own, which tells of it where it is not set
