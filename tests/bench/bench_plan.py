"""What ``pfdhpc plan --measured`` predicts against what real runs take.

    python tests/bench/bench_plan.py [--ranks 4 5 6] [--staleness 0 1] [--seconds 1.0] [--cv 0.5] [--rounds 3]

Real runs under mpiexec: LAMMPS, training and selection of copper with a small DPA-3, labels by EMT that sleep,
lognormal. Each is played through on the ranks it ran on with the task times it measured itself ("own"), and with those
of the first run of its staleness ("first": what a user has who plans a run on other ranks). Seconds are from the moment
all teams have started to the last evaluation; ``start`` and ``end`` are what the job took before and after.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
from bench_overlap import CALCULATOR  # noqa: E402
from e2e.jobs import PRETRAINED, finish, results_of  # noqa: E402

INPUT = """
workflow = "finetune"
seed = 3
[run]
directory = "run"
[ranks]
explorer.teams = 1
[model]
checkpoint = "{model}"
branch = "MPtrj_PBE"
[[system]]
name = "Cu"
structures = ["cu.vasp"]
perturb = {{ count = 2, strain = 0.03, displacement = 0.1 }}
[init]
frames = 6
[explore]
ensemble = "nvt"
steps = 40
interval = 5
temperatures = [500.0]
[select]
max_sel = 6
min_gain = -100.0
[label]
type = "ase"
options = {{ calculator = "slow.Slow", path = "{folder}", arguments = {{ mean = {mean}, cv = {cv}, faults = false, seed = 1 }} }}
[train]
first_steps = 40
steps = 40
batch_size = 1
best = false
[test]
holdout = 0.2
validation = 0.0
[converge]
force_rmse = 1e-6
max_rounds = {rounds}
[overlap]
staleness = {staleness}
"""  # noqa: E501


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--ranks", type=int, nargs="+", default=[4, 5, 6])
    parser.add_argument("--staleness", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--cv", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(f"{'ranks':>5} {'staleness':>9} {'seconds':>8} {'own':>7} {'ratio':>6} {'first':>7} {'ratio':>6} "
          f"{'labels':>7} {'foreseen':>8} {'start':>6} {'end':>5}")  # fmt: skip
    for staleness in options.staleness:
        first = None
        for ranks in options.ranks:
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                config, wall = real(options, folder, ranks, staleness)
                run = folder / "run"
                first = first or measured(run)
                seconds, labels, start = figures(run)
                own, foreseen = predicted(config, measured(run), ranks)
                other, _ = predicted(config, first, ranks)
                print(f"{ranks:5d} {staleness:9d} {seconds:8.1f} {own:7.1f} {own / seconds:6.2f} {other:7.1f} "
                      f"{other / seconds:6.2f} {labels:7d} {foreseen:8d} {start:6.1f} "
                      f"{wall - start - seconds:5.1f}", flush=True)  # fmt: skip


def real(options: argparse.Namespace, folder: Path, ranks: int, staleness: int):
    """Run one; its configuration and the seconds it took from the command to its end."""
    from ase.build import bulk
    from ase.io import write

    from pfdhpc.config import load

    (folder / "slow.py").write_text(CALCULATOR)
    write(folder / "cu.vasp", bulk("Cu", cubic=True), format="vasp")
    values = {"model": PRETRAINED, "folder": folder, "mean": options.seconds, "cv": options.cv}
    text = INPUT.format(rounds=options.rounds, staleness=staleness, **values)
    (folder / "input.toml").write_text(text)
    started = time.monotonic()
    finish(folder / "input.toml", ranks, seconds=3600)
    return load(folder / "input.toml"), time.monotonic() - started


def measured(run: Path):
    """The state a run ended with."""
    from pfdhpc.cli.plan_measured import measured_in

    return measured_in(run)


def figures(run: Path) -> tuple[float, int, float]:
    """Of a finished run: seconds from the moment all teams had started to the end of the evaluation, labels, and the
    seconds before that moment."""
    from pfdhpc.parallel.ledger import read_tracks

    tracks = read_tracks(run / "ledger")
    ended = max(
        begin + length
        for track in tracks
        for begin, length, state in zip(track.starts, track.lengths, track.states, strict=True)
        if state == "evaluate"
    )
    coordinator = tracks[0]
    ready = next(begin for begin, state in zip(coordinator.starts, coordinator.states, strict=True) if state != "start")
    labels = results_of(run)["labels"]
    return ended - ready, labels, ready - coordinator.starts[0]


def predicted(config, state, ranks: int) -> tuple[float, int]:
    """Seconds and labels, the median over draws of the task times."""
    from pfdhpc.cli.plan_measured import DRAWS, to_play
    from pfdhpc.parallel.layout import plan_layout
    from pfdhpc.workflow.simulate_run import simulate

    config, start, picks = to_play(config, state)
    found = [simulate(config, start, plan_layout(config.ranks, ranks), seed, picks) for seed in range(DRAWS)]
    return median(item.seconds for item in found), round(median(item.labels for item in found))


if __name__ == "__main__":
    main()
