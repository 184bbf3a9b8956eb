"""Where the time of a rank went."""

import time

import numpy as np
import pytest

from pfdhpc.parallel.ledger import Ledger, Track, read_track, read_tracks
from pfdhpc.report.timeline import closed_up, gather, n_nodes, sampled, tail, tracks_of, utilization
from pfdhpc.report.timeline_plot import ROWS, mean, occupancy, timeline


def spend(ledger, **seconds):
    for state, length in seconds.items():
        with ledger.during(state):
            time.sleep(length)


@pytest.fixture
def folder(tmp_path):
    for rank, role in enumerate(("coordinator", "explorer", "labeler")):
        ledger = Ledger(tmp_path / f"rank-{rank:05d}.txt", role, f"{role}-0")
        ledger.switch("wait")
        spend(ledger, explore=0.02, label=0.03)
        ledger.close()
    return tmp_path


def test_every_instant_is_in_one_state(folder):
    for track in read_tracks(folder):
        ends = track.starts + track.lengths
        assert np.allclose(ends[:-1], track.starts[1:], atol=2e-6)
        assert track.seconds("explore") == pytest.approx(0.02, abs=0.015)
        assert abs(track.starts[0] - time.time()) < 60


def test_a_state_inside_another_is_counted_once(tmp_path):
    ledger = Ledger(tmp_path / "rank-00000.txt")
    with ledger.during("select"):
        spend(ledger, **{"wait others": 0.02})
    ledger.close()
    track = read_track(tmp_path / "rank-00000.txt")
    assert "wait others" in track.states
    assert track.seconds("wait") == pytest.approx(0.02, abs=0.015)


def test_a_line_cut_off_by_a_kill_is_left_out(folder):
    path = folder / "rank-00001.txt"
    whole = len(read_track(path).states)
    with open(path, "a") as handle:
        handle.write("1790000000.1 0.2")
    assert len(read_track(path).states) == whole
    again = Ledger(path, "explorer", "explorer-0")
    again.close()
    assert (len(read_track(path).states), read_track(path).role) == (whole + 1, "explorer")


def test_utilization_adds_up_and_silence_is_waiting(folder):
    shares = utilization(tracks_of(folder, time.time() + 1.0))
    for found in shares.values():
        assert sum(value for kind, value in found.items() if kind != "busy") == pytest.approx(1, abs=1e-3)
        assert found["busy"] < 0.2


def test_it_is_gathered_and_drawn(folder, tmp_path):
    import h5py

    tracks = tracks_of(folder)
    gather(tracks, tmp_path / "ledger.h5")
    with h5py.File(tmp_path / "ledger.h5") as file:
        assert list(file) == ["rank-00000", "rank-00001", "rank-00002"]
        assert file["rank-00001"].attrs["role"] == "explorer"
        assert len(file["rank-00001/state"]) == len(file["rank-00001/start"])
    picture = timeline(tracks)
    assert picture.startswith(b"\x89PNG") and len(picture) > 5000


def track(rank, role, *intervals, team="", host=""):
    """Intervals: state and length; a number alone is time that is not on record."""
    now, starts, lengths, states = 100.0, [], [], []
    for item in intervals:
        if isinstance(item, float):
            now += item
            continue
        state, length = item
        starts.append(now)
        lengths.append(length)
        states.append(state)
        now += length
    return Track(rank, role, team or f"{role}-{rank}", np.array(starts), np.array(lengths), tuple(states), host)


def test_many_ranks_are_drawn_by_role_and_shares_are_exact():
    edges = np.linspace(100, 110, 6)
    one, other = track(1, "labeler", ("wait", 4.0), ("label", 6.0)), track(2, "labeler", ("label", 5.0))
    shares = occupancy(one, edges)
    assert shares["label"] == pytest.approx([0, 0, 1, 1, 1]) and shares["wait"] == pytest.approx([1, 1, 0, 0, 0])
    assert mean([shares, occupancy(other, edges)])["label"] == pytest.approx([0.5, 0.5, 0.75, 0.5, 0.5])
    few = [track(rank, "labeler", ("start", 1.0), ("label", 5.0)) for rank in range(3)]
    many = [track(rank, "labeler", ("start", 1.0), ("label", 5.0)) for rank in range(ROWS + 1000)]
    assert timeline(few) and len(timeline(many)) < 200_000


def test_time_between_jobs_is_left_out():
    first = track(0, "coordinator", ("decide", 10.0), 500.0, ("decide", 10.0))
    other = track(1, "labeler", ("label", 12.0), 500.0, ("label", 6.0))
    (clock, worker), cuts = closed_up([first, other])
    assert clock.starts.tolist() == [100.0, 110.0] and cuts == [10.0]
    assert worker.starts.tolist() == [100.0, 112.0]


def test_the_tail_is_of_the_last_round():
    tracks = [
        track(1, "explorer", ("select", 1.0), ("wait", 8.0), ("select", 1.0)),  # rounds begin at 101 and 110
        track(2, "labeler", ("wait", 1.0), ("label", 8.0), ("wait", 1.0), ("label", 3.0)),
        track(3, "labeler", ("wait", 10.0), ("label", 1.0), ("wait", 1.0), ("label", 7.5)),
        track(4, "labeler", ("label", 2.0), ("wait", 20.0)),  # had nothing to do in it
    ]
    assert tail(tracks) == pytest.approx(119.5 - 113.0)
    assert tail(tracks[:2]) is None


def test_nodes_are_counted_where_they_are_on_record(tmp_path):
    for rank, host in enumerate(("n1", "n1", "n2")):
        ledger = Ledger(tmp_path / f"rank-{rank:05d}.txt", "labeler", "labeler-0", host)
        spend(ledger, label=0.001)
        ledger.close()
    assert n_nodes(read_tracks(tmp_path)) == 2
    assert n_nodes([track(1, "labeler", ("label", 1.0))]) is None


def test_of_many_ledgers_some_of_each_role_are_read(tmp_path):
    roles = ["coordinator", "trainer"] + 6 * ["explorer"] + 30 * ["labeler"]
    for rank, role in enumerate(roles):
        (tmp_path / f"rank-{rank:05d}.txt").write_text(f"# {role} {role}-{rank}\n100.000000 1.000000 label\n")
    found = [item.role for item in sampled(tmp_path, 12)]
    assert found.count("coordinator") == found.count("trainer") == 1
    assert found.count("explorer") == found.count("labeler") == 3
    assert len(sampled(tmp_path)) == len(roles)


def test_it_costs_next_to_nothing():
    ledger = Ledger()
    started = time.process_time()
    for _ in range(2000):
        with ledger.during("label"):
            pass
    assert (time.process_time() - started) / 2000 < 1e-3
