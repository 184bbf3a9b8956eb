"""Overlapped running against lock-step: time to a target force error, labels used, and how busy each role is.

    python tests/bench/bench_overlap.py [--cv 0 0.3 1] [--staleness 0 1 2 inf] [--seeds 5] [--seconds 5] [--ranks 8]

Real LAMMPS, training and selection on oversubscribed ranks: copper, aluminium and ordered AgAu, a small DPA-3, labels
by EMT that take as long as a DFT label might: lognormal with the mean ``--seconds`` and the coefficient of variation
``--cv``. At a CV of 1 there are faults too: 5 % of the labels fail and 2 % hang until their time-out, ten times the
mean. Every model a run publishes is tested on the same hot frames, which no run has seen; the run's time is from the
first order to the moment the first model with a force RMSE of ``--target`` eV/Å was there. Then it is stopped, and with
``--labels`` labels at the latest. Prints each run, and in the end medians over the seeds with the ratios to lock-step.
Shares of the time at work are those of each role, and of the labelers from the first model on, in the steady state.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import write
from ase.md.langevin import Langevin
from ase.units import fs

from pfdhpc.data import Frame
from pfdhpc.parallel.ledger import Track, read_tracks
from pfdhpc.report.timeline import utilization

sys.path.insert(0, str(Path(__file__).parents[1]))
from e2e.jobs import PRETRAINED, Job  # noqa: E402

CALCULATOR = '''
import hashlib, math, random, time
from ase.calculators.emt import EMT

class Slow(EMT):
    """EMT, as slow and as unreliable as DFT; what happens to a frame depends on the frame and the seed alone."""

    def __init__(self, mean, cv, faults, seed):
        super().__init__()
        self.mean, self.cv, self.faults, self.seed = mean, cv, faults, seed

    def calculate(self, atoms=None, *args, **more):
        rng = random.Random(hashlib.sha256(atoms.positions.tobytes() + bytes([self.seed])).digest())
        fate = rng.random()
        spread = math.sqrt(math.log(1 + self.cv**2))
        time.sleep(1e4 if self.faults and fate < 0.02 else self.mean * rng.lognormvariate(-spread**2 / 2, spread))
        if self.faults and fate > 0.95:
            raise RuntimeError("SCF not converged")
        super().calculate(atoms, *args, **more)
'''

INPUT = """
workflow = "finetune"
seed = {seed}
[run]
directory = "run"
grace = 1.0
[ranks]
explorer.teams = 1
[model]
checkpoint = "{model}"
branch = "MPtrj_PBE"
{systems}
[init]
frames = 6
[explore]
ensemble = "nvt"
steps = 40
interval = 5
temperatures = [900.0]
[select]
max_sel = {picks}
min_gain = -100.0
[label]
type = "ase"
timeout = {timeout}
options = {{ calculator = "slow.Slow", path = "{folder}", arguments = {arguments} }}
[train]
first_steps = 60
steps = 60
batch_size = 1
best = false
[test]
holdout = 0.1
validation = 0.0
[converge]
max_labels = {labels}
max_rounds = 100
"""

NOT_AT_WORK = ("start", "import", "wait", "talk")
"""States of the ledger."""

SYSTEM = """[[system]]
name = "{name}"
structures = ["{name}.vasp"]
perturb = {{ count = 2, strain = 0.03, displacement = 0.1 }}
"""

HEADS = "  CV staleness  seconds  labels  labeler  steady  explorer  trainer  models"

METALS = {
    "Cu": bulk("Cu", cubic=True),
    "Al": bulk("Al", cubic=True),
    "AgAu": Atoms("Ag2Au2", scaled_positions=[(0, 0, 0), (0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5)], cell=[4.1] * 3,
                  pbc=True),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cv", type=float, nargs="+", default=[0.0, 0.3, 1.0])
    parser.add_argument("--staleness", nargs="+", default=["0", "1", "2", "inf"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--ranks", type=int, default=8)
    parser.add_argument("--target", type=float, default=0.07)
    parser.add_argument("--labels", type=int, default=70)
    parser.add_argument("--picks", type=int, default=8)
    options = parser.parse_args()
    cases = [(cv, staleness) for cv in options.cv for staleness in options.staleness]
    found: dict[tuple[float, str], list[dict]] = {case: [] for case in cases}
    print(HEADS)
    for seed in range(options.seeds):
        for case in cases:
            found[case].append(measure(options, *case, seed))
            print(f"{_row(*case, found[case][-1])} seed {seed}", flush=True)
    print(f"\nMedians, and ratios to the first staleness\n{HEADS} {'ratio':>6} {'labels':>7} {'reached':>8}")
    for cv in options.cv:
        first = None
        for staleness in options.staleness:
            runs = found[cv, staleness]
            row = {key: median(run[key] for run in runs) for key in runs[0]}
            first = first or row
            ratios = f"{row['seconds'] / first['seconds']:6.2f} {row['labels'] / first['labels']:7.2f}"
            print(f"{_row(cv, staleness, row)} {ratios} {sum(run['reached'] for run in runs):6.0f}/{len(runs)}")


def _row(cv: float, staleness: str, run: dict[str, float]) -> str:
    return (
        f"{cv:4.1f} {staleness:>9} {run['seconds']:8.0f} {run['labels']:7.0f} {run['labeler']:8.0%} "
        f"{run['steady']:7.0%} {run['explorer']:9.0%} {run['trainer']:8.0%} {run['models']:7.0f}"
    )


def measure(options: argparse.Namespace, cv: float, staleness: str, seed: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "slow.py").write_text(CALCULATOR)
        for metal, atoms in METALS.items():
            write(folder / f"{metal}.vasp", atoms, format="vasp")
        text = INPUT.format(
            seed=seed, model=PRETRAINED, picks=options.picks, folder=folder, labels=options.labels,
            timeout=10 * options.seconds, systems="".join(SYSTEM.format(name=metal) for metal in METALS),
            arguments=f"{{ mean = {options.seconds}, cv = {cv}, faults = {str(cv >= 1).lower()}, seed = {seed} }}",
        )  # fmt: skip
        text += f"[overlap]\nstaleness = {json.dumps(int(staleness) if staleness.isdigit() else staleness)}\n"
        (folder / "input.toml").write_text(text)
        job = Job(folder / "input.toml", options.ranks)
        curve = learning_curve(job, folder / "run", options.target)
        return figures(folder / "run", curve, options.target)


def figures(run: Path, curve: list[tuple[float, float]], target: float) -> dict[str, float]:
    """Of a finished run: when the target was reached, what it took, and shares of that time."""
    tracks = read_tracks(run / "ledger")
    workers = [track for track in tracks if track.role != "coordinator"]
    begin = min(at for track in workers for at, state in zip(track.starts, track.states, strict=True)
                if state.split()[0] not in NOT_AT_WORK)  # fmt: skip
    last, error = curve[-1]
    worked = utilization([within(track, begin, last) for track in workers])
    since = curve[0][0] if len(curve) > 1 else begin
    steady = utilization([within(track, since, last) for track in workers if track.role == "labeler"])
    ends = [at for track in workers for at, state in zip(track.starts + track.lengths, track.states, strict=True)
            if state == "label"]  # fmt: skip
    shares = {role: shares["busy"] for role, shares in worked.items()} | {"steady": steady["labeler"]["busy"]}
    labels = sum(int(at <= last) for at in ends)
    return {"seconds": last - begin, "labels": labels, "models": len(curve), "reached": error <= target, **shares}


def within(track: Track, begin: float, end: float) -> Track:
    """What a rank did in a span of time."""
    starts, stops = np.maximum(track.starts, begin), np.minimum(track.starts + track.lengths, end)
    return replace(track, starts=starts, lengths=np.maximum(stops - starts, 0.0))


def learning_curve(job: Job, run: Path, target: float) -> list[tuple[float, float]]:
    """When each model was published (seconds since the epoch), and its force RMSE (eV/Å) on frames of hot dynamics.

    The last is the first that reached the target, which ends the job, or the last one the job made. What tests the
    models gets only the time of a core that nobody else wants.
    """
    curve, tested = [], set()
    with ProcessPoolExecutor(1, get_context("spawn"), os.nice, (19,)) as tester:
        going = True
        while going:
            going = job.process.poll() is None
            for path in sorted(set((run / "models").glob("*.pth")) - tested, key=lambda path: path.stat().st_mtime):
                tested.add(path)
                curve.append((path.stat().st_mtime, tester.submit(force_rmse, path).result()))
                if curve[-1][1] <= target:
                    (run / "STOP").touch()
                    assert job.wait() in (0, 3), job.text()
                    return curve
            time.sleep(0.2)
    assert job.wait() == 0, job.text()
    return curve


def force_rmse(path: Path) -> float:
    """Of a model on the hot frames, eV/Å."""
    from pfdhpc.engines.deepmd_inference import Predictor

    frames = hot_frames()
    labels = Predictor(path)([Frame.from_atoms(atoms) for atoms in frames])
    differences = [label.forces - atoms.get_forces() for label, atoms in zip(labels, frames, strict=True)]
    return float(np.sqrt((np.concatenate(differences) ** 2).mean()))


@cache
def hot_frames() -> list[Atoms]:
    """Frames of Langevin dynamics at 900 K by EMT, 12 of each metal, 50 fs apart."""
    frames = []
    for metal in METALS.values():
        atoms = metal.copy()
        atoms.calc = EMT()
        rng = np.random.default_rng(7)
        dynamics = Langevin(atoms, 5 * fs, temperature_K=900, friction=0.01 / fs, fixcm=False, rng=rng)
        for _ in range(12):
            dynamics.run(10)
            frame = atoms.copy()
            frame.calc = EMT()
            frames.append(frame)
    return frames


if __name__ == "__main__":
    main()
