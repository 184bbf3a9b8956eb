"""Picking frames: what is new, once, the same for any distribution of the candidates."""

from itertools import chain

import numpy as np
import pytest
from ase.build import bulk
from hypothesis import given, settings
from hypothesis import strategies as st

from pfdhpc.data import Frame
from pfdhpc.selection.entropy import Environments, delta_entropy, entropy
from pfdhpc.selection.greedy import Chooser, Pool, Rule, pick
from pfdhpc.selection.quests import descriptors

H = 0.015


def rattled(length, seed=0, repeat=1):
    atoms = bulk("Si", cubic=True).repeat((repeat, 1, 1))
    atoms.rattle(length, seed=seed)
    return descriptors(Frame.from_atoms(atoms))


def make_candidates(n, seed=0):
    """Descriptors of frames of different size and disorder, a third of them with permuted copies."""
    rng = np.random.default_rng(seed)
    found = {}
    for index in range(n):
        some = rattled(0.02 + 0.3 * rng.random(), 100 * seed + index, 1 + index % 2)
        found[f"{index:02d}"] = some
        if index < n // 3:
            found[f"{index:02d}-copy"] = some[rng.permutation(len(some))]
    return found


CANDIDATES = make_candidates(12)
REFERENCE = [rattled(0.05, seed) for seed in (1, 2)]


def make_pool(rule, candidates, reference=()):
    pool = Pool(rule, H)
    for frame_id, some in candidates.items():
        pool.add(frame_id, some)
    for block in reference:
        pool.observe(Environments(block, H))
    return pool


def pick_over(pools, rule):
    """What the ranks do together: offer, choose, accept."""
    chooser = Chooser(rule)
    while count := chooser.wanted():
        step = chooser.choose(chain(*(pool.offers(count) for pool in pools)))
        if not step:
            break
        for pool in pools:
            pool.accept(step)
    return [(item.frame_id, item.score) for item in chooser.picks]


@pytest.mark.parametrize("reference", [[], REFERENCE])
@pytest.mark.parametrize(
    "rule",
    [
        Rule(8),
        Rule(8, score="sum", min_gain=None, chunk=3, overshoot=True, first_by_chance=True),
        Rule(8, min_gain=None, score="random"),
    ],
    ids=["greedy", "pfd", "random"],
)
def test_picks_are_the_same_for_any_distribution(rule, reference):
    expected = None
    for n_pools in (1, 2, 3, 5, 20):
        rng = np.random.default_rng(n_pools)
        shares = [{} for _ in range(n_pools)]
        for frame_id in rng.permutation(sorted(CANDIDATES)):
            shares[rng.integers(n_pools)][str(frame_id)] = CANDIDATES[str(frame_id)]
        picked = pick_over([make_pool(rule, share, reference) for share in shares], rule)
        expected = expected or picked
        assert picked == expected  # ids, and scores to the last bit
    assert len(expected) == (9 if rule.overshoot else 8)


def greedy_from_scratch(candidates, reference, n):
    """The definition: recompute everything, take the best, repeat."""
    known, left, picked = np.concatenate(reference), dict(candidates), []
    for _ in range(n):
        scores = {}
        for frame_id, some in left.items():
            gains = delta_entropy(some, known, H)
            scores[frame_id] = (gains.mean() + gains.max()) / 2
        best = max(scores, key=lambda frame_id: round(scores[frame_id], 7))
        known = np.concatenate([known, left.pop(best)])
        picked.append((best, scores[best]))
    return picked


def test_lazy_sums_give_what_full_recomputation_gives():
    rule = Rule(10)
    found = pick(make_pool(rule, CANDIDATES, REFERENCE), rule).picks
    expected = greedy_from_scratch(CANDIDATES, REFERENCE, 10)
    assert [item.frame_id for item in found] == [frame_id for frame_id, _ in expected]
    np.testing.assert_allclose([item.score for item in found], [score for _, score in expected], rtol=1e-9)


def test_it_takes_what_is_new_never_the_same_twice_and_stops():
    candidates = make_candidates(6)
    assert len(candidates) == 8
    rule = Rule(100)
    pool = make_pool(rule, candidates)
    chooser = pick(pool, rule)
    assert chooser.saturated and len(chooser.picks) <= 6  # a permuted copy is covered
    contents = {round(float(item.descriptors.sum()), 6) for item in chooser.picks}
    assert len(contents) == len(chooser.picks) >= 4
    assert pool.offers(1)[0].score <= 1e-9
    assert chooser.picks[0].score == np.inf and np.isfinite([item.score for item in chooser.picks[1:]]).all()
    spreads = {frame_id: entropy(some, H) for frame_id, some in candidates.items()}
    assert spreads[chooser.picks[0].frame_id] == pytest.approx(max(spreads.values()))


def test_exactly_max_sel_and_the_gains_fall():
    rule = Rule(3)
    pool = make_pool(rule, CANDIDATES, REFERENCE)
    chooser = pick(pool, rule)
    gains = [item.score for item in chooser.picks]
    assert len(gains) == 3 and not chooser.saturated and len(pool) == len(CANDIDATES) - 3
    assert gains == sorted(gains, reverse=True) and gains[-1] >= pool.offers(1)[0].score


def test_pfd_chunks_are_blind_to_each_other_and_overshoot():
    some = rattled(0.3, 7)
    copies = {f"copy-{index}": some for index in range(4)} | {"other": rattled(0.2, 8)}
    rule = Rule(4, min_gain=None, score="sum", chunk=3, overshoot=True, first_by_chance=True)
    picks = pick(make_pool(rule, copies, REFERENCE), rule).picks
    assert [item.frame_id for item in picks] == ["copy-0", "copy-1", "copy-2", "other", "copy-3"]
    within = Rule(4, min_gain=None, score="sum", chunk=3, first_by_chance=True)
    assert len(pick(make_pool(within, copies, REFERENCE), within).picks) == 4


def test_without_a_reference_pfd_draws_its_first_chunk():
    drawn = set()
    for seed in range(6):
        rule = Rule(4, min_gain=None, score="sum", chunk=2, first_by_chance=True, seed=seed)
        picks = pick(make_pool(rule, CANDIDATES), rule).picks
        drawn.add(tuple(item.frame_id for item in picks[:2]))
        assert all(item.score < 1 for item in picks[:2]) and len(picks) == 4
        assert np.isfinite([item.score for item in picks]).all()
    assert len(drawn) > 3


def test_random_picks_follow_the_seed_alone():
    def chosen(seed):
        rule = Rule(5, min_gain=None, score="random", seed=seed)
        return [item.frame_id for item in pick(make_pool(rule, CANDIDATES, REFERENCE), rule).picks]

    assert chosen(1) == chosen(1) and len({tuple(chosen(seed)) for seed in range(5)}) > 1


def test_quotas_bound_each_system():
    rule = Rule(6, quotas={"a": 2, "c": 0})
    pool = Pool(rule, H)
    for index, (frame_id, some) in enumerate(CANDIDATES.items()):
        pool.add(frame_id, some, "abc"[index % 3])
    for block in REFERENCE:
        pool.observe(Environments(block, H))
    systems = [item.system for item in pick(pool, rule).picks]
    assert systems.count("a") == 2 and systems.count("c") == 0 and systems.count("b") == 4


def test_scores_do_not_grow_with_the_cell_unless_they_are_sums():
    small = bulk("Si", cubic=True)
    small.rattle(0.2, seed=3)
    perfect = descriptors(Frame.from_atoms(bulk("Si", cubic=True)))
    frames = {str(n): descriptors(Frame.from_atoms(small.repeat((n, 1, 1)))) for n in (1, 2)}
    scores = make_pool(Rule(1), frames, [perfect]).novelty()
    assert scores["1"] == pytest.approx(scores["2"], rel=1e-6) and scores["1"] > 0
    sums = make_pool(Rule(1, score="sum"), frames, [perfect]).novelty()
    assert sums["2"] == pytest.approx(2 * sums["1"], rel=1e-6)


def test_equal_scores_go_to_the_smaller_id():
    found = rattled(0.2)
    for order in (("b", "a"), ("a", "b")):
        pool = Pool(Rule(1), H)
        pool.add(order[0], found)
        pool.add(order[1], found + 1e-14)
        pool.observe(Environments(np.zeros((1, found.shape[1])), H))
        assert pool.offers(1)[0].frame_id == "a"


@settings(max_examples=20)
@given(n_reference=st.integers(0, 3), n_candidates=st.integers(0, 4), max_sel=st.integers(1, 6))
def test_any_numbers_of_frames(n_reference, n_candidates, max_sel):
    rule = Rule(max_sel, min_gain=-1e9)
    rng = np.random.default_rng(n_reference)
    candidates = {str(index): 0.05 * rng.random((1 + index, 3)) for index in range(n_candidates)}
    pool = make_pool(rule, candidates, [0.05 * rng.random((2, 3)) for _ in range(n_reference)])
    picks = pick(pool, rule).picks
    assert len(picks) == min(max_sel, n_candidates) == len({item.frame_id for item in picks})


@settings(max_examples=30)
@given(st.integers(0, 10**6))
def test_knowing_more_never_makes_a_frame_more_novel(seed):
    rng = np.random.default_rng(seed)
    pool = make_pool(Rule(5), {"x": 0.1 * rng.random((4, 3))})
    last = np.inf
    for _ in range(4):
        pool.observe(Environments(0.1 * rng.random((3, 3)), H))
        score = pool.novelty()["x"]
        assert score <= last
        last = score


def test_identical_candidates_give_one_pick():
    rule = Rule(5)
    same = {str(index): np.full((3, 4), 0.2) for index in range(5)}
    chooser = pick(make_pool(rule, same), rule)
    assert len(chooser.picks) == 1 and chooser.saturated
