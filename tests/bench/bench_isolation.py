"""What a child process costs an engine: time per label and segment, its start, its replacement, memory.

    python tests/bench/bench_isolation.py

Every engine is run in the process itself and in a child (``isolation = "process"``), in turn, on the same
tasks; medians. Memory is the proportional set size of all processes of a rank, each case in a fresh one:
interpreter, engine, and with a child the spawner and the child. Prints tables.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]
from ase.build import bulk  # noqa: E402
from models import frozen, tiny_checkpoint  # noqa: E402

from pfdhpc.config.explore import ExploreSection  # noqa: E402
from pfdhpc.config.label import LabelSection  # noqa: E402
from pfdhpc.data import Frame  # noqa: E402
from pfdhpc.engines.base import SegmentTask  # noqa: E402
from pfdhpc.engines.isolated.spawner import Spawner  # noqa: E402
from pfdhpc.engines.registry import make_explorer, make_labeler  # noqa: E402
from pfdhpc.errors import TaskError  # noqa: E402

WAYS = ("none", "process")
EMT = {"calculator": "ase.calculators.emt.EMT"}


def copper(n_atoms: int) -> Frame:
    atoms = bulk("Cu", cubic=True) * {32: (2, 2, 2), 108: (3, 3, 3), 256: (4, 4, 4)}[n_atoms]
    atoms.rattle(0.05, seed=1)
    return Frame.from_atoms(atoms)


def engine(name: str, way: str, model: str, spawner: Spawner, folder: Path, n_atoms: int = 32):
    """``(engine, call that does one task)``; a segment has 20 steps."""
    log, frame = folder / f"{name}.log", copper(n_atoms)
    if name == "EMT label":
        labeler = make_labeler(LabelSection(type="ase", options=EMT, isolation=way), None, spawner, log)
        return labeler, lambda: labeler.label(frame, {}, 100.0)
    if name == "deepmd label":
        section = LabelSection(type="deepmd", options={"model": model}, isolation=way)
        labeler = make_labeler(section, None, spawner, log)
        return labeler, lambda: labeler.label(frame, {}, 100.0)
    explorer = make_explorer(ExploreSection(steps=20, interval=5, isolation=way), spawner, log)
    explorer.load_models([Path(model)], ("Cu",))
    task = SegmentTask("r", "s", frame, None, 0, (300.0, 300.0), (0.0, 0.0), 5)
    return explorer, lambda: explorer.run(task)


NAMES = ("EMT label", "deepmd label", "LAMMPS segment")


def seconds(call) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def per_task(model: str, spawner: Spawner, folder: Path) -> None:
    print(f"{'task':<34}{'in process, ms':>15}{'child, ms':>12}{'difference, ms':>16}")
    tasks = [("EMT label", 32, 100), ("EMT label", 108, 100), ("EMT label", 256, 100)]
    for name, n_atoms, count in (*tasks, ("deepmd label", 32, 50), ("LAMMPS segment", 32, 15)):
        calls = [engine(name, way, model, spawner, folder, n_atoms)[1] for way in WAYS]
        _compare(f"{name}, {n_atoms} atoms", calls, count)


def _compare(title: str, calls: list, count: int) -> None:
    for call in calls:
        call()
    times = [[seconds(call) for call in calls] for _ in range(count)]
    here, there = (1000 * median(column) for column in zip(*times, strict=True))
    apart = 1000 * median(two - one for one, two in times)
    print(f"{title:<34}{here:15.2f}{there:12.2f}{apart:16.2f}")


def per_start(model: str, spawner: Spawner, folder: Path) -> None:
    print(f"\n{'child':<34}{'start, s':>15}{'replacement, s':>16}")
    for name in NAMES:
        starts, again = [], []
        for _ in range(5):
            started = time.perf_counter()
            made, call = engine(name, "process", model, spawner, folder)
            starts.append(time.perf_counter() - started)
            call()
            os.kill(made._resident._program.pid, signal.SIGKILL)
            again.append(seconds(lambda call=call: _through_death(call)))
        print(f"{name:<34}{median(starts):15.2f}{median(again):16.2f}")


def _through_death(call) -> None:
    """The failure of the dead child, and the same task by the next one."""
    try:
        call()
    except TaskError:
        call()


def per_memory(model: str) -> None:
    print(f"\n{'memory of a rank, MB':<34}{'in process':>15}{'child':>12}")
    for name in NAMES:
        found = []
        for way in WAYS:
            command = [sys.executable, __file__, name, way, model]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found.append(json.loads(done.stdout.splitlines()[-1]))
        print(f"{name:<34}{found[0]:15.0f}{found[1]:12.0f}")


def memory(name: str, way: str, model: str) -> float:
    """MB of this process and, with a child, of the spawner and the child, after a task."""
    with tempfile.TemporaryDirectory() as folder:
        spawner = Spawner() if way == "process" else None
        made, call = engine(name, way, model, spawner, Path(folder))
        call()
        pids = [os.getpid(), *([spawner.pid, made._resident._program.pid] if spawner else [])]
        text = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in pids]
        if spawner:
            spawner.close()
    sizes = [int(line.split()[1]) for part in text for line in part.splitlines() if line.startswith("Pss:")]
    return sum(sizes) / 1024


def main() -> None:
    with Spawner() as spawner, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = str(frozen(tiny_checkpoint(folder, ("Cu",), descriptor="dpa3"), folder))
        per_task(model, spawner, folder)
        per_start(model, spawner, folder)
        per_memory(model)


if __name__ == "__main__":
    if len(sys.argv) == 4:
        print(memory(*sys.argv[1:]))
    else:
        main()
