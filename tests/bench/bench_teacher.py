"""Frames a second of a deepmd teacher as labeler, in batches, against deepmd's ASE calculator, one by one.

    OMP_NUM_THREADS=1 DP_INTRA_OP_PARALLELISM_THREADS=1 DP_INTER_OP_PARALLELISM_THREADS=1 \\
        python tests/bench/bench_teacher.py

Teachers with random weights, which cost what trained ones do: a small se_e2_a, a DPA-1 without attention and a
DPA-3 of three layers, with the labeler on GPU where there is one. Cells of SiC of 2 to 32 atoms in which every
frame has its own composition. The two ways take turns; medians of five. A batch saves the fixed cost of a call
(2 to 4 ms on a core), not arithmetic: where a frame costs more than that on a CPU, there is little to gain.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]
from ase.build import bulk  # noqa: E402
from models import DESCRIPTORS, frozen, tiny_checkpoint  # noqa: E402

from pfdhpc.config.label import LabelSection  # noqa: E402
from pfdhpc.data import Frame  # noqa: E402
from pfdhpc.engines.registry import make_labeler  # noqa: E402

REPEATS = 5
CELLS = {2: (1, 1, 1), 4: (1, 1, 2), 8: (1, 2, 2), 16: (2, 2, 2), 32: (2, 2, 4)}
REPFLOW = {"n_dim": 64, "e_dim": 32, "a_dim": 16, "nlayers": 3, "e_rcut": 6.0, "e_rcut_smth": 5.0, "e_sel": 120}
REPFLOW |= {"a_rcut": 4.0, "a_rcut_smth": 3.5, "a_sel": 30}
TEACHERS = {
    "se_e2_a": DESCRIPTORS["se_e2_a"],
    "dpa1": {"type": "se_atten_v2", "rcut": 6.0, "rcut_smth": 0.5, "sel": 120, "attn_layer": 0, "seed": 1},
    "dpa3": {"type": "dpa3", "repflow": REPFLOW, "precision": "float32", "seed": 1},
}


def frames(n_atoms: int, count: int) -> list[Frame]:
    """Rattled zincblende cells with random species, no two of the same order."""
    rng, made = np.random.default_rng(n_atoms), []
    for _ in range(count):
        atoms = bulk("SiC", "zincblende", a=4.36) * CELLS[n_atoms]
        atoms.rattle(0.05, rng=rng)
        atoms.numbers[:] = rng.choice([6, 14], len(atoms))
        made.append(Frame.from_atoms(atoms))
    return made


def one_by_one(model: Path) -> Callable[[list[Frame]], None]:
    from deepmd.calculator import DP

    calculator = DP(str(model))

    def run(given: list[Frame]) -> None:
        for frame in given:
            atoms = frame.to_atoms()
            atoms.calc = calculator
            atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()

    return run


def in_batches(model: Path) -> Callable[[list[Frame]], None]:
    labeler = make_labeler(LabelSection(type="deepmd", options={"model": str(model)}), None)
    return lambda given: labeler.label_batch(given, {}, 3600.0)


def compare(ways: list[Callable], given: list[Frame]) -> list[float]:
    """Seconds of each way, the first calls thrown away."""
    found: list[list[float]] = [[] for _ in ways]
    for turn in range(1 + REPEATS):
        for way, seconds in zip(ways, found, strict=True):
            started = time.perf_counter()
            way(given)
            if turn:
                seconds.append(time.perf_counter() - started)
    return [median(seconds) for seconds in found]


def main() -> None:
    print(f"{'teacher':<10}{'atoms':>6}{'ASE, frames/s':>16}{'batched, frames/s':>20}{'ratio':>8}")
    with tempfile.TemporaryDirectory() as folder:
        for name, descriptor in TEACHERS.items():
            DESCRIPTORS[name] = descriptor
            model = frozen(tiny_checkpoint(Path(folder) / name, descriptor=name), Path(folder) / name)
            ways = [one_by_one(model), in_batches(model)]
            for n_atoms in CELLS:
                given = frames(n_atoms, max(8, 128 // n_atoms))
                slow, fast = (len(given) / seconds for seconds in compare(ways, given))
                print(f"{name:<10}{n_atoms:6d}{slow:16.0f}{fast:20.0f}{fast / slow:8.1f}", flush=True)


if __name__ == "__main__":
    main()
