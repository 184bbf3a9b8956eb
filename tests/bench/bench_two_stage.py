"""Direct forces first, conservative ones after, against conservative ones alone, in equal time.

    python tests/bench/bench_two_stage.py [--molecule CH3CH2OH] [--seconds 60] [--share 0.6] [--seeds 2]
                                          [--engines pet,deepmd] [--dynamics] [--plot two_stage.png]

Models with random weights: a small PET (pip install "pfdhpc[metatrain]") and a small se_e2_a of deepmd-kit. Frames of
one molecule, every atom displaced at random, or with ``--dynamics`` of its dynamics at 500 K; energies and forces by
GFN2-xTB (pip install tblite): a cheap stand-in for first principles. Every training is one call of the trainer, for as
many steps as fit into the time by what a step cost in short trials; the two stages share it. Starts of programs are
told, but left out: long trainings have them once, too. Errors are of conservative forces, on frames that trained
nothing, by epoch. One thread; times are those a core was at work for the training: on a core of its own wall time, and
on a busy machine still a measure. A seed is another model and another order of the frames; the table tells medians.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
from pfdhpc.config.train import ModelSection, TrainSection  # noqa: E402
from pfdhpc.data import Frame, Label, Record  # noqa: E402
from pfdhpc.engines.base import TrainTask  # noqa: E402
from pfdhpc.engines.isolated.spawner import Spawner  # noqa: E402
from pfdhpc.engines.registry import make_trainer  # noqa: E402

N_TRAIN, N_TEST = 500, 100
DISPLACEMENT, MAX_FORCE = 0.12, 40.0
"""Spread of the displacements, Å, and the largest force of a frame, eV/Å."""
PET = {"cutoff": 4.5, "d_pet": 64, "d_head": 64, "d_node": 64, "d_feedforward": 128, "num_heads": 4}
PET |= {"num_attention_layers": 1, "num_gnn_layers": 1}
SE_E2_A = {"type": "se_e2_a", "rcut": 5.0, "rcut_smth": 0.5, "neuron": [16, 32], "axis_neuron": 8}
SE_E2_A |= {"type_one_side": True}
ENGINES = {
    "pet": {"type": "metatrain", "batch_size": 4, "start_lr": 2e-3, "metatrain": {"model": PET}},
    "deepmd": {"type": "deepmd", "batch_size": 4, "start_lr": 2e-3, "stop_lr": 1e-5},
}
STARTS = {"pet": 2, "deepmd": 1}
"""How often two stages start a program."""


@dataclass(frozen=True)
class Costs:
    """Seconds of a start, of a conservative step and of a direct one."""

    start: float
    conservative: float
    direct: float


@dataclass(frozen=True)
class Run:
    """A training: core seconds, starts of programs left out; steps; and the curve of :func:`timed`."""

    spent: float
    steps: int
    curve: np.ndarray


def calculator() -> Any:
    from tblite.ase import TBLite

    return TBLite(method="GFN2-xTB", verbosity=0)


def displaced(molecule: str) -> tuple[Record, ...]:
    """The relaxed molecule, every coordinate moved by a normal deviate, labelled."""
    from ase.build import molecule as build
    from ase.optimize import BFGS

    relaxed, rng, found = build(molecule), np.random.default_rng(1), []
    relaxed.calc = calculator()
    BFGS(relaxed, logfile=None).run(fmax=0.02, steps=200)
    while len(found) < N_TRAIN + N_TEST:
        atoms = relaxed.copy()
        atoms.positions += rng.normal(0, DISPLACEMENT, atoms.positions.shape)
        atoms.calc = calculator()
        if abs(atoms.get_forces()).max() < MAX_FORCE:
            label = Label(atoms.get_potential_energy(), atoms.get_forces())
            found.append(Record(Frame.from_atoms(atoms), label=label))
    return tuple(found)


def dynamics(molecule: str) -> tuple[Record, ...]:
    """Frames of Langevin dynamics, 10 fs apart, labelled."""
    from ase import units
    from ase.build import molecule as build
    from ase.md.langevin import Langevin
    from ase.md.velocitydistribution import thermalize_momenta

    atoms, rng, found = build(molecule), np.random.default_rng(1), []
    atoms.calc = calculator()
    thermalize_momenta(atoms, temperature_K=500, rng=rng)
    motion = Langevin(atoms, 0.5 * units.fs, temperature_K=500, friction=0.02 / units.fs, rng=rng, fixcm=False)
    for number in range(N_TRAIN + N_TEST + 40):
        motion.run(20)
        if number >= 40:
            label = Label(atoms.get_potential_energy(), atoms.get_forces())
            found.append(Record(Frame.from_atoms(atoms), label=label))
    return tuple(found[place] for place in rng.permutation(len(found)))


class Side:
    """One engine on the frames of one molecule."""

    def __init__(self, engine: str, frames: tuple[Record, ...], folder: Path, spawner: Spawner):
        self.engine, self._frames, self._folder, self._spawner = engine, frames, folder, spawner
        self._symbols = sorted({symbol for symbol in frames[0].frame.to_atoms().get_chemical_symbols()})
        self._count = 0

    def _spent(self) -> float:
        """Core seconds of this process and of what the spawner started, s."""
        fields = Path(f"/proc/{self._spawner.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return time.process_time() + (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")

    def train(self, steps: int, share: float | None = None, seed: int = 0) -> tuple[float, list[dict[str, float]]]:
        """Core seconds of a training from random weights, and its curve; ``share`` of the steps direct."""
        stages = {} if share is None else {"stages": ["direct", "conservative"], "direct_share": share}
        section = TrainSection.model_validate({**ENGINES[self.engine], **stages})
        model = ModelSection.model_validate({"type_map": self._symbols})
        trainer = make_trainer(model, section, None, self._spawner)
        self._count += 1
        directory = self._folder / f"{self.engine}-{self._count}"
        directory.mkdir()
        by_id = sorted(self._frames[:N_TRAIN], key=lambda record: record.frame_id)
        student = {"type_map": self._symbols, "descriptor": {**SE_E2_A, "sel": self._neighbours(), "seed": seed + 1}}
        student["fitting_net"] = {"neuron": [64, 64, 64], "seed": seed + 1}
        task = TrainTask(
            round=0, parent=None, first=True, old=(), new=tuple(by_id), validation=self._frames[N_TRAIN:],
            steps=steps, seed=seed + 7, directory=directory, model=None if self.engine == "pet" else student,
        )  # fmt: skip
        begun = self._spent()
        result = trainer.train(task)
        return self._spent() - begun, list(result.curve)

    def costs(self) -> Costs:
        """From three short trainings of whole epochs, after one that loads what stays loaded."""
        epoch = -(-N_TRAIN // ENGINES[self.engine]["batch_size"])
        few, many = epoch, 3 * epoch
        self.train(20, 0.5)
        short, long = self.train(few)[0], self.train(many)[0]
        conservative = max(1e-4, (long - short) / (many - few))
        start = max(0.0, short - few * conservative)
        mixed = self.train(many, (many - few) / many)[0]
        direct = (mixed - STARTS[self.engine] * start - few * conservative) / (many - few)
        return Costs(start, conservative, max(1e-4, direct))

    def steps(self, seconds: float, cost: float) -> int:
        """How many fit into a time; of PET in whole epochs, as metatrain ends no training within one."""
        epoch = -(-N_TRAIN // ENGINES[self.engine]["batch_size"]) if self.engine == "pet" else 1
        return max(1, round(seconds / cost / epoch)) * epoch

    def _neighbours(self) -> list[int]:
        symbols = self._frames[0].frame.to_atoms().get_chemical_symbols()
        return [max(1, symbols.count(symbol)) for symbol in self._symbols]


def timed(curve: list[dict[str, float]], n_direct: int, costs: Costs) -> np.ndarray:
    """(time, error of conservative forces, of direct ones) by epoch, eV/Å; NaN where a stage tells of none."""
    steps, errors, direct = (
        np.array([row.get(key, np.nan) for row in curve]) for key in ("step", "rmse_f_val", "rmse_d_val")
    )
    only_direct = np.isnan(errors) & ~np.isnan(direct)
    n_direct = max([n_direct, *steps[only_direct]])  # a stage of PET ends with its epoch
    spent = costs.direct * np.minimum(steps, n_direct) + costs.conservative * np.maximum(0, steps - n_direct)
    return np.array([spent, errors, np.where(only_direct, direct, np.nan)])


def compare(side: Side, costs: Costs, budget: float, share: float, seed: int) -> dict[str, Run]:
    """Conservative forces alone and two stages, of which the first has ``share`` of the core seconds ``budget``."""
    n_direct = side.steps(share * budget, costs.direct)
    n_after = side.steps(budget - n_direct * costs.direct, costs.conservative)
    found = {}
    for name, first, after in (
        ("conservative alone", 0, side.steps(budget, costs.conservative)),
        ("two stages", n_direct, n_after),
    ):
        total, curve = side.train(first + after, first / (first + after) if first else None, seed)
        starts = costs.start * (STARTS[side.engine] if first else 1)
        found[name] = run = Run(total - starts, int(curve[-1]["step"]), timed(curve, first, costs))
        print(
            f"  seed {seed}, {name}: {run.steps} steps, {first} of them direct, {run.spent:.0f} s and {starts:.0f} s of"
            f" starts, {run.curve[1][-1]:.3f} eV/Å", flush=True,
        )  # fmt: skip
    return found


def draw(results: dict[str, list[dict[str, Run]]], molecule: str, path: Path) -> None:
    """The curves of all seeds, a panel for each engine."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(results), figsize=(4.5 * len(results), 3.4), squeeze=False)
    for axis, (engine, seeds) in zip(axes[0], results.items(), strict=True):
        for number, ways in enumerate(seeds):
            for colour, (name, run) in enumerate(ways.items()):
                label = None if number else name
                axis.semilogy(*run.curve[:2], color=f"C{colour}", marker="o", markersize=3, label=label)
                if not np.isnan(run.curve[2]).all():
                    label = None if number else "direct forces, first stage"
                    axis.semilogy(*run.curve[::2], color=f"C{colour}", linestyle=":", label=label)
        axis.set(title=f"{engine}, {molecule}", xlabel="time, core seconds", ylabel="force RMSE, eV/Å")
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("{x:g}")
        axis.legend(fontsize="small", loc="upper right")
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def table(results: dict[str, list[dict[str, Run]]]) -> None:
    """Medians over the seeds, and the errors of every one."""
    print("| model | training | steps | core seconds of them | force RMSE, eV/Å | of the seeds |")
    print("|---|---|---:|---:|---:|---|")
    for engine, seeds in results.items():
        for name in seeds[0]:
            runs = [ways[name] for ways in seeds]
            errors = [run.curve[1][-1] for run in runs]
            print(
                f"| {engine} | {name} | {runs[0].steps} | {np.median([run.spent for run in runs]):.0f} |"
                f" {np.median(errors):.3f} | {', '.join(f'{error:.3f}' for error in errors)} |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--molecule", default="CH3CH2OH", help="of ASE's collection (ase.build.molecule)")
    parser.add_argument("--dynamics", action="store_true", help="frames of dynamics at 500 K")
    parser.add_argument("--seconds", type=float, default=60.0, help="of the steps of each training")
    parser.add_argument("--share", type=float, default=0.6, help="of the direct stage in these seconds")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--engines", default="pet,deepmd")
    parser.add_argument("--plot", type=Path, default=Path("two_stage.png"))
    options = parser.parse_args()
    folder, results = Path(tempfile.mkdtemp(prefix="two-stage-")), {}
    with Spawner() as spawner:
        frames = (dynamics if options.dynamics else displaced)(options.molecule)
        spread = np.concatenate([record.label.forces.ravel() for record in frames]).std()
        print(f"{options.molecule}: {N_TRAIN} frames, {N_TEST} to test on; forces spread by {spread:.2f} eV/Å")
        for engine in options.engines.split(","):
            side = Side(engine, frames, folder, spawner)
            costs = side.costs()
            print(
                f"{engine}: start {costs.start:.1f} s, conservative step {1000 * costs.conservative:.1f} ms,"
                f" direct step {1000 * costs.direct:.1f} ms ({costs.conservative / costs.direct:.1f} times less)",
                flush=True,
            )
            results[engine] = [
                compare(side, costs, options.seconds, options.share, seed) for seed in range(options.seeds)
            ]
    shutil.rmtree(folder)
    table(results)
    draw(results, options.molecule, options.plot)


if __name__ == "__main__":
    main()
