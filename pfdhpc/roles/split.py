"""Which labels train, which validate, and which are held out."""

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import islice

from ..config.schema import TestSection
from ..data import Record
from ..data.compositions import determining, formula_of
from .state import RunState

TRAIN, VALIDATION, TEST = range(3)
"""Places in a row of ``RunState.shares``."""
Shares = dict[str, list[int]]


def assign(state: RunState, label_ids: Iterable[str], section: TestSection) -> tuple[RunState, tuple[str, ...]]:
    """Share out new labels so that the shares hold over all labels so far, whatever the order they came in.

    Labels train first whose composition those trained on before do not determine (:mod:`pfdhpc.data.compositions`).
    Of the others each composition gives its share to the held-out frames, and then to those that validate, as far as
    whole frames allow. Returns the state in which that has happened, and the ids that train.
    """
    labels = {key: state.compositions.get(key, "") for key in sorted(label_ids)}
    shares = {text: list(counts) for text, counts in state.shares.items()}
    for text in labels.values():
        shares.setdefault(text, [0, 0, 0])
    decisive = determining(tuple(state.determining), tuple(labels.values()))
    train = _first_of_each(labels, decisive)
    if not (state.train_ids or train):
        train = set(islice(labels, 1))
    rest = {key: text for key, text in labels.items() if key not in train}
    total = len(labels) + len(state.train_ids) + len(state.validation_ids) + len(state.test_ids)
    totals = {text: sum(counts) for text, counts in shares.items()}
    for text in labels.values():
        totals[text] += 1
    test = _drawn(
        rest, round(section.holdout * total) - len(state.test_ids), _owed(section.holdout, totals, shares, TEST)
    )
    rest = {key: text for key, text in rest.items() if key not in test}
    owed = _owed(section.validation, totals, shares, VALIDATION)
    validation = _drawn(rest, round(section.validation * total) - len(state.validation_ids), owed)
    train |= rest.keys() - validation
    for place, keys in ((TRAIN, train), (VALIDATION, validation), (TEST, test)):
        for key in keys:
            shares[labels[key]][place] += 1
    state = replace(
        state,
        test_ids=(*state.test_ids, *sorted(test)),
        validation_ids=(*state.validation_ids, *sorted(validation)),
        compositions={key: text for key, text in state.compositions.items() if key not in labels},
        shares={text: tuple(counts) for text, counts in shares.items()},
        determining={**state.determining, **dict.fromkeys(decisive, state.next_version)},
    )
    return state, tuple(sorted(train))


def _first_of_each(labels: dict[str, str], formulas: Iterable[str]) -> set[str]:
    """The first label of each of some compositions."""
    wanted, found = set(formulas), set()
    for key, text in labels.items():
        if text in wanted:
            wanted.remove(text)
            found.add(key)
    return found


def _owed(share: float, totals: dict[str, int], shares: Shares, place: int) -> Callable[[str], float]:
    """By how many frames a composition is short of its share."""
    return lambda text: share * totals[text] - shares[text][place]


def _drawn(labels: dict[str, str], count: int, owed: Callable[[str], float]) -> set[str]:
    """So many labels, each of the composition that is owed most by then, the first of it by id."""
    waiting: dict[str, list[str]] = {}
    for key, text in labels.items():
        waiting.setdefault(text, []).append(key)
    queue = [(-owed(text), keys[0], text, 0) for text, keys in waiting.items()]
    heapq.heapify(queue)
    found: set[str] = set()
    while queue and len(found) < count:
        lacking, key, text, place = heapq.heappop(queue)
        found.add(key)
        if place + 1 < len(waiting[text]):
            heapq.heappush(queue, (lacking + 1, waiting[text][place + 1], text, place + 1))
    return found


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
    shares: Shares = {}
    for place, keys in enumerate(places):
        formulas = _formulas(keys, known)
        for text in formulas:
            shares.setdefault(text, [0, 0, 0])[place] += 1
        if place == TRAIN and not state.determining:
            state = replace(state, determining=dict.fromkeys(determining((), formulas), 1))
    return replace(state, shares={text: tuple(counts) for text, counts in shares.items()})


def _formulas(label_ids: Sequence[str], known: Callable[[Sequence[str]], Sequence[Record]]) -> list[str]:
    return list(map(formula_of, known(label_ids)))
