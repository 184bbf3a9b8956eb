"""Starting real jobs from the tests, as a user does: mpiexec, a real model, LAMMPS, deepmd training."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from ase.build import bulk
from ase.io import write

ROOT = Path(__file__).parents[2]
PRETRAINED = ROOT / "inputs" / "pretrained" / "dpa3_small.pt"

COPPER = """
workflow = "finetune"
seed = 3
[run]
directory = "run"
[model]
checkpoint = "{model}"
branch = "{branch}"
[[system]]
name = "Cu"
structures = ["cu.vasp"]
perturb = {{ count = 2, strain = 0.03, displacement = 0.1 }}
[init]
frames = 5
[explore]
ensemble = "nvt"
steps = 40
interval = 10
temperatures = [500.0]
[select]
max_sel = 3
min_gain = -100.0
[label]
type = "ase"
options = {{ calculator = "ase.calculators.emt.EMT" }}
[train]
first_steps = 20
steps = 20
[test]
holdout = 0.2
validation = 0.2
[converge]
force_rmse = 1e-6
max_rounds = {rounds}
"""


def write_copper(folder: Path, rounds: int = 2, branch: str = "MPtrj_PBE", model: Path = PRETRAINED) -> Path:
    """An input that runs for real in seconds: copper, labelled by EMT."""
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "cu.vasp", bulk("Cu", cubic=True), format="vasp")
    path = folder / "input.toml"
    path.write_text(COPPER.format(model=model, branch=branch, rounds=rounds))
    return path


class Job:
    """A running ``mpiexec -n N ... pfdhpc run INPUT OPTIONS``."""

    def __init__(self, path: Path, n_ranks: int = 4, options: tuple[str, ...] = ()):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "160"}
        command = self.command(path, n_ranks)
        self.output = path.parent / f"output-{time.monotonic_ns()}.txt"
        with open(self.output, "w") as handle:
            self.process = subprocess.Popen(
                [*command, *options], stdin=subprocess.DEVNULL, stdout=handle, stderr=subprocess.STDOUT,
                env=environment, cwd=ROOT, start_new_session=True,
            )  # fmt: skip

    def command(self, path: Path, n_ranks: int) -> list[str]:
        """As a user types it."""
        return ["mpiexec", "-n", str(n_ranks), sys.executable, "-m", "mpi4py", "-m", "pfdhpc", "run", str(path)]

    def text(self) -> str:
        return self.output.read_text()

    def wait(self, seconds: float = 400) -> int:
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the job hangs:\n{self.text()}") from None

    def wait_for(self, pattern: str, seconds: float = 200) -> None:
        """Until a line of the output matches."""
        self.wait_for_state(lambda: re.search(pattern, self.text()), seconds)

    def wait_for_state(self, reached, seconds: float = 200) -> None:
        """Until ``reached()`` holds, while the job runs."""
        deadline = time.monotonic() + seconds
        while not reached():
            assert self.process.poll() is None and time.monotonic() < deadline, self.text()
            time.sleep(0.05)

    def interrupt(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """As a node failure would: everything of the job, at once, without a warning."""
        os.killpg(self.process.pid, signal.SIGKILL)
        for line in subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True).stdout.splitlines():
            if f" run {self.output.parent}" in line:
                try:
                    os.kill(int(line.split()[0]), signal.SIGKILL)
                except ProcessLookupError:
                    continue
        self.process.wait(30)


def finish(path: Path, n_ranks: int = 4, seconds: float = 400) -> str:
    """Run a job to its end, which must be a good one; returns its output."""
    job = Job(path, n_ranks)
    assert job.wait(seconds) == 0, job.text()
    return job.text()


def results_of(run: Path) -> dict:
    """What a finished run tells of itself."""
    return json.loads((run / "final" / "RESULTS.json").read_text())
