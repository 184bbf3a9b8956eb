"""MD steps a second of the explorer inside the job, against the ``lmp`` program alone.

    OMP_NUM_THREADS=1 DP_INTRA_OP_PARALLELISM_THREADS=1 DP_INTER_OP_PARALLELISM_THREADS=1 \\
        python tests/bench/bench_explore.py [--atoms 32 108 256] [--divide 8]

The same model (a small se_e2_a and a DPA-3 with random weights), copper cell, thermostat and threads; steps of 0.01 fs,
as random weights do not hold a crystal together for long. The explorer is timed between two lengths of a segment and
``lmp`` by its own loop time after as many steps before, so that neither pays for its start; the explorer takes a
candidate every 20 steps, with energies, forces and virial, ``lmp`` writes nothing. Steps are told by second of
processor time, which others on the machine take less of; both take turns, and the best of three counts. Both lengths
are such that the explorer folds the model's constants (``pfdhpc/engines/explore/constant_folding.py``), and with
``--divide`` neither is.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]
from ase.build import bulk  # noqa: E402
from bench.bench_round import seconds as timed  # noqa: E402
from models import DESCRIPTORS, frozen, tiny_checkpoint  # noqa: E402

from pfdhpc.config.explore import ExploreSection  # noqa: E402
from pfdhpc.data import Frame  # noqa: E402
from pfdhpc.engines.base import SegmentTask  # noqa: E402
from pfdhpc.engines.explore.constant_folding import LATE, SOON  # noqa: E402
from pfdhpc.engines.explore.lammps import SKIN  # noqa: E402
from pfdhpc.engines.registry import make_explorer  # noqa: E402

REPEATS = 3
CELLS = {4: (1, 1, 1), 32: (2, 2, 2), 108: (3, 3, 3), 256: (4, 4, 4)}
REPFLOW = {"n_dim": 32, "e_dim": 16, "a_dim": 8, "nlayers": 2, "e_rcut": 5.0, "e_rcut_smth": 4.0, "e_sel": 80}
REPFLOW |= {"a_rcut": 3.5, "a_rcut_smth": 3.0, "a_sel": 20}
LENGTHS = {"se_e2_a": (LATE, 3 * LATE), "dpa3": (SOON, 3 * SOON)}
"""Steps of a short segment and of a long one."""
MODELS = {
    "se_e2_a": DESCRIPTORS["se_e2_a"],
    "dpa3": {"type": "dpa3", "repflow": REPFLOW, "precision": "float32", "seed": 1},
}
INPUT = """
units metal
atom_modify map yes
read_data structure.lammps
mass 1 63.546
pair_style deepmd {model}
pair_coeff * * Cu
neighbor {skin} bin
neigh_modify delay 0 every 1 check yes
timestep 0.00001
velocity all create 300 1
fix 1 all nvt temp 300 300 0.1
thermo 1000000
run {few}
run {many}
"""


def inside(model: Path, frame: Frame, few: int, many: int):
    """A function that gives the steps a second of the explorer."""
    sections = [ExploreSection(steps=steps, interval=20, timestep=0.01, temperatures=[300.0]) for steps in (few, many)]
    explorers = [make_explorer(section) for section in sections]
    for explorer in explorers:
        explorer.load_models([model], ("Cu",))

    def run() -> float:
        took = []
        for explorer in explorers:
            started = time.process_time()
            segment = explorer.run(SegmentTask("a", "Cu", frame, None, 0, (300.0, 300.0), (0.0, 0.0), 1))
            took.append(time.process_time() - started)
            assert not segment.stopped, segment.stopped
        return (many - few) / (took[1] - took[0])

    return run


def alone(model: Path, frame: Frame, folder: Path, few: int, many: int):
    """The same of ``lmp``."""
    from ase.io import write

    write(folder / "structure.lammps", frame.to_atoms(), format="lammps-data")

    def run() -> float:
        (folder / "in.lammps").write_text(INPUT.format(model=model, skin=SKIN, few=few, many=many - few))
        timed(["lmp", "-in", "in.lammps", "-screen", "none", "-log", "log.lammps"], folder, **preload())
        log = (folder / "log.lammps").read_text()
        seconds = float(re.findall(r"Loop time of (\S+)", log)[-1])
        share = float(re.findall(r"(\S+)% CPU use", log)[-1]) / 100
        return (many - few) / (seconds * share)

    return run


def preload() -> dict[str, str]:
    """deepmd's CUDA library, loaded on CPUs too, ends ``lmp`` when it finds no CUDA runtime, here that of torch."""
    from importlib.util import find_spec

    spec = find_spec("nvidia")
    places = spec.submodule_search_locations if spec else ()
    found = [str(path) for place in places for path in Path(place).glob("*/lib/libcudart.so.*")]
    return {"LD_PRELOAD": ":".join(found[:1])}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--atoms", type=int, nargs="+", default=[32, 108, 256], choices=CELLS)
    parser.add_argument("--divide", type=int, default=1, choices=(1, 4, 8), help="of the segments' lengths (1)")
    options = parser.parse_args()
    print(f"{'model':<8} {'atoms':>6} {'explorer':>9} {'lmp':>9} {'ratio':>6}   (MD steps a second)")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        DESCRIPTORS.update(MODELS)
        for label in MODELS:
            (place := folder / label).mkdir()
            model = frozen(tiny_checkpoint(place, ("Cu",), descriptor=label), place)
            for atoms in options.atoms:
                frame = Frame.from_atoms(bulk("Cu", cubic=True) * CELLS[atoms])
                print(row(label, atoms, model, frame, place, options.divide), flush=True)


def row(label: str, atoms: int, model: Path, frame: Frame, folder: Path, divide: int) -> str:
    few, many = (steps // divide for steps in LENGTHS[label])
    ways = [inside(model, frame, few, many), alone(model, frame, folder, few, many)]
    found: list[list[float]] = [[], []]
    for _ in range(REPEATS):
        for way, speeds in zip(ways, found, strict=True):
            speeds.append(way())
    ours, theirs = map(max, found)
    return f"{label:<8} {atoms:6d} {ours:9.1f} {theirs:9.1f} {ours / theirs:6.2f}"


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        raise SystemExit(error.stderr.decode()) from None
