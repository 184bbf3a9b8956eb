"""What a machine and an installation are: facts, found once, and the cases of ``pfdhpc docs clusters`` they make.

:func:`look` asks the machine; all else is a function of the facts, so that no case needs its machine to be tried.
"""

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ...parallel.devices import visible_gpus
from .cuda import cuda_of_driver, cuda_of_torch, output, too_old

OPEN_MPI = "Open MPI"
COMMANDS = ("mpiexec", "srun", "sbatch", "qsub", "nvidia-smi")
CONTAINERS = {"APPTAINER_CONTAINER": "Apptainer", "SINGULARITY_CONTAINER": "Singularity"}
"""What a container's runtime sets in its environment."""


@dataclass(frozen=True)
class Site:
    """The facts. ``commands``: full paths of :data:`COMMANDS` that are on PATH; texts are what the commands print."""

    prefix: str = ""
    conda: bool = False  # deepmd-kit is a package of conda, not only the Python
    container: str = ""
    commands: Mapping[str, str] = field(default_factory=dict)
    launcher: str = ""  # mpiexec --version
    starts: str = ""  # srun --mpi=list
    smi: str = ""  # nvidia-smi
    wheels: str = ""  # the CUDA torch is built for
    gpus: tuple[str, ...] = ()  # that this process may use
    in_slurm: bool = False
    internet: bool = True

    @property
    def driver(self) -> str:
        """The newest CUDA the driver knows; empty where it does not tell."""
        return cuda_of_driver(self.smi)

    @property
    def old_driver(self) -> bool:
        return bool(self.gpus) and too_old(self.driver, self.wheels)

    @property
    def broken_driver(self) -> str:
        """What nvidia-smi complains of, where it does."""
        if "nvidia-smi" not in self.commands or self.driver:
            return ""
        return next((line.strip() for line in self.smi.splitlines() if line.strip()), "nvidia-smi says nothing")

    @property
    def pmi2(self) -> bool:
        """Whether srun can start ranks of MPICH."""
        return "pmi2" in self.starts.split()


@dataclass(frozen=True)
class Case:
    """A kind of machine or installation, and the heading of ``pfdhpc docs clusters`` that is about it."""

    name: str
    heading: str


def look(internet: bool = True) -> Site:
    """The facts of here; ``internet``: as the probe of this name says."""
    commands = {name: path for name in COMMANDS if (path := shutil.which(name))}
    docker = "Docker or Podman" if Path("/.dockerenv").exists() or Path("/run/.containerenv").exists() else ""
    return Site(
        prefix=sys.prefix,
        conda=any((Path(sys.prefix) / "conda-meta").glob("deepmd-kit-*.json")),
        container=next((name for key, name in CONTAINERS.items() if key in os.environ), docker),
        commands=commands,
        launcher=output("mpiexec", "--version") if "mpiexec" in commands else "",
        starts=output("srun", "--mpi=list") if "srun" in commands else "",
        smi=output("nvidia-smi") if "nvidia-smi" in commands else "",
        wheels=cuda_of_torch(),
        gpus=tuple(visible_gpus()),
        in_slurm="SLURM_JOB_ID" in os.environ,
        internet=internet,
    )


def launcher_of_open_mpi(site: Site) -> bool:
    """Whether the mpiexec on PATH is Open MPI's (whose run-time was called OpenRTE, then PRRTE)."""
    return any(word in site.launcher for word in (OPEN_MPI, "OpenRTE", "PRRTE"))


def cases(site: Site, told: Mapping[str, str]) -> list[Case]:
    """All that apply, the kind of installation first. ``told``: what the probe of the stack says."""
    found = [_installation(site, told)]
    if site.old_driver:
        found.append(Case("a driver older than the wheels' CUDA", "A driver older than the wheels' CUDA"))
    if site.broken_driver:
        found.append(Case("a GPU driver that does not work", "A driver older than the wheels' CUDA"))
    if not site.internet:
        found.append(Case("no internet from here", "No internet on the nodes"))
    if site.container:
        found.append(Case(f"inside a container ({site.container})", "Containers"))
    return found


def _installation(site: Site, told: Mapping[str, str]) -> Case:
    libraries = told.get("libraries", "").split()
    if site.conda:
        return Case("conda's deepmd-kit", "conda")
    if told.get("mpi", "").startswith(OPEN_MPI):
        return Case("pip wheels with Open MPI", "Clusters with Open MPI only")
    if launcher_of_open_mpi(site):
        return Case("pip wheels, with the mpiexec of Open MPI before theirs on PATH", "Clusters with Open MPI only")
    if not libraries:
        return Case("pip wheels without an MPI that loads", "Pip wheels and the MPI")
    if any(path.startswith(f"{site.prefix}/") for path in libraries):
        return Case("pip wheels with their own MPICH", "Pip wheels and the MPI")
    return Case("pip wheels with the MPI of this machine", "Pip wheels and the MPI")
