"""What each command does; returns its exit code."""

import argparse
import os
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

from ..config import load
from ..config.trainers import TRAINERS
from ..engines.isolated.spawner import Spawner
from ..errors import EXIT_BAD_INPUT, EXIT_COMPLETE, InputError, StoreError
from ..log import console, remarks_told
from ..parallel.devices import limit_threads, settle, visible_gpus
from ..parallel.layout import smallest_world
from ..roles.stopping import Stopping

FORMATS = {".xyz": "extxyz", ".extxyz": "extxyz", ".h5": "deepmd/hdf5", ".hdf5": "deepmd/hdf5", "": "deepmd/npy"}
"""By the ending of what is exported to."""


def check(options: argparse.Namespace) -> int:
    """Everything that can be found wrong without starting: the schema, then the files it names."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    limit_threads(_threads(options.input))
    from ..start.input_checks import notes, problems

    config = load(options.input)
    say = partial(console.print, style="yellow", markup=False)
    with remarks_told(say):
        found = problems(config)
        if found:
            raise InputError(found)
        for line in notes(config):
            say(f"note: {line}")
    console.print(f"{options.input}: no problem found; runs on {smallest_world(config.ranks)} ranks or more, or on 1")
    return EXIT_COMPLETE


def run(options: argparse.Namespace) -> int:
    """The job itself, on every rank."""
    stopping = Stopping()
    stopping.listen()  # first of all: a signal while programs load is a clean stop too
    stopping.limit(options.time, "--time")
    with _spawner(options.input) as spawner:  # forks, so before MPI and threads
        limit_threads(_threads(options.input))
        from ..job.job import run as run_job
        from ..parallel.world import leave

        code = run_job(options.input, stopping, spawner)
    leave()
    return code


def _spawner(path: Path) -> AbstractContextManager:
    """What starts child processes, if the input wants any; of a bad input the job itself will tell, once."""
    try:
        config = load(path)
    except InputError:
        return nullcontext()
    later = config.distill.get("explore", {}).get("isolation")
    isolated = "process" in (config.explore.isolation, config.label.isolation, later)
    wanted = isolated or config.label.launch is not None or TRAINERS[config.train.type].in_child
    return Spawner() if wanted else nullcontext()


def _threads(path: Path) -> int:
    """What the input asks for; of a bad input the job itself will tell, once."""
    try:
        return load(path).ranks.threads
    except InputError:
        return 1


def where(options: argparse.Namespace) -> int:
    """The run directory, for job scripts."""
    print(load(options.input).run.directory)
    return EXIT_COMPLETE


def export(options: argparse.Namespace) -> int:
    """Labelled frames as deepmd or extxyz data."""
    from ..report.run_data import config_of
    from ..store.export import export as write
    from ..store.run_directory import RunFolder
    from ..store.store import read_records

    config_of(options.run)
    form = options.format or _format_of(options.destination)
    records = read_records(RunFolder(options.run).frames)
    if not records:
        raise InputError(f"{options.run}: this run has no labelled frame yet")
    write(records, options.destination, form)
    console.print(f"{len(records)} frames written to {options.destination} as {form}")
    return EXIT_COMPLETE


def _format_of(destination: Path) -> str:
    """What the ending of a name asks for; raises InputError where it asks for what there is not."""
    if destination.suffix in FORMATS:
        return FORMATS[destination.suffix]
    known = f"{', '.join(filter(None, FORMATS))}, none (a folder in deepmd/npy), or give --format"
    raise InputError(f"export: {destination}: no format is known by this ending; known: {known}")


def select(options: argparse.Namespace) -> int:
    """Frames worth a label among data that is there already, on every rank; the first one speaks."""
    limit_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))
    from ..parallel.world import leave, next_gpu, whole_world
    from .select import select as work

    comm = whole_world()
    first = comm.rank == 0
    settle(next_gpu(comm, visible_gpus()), trains=False)
    try:
        code = work(options, comm)
    except (InputError, StoreError):  # on all ranks
        leave()
        if first:
            raise
        return EXIT_BAD_INPUT
    leave()
    return code


def store(options: argparse.Namespace) -> int:
    """Check, repair, merge or list the frames of runs."""
    from .store import store as work

    return work(options)
