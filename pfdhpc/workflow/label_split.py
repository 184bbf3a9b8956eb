"""Which labels train, which validate, and which are held out."""

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice

from ..config.schema import TestSection
from ..data import Record
from ..data.compositions import determining, formula_of
from .state import RunState

TRAIN, VALIDATION, TEST = range(3)
"""Places in a row of ``RunState.shares``."""
NONE = (0, 0, 0)


def assign(state: RunState, label_ids: Iterable[str], section: TestSection) -> tuple[RunState, tuple[str, ...]]:
    """Share out new labels so that the shares hold over all labels so far, whatever the order they came in.

    Labels train first whose composition those trained on before do not determine (:mod:`pfdhpc.data.compositions`).
    Of the others each composition gives its share to the held-out frames, and then to those that validate, as far as
    whole frames allow. Returns the state in which that has happened, and the ids that train.
    """
    labels = {key: state.compositions.get(key, "") for key in sorted(label_ids)}
    decisive = determining(tuple(state.determining), tuple(labels.values()))
    bound = _first_of_each(labels, decisive)
    if not (state.train_ids or bound):
        bound = set(islice(labels, 1))
    test = _drawn(state, labels, bound, TEST, section.holdout)
    validation = _drawn(state, labels, bound | test, VALIDATION, section.validation)
    train = labels.keys() - test - validation
    shares = dict(state.shares)
    for place, keys in ((TRAIN, train), (VALIDATION, validation), (TEST, test)):
        for key in keys:
            shares[labels[key]] = _one_more(shares.get(labels[key], NONE), place)
    state = replace(
        state,
        test_ids=(*state.test_ids, *sorted(test)),
        validation_ids=(*state.validation_ids, *sorted(validation)),
        compositions={key: text for key, text in state.compositions.items() if key not in labels},
        shares=dict(sorted(shares.items())),
        determining={**state.determining, **dict.fromkeys(decisive, state.next_version)},
    )
    return state, tuple(sorted(train))


def _one_more(counts: Sequence[int], place: int) -> tuple[int, ...]:
    return tuple(count + (index == place) for index, count in enumerate(counts))


def _first_of_each(labels: Mapping[str, str], formulas: Iterable[str]) -> set[str]:
    """The first label of each of some compositions."""
    first = {text: key for key, text in reversed(labels.items())}
    return {first[text] for text in formulas}


def _drawn(state: RunState, labels: Mapping[str, str], bound: set[str], place: int, share: float) -> set[str]:
    """Labels that bring a share of all to its size: each of the composition whose share lacks most by then."""
    waiting: dict[str, list[str]] = {}
    for key, text in labels.items():
        if key not in bound:
            waiting.setdefault(text, []).append(key)
    new, queue = Counter(labels.values()), []
    for text, keys in waiting.items():
        before = state.shares.get(text, NONE)
        heapq.heappush(queue, (before[place] - share * (sum(before) + new[text]), keys[0], text))
    parts = (state.train_ids, state.validation_ids, state.test_ids)
    count = round(share * (len(labels) + sum(map(len, parts)))) - len(parts[place])
    found: list[str] = []
    while queue and len(found) < count:
        surplus, key, text = heapq.heappop(queue)
        found.append(key)
        keys = waiting[text]
        keys.pop(0)
        if keys:
            heapq.heappush(queue, (surplus + 1, keys[0], text))
    return set(found)


def with_compositions(state: RunState, known: Callable[[Sequence[str]], Sequence[Record]]) -> RunState:
    """The state of a resumed run with the compositions it lacks.

    That is of imported labels; and of all that were shared out, where an older pfdhpc wrote it or labels were lost.
    """
    lacking = [key for key in state.fresh if key not in state.compositions]
    found = {key: text for key, text in state.compositions.items() if key in state.fresh}
    found |= dict(zip(lacking, _formulas(lacking, known), strict=True))
    state = replace(state, compositions=found)
    places = (state.train_ids, state.validation_ids, state.test_ids)
    if sum(map(sum, state.shares.values())) == sum(map(len, places)):
        return state
    shares: dict[str, tuple[int, ...]] = {}
    for place, keys in enumerate(places):
        formulas = _formulas(keys, known)
        for text in formulas:
            shares[text] = _one_more(shares.get(text, NONE), place)
        if place == TRAIN:  # lost labels determine nothing any more
            kept = {text: version for text, version in state.determining.items() if text in formulas}
            more = determining(tuple(kept), formulas)
            state = replace(state, determining={**kept, **dict.fromkeys(more, max(1, state.newest) if kept else 1)})
    return replace(state, shares=dict(sorted(shares.items())))


def _formulas(label_ids: Sequence[str], known: Callable[[Sequence[str]], Sequence[Record]]) -> list[str]:
    return list(map(formula_of, known(label_ids)))
