"""Which labels train, which validate, and which are held out."""

from collections.abc import Iterable
from dataclasses import replace

from ..config.schema import TestSection
from .state import RunState


def assign(state: RunState, label_ids: Iterable[str], section: TestSection) -> tuple[RunState, tuple[str, ...]]:
    """Share out new labels, in the order of their ids, so that the shares hold over all labels so far.

    Returns the state with the held-out and validation ids added, and the ids left for training.
    """
    train: list[str] = []
    test, validation = list(state.test_ids), list(state.validation_ids)
    seen = len(state.train_ids) + len(test) + len(validation)
    for label_id in sorted(label_ids):
        seen += 1
        if not state.train_ids and not train:
            train.append(label_id)
        elif len(test) < round(section.holdout * seen):
            test.append(label_id)
        elif len(validation) < round(section.validation * seen):
            validation.append(label_id)
        else:
            train.append(label_id)
    return replace(state, test_ids=tuple(test), validation_ids=tuple(validation)), tuple(train)
