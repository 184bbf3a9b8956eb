"""The selection over teams: the same picks for any number of them, and late ones left out."""

import numpy as np
import pytest
from selections import Describe, make_records, picked_of, run_teams

from pfdhpc.config.select import SelectSection
from pfdhpc.errors import TaskError
from pfdhpc.parallel.channel import local_channels
from pfdhpc.selection.entropy import entropy
from pfdhpc.selection.peer_messages import DONE, Absent, Mailbox, Over, PeerMessages
from pfdhpc.selection.reference_blocks import Shard
from pfdhpc.store.array_cache import ArrayCache

CANDIDATES = make_records(14)
REFERENCE = make_records(5, seed=1, level="pbe")


def shared_out(n_teams, seed=0):
    rng = np.random.default_rng(seed)
    shares = [[] for _ in range(n_teams)]
    for index in rng.permutation(len(CANDIDATES)):
        shares[rng.integers(n_teams)].append(CANDIDATES[index])
    return shares


@pytest.mark.parametrize("options", [{}, {"method": "pfd", "chunk": 3}, {"method": "random"}], ids=str)
@pytest.mark.parametrize("reference", [REFERENCE, []], ids=["reference", "none"])
def test_picks_do_not_depend_on_the_number_of_teams(options, reference):
    section = SelectSection(**options)
    expected = gains = None
    for n_teams in (1, 2, 3, 4, 9):
        results = run_teams(shared_out(n_teams, n_teams), reference, section)
        report = results[0][1]
        expected, gains = expected or picked_of(results), gains or report.gains
        assert picked_of(results) == expected and report.gains == gains  # to the last bit
        assert report.n_candidates == len(CANDIDATES) and report.absent == ()
        assert all(other is None for _, other in results[1:])
    assert len(expected) == 6


def test_teams_without_candidates_take_part():
    expected = picked_of(run_teams([CANDIDATES], REFERENCE))
    assert picked_of(run_teams([[], CANDIDATES, []], REFERENCE)) == expected
    assert picked_of(run_teams([[], []], REFERENCE)) == {}


def test_a_frame_two_teams_hold_is_picked_once():
    expected = picked_of(run_teams([CANDIDATES], REFERENCE))
    results = run_teams([CANDIDATES, CANDIDATES[:7]], REFERENCE)
    assert picked_of(results) == expected and len(results[0][1].gains) == len(expected)


def test_known_frames_are_no_candidates():
    again = [record.__class__(record.frame, record.origin) for record in REFERENCE]
    results = run_teams([again + CANDIDATES[:1]], REFERENCE)
    assert results[0][1].n_candidates == 1


def test_each_reference_frame_is_described_once_in_its_life(tmp_path):
    makers = [Describe() for _ in range(3)]
    shards = [Shard("cpu", maker, ArrayCache(tmp_path, f"team-{index}")) for index, maker in enumerate(makers)]
    results = run_teams(shared_out(3), REFERENCE, shards=shards)
    ids = {record.frame_id for record in REFERENCE}
    assert {key: sum(maker.counts.get(key, 0) for maker in makers) for key in ids} == dict.fromkeys(ids, 1)
    picked = [record for some, _ in results for record in some]
    labelled = [record.__class__(record.frame, record.origin, labelling=REFERENCE[0].labelling) for record in picked]
    others = [Describe() for _ in range(2)]  # another job, with another number of teams
    shards = [Shard("cpu", maker, ArrayCache(tmp_path, f"again-{index}")) for index, maker in enumerate(others)]
    run_teams([[], []], REFERENCE + labelled, shards=shards)
    assert not any(maker.counts for maker in others)


def test_a_late_team_is_left_out_and_the_others_pick_from_theirs():
    section = SelectSection(patience=0.3, blocks=1)  # the one block is held by the first team
    shares = shared_out(3)
    expected = picked_of(run_teams(shares[:2], REFERENCE, section))
    results = run_teams(shares, REFERENCE, section, late=["explorer-2"])
    assert picked_of(results[:2]) == expected
    assert results[0][1].absent == ("explorer-2",)


def test_a_late_holder_of_the_reference_is_named():
    results = run_teams(shared_out(3), REFERENCE, SelectSection(patience=0.3), late=["explorer-1"])
    for result in (results[0], results[2]):
        assert isinstance(result, Absent | Over)
    assert {result.team for result in (results[0], results[2]) if isinstance(result, Absent)} == {"explorer-1"}


def test_a_missing_root_is_named():
    section = SelectSection(patience=0.2, method="random")
    results = run_teams(shared_out(3), REFERENCE, section, late=["explorer-0"])
    assert any(isinstance(result, Absent) and result.team == "explorer-0" for result in results)


@pytest.mark.parametrize("n_teams", [1, 3])
def test_the_census_tells_the_entropies(n_teams):
    results = run_teams(shared_out(n_teams), REFERENCE, census=True)
    report = results[0][1]
    census = report.census
    describe, by_id = Describe(), {record.frame_id: record for record in CANDIDATES}
    before = np.concatenate(describe([record.frame for record in REFERENCE]))
    after = np.concatenate([before, *describe([by_id[frame_id].frame for frame_id in report.picked])])
    assert census.before == pytest.approx(entropy(before, 0.015), abs=1e-9)
    assert census.after == pytest.approx(entropy(after, 0.015), abs=1e-9) and census.after > census.before
    assert census.novelty.keys() == by_id.keys()
    assert max(census.novelty.values()) == results[0][1].gains[0]


def test_a_bandwidth_that_tells_nothing_is_warned_of():
    assert run_teams([CANDIDATES], REFERENCE, bandwidth=1e-5)[0][1].warning
    assert run_teams([CANDIDATES], REFERENCE, bandwidth=100.0)[0][1].warning


def test_a_team_that_breaks_off_ends_the_selection_for_all_without_half_of_it():
    class Broken(Describe):
        def __call__(self, frames):
            raise TaskError("no descriptor")

    shards = [Shard("cpu", Describe()), Shard("cpu", Describe()), Shard("cpu", Broken())]
    results = run_teams(shared_out(3), REFERENCE, SelectSection(patience=5.0), shards=shards)
    assert isinstance(results[2], TaskError) and all(isinstance(result, Over) for result in results[:2])


def test_a_team_left_out_is_told_so_and_returns_no_picks():
    """Its candidates were not looked at: they wait for the next selection."""
    channels = local_channels(2)
    root, follower = (Mailbox(channel) for channel in channels)
    talk = PeerMessages(follower, "select/1.0", "b", {"a": 0})
    PeerMessages(root, "select/1.0", "a", {"b": 1}).tell_all(DONE, frozenset({"b"}))
    with pytest.raises(Over):
        talk.wait("picks", 1.0)
    again = PeerMessages(follower, "select/2.0", "b", {"a": 0})
    PeerMessages(root, "select/2.0", "a", {"b": 1}).tell_all(DONE, frozenset())
    assert again.wait("picks", 1.0) is None and again.done
