"""What a lost rank costs: SIGKILL at random instants, again and again, in real runs on 4 ranks.

    python tests/bench/bench_faults.py [--kills 30] [--seed 1] [--kinds coordinator writer ...]

For each kind one run (copper, EMT labels of 0.3 s) is started and killed as often as asked for, then brought to its
end. Prints a table: labels on disk at the kills and lost, labels stored twice; seconds from the start after a kill
to the first order (without the imports of the teams) and to the first new label (everything included), median and
largest. Ends with 1 if a label was lost or doubled, or the store is damaged.
"""

import argparse
import math
import sys
import tempfile
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))
from faults.kills import RANKS, WRITER, Victim, faults_of_store, write_faulty  # noqa: E402

COLUMNS = ("kind", "kills", "labels", "lost", "faults", "first order, s", "first new label, s")


def spread(values: list[float]) -> str:
    """Median and largest of what was measured."""
    known = [value for value in values if math.isfinite(value)]
    return f"{median(known):.1f} ({max(known):.1f})" if known else "-"


def measure(kind: str, kills: int, seed: int, folder: Path) -> tuple:
    victim = Victim(write_faulty(folder, "Slow", "seconds = 0.3", rounds=1000), seed)
    for _ in range(kills):
        victim.kill(kind)
    victim.finish()
    orders = [kill.first_order for kill in victim.kills]
    labels = [kill.first_label for kill in victim.kills]
    faults = len(faults_of_store(folder))
    return kind, kills, victim.kills[-1].labels, victim.lost(), faults, spread(orders), spread(labels)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kinds", nargs="+", default=[*RANKS, WRITER], choices=[*RANKS, WRITER])
    options = parser.parse_args()
    print(" ".join(f"{name:>18}" for name in COLUMNS))
    bad = 0
    for kind in options.kinds:
        with tempfile.TemporaryDirectory() as name:
            row = measure(kind, options.kills, options.seed, Path(name))
        print(" ".join(f"{value:>18}" for value in row), flush=True)
        bad += row[3] + row[4]
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
