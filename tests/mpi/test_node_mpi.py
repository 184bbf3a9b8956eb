"""Ranks of two nodes that take the same models: each node copies each of them once, and nothing is left."""

import logging
from hashlib import sha256
from pathlib import Path
from tempfile import mkdtemp

from mpi4py import MPI

from pfdhpc.parallel.node import NodeCopies

SHARED = Path("/dev/shm")


def test_each_node_copies_a_model_once_and_leaves_nothing(caplog):
    comm = MPI.COMM_WORLD.Dup()
    rank, size = comm.Get_rank(), comm.Get_size()
    folder = Path(comm.bcast(mkdtemp() if rank == 0 else None))
    node = folder / f"node-{rank % 2}"  # fake nodes: the memory of each is a folder
    node.mkdir(exist_ok=True)
    models = Path(comm.bcast(mkdtemp(dir=SHARED) if rank == 0 else None))  # a device of its own
    content = [bytes([version]) * 3_000_000 for version in range(4)]
    if rank == 0:
        for version, text in enumerate(content):
            (models / f"{version}.pth").write_bytes(text)
    comm.Barrier()
    copies, copied = NodeCopies([node]), 0
    with caplog.at_level(logging.INFO, "pfdhpc.parallel.node"):
        for version, text in enumerate(content):
            path = copies.take(models / f"{version}.pth", "explore", sha256(text).hexdigest())
            assert path.is_relative_to(node) and path.read_bytes() == text
            comm.Barrier()  # all have taken this one
            left = [item for item in path.parent.iterdir() if item.name != ".lock"]
            assert left == [path], "older versions are gone"
            comm.Barrier()
    copied = comm.allreduce(sum("was copied" in line for line in caplog.messages))
    assert copied == len(content) * min(size, 2)
    copies.clear()
    comm.Barrier()
    assert [item.name for item in path.parent.iterdir()] == [".lock"]
    comm.Barrier()
    if rank == 0:
        for item in (*models.iterdir(), models):
            item.unlink() if item.is_file() else item.rmdir()
