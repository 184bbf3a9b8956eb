"""What a label costs to keep as a store grows: appends of 1 to 10 frames as they come, 10 000 in all.

    python tests/bench/bench_store.py [--full] [--atoms 200] [DIRECTORY]

Prints, by size of the store: milliseconds per frame (all in: checks, compression, fsync, merging) and
those of them in which the processor was busy, the slowest append (with merging), files, bytes per frame; then
the compression, the seconds to open, read and verify, and the memory. ``--full``: 100 000 frames. DIRECTORY
(default: a temporary one) should lie on the file system runs are on.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
from pfdhpc.data import Frame, Label, Labelling, Origin, Record  # noqa: E402
from pfdhpc.store.shard_folder import shard_paths  # noqa: E402
from pfdhpc.store.store import Store  # noqa: E402
from pfdhpc.store.verify import check_store  # noqa: E402

ATTRS = {"input": "{}", "versions": "{}"}
OPEN = """
import random, sys, time
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from pfdhpc.store.store import Store
def memory(): return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
before, started = memory(), time.perf_counter()
store = Store(Path(sys.argv[1]), {"input": "{}", "versions": "{}"})
opened, after = time.perf_counter() - started, memory()
keys = random.Random(0).sample(sorted(store._labelled.index), 200)
started = time.perf_counter()
for key in keys: store.records([key])
one = (time.perf_counter() - started) / len(keys)
keys = sorted(store._labelled.index)[:5000]
started = time.perf_counter()
store.records(keys)
print(opened, before, after, one, (time.perf_counter() - started) / len(keys))
"""


def record(seed: int, n_atoms: int) -> Record:
    """A frame as molecular dynamics gives it: every digit of it noise."""
    rng = np.random.default_rng(seed)
    box = 10.0 * np.eye(3)
    frame = Frame(np.repeat([6, 14], n_atoms // 2), box, 10 * rng.random((n_atoms // 2 * 2, 3)))
    labels = [Label(rng.normal(), rng.normal(size=(len(frame), 3)), rng.normal(size=(3, 3))) for _ in range(2)]
    origin = Origin("SiC", f"SiC-{seed % 8}", seed // 100, 1, seed, 1500.0, 0.0, seed // 100, "0" * 32, 0.2, 1.0)
    return Record(frame, origin, *labels, Labelling("f" * 16, "gpaw", 3600.0, 1, "26.7.0"))


def grow(store: Store, n_frames: int, n_atoms: int) -> None:
    """Append, and print a line at every decade and its halves."""
    rng, done, spent, busy, slowest, last = np.random.default_rng(0), 0, 0.0, 0.0, 0.0, 0
    marks = [mark for power in range(2, 6) for mark in (10**power, 3 * 10**power) if mark < n_frames] + [n_frames]
    print("  frames  ms/frame  ms busy  slowest, s  files  bytes/frame")
    for mark in marks:
        while done < mark:
            size = min(int(rng.integers(1, 11)), mark - done)
            batch = [record(seed, n_atoms) for seed in range(done, done + size)]
            started, worked = time.perf_counter(), time.process_time()
            store.commit(batch)
            seconds, busy = time.perf_counter() - started, busy + time.process_time() - worked
            done, spent, slowest = done + size, spent + seconds, max(slowest, seconds)
        paths = shard_paths(store.directory / "labelled")
        size = sum(path.stat().st_size for path in paths) / done
        times = 1000 * spent / (done - last), 1000 * busy / (done - last), slowest
        print("{:8d} {:9.2f} {:8.2f} {:11.2f} {:6d} {:12.0f}".format(done, *times, len(paths), size), flush=True)
        spent, busy, slowest, last = 0.0, 0.0, 0.0, done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path, nargs="?")
    parser.add_argument("--full", action="store_true", help="100 000 frames")
    parser.add_argument("--atoms", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as folder:
        store = Store(Path(folder) / "frames", ATTRS)
        grow(store, 100_000 if options.full else 10_000, options.atoms)
        raw = 76 * options.atoms + 600  # positions, two sets of forces, numbers; cell, virials, provenance
        paths = shard_paths(store.directory / "labelled")
        stored = sum(path.stat().st_size for path in paths) / len(store)
        print(f"compression: {raw / stored:.2f} ({raw} bytes a frame in memory; random digits do not compress)")
        print(f"memory of the writer: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB at its peak")
        command = [sys.executable, "-c", OPEN, str(store.directory), str(Path(__file__).parents[2])]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        opened, before, after, one, many = map(float, told.split())
        print(f"open: {opened:.2f} s, every checksum verified; {before:.0f} MB before, {after:.0f} MB at its peak")
        print(f"read: {1000 * one:.1f} ms for a frame alone, {1000 * many:.2f} ms for each of 5000 together")
        started = time.perf_counter()
        problems = [problem for part in check_store(store.directory) for problem in part.problems]
        print(f"verify: {time.perf_counter() - started:.1f} s, {len(problems)} problems")


if __name__ == "__main__":
    main()
