"""What picks are worth to a model: force errors after training on as many frames chosen in different ways.

    python tests/bench/bench_quality.py [--frames 30] [--steps 1500] [--seeds 3]

A pool as molecular dynamics makes it, much of the same and little that is new: copper, aluminium and CuAl
cells of 32 atoms, most of them cool copper, labelled by EMT. Each method picks as many frames from it, a small
model is trained on them from scratch with the same steps and seeds, and tested on frames in which all parts of
the pool have equal shares. Prints the force RMSE over all of them and in the worst part, medians over seeds.
"""

import argparse
import os

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))

import tempfile
from pathlib import Path
from statistics import median

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

from pfdhpc import select_frames
from pfdhpc.config.student import StudentSection
from pfdhpc.config.train import ModelSection, TrainSection
from pfdhpc.data import Frame, Label, Record
from pfdhpc.engines.base import TrainTask
from pfdhpc.engines.train.deepmd.student_model import student_model
from pfdhpc.engines.train.deepmd.trainer import DeepmdTrainer

DESCRIPTOR = {"type": "se_e2_a", "rcut": 5.0, "rcut_smth": 0.5, "sel": "auto", "neuron": [8, 16], "axis_neuron": 4}
SECTION = {"descriptor": {**DESCRIPTOR, "type_one_side": True}, "fitting_net": {"neuron": [32, 32]}}
CELLS = {
    "Cu": bulk("Cu", cubic=True).repeat(2),
    "Al": bulk("Al", cubic=True).repeat(2),
    "CuAl": bulk("CuAl", "cesiumchloride", a=2.95).repeat((4, 2, 2)),
}
PARTS = [(name, rattle) for name in CELLS for rattle in (0.05, 0.25)]
SHARES = (0.7, 0.06, 0.06, 0.06, 0.06, 0.06)
"""Of the pool, in the order of the parts: it is mostly cool copper."""


def cell(part: tuple[str, float], rng: np.random.Generator) -> Atoms:
    name, rattle = part
    atoms = CELLS[name].copy()
    atoms.set_cell(atoms.cell * (1 + rng.uniform(-0.03, 0.03)), scale_atoms=True)
    atoms.rattle(rattle, rng=rng)
    return atoms


def labelled(atoms: Atoms) -> Record:
    atoms = atoms.copy()
    atoms.calc = EMT()
    virial = -atoms.get_stress(voigt=False) * atoms.get_volume()
    return Record(Frame.from_atoms(atoms), label=Label(atoms.get_potential_energy(), atoms.get_forces(), virial))


def errors(records: list[Record], tests: list[list[Record]], steps: int, seed: int) -> list[float]:
    """Force RMSE (eV/Å) in each part of the test frames, of a model trained on the records."""
    data = tuple(sorted(records, key=lambda record: record.frame_id))
    model = student_model(StudentSection.model_validate({"model": SECTION}), ("Cu", "Al"))
    with tempfile.TemporaryDirectory() as folder:
        trainer = DeepmdTrainer(ModelSection.model_construct(), TrainSection(start_lr=5e-3))
        task = TrainTask(0, None, True, (), data, (), steps, seed, Path(folder), model)
        checkpoint = trainer.train(task).checkpoint
        found = []
        for some in tests:
            labels = trainer.predict(checkpoint, [record.frame for record in some])
            differences = [label.forces - record.label.forces for label, record in zip(labels, some, strict=True)]
            found.append(float(np.sqrt(np.mean(np.square(differences)))))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=30, help="picks of each method")
    parser.add_argument("--steps", type=int, default=1500, help="steps of each training")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    pool = [cell(PARTS[index], rng) for index in rng.choice(len(PARTS), 300, p=SHARES)]
    tests = [[labelled(cell(part, rng)) for _ in range(15)] for part in PARTS]
    known = [cell(PARTS[0], rng) for _ in range(2)]
    print(f"{len(pool)} frames, {options.frames} picked, {options.steps} steps; force RMSE in eV/Å", flush=True)
    print(f"{'method':<10}{'all parts':>12}{'worst part':>12}")
    for method in ("greedy", "pfd", "random"):
        rows = []
        for seed in range(options.seeds):
            chosen = select_frames(pool, known, options.frames, method=method, seed=seed).indices
            records = [labelled(atoms) for atoms in (*known, *(pool[index] for index in chosen[: options.frames]))]
            rows.append(errors(records, tests, options.steps, seed))
        total = median(float(np.sqrt(np.mean(np.square(row)))) for row in rows)
        print(f"{method:<10}{total:>12.3f}{median(map(max, rows)):>12.3f}", flush=True)


if __name__ == "__main__":
    main()
