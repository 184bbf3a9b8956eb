"""Descriptors made a second on one core: pfdhpc beside the ``quests`` package.

    OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python tests/bench/bench_descriptors.py

Disordered silicon and copper cells of 8 to 1000 atoms, k = 32, cutoff 5 Å, small ones many at a time, as a
selection has them; ``--single``: one cell a call. Prints a table, processor time, best of several interleaved
runs, and the largest difference of the plain descriptors from those of the package. Without
the package it prints our rates alone.
"""

import os

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"))

import sys
import time
from collections.abc import Callable
from itertools import chain

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk

from pfdhpc.data import Frame
from pfdhpc.selection.quests import QuestsDescriptor

REPEATS = 8
SETTINGS = {
    "plain": {"smoothing": 0.0},
    "smooth": {},
    "species": {"species": (14, 29)},
    "plain 32": {"smoothing": 0.0, "precision": "float32"},
    "smooth 32": {"precision": "float32"},
    "species 32": {"species": (14, 29), "precision": "float32"},
}
TOGETHER = 800
"""Atoms a call, about."""
Make = Callable[[list[Atoms]], np.ndarray]


def cells(together: int) -> list[list[Atoms]]:
    """Silicon and copper of 8, 64, 192 and about 1000 atoms, lists of unlike ones with about so many together."""
    silicon, copper = bulk("Si", cubic=True), bulk("Cu", cubic=True)
    found = [silicon.repeat(n) for n in (1, 2, (2, 3, 4), 5)]
    found += [copper.repeat(n) for n in ((1, 1, 2), (2, 2, 4), (3, 4, 4), (5, 5, 10))]
    stacks = [[atoms.copy() for _ in range(max(1, together // len(atoms)))] for atoms in found]
    for seed, atoms in enumerate(chain(*stacks)):
        atoms.rattle(0.1, seed=seed)
    return stacks


def ours(options: dict) -> Make:
    descriptor = QuestsDescriptor(**options)
    return lambda stack: np.concatenate(descriptor([Frame.from_atoms(atoms) for atoms in stack]))


def theirs() -> dict[str, Make]:
    """The package's function under its name, or nothing where it is not installed."""
    try:
        from quests.descriptor import get_descriptors
    except ImportError:
        print("quests is not installed (pip install quests, into an environment of its own): our rates alone\n")
        return {}
    return {"quests": lambda stack: get_descriptors(stack, k=32, cutoff=5.0)}


def rates(makes: dict[str, Make], stack: list[Atoms]) -> dict[str, float]:
    """Atoms a second of each, the best of interleaved runs; the first run, which compiles, is not counted."""
    best = dict.fromkeys(makes, np.inf)
    for repeat in range(REPEATS + 1):
        for name, make in makes.items():
            started = time.process_time()
            make(stack)
            if repeat:
                best[name] = min(best[name], time.process_time() - started)
    return {name: sum(map(len, stack)) / seconds for name, seconds in best.items()}


def main():
    torch.set_num_threads(1)
    reference = theirs()
    makes = {**reference, **{name: ours(options) for name, options in SETTINGS.items()}}
    print("thousand atoms/s (times the rate of quests)")
    print(f"{'cell':>8}" + "".join(f"{name:>15}" for name in makes))
    worst = 0.0
    for stack in cells(0 if "--single" in sys.argv else TOGETHER):
        found = rates(makes, stack)
        row = f"{stack[0].symbols[0]} {len(stack[0]):>5}"
        for name, rate in found.items():
            times = f" ({rate / found['quests']:.1f})" if name in SETTINGS and reference else ""
            row += f"{f'{rate / 1e3:.1f}{times}':>15}"
        print(row, flush=True)
        if reference:
            worst = max(worst, np.abs(makes["plain"](stack) - makes["quests"](stack)).max())
    if reference:
        print(f"\nlargest difference of the plain descriptors: {worst:.1e} 1/Å")


if __name__ == "__main__":
    main()
