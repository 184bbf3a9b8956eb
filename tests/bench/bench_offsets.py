"""Energies per element far apart: how much they cost a run in accuracy.

    python tests/bench/bench_offsets.py [--seeds 10] [--rounds 2] [--steps 40]

Al, Cu, Ag and Au, labelled by EMT, and by EMT with -500, -1000, -1500 and -2000 eV for each of their atoms, as
all-electron and pseudopotential codes differ. Runs with the same seed are compared at their ends: energy and force
errors on the held-out frames. With constants that are aligned in time both runs are the same but for rounding; the
energy error with them must stay within 1.5 times that without. Prints a line for each seed; exits with 1 if one fails.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from ase.build import bulk
from ase.io import write

ROOT = Path(__file__).resolve().parents[2]
OFFSETS = {"Al": -500.0, "Cu": -1000.0, "Ag": -1500.0, "Au": -2000.0}
ALLOWED = 1.5
SHIFTED = f"""
from ase.calculators.calculator import all_changes
from ase.calculators.emt import EMT

OFFSETS = {OFFSETS}


class Shifted(EMT):
    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        for key in {{"energy", "free_energy"}} & self.results.keys():
            self.results[key] += sum(map(OFFSETS.get, self.atoms.get_chemical_symbols()))
"""


def settings(seed: int, calculator: str, rounds: int, steps: int) -> str:
    """The input of a run in the folder that holds the structures."""
    systems = "".join(
        f'[[system]]\nname = "{name}"\nstructures = ["{name}.vasp"]\n'
        "perturb = { count = 1, strain = 0.04, displacement = 0.1 }\n"
        for name in OFFSETS
    )
    return f"""
workflow = "finetune"
seed = {seed}
run.directory = "run-{calculator.rpartition(".")[2]}-{seed}"
model = {{ checkpoint = "{ROOT}/inputs/pretrained/dpa3_small.pt", branch = "MPtrj_PBE" }}
explore = {{ ensemble = "nvt", steps = 20, interval = 10, temperatures = [600.0], temperature_damping = 50.0 }}
select = {{ max_sel = 6, min_gain = -5.0 }}
label = {{ type = "ase", options = {{ calculator = "{calculator}", path = "." }} }}
train = {{ first_steps = {steps}, steps = {steps}, batch_size = 2 }}
test = {{ holdout = 0.2, validation = 0.1 }}
converge = {{ force_rmse = 0.001, max_rounds = {rounds} }}
init.frames = 8
{systems}"""


def errors(folder: Path, seed: int, calculator: str, rounds: int, steps: int) -> tuple[float, float]:
    """Energy (eV/atom) and force (eV/Å) errors of a whole run on its held-out frames."""
    name = f"{calculator.rpartition('.')[2]}-{seed}"
    (folder / f"{name}.toml").write_text(settings(seed, calculator, rounds, steps))
    command = [sys.executable, "-m", "pfdhpc", "run", f"{name}.toml"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    found = json.loads((folder / f"run-{name}" / "final" / "RESULTS.json").read_text())["finetuned"]["total"]
    return found["energy"], found["force"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=40, help="of each training")
    options = parser.parse_args()
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))
    bad = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "shifted.py").write_text(SHIFTED)
        for element in OFFSETS:
            write(folder / f"{element}.vasp", bulk(element, cubic=True), format="vasp")
        print(
            "seed   energy error, meV/atom      force error, eV/Å\n       without     with   ratio    without    with"
        )
        for seed in range(1, options.seeds + 1):
            calculators = "ase.calculators.emt.EMT", "shifted.Shifted"
            (e0, f0), (e1, f1) = (errors(folder, seed, it, options.rounds, options.steps) for it in calculators)
            bad += e1 > ALLOWED * e0
            print(f"{seed:4d}{1e3 * e0:10.2f}{1e3 * e1:9.2f}{e1 / e0:8.3f}{f0:11.4f}{f1:8.4f}", flush=True)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
