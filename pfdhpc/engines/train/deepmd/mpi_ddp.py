"""What deepmd-kit 3.2's trainer needs to live inside the ranks of an MPI job.

It is the only file that patches deepmd. Three things in deepmd 3.2.0 (deepmd/pt/train/training.py,
utils/dataloader.py) are made for ``torchrun``, and one (deepmd/utils/data.py) fails at random:

* Its outer data loader forks worker processes (``NUM_WORKERS``, up to 4). A fork after MPI or CUDA has
  started is undefined behaviour, so there are none: batches are built in this process. (The pool that reads
  the systems is ``multiprocessing.dummy``: one thread, no fork.)
* It wraps the model with ``DDP(device_ids=[LOCAL_RANK])`` after ``torch.cuda.set_device``; both fail on CPU.
* It writes a file ``checkpoint`` into the current directory: see :func:`keep_files_in`.
* It reads the arrays of each frame in threads of their own. numpy parses the header of each, and Python 3.11 cannot
  parse in two threads at a time: now and then a rank fails with "AST constructor recursion depth mismatch", and the
  others of its team wait for it. They are read one after the other.

The device is ``cuda:LOCAL_RANK`` (0 without LOCAL_RANK), fixed when deepmd is imported. So before that each
rank must see one GPU only (CUDA_VISIBLE_DEVICES), and LOCAL_RANK must be unset or 0.
"""

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

KNOWN = "3.2."
TIMEOUT = timedelta(minutes=10)
"""How long a rank waits in a collective for a rank that has failed. Nothing can wake it earlier: gloo neither
notices an abort nor a closed group. It then raises (gloo), or the job ends (NCCL's watchdog aborts)."""


class InThisThread(Executor):
    """An executor that does what it is given at once."""

    def __init__(self, max_workers: int | None = None):
        pass

    def submit(self, work: Callable[..., Any], /, *arguments: Any, **keywords: Any) -> Future:
        """The finished future of a call, whose exception is raised here."""
        future: Future = Future()
        future.set_result(work(*arguments, **keywords))
        return future


@contextmanager
def fit_for_mpi() -> Iterator[None]:
    """Patch deepmd for the time of one training; raises RuntimeError for a deepmd this was not made for."""
    import deepmd
    import torch
    from deepmd.pt.train import training
    from deepmd.pt.utils import env
    from deepmd.utils import data

    if not deepmd.__version__.startswith(KNOWN):
        raise RuntimeError(f"deepmd-kit {deepmd.__version__} is not supported; install deepmd-kit {KNOWN}x")
    with ExitStack() as patches:
        patches.enter_context(_replaced(env, "NUM_WORKERS", 0))
        patches.enter_context(_replaced(training, "NUM_WORKERS", 0))
        patches.enter_context(_replaced(data, "ThreadPoolExecutor", InThisThread))
        if env.DEVICE.type == "cpu":
            patches.enter_context(_replaced(training, "DDP", _ddp_on_cpu))
            patches.enter_context(_replaced(torch.cuda, "set_device", lambda device: None))
        yield


def keep_files_in(folder: Path, trainer: Any) -> None:
    """Send the file that points at the newest checkpoint into ``folder`` instead of the current directory."""
    trainer.ckpt_store.pointer_file = folder / "checkpoint"


@contextmanager
def process_group(comm: Any) -> Iterator[None]:
    """torch's process group over the ranks of ``comm`` and no others, gone at the end. One rank needs none.

    Gloo on CPU, NCCL on GPU; gloo too where ranks share a GPU, which NCCL refuses. All ranks must enter.
    When one leaves by an exception, the others raise in their next collective after ``TIMEOUT``.
    """
    if comm is None or comm.size == 1:
        yield
        return
    import torch.distributed as dist

    place = {"store": _store(comm), "rank": comm.rank, "world_size": comm.size}
    dist.init_process_group(_backend(comm), timeout=TIMEOUT, **place)
    try:
        yield
    finally:
        dist.destroy_process_group()


def _store(comm: Any) -> Any:
    """A key-value store served by the leader, at an address every rank of the team can reach."""
    from torch.distributed import TCPStore

    names = comm.allgather(socket.gethostname())
    host = "127.0.0.1" if len(set(names)) == 1 else names[0]
    store = TCPStore(host, 0, comm.size, True, TIMEOUT, wait_for_workers=False) if comm.rank == 0 else None
    port = comm.bcast(store.port if store else None)
    return store or TCPStore(host, port, comm.size, False, TIMEOUT)


def _backend(comm: Any) -> str:
    import torch
    from deepmd.pt.utils.env import DEVICE

    if DEVICE.type == "cpu":
        return "gloo"
    own = str(torch.cuda.get_device_properties(DEVICE).uuid)
    return "cuda:nccl,cpu:gloo" if len(set(comm.allgather(own))) == comm.size else "gloo"


def _ddp_on_cpu(module: Any, **options: Any) -> Any:
    from torch.nn.parallel import DistributedDataParallel

    return DistributedDataParallel(module, find_unused_parameters=options["find_unused_parameters"])


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    original = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)
