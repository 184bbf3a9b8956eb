"""The files of ``pfdhpc init`` that are filled-in templates: the division of the ranks, and the job script."""

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from math import ceil
from pathlib import Path

from ...config.label import EXTERNAL
from ..doctor.cuda import output
from .user_files import Material

SCHEDULERS = {"slurm": "job.sbatch", "pbs": "job.pbs", "none": "job.sh"}
"""Batch systems and what their job script is called."""
WITH_PMI2 = (
    "# Where Slurm lacks pmi2 (srun --mpi=list): LAUNCH=(mpiexec). Without --kill-on-bad-exit others would wait for a\n"
    "# lost rank."
)
WITHOUT_PMI2 = (
    "# srun --mpi=list named no pmi2 where this was written: this environment's mpiexec starts the ranks. Where it\n"
    "# does: LAUNCH=(srun --mpi=pmi2 --gpu-bind=none --kill-on-bad-exit=1)"
)
TEAMS = {"teacher": 8, "deepmd": 4, "offline": 1}
"""Labeler teams of labelers that have no use for many: a team labels a batch at a time."""


@dataclass(frozen=True)
class Seats:
    """Ranks of the job, explorers among them, and ranks of a labeler team."""

    tasks: int
    explorers: int
    team: int
    n_gpus: int = 0

    @property
    def explorer_teams(self) -> str:
        """As in [ranks]: with GPUs as many as there are, else a share, which fits other numbers of ranks too."""
        return str(self.explorers) if self.n_gpus else f"{ceil(100 * self.explorers / (self.tasks - 1)) / 100:g}"


def share(n_gpus: int, system: str, labeler: str) -> Seats:
    """A division of the ranks that leaves none idle: a start that `pfdhpc plan` has nothing to say against."""
    if labeler in ("teacher", "deepmd") and n_gpus:  # labelers want a GPU too
        explorers = max(1, (n_gpus - 1) // 2)
        return Seats(2 + explorers + max(1, n_gpus - 1 - explorers), explorers, 1, n_gpus)
    if system == "none" and not n_gpus:
        return Seats(4, 1, 1)
    explorers = max(1, n_gpus - 1) if n_gpus else 6
    team = 4 if labeler in EXTERNAL else 1
    teams = TEAMS.get(labeler, 6 if team > 1 else 8 if n_gpus else 24)
    return Seats(2 + explorers + team * teams, explorers, team, n_gpus)


def job_script(system: str, materials: Sequence[Material], seats: Seats, n_gpus: int) -> str:
    """The job script for a batch system, with this installation's paths."""
    slurm = system == "slurm"
    gres = {"slurm": f"#SBATCH --gpus-per-node={n_gpus}", "pbs": f":ngpus={n_gpus}"}.get(system, "")
    bind = "--gpu-bind=none " if n_gpus else ""
    pmi2 = not slurm or not shutil.which("srun") or "pmi2" in output("srun", "--mpi=list").split()
    values = {
        "script": SCHEDULERS[system],
        "job": (materials[0].name if materials else "pfdhpc")[:15],
        "tasks": str(seats.tasks),
        "gres": gres if n_gpus else ("# no GPUs: #SBATCH --gpus-per-node=4 asks for some" if slurm else ""),
        "why": WITH_PMI2 if pmi2 else WITHOUT_PMI2,
        "launch": f"srun --mpi=pmi2 {bind}--kill-on-bad-exit=1" if pmi2 else "mpiexec",
        "environment": f"# EDIT: what your programs need (module load ...); then the environment of pfdhpc.\n"
        f'export PATH="{Path(sys.executable).parent}:$PATH" OMP_NUM_THREADS=1',
        "templates": str(templates()),
    }
    return filled(f"job.{'local' if system == 'none' else system}", values)


def filled(name: str, values: Mapping[str, str]) -> str:
    text = templates().joinpath(name).read_text(encoding="utf-8")
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    return text


def templates() -> Path:
    return Path(str(files(__package__).joinpath("templates")))
