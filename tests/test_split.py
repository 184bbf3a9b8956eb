"""How labels are shared out: what determines energies trains, and every composition is tested on in its turn."""

import random
from collections import Counter
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from test_roles import frame

from pfdhpc.config.schema import TestSection as SharesSection
from pfdhpc.data import Label, Labelling, Record
from pfdhpc.data.compositions import undetermined
from pfdhpc.workflow.label_split import assign, with_compositions
from pfdhpc.workflow.state import RunState
from pfdhpc.workflow.state_codec import from_tree, to_tree

KINDS = ("Al", "Cu", "Ag", "Au", "Cu3Au", "CuAu3", "Cu107Au", "CuAu", "AlCuAgAu")
batches = st.lists(st.lists(st.sampled_from(KINDS), max_size=12), min_size=1, max_size=5)
shares = st.tuples(st.floats(0, 0.5), st.floats(0, 0.3))


def labels_of(batches, seed=0):
    """Each batch as formulas by label id; ids are in no order."""
    rng = random.Random(seed)
    return [{f"{rng.getrandbits(64):016x}:pbe": text for text in batch} for batch in batches]


def shared_out(batches, section, order=sorted):
    state = RunState()
    for labels in batches:
        keys = order(labels)
        state = replace(state, compositions={**state.compositions, **{key: labels[key] for key in keys}})
        state, train = assign(state, keys, section)
        state = replace(state, train_ids=tuple(sorted((*state.train_ids, *train))))
    return state


@settings(deadline=None)
@given(batches=batches, shares=shares)
def test_no_label_is_tested_on_whose_energies_training_does_not_determine(batches, shares):
    section = SharesSection(holdout=shares[0], validation=shares[1])
    found = labels_of(batches)
    texts = {key: text for labels in found for key, text in labels.items()}
    for n in range(1, len(found) + 1):  # after each training
        state = shared_out(found[:n], section)
        trained = sorted({texts[key] for key in state.train_ids})
        others = [texts[key] for key in (*state.validation_ids, *state.test_ids)]
        assert not any(undetermined(trained, others))
        assert not any(undetermined(tuple(state.determining), trained))
        assert set(state.determining) <= set(trained)


@settings(deadline=None)
@given(batches=batches, shares=shares)
def test_the_shares_hold_and_are_of_every_composition(batches, shares):
    section = SharesSection(holdout=shares[0], validation=shares[1])
    found = labels_of(batches)
    state = shared_out(found, section)
    texts = {key: text for labels in found for key, text in labels.items()}
    total, bound = len(texts), len(state.determining)
    everything = (*state.train_ids, *state.validation_ids, *state.test_ids)
    assert sorted(everything) == sorted(texts)
    assert len(state.test_ids) <= max(round(section.holdout * n) for n in range(total + 1))
    if total - bound >= section.holdout * total + 1:
        assert len(state.test_ids) >= section.holdout * total - 1 - bound
    assert sum(map(sum, state.shares.values())) == total and not state.compositions
    for place, keys in enumerate((state.train_ids, state.validation_ids, state.test_ids)):
        assert Counter(texts[key] for key in keys) == Counter({k: row[place] for k, row in state.shares.items()})


@settings(deadline=None)
@given(batches=batches, seed=st.integers(0, 9))
def test_the_order_of_arrival_does_not_matter(batches, seed):
    found, section = labels_of(batches), SharesSection(holdout=0.3, validation=0.2)

    def shuffled(labels):
        return random.Random(seed).sample(sorted(labels), len(labels))

    one, two = shared_out(found, section), shared_out(found, section, shuffled)
    assert to_tree(one) == to_tree(two)
    assert to_tree(from_tree(to_tree(one))) == to_tree(one)


def test_every_composition_is_held_out_and_validates_where_there_are_frames_enough():
    found = labels_of([["Al", "Cu", "Ag", "Au"] * 10])
    state = shared_out(found, SharesSection(holdout=0.2, validation=0.1))
    assert all(row == (7, 1, 2) for row in state.shares.values()) and len(state.shares) == 4
    grown = shared_out(labels_of([["Al", "Cu", "Ag", "Au"] * 2] * 5), SharesSection(holdout=0.2, validation=0.1))
    assert all(row == (7, 1, 2) for row in grown.shares.values())


def test_four_elements_of_two_frames_each_all_train_whatever_their_ids():
    """The default: init.frames = 8, of which two are not trained on; never both of one element."""
    for seed in range(40):
        state = shared_out(labels_of([["Al", "Cu", "Ag", "Au"] * 2], seed), SharesSection())
        assert all(row[0] for row in state.shares.values()) and len(state.test_ids) == len(state.validation_ids) == 1


def record(seed):
    return Record(frame(seed), label=Label(0.0, [[0.0] * 3] * 2), labelling=Labelling("pbe"))


def test_a_state_of_an_older_version_learns_its_compositions_from_the_store():
    records = {item.label_id: item for item in map(record, range(6))}
    ids = sorted(records)
    old = RunState(train_ids=tuple(ids[:3]), validation_ids=(ids[3],), test_ids=(ids[4],), fresh=(ids[5],))

    def known(keys):
        return [records[key] for key in keys]

    state = with_compositions(old, known)
    assert state.shares == {"Cu": (3, 1, 1)} and state.determining == {"Cu": 1} and state.compositions == {ids[5]: "Cu"}
    assert with_compositions(state, known) == state
    lost = replace(state, train_ids=state.train_ids[:2])  # a damaged file was taken out of the store
    assert with_compositions(lost, known).shares == {"Cu": (2, 1, 1)}
    assert with_compositions(replace(state, train_ids=()), known).determining == {}, "lost labels determine nothing"


def test_labels_of_unknown_composition_are_shared_out_by_number():
    state, train = assign(RunState(), [f"{i}:pbe" for i in range(10)], SharesSection(holdout=0.2, validation=0.1))
    assert (len(train), len(state.validation_ids), len(state.test_ids)) == (7, 1, 2)
