"""Keeps, as the run goes, what only its report needs (:mod:`pfdhpc.report.evidence`)."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ..report.evidence import Chosen, keep_chosen
from . import messages as m
from .folder import RunFolder
from .state import RunState

Event = Callable[[RunState, RunState, Any], None]


class Evidence:
    """Listens to a run before ``then`` does."""

    def __init__(self, folder: RunFolder, then: Event):
        self._folder, self._then = folder, then

    def event(self, before: RunState, after: RunState, message: Any) -> None:
        """An answer was applied. Raises StoreError."""
        if isinstance(message, m.Selected) and message.report is not None:
            keep_chosen(self._folder.directory, chosen_of(before.round, message.report))
        self._then(before, after, message)


def chosen_of(number: int, report: m.SelectReport) -> Chosen:
    """The selection of a round, as it is kept."""
    survey = report.survey or m.Survey((), np.zeros(0), np.zeros((0, 0), np.float32))
    return Chosen(
        round=number,
        n_candidates=report.n_candidates,
        filtered=report.filtered,
        picked=report.picked,
        gains=report.gains,
        saturated=report.saturated,
        bandwidth=report.bandwidth,
        frame_ids=survey.frame_ids,
        novelty=survey.novelty,
        points=survey.points,
    )
