"""The environment in which a program of its own runs inside a job."""

import shlex
import time
from collections.abc import Sequence
from pathlib import Path

from ....config.label import LaunchSection
from ....errors import InputError
from ...isolated.spawner import Spawner, clean_environment

SIZES = (
    "SLURM_NTASKS", "SLURM_NPROCS", "SLURM_NNODES", "SLURM_JOB_NUM_NODES", "SLURM_TRES_PER_TASK",
    "SLURM_GPUS_PER_TASK", "SLURM_MEM_PER",
)  # fmt: skip
"""How variables begin that tell srun the size of the whole job, which a step would take for its own."""
STEP = {"SLURM_EXACT": "1", "SLURM_MEM_PER_NODE": "0"}
"""A step gets the cores it asks for and no more, and takes no memory from others."""
SHARED = {"SLURM_OVERLAP": "1"}
"""The job's own step holds all cores; one that a launcher starts by srun would wait for them for ever."""
SOURCE = ["bash", "-c", 'source "$1" >&2 && exec env -0', "bash"]
"""Only a shell can source a file; what the file changed comes back on standard output."""
PATIENCE = 120.0
"""Seconds that sourcing may take."""


def program_environment(launch: LaunchSection, gpus: Sequence[str], spawner: Spawner, folder: Path) -> dict[str, str]:
    """The variables of a program: this rank's without the launcher's, those of ``env_script``, then ``env``.

    ``gpus`` are the devices of the team. Raises InputError when the script fails.
    """
    found = clean_environment()
    if launch.env_script is not None:
        found = clean_environment(_source(launch.env_script, found, spawner, folder))
    found = {name: value for name, value in found.items() if not name.startswith(SIZES)}
    if "SLURM_JOB_ID" in found:
        found |= SHARED
    if Path(shlex.split(launch.command)[0]).name == "srun":
        found |= STEP
    return found | {"CUDA_VISIBLE_DEVICES": ",".join(gpus)} | launch.env


def _source(script: Path, environment: dict[str, str], spawner: Spawner, folder: Path) -> dict[str, str]:
    output = folder / "environment.out"
    pid = spawner.launch([*SOURCE, str(script)], environment, folder, None, output)
    deadline = time.monotonic() + PATIENCE
    while not spawner.ended(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    in_time = spawner.ended(pid)
    code = spawner.stop(pid, 0.0)
    if code or not in_time:
        why = f"exit code {code}" if in_time else f"not done in {PATIENCE:g} s"
        said = " | ".join(output.with_suffix(".err").read_text(errors="replace").splitlines()[-5:])
        raise InputError(f"label.launch.env_script: {script}: {why}: {said or 'nothing was said'}")
    pairs = output.read_bytes().decode(errors="surrogateescape").split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)
