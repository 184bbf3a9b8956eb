"""Direct forces first, conservative ones after, against conservative ones alone, in equal time.

    python tests/bench/bench_two_stage.py [--molecule H2O] [--seconds 90] [--engines pet,deepmd] [--plot two_stage.png]

Models with random weights: a small PET (pip install "pfdhpc[metatrain]") and a small se_e2_a of deepmd-kit. Frames of
one molecule's dynamics at 500 K, energies and forces by GFN2-xTB (pip install tblite): a cheap stand-in for first
principles. Every training is one call of the trainer, for as many steps as fit into the time by what a step cost in
short trials; the two stages have half of it each. Starts of programs are told, but left out: long trainings have them
once, too. Errors are of conservative forces, on frames that trained nothing, by epoch. One thread; times are those a
core was at work for the training: on a core of its own wall time, and on a busy machine still a measure.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
from pfdhpc.config.train import ModelSection, TrainSection  # noqa: E402
from pfdhpc.data import Frame, Label, Record  # noqa: E402
from pfdhpc.engines.base import TrainTask  # noqa: E402
from pfdhpc.engines.isolated.spawner import Spawner  # noqa: E402
from pfdhpc.engines.registry import make_trainer  # noqa: E402

N_TRAIN, N_TEST = 260, 60
PET = {"cutoff": 4.5, "d_pet": 32, "d_head": 32, "d_node": 32, "d_feedforward": 64, "num_heads": 4}
PET |= {"num_attention_layers": 1, "num_gnn_layers": 1}
SE_E2_A = {"type": "se_e2_a", "rcut": 5.0, "rcut_smth": 0.5, "neuron": [16, 32], "axis_neuron": 8}
SE_E2_A |= {"type_one_side": True, "seed": 1}
ENGINES = {
    "pet": {"type": "metatrain", "batch_size": 16, "start_lr": 2e-3, "metatrain": {"model": PET}},
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


def records(molecule: str) -> tuple[Record, ...]:
    """Frames of Langevin dynamics, 10 fs apart, labelled."""
    from ase import units
    from ase.build import molecule as build
    from ase.md.langevin import Langevin
    from ase.md.velocitydistribution import thermalize_momenta
    from tblite.ase import TBLite

    atoms, rng, found = build(molecule), np.random.default_rng(1), []
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
    thermalize_momenta(atoms, temperature_K=500, rng=rng)
    dynamics = Langevin(atoms, 0.5 * units.fs, temperature_K=500, friction=0.02 / units.fs, rng=rng, fixcm=False)
    for number in range(N_TRAIN + N_TEST + 40):
        dynamics.run(20)
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

    def train(self, steps: int, share: float | None = None) -> tuple[float, list[dict[str, float]]]:
        """Core seconds of a training from random weights, and its curve; ``share`` of the steps direct."""
        stages = {} if share is None else {"stages": ["direct", "conservative"], "direct_share": share}
        section = TrainSection.model_validate({**ENGINES[self.engine], **stages})
        model = ModelSection.model_validate({"type_map": self._symbols})
        trainer = make_trainer(model, section, None, self._spawner)
        self._count += 1
        directory = self._folder / f"{self.engine}-{self._count}"
        directory.mkdir()
        by_id = sorted(self._frames[:N_TRAIN], key=lambda record: record.frame_id)
        student = {"type_map": self._symbols, "descriptor": {**SE_E2_A, "sel": self._neighbours()}}
        student["fitting_net"] = {"neuron": [64, 64, 64], "seed": 1}
        task = TrainTask(
            round=0, parent=None, first=True, old=(), new=tuple(by_id), validation=self._frames[N_TRAIN:],
            steps=steps, seed=7, directory=directory, model=None if self.engine == "pet" else student,
        )  # fmt: skip
        begun = self._spent()
        result = trainer.train(task)
        return self._spent() - begun, list(result.curve)

    def costs(self) -> Costs:
        """From three short trainings, after one that loads what stays loaded."""
        few, many = 60, 260
        self.train(20, 0.5)
        short, long = self.train(few)[0], self.train(many)[0]
        conservative = max(1e-4, (long - short) / (many - few))
        start = max(0.0, short - few * conservative)
        mixed = self.train(many, (many - few) / many)[0]
        direct = (mixed - STARTS[self.engine] * start - few * conservative) / (many - few)
        return Costs(start, conservative, max(1e-4, direct))

    def _neighbours(self) -> list[int]:
        symbols = self._frames[0].frame.to_atoms().get_chemical_symbols()
        return [max(1, symbols.count(symbol)) for symbol in self._symbols]


def timed(curve: list[dict[str, float]], n_direct: int, costs: Costs) -> np.ndarray:
    """(time, conservative force error) of a curve; NaN where an epoch tells of none."""
    steps = np.array([row["step"] for row in curve])
    spent = costs.direct * np.minimum(steps, n_direct) + costs.conservative * np.maximum(0, steps - n_direct)
    return np.array([spent, [row.get("rmse_f_val", np.nan) for row in curve]])


def compare(side: Side, costs: Costs, budget: float) -> dict[str, tuple[float, int, np.ndarray]]:
    """Seconds (starts and all), steps and the timed curve of both ways."""
    alone, n_after = round(budget / costs.conservative), round(budget / 2 / costs.conservative)
    n_direct = round(budget / 2 / costs.direct)
    print(
        f"{side.engine}: start {costs.start:.1f} s, conservative step {1000 * costs.conservative:.1f} ms,"
        f" direct step {1000 * costs.direct:.1f} ms ({costs.conservative / costs.direct:.1f} times less)", flush=True,
    )  # fmt: skip
    seconds, curve = side.train(alone)
    found = {"conservative alone": (seconds, alone, timed(curve, 0, costs))}
    seconds, curve = side.train(n_direct + n_after, n_direct / (n_direct + n_after))
    found["two stages"] = seconds, n_direct + n_after, timed(curve, n_direct, costs)
    return found


def draw(results: dict[str, dict], molecule: str, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(results), figsize=(4.5 * len(results), 3.4), squeeze=False)
    for axis, (engine, ways) in zip(axes[0], results.items(), strict=True):
        for name, (_, _, curve) in ways.items():
            axis.semilogy(*curve, marker="o", markersize=3, label=name)
        axis.set(title=f"{engine}, {molecule}", xlabel="time, core seconds", ylabel="force RMSE, eV/Å")
        axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--molecule", default="H2O", help="of ASE's collection (ase.build.molecule)")
    parser.add_argument("--seconds", type=float, default=90.0, help="of the steps of each training")
    parser.add_argument("--engines", default="pet,deepmd")
    parser.add_argument("--plot", type=Path, default=Path("two_stage.png"))
    options = parser.parse_args()
    folder, results = Path(tempfile.mkdtemp(prefix="two-stage-")), {}
    with Spawner() as spawner:
        frames = records(options.molecule)
        spread = np.concatenate([record.label.forces.ravel() for record in frames]).std()
        print(f"{options.molecule}: {N_TRAIN} frames, {N_TEST} to test on; forces spread by {spread:.2f} eV/Å")
        for engine in options.engines.split(","):
            side = Side(engine, frames, folder, spawner)
            results[engine] = compare(side, side.costs(), options.seconds)
    shutil.rmtree(folder)
    print("| engine | training | steps | core seconds, starts included | force RMSE, eV/Å |\n|---|---|---:|---:|---:|")
    for engine, ways in results.items():
        for name, (seconds, steps, curve) in ways.items():
            print(f"| {engine} | {name} | {steps} | {seconds:.0f} | {curve[1][-1]:.3f} |")
    draw(results, options.molecule, options.plot)


if __name__ == "__main__":
    main()
