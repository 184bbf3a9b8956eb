"""Overlapped running against lock-step: time to a target force error, labels used, and how busy each role is.

    python tests/bench/bench_overlap.py [--cv 0 0.3 1] [--staleness 0 1 2 inf] [--seeds 5] [--seconds 4] [--ranks 8]

Real LAMMPS, training and selection on oversubscribed ranks: copper, a small DPA-3, labels by EMT that take as long as a
DFT label might: lognormal with the mean ``--seconds`` and the coefficient of variation ``--cv``. At a CV of 1 there are
faults too: 5 % of the labels fail and 2 % hang until their time-out. Time is from the first order to the moment the
criterion (``--target`` eV/Å, on labels of frames the tested model explored) holds. Prints medians over the seeds and
the ratios to lock-step.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))
from e2e.jobs import PRETRAINED  # noqa: E402

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
[ranks]
explorer.teams = {explorers}
[model]
checkpoint = "{model}"
branch = "MPtrj_PBE"
[[system]]
name = "Cu"
structures = ["cu.vasp"]
perturb = {{ count = 4, strain = 0.03, displacement = 0.1 }}
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
force_rmse = {target}
min_frames = 4
max_rounds = 30
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cv", type=float, nargs="+", default=[0.0, 0.3, 1.0])
    parser.add_argument("--staleness", nargs="+", default=["0", "1", "2", "inf"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--ranks", type=int, default=8)
    parser.add_argument("--target", type=float, default=0.03)
    parser.add_argument("--picks", type=int, default=8)
    options = parser.parse_args()
    print(f"{'CV':>4} {'staleness':>9} {'seconds':>8} {'ratio':>6} {'labels':>7} {'ratio':>6} "
          f"{'labeler':>8} {'explorer':>9} {'trainer':>8} {'models':>7} {'reached':>8}")  # fmt: skip
    for cv in options.cv:
        before = None
        for staleness in options.staleness:
            found = [measure(options, cv, staleness, seed) for seed in range(options.seeds)]
            row = {key: median(item[key] for item in found) for key in found[0]}
            before = before or row
            print(f"{cv:4.1f} {staleness:>9} {row['seconds']:8.0f} {row['seconds'] / before['seconds']:6.2f} "
                  f"{row['labels']:7.0f} {row['labels'] / before['labels']:6.2f} {row['labeler']:8.0%} "
                  f"{row['explorer']:9.0%} {row['trainer']:8.0%} {row['models']:7.0f} "
                  f"{sum(item['reached'] for item in found):5.0f}/{len(found)}", flush=True)  # fmt: skip


def measure(options: argparse.Namespace, cv: float, staleness: str, seed: int) -> dict[str, float]:
    from ase.build import bulk
    from ase.io import write

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "slow.py").write_text(CALCULATOR)
        write(folder / "cu.vasp", bulk("Cu", cubic=True), format="vasp")
        text = INPUT.format(
            seed=seed, explorers=1, model=PRETRAINED, picks=options.picks, folder=folder, target=options.target,
            timeout=10 * options.seconds,
            arguments=f"{{ mean = {options.seconds}, cv = {cv}, faults = {str(cv >= 1).lower()}, seed = {seed} }}",
        )  # fmt: skip
        text += f"[overlap]\nstaleness = {json.dumps(int(staleness) if staleness.isdigit() else staleness)}\n"
        (folder / "input.toml").write_text(text)
        program = [sys.executable, "-m", "mpi4py", "-m", "pfdhpc", "run", "input.toml"]
        command = ["mpiexec", "-n", str(options.ranks), *program]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stdout + done.stderr)
        return figures(folder / "run", options.target)


def figures(run: Path, target: float) -> dict[str, float]:
    """Of a finished run: when the target was reached, what it took, and shares of that time."""
    from pfdhpc.parallel.ledger import read_tracks

    results = json.loads((run / "final" / "results.json").read_text())
    tracks = read_tracks(run / "ledger")
    work = [(start, start + length, state) for track in tracks if track.role != "coordinator"
            for start, length, state in zip(track.starts, track.lengths, track.states, strict=True)]  # fmt: skip
    begin = min(start for start, _, state in work if state == "import")
    errors = [(item["judged_at"], item["errors"]["total"]["force"]) for item in results["rounds"] if item["errors"]]
    seconds = min((at for at, error in errors if error <= target), default=errors[-1][0])
    last = begin + seconds
    shares = {}
    for role in ("labeler", "explorer", "trainer"):
        mine = [track for track in tracks if track.role == role]
        busy = sum(
            min(start + length, last) - max(start, begin)
            for track in mine
            for start, length, state in zip(track.starts, track.lengths, track.states, strict=True)
            if state.split()[0] not in ("wait", "start", "talk") and start + length > begin and start < last
        )
        shares[role] = busy / (last - begin) / len(mine)
    found = {"seconds": seconds, "labels": results["labels"], "reached": results["ended"] == "converged"}
    return {**found, "models": len(results["rounds"]), **shares}


if __name__ == "__main__":
    main()
