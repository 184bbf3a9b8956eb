"""The MPI transport, on any number of ranks."""

import time

import numpy as np
from mpi4py import MPI

from pfdhpc.parallel.channel import MpiChannel


def test_arrays_go_round_a_ring_unharmed():
    comm = MPI.COMM_WORLD.Dup()
    channel = MpiChannel(comm)
    size, rank = comm.Get_size(), comm.Get_rank()
    arrays = {"big": np.arange(200_000.0) + rank, "empty": np.zeros((0, 3)), "text": "é" * rank}
    channel.send((rank + 1) % size, arrays)
    source, got = channel.receive(20)
    before = (rank - 1) % size
    assert source == before
    assert np.array_equal(got["big"], np.arange(200_000.0) + before)
    assert got["empty"].shape == (0, 3) and got["text"] == "é" * before
    assert channel.flush(20)


def test_what_nobody_waits_for_is_dropped_on_all_ranks_at_once():
    comm = MPI.COMM_WORLD.Dup()
    channel = MpiChannel(comm)
    for dest in range(comm.Get_size()):
        channel.send(dest, np.zeros(1_000_000))
    time.sleep(0.1 * comm.Get_rank())
    channel.settle()
    assert channel.flush(0.0) and channel.poll() is None


def test_many_to_one_loses_nothing_and_keeps_the_order_of_each():
    comm = MPI.COMM_WORLD.Dup()
    channel = MpiChannel(comm)
    size, rank = comm.Get_size(), comm.Get_rank()
    for number in range(50):
        channel.send(0, (number, np.full(1000, number)))
    if rank == 0:
        seen = {source: [] for source in range(size)}
        for _ in range(50 * size):
            source, (number, array) = channel.receive(20)
            assert (array == number).all()
            seen[source].append(number)
        assert all(numbers == list(range(50)) for numbers in seen.values())
    assert channel.flush(20)


def test_waiting_costs_little_processor_time():
    channel = MpiChannel(MPI.COMM_WORLD.Dup())
    used, started = time.process_time(), time.monotonic()
    assert channel.receive(0.5) is None
    assert time.process_time() - used < 0.3 * (time.monotonic() - started)
