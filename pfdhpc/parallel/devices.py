"""Threads and GPUs of a rank, settled before BLAS, torch or LAMMPS load."""

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from .layout import EXPLORER, FLEXIBLE, LABELER, TRAINER, Layout

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "DP_INTRA_OP_PARALLELISM_THREADS",
    "DP_INTER_OP_PARALLELISM_THREADS",
)


@dataclass(frozen=True)
class Seat:
    """What a rank may use: its GPU (as CUDA names it; None: none) on its node."""

    host: str
    gpu: str | None


def visible_gpus() -> list[str]:
    """The GPUs this process may use, without loading CUDA."""
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is not None:
        return [name for name in allowed.split(",") if name.strip() not in ("", "-1")]
    try:
        listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [str(index) for index, line in enumerate(listing.stdout.splitlines()) if line.startswith("GPU")]


def seats(layout: Layout, hosts: Sequence[str], gpus: Sequence[list[str]]) -> list[Seat]:
    """A seat per rank: on each node the trainer's, then the explorers', the flexible and the labelers' ranks
    take the GPUs in turn, so that two roles share a card only where there are fewer cards than ranks."""
    if layout.world_size == 1:
        return [Seat(hosts[0], gpus[0][0] if gpus[0] else None)]
    taken: dict[str, int] = {}
    chosen: dict[int, Seat] = {}
    for role in (TRAINER, EXPLORER, FLEXIBLE, LABELER):
        for team in layout.of_role(role):
            for rank in team.ranks:
                host, found = hosts[rank], gpus[rank]
                turn = taken.get(host, 0)
                chosen[rank] = Seat(host, found[turn % len(found)] if found else None)
                taken[host] = turn + 1
    return [chosen.get(rank, Seat(hosts[rank], None)) for rank in range(len(hosts))]


def limit_threads(threads: int) -> None:
    """Threads per rank for BLAS, torch and LAMMPS; must come before numpy is imported."""
    for name in THREAD_VARIABLES:
        os.environ[name] = str(threads)


def settle(seat: Seat, trains: bool) -> None:
    """Put a seat into force for this process, before torch or LAMMPS load.

    deepmd takes ``cuda:LOCAL_RANK`` at import: with one visible card that is 0 for a rank that trains,
    and it must be unset for the others.
    """
    os.environ["CUDA_VISIBLE_DEVICES"] = seat.gpu if seat.gpu is not None else ""
    os.environ.pop("LOCAL_RANK", None)
    if trains:
        os.environ["LOCAL_RANK"] = "0"
