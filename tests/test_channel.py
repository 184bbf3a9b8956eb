"""The in-process transports behave as the MPI one does (tests/mpi/test_channel_mpi.py)."""

import threading
import time

from pfdhpc.parallel.channel import InlineChannel, local_channels, pause


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


def test_a_wait_ends_when_it_has_been_long_enough_for_another_reason():
    channel, done = local_channels(1)[0], threading.Event()
    threading.Timer(0.05, done.set).start()
    assert channel.receive(20.0, done.is_set) is None


def test_a_rank_that_waits_hardly_uses_its_core_and_one_that_waited_shortly_hears_at_once():
    used = time.process_time()
    assert local_channels(1)[0].receive(2.0) is None
    assert time.process_time() - used < 0.1
    assert pause(0.0) <= 1e-4 and pause(0.004) <= 1e-3
    assert pause(0.1) == pause(1e4) <= 0.01


def test_roles_take_turns_in_one_thread():
    seen = []
    channel = InlineChannel({1: lambda order: seen.append(order) or order * 2, 2: lambda order: None})
    channel.greet(1, "hello")
    for dest, order in ((1, 10), (2, 5), (1, 20)):
        channel.send(dest, order)
    assert seen == []  # nothing is worked on before the coordinator looks
    assert [channel.poll() for _ in range(4)] == [(1, "hello"), (1, 20), (1, 40), None]
