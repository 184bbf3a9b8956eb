"""The in-process transports behave as the MPI one does (tests/mpi/test_channel_mpi.py)."""

import threading
import time

from pfdhpc.parallel.channel import InlineChannel, local_channels


def test_messages_arrive_in_order_with_their_source():
    one, two, three = local_channels(3)
    one.send(2, "a")
    two.send(2, "b")
    one.send(2, "c")
    assert [three.poll() for _ in range(4)] == [(0, "a"), (1, "b"), (0, "c"), None]


def test_receive_gives_up_after_its_timeout_and_wakes_when_something_comes():
    one, two = local_channels(2)
    started = time.monotonic()
    assert two.receive(0.05) is None
    assert 0.05 <= time.monotonic() - started < 1.0
    threading.Timer(0.05, one.send, (1, "late")).start()
    assert two.receive(5.0) == (0, "late")


def test_roles_take_turns_in_one_thread():
    seen = []
    channel = InlineChannel({1: lambda order: seen.append(order) or order * 2, 2: lambda order: None})
    channel.greet(1, "hello")
    for dest, order in ((1, 10), (2, 5), (1, 20)):
        channel.send(dest, order)
    assert seen == []  # nothing is worked on before the coordinator looks
    assert [channel.poll() for _ in range(4)] == [(1, "hello"), (1, 20), (1, 40), None]
