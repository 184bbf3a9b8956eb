"""What a round and a label cost beyond the work itself, beside starting a program for it.

    python tests/bench/bench_round.py

Runs a real job on 4 ranks (copper, EMT labels, three rounds), then times one start of ``dp train`` (one
step) and of ``lmp`` (no step) with the same model and data, as a workflow of subprocesses would pay for
every task. Prints a table; seconds, medians.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))
from e2e.jobs import finish, results_of, write_copper  # noqa: E402

LAMMPS = """
units metal
atom_modify map yes
region box block 0 3.6 0 3.6 0 3.6
create_box 1 box
lattice fcc 3.6
create_atoms 1 box
mass 1 63.5
pair_style deepmd {model}
pair_coeff * * Cu
run 0
"""


def seconds(command: list[str], folder: Path, **variables: str) -> float:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    started = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, capture_output=True, env=environment)
    return time.perf_counter() - started


def start_dp_train(folder: Path) -> float:
    data = folder / "data"
    export = [sys.executable, "-m", "pfdhpc", "export", str(folder / "run"), str(data)]
    subprocess.run(export, check=True, capture_output=True)
    training = {
        "training_data": {"systems": [str(path.parent) for path in data.rglob("type.raw")], "batch_size": 1},
        "numb_steps": 1,
    }
    content = {
        "model": {"type_map": ["Cu"], "descriptor": {}, "fitting_net": {}},
        "learning_rate": {"type": "exp", "start_lr": 1e-3, "stop_lr": 1e-5},
        "loss": {},
        "training": training,
    }
    (folder / "train.json").write_text(json.dumps(content))
    model = folder / "run" / "final" / "model.pt"
    command = ["dp", "--pt", "train", "train.json", "--finetune", str(model), "--use-pretrain-script"]
    return seconds([*command, "--skip-neighbor-stat"], folder)


def start_lmp(folder: Path) -> float:
    (folder / "in.lammps").write_text(LAMMPS.format(model=folder / "run" / "final" / "model.pth"))
    # deepmd's CUDA library, loaded on CPUs too, ends `lmp` when it finds no CUDA runtime, here that of torch
    spec = find_spec("nvidia")
    places = spec.submodule_search_locations if spec else ()
    runtime = [str(path) for place in places for path in Path(place).glob("*/lib/libcudart.so.*")]
    command = ["lmp", "-in", "in.lammps", "-screen", "none", "-log", "none"]
    return seconds(command, folder, LD_PRELOAD=":".join(runtime[:1]))


def swap_model(folder: Path) -> tuple[float, float]:
    """Seconds of a one-step segment in LAMMPS with the model it has, and with another one taken just before.

    A segment sets up its pair style in either case, so the two are close; the difference is the swap.
    """
    import ase.io

    from pfdhpc.config import load
    from pfdhpc.data import Frame
    from pfdhpc.engines.base import SegmentTask
    from pfdhpc.engines.registry import make_explorer

    section = load(folder / "input.toml").explore.model_copy(update={"steps": 1, "interval": 1})
    explorer = make_explorer(section)
    frame = Frame.from_atoms(ase.io.read(folder / "cu.vasp"))
    task = SegmentTask("a", "Cu", frame, None, 0, (300.0, 300.0), (0.0, 0.0), 1)

    def segment(model: Path) -> tuple[float, float]:
        started = time.perf_counter()
        explorer.load_models([model], ("Cu",))
        energy = explorer.run(task).records[0].prediction.energy
        return time.perf_counter() - started, energy

    models = sorted((folder / "run" / "models").glob("*.pth"))
    segment(models[0])  # the first one pays for the libraries
    same, other = [], []
    for before, after in zip(models[:-1] * 3, models[1:] * 3, strict=True):
        segment(before)
        seconds, energy = segment(before)
        same.append(seconds)
        seconds, new_energy = segment(after)
        other.append(seconds)
        assert new_energy != energy, "the new model does not drive the dynamics"
    return median(same), median(other)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        finish(write_copper(folder, rounds=3))
        found = results_of(folder / "run")
        training = [item["train_seconds"] - item["step_seconds"] for item in found["rounds"]]
        overhead = found["overhead_seconds"]
        same, other = swap_model(folder)
        rows = [
            ("training round, all but its steps: first", training[0]),
            ("training round, all but its steps: later", median(training[1:])),
            ("dp train, one step, as a subprocess", start_dp_train(folder)),
            ("label: sent, answered, committed, less the calculation", overhead["label"]),
            ("segment: sent and answered, less the MD", overhead["explore"]),
            ("segment of one step in LAMMPS: same model as before", same),
            ("segment of one step in LAMMPS: new model", other),
            ("lmp, no step, as a subprocess", start_lmp(folder)),
        ]
    for what, value in rows:
        print(f"{what:<56} {value:8.3f} s")
    coordinator = found["coordinator"]
    print(f"{'coordinator: memory at its peak':<56} {coordinator['peak_megabytes']:8.0f} MB")
    print(f"{'coordinator: share of one core, its start included':<56} {100 * coordinator['core_share']:8.1f} %")


if __name__ == "__main__":
    main()
