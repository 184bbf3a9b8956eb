"""Kernel sums of many environments on one core: bare matrix products, pfdhpc, and the ``quests`` package.

    OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python tests/bench/bench_entropy.py [--full]

δH of 2e4 environments against as many others (1e5 with --full), both of silicon and copper: several phases,
strains, and disorder from 100 K to a liquid. Then a set where nothing can be left out, and the
time of a call for small frames. Prints tables; seconds, best of several interleaved runs.
"""

import os

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"))

import argparse
import time
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import torch
from ase.build import bulk

from pfdhpc.data import Frame
from pfdhpc.selection.entropy import Environments
from pfdhpc.selection.quests import QuestsDescriptor

H = 0.015
CRYSTALS = (
    bulk("Si", cubic=True).repeat(2),
    bulk("Cu", cubic=True).repeat(3),
    bulk("Si", "fcc", a=3.9, cubic=True).repeat(2),
    bulk("Cu", "bcc", a=2.87, cubic=True).repeat(3),
)
RATTLES = (0.02, 0.04, 0.06, 0.08, 0.1, 0.45)  # Å; about 100 to 2000 K, and a liquid


def realistic(n: int, seed: int) -> np.ndarray:
    """Descriptors (n, 63) of strained, rattled crystals."""
    rng = np.random.default_rng(seed)
    describe, found = QuestsDescriptor(), []
    while sum(map(len, found)) < n:
        atoms = CRYSTALS[rng.integers(len(CRYSTALS))].copy()
        strain = np.eye(3) * (1 + 0.04 * rng.normal()) + 0.02 * rng.normal(size=(3, 3))
        atoms.set_cell(atoms.cell @ strain, scale_atoms=True)
        atoms.rattle(rng.choice(RATTLES), rng=rng)
        found += describe([Frame.from_atoms(atoms)])
    return np.concatenate(found)[:n]


def products(x: np.ndarray, y: np.ndarray, size: int = 512) -> None:
    """The float64 products alone, in tiles of a megabyte or two that are written over."""
    left, right = (torch.from_numpy(rows) for rows in (x, y))
    buffer = torch.empty(size * size, dtype=torch.float64)
    for rows in left.split(size):
        for others in right.split(size):
            torch.mm(rows, others.T, out=buffer[: len(rows) * len(others)].view(len(rows), len(others)))


def best(repeats: int, *calls: Callable) -> tuple[list[float], list]:
    """Shortest times of calls that are made in turn, and what they return."""
    times = np.full((repeats, len(calls)), np.inf)
    for row in times:
        results = []
        for column, call in enumerate(calls):
            started = time.perf_counter()
            results.append(call())
            row[column] = time.perf_counter() - started
    return times.min(axis=0).tolist(), results


def table(x: np.ndarray, y: np.ndarray, repeats: int) -> None:
    def prepare() -> tuple[Environments, Environments]:
        return Environments(x, H), Environments(y, H)

    (preparation,), ((first, second),) = best(1, prepare)
    times, (_, full, pruned) = best(
        repeats, lambda: products(x, y), lambda: first.log_sums(second, 0.0), lambda: first.log_sums(second)
    )
    print(f"\n{len(x)} x {len(y)} environments, ln p from {full.min():.1f} to {full.max():.1f}")
    print(f"{'preparation':28}{preparation:10.3f} s")
    for name, seconds in zip(("bare products", "all environments", "far ones left out"), times, strict=True):
        print(f"{name:28}{seconds:10.3f} s{seconds / times[0]:8.2f}")
    print(f"{'largest difference':28}{np.abs(full - pruned).max():10.1e} nats")


def package(x: np.ndarray, y: np.ndarray) -> None:
    if find_spec("quests") is None:
        print("\nthe quests package is not here; in an environment of its own: pip install quests")
        return
    from quests.entropy import delta_entropy

    delta_entropy(x[:100], y[:100], h=H)  # compiles
    (seconds,), (found,) = best(1, lambda: delta_entropy(x, y, h=H))
    ours = -Environments(x, H).log_sums(Environments(y, H))
    finite = np.isfinite(found) & (found < 100)
    print(f"{'quests':28}{seconds:10.3f} s")
    print(f"{'largest difference':28}{np.abs(found - ours)[finite].max():10.1e} nats, where δH < 100")


def small(rows: np.ndarray) -> None:
    print("\none call, µs:" + "".join(f"{m:8}" for m in (2, 64, 200)))
    for n in (2, 64, 200):
        x = Environments(rows[:n], H)
        others = [Environments(rows[200 : 200 + m], H) for m in (2, 64, 200)]
        calls = [lambda x=x, y=y: [x.log_sums(y) for _ in range(200)] for y in others]
        print(f"{n:13}" + "".join(f"{seconds / 200 * 1e6:8.1f}" for seconds in best(5, *calls)[0]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="1e5 x 1e5")
    n, repeats = (100_000, 1) if parser.parse_args().full else (20_000, 3)
    torch.set_num_threads(1)
    x, y = realistic(n, 1), realistic(n, 2)
    table(x, y, repeats)
    package(x, y)
    print("\nnothing to leave out:", end="")
    alike = np.random.default_rng(0).normal(size=(20_000, 63)) * H / 2
    table(alike, alike, 3)
    small(x)


if __name__ == "__main__":
    main()
