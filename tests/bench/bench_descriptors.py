"""Descriptors made a second on one core: pfdhpc beside the ``quests`` package.

    OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python tests/bench/bench_descriptors.py

Disordered silicon and copper cells of 8 to 1000 atoms, k = 32, cutoff 5 Å. Prints a table, best of several
interleaved runs, and the largest difference of the plain descriptors from those of the package. Without
the package it prints our rates alone.
"""

import os

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"))

import time
from collections.abc import Callable

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk

from pfdhpc.data import Frame
from pfdhpc.select.quests import QuestsDescriptor

REPEATS = 15
SETTINGS = {
    "plain": {"smoothing": 0.0},
    "smooth": {},
    "species": {"species": (14, 29)},
    "plain 32": {"smoothing": 0.0, "precision": "float32"},
    "smooth 32": {"precision": "float32"},
    "species 32": {"species": (14, 29), "precision": "float32"},
}
Make = Callable[[Atoms], np.ndarray]


def cells() -> list[Atoms]:
    """Silicon and copper of 8, 64, 192 and about 1000 atoms."""
    silicon, copper = bulk("Si", cubic=True), bulk("Cu", cubic=True)
    found = [silicon.repeat(n) for n in (1, 2, (2, 3, 4), 5)]
    found += [copper.repeat(n) for n in ((1, 1, 2), (2, 2, 4), (3, 4, 4), (5, 5, 10))]
    for seed, atoms in enumerate(found):
        atoms.rattle(0.1, seed=seed)
    return found


def ours(options: dict) -> Make:
    descriptor = QuestsDescriptor(**options)
    return lambda atoms: descriptor([Frame.from_atoms(atoms)])[0]


def theirs() -> dict[str, Make]:
    """The package's function under its name, or nothing where it is not installed."""
    try:
        from quests.descriptor import get_descriptors
    except ImportError:
        print("quests is not installed (pip install quests, into an environment of its own): our rates alone\n")
        return {}
    return {"quests": lambda atoms: get_descriptors([atoms], k=32, cutoff=5.0)}


def rates(makes: dict[str, Make], atoms: Atoms) -> dict[str, float]:
    """Atoms a second of each, the best of interleaved runs; the first run, which compiles, is not counted."""
    best = dict.fromkeys(makes, np.inf)
    for repeat in range(REPEATS + 1):
        for name, make in makes.items():
            started = time.perf_counter()
            make(atoms)
            if repeat:
                best[name] = min(best[name], time.perf_counter() - started)
    return {name: len(atoms) / seconds for name, seconds in best.items()}


def main():
    torch.set_num_threads(1)
    reference = theirs()
    makes = {**reference, **{name: ours(options) for name, options in SETTINGS.items()}}
    print("thousand atoms/s (times the rate of quests)")
    print(f"{'cell':>8}" + "".join(f"{name:>15}" for name in makes))
    worst = 0.0
    for atoms in cells():
        found = rates(makes, atoms)
        row = f"{atoms.symbols[0]} {len(atoms):>5}"
        for name, rate in found.items():
            times = f" ({rate / found['quests']:.1f})" if name in SETTINGS and reference else ""
            row += f"{f'{rate / 1e3:.1f}{times}':>15}"
        print(row, flush=True)
        if reference:
            worst = max(worst, np.abs(makes["plain"](atoms) - makes["quests"](atoms)).max())
    if reference:
        print(f"\nlargest difference of the plain descriptors: {worst:.1e} 1/Å")


if __name__ == "__main__":
    main()
