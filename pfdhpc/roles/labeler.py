"""The labeler team's program: first-principles labels, each checked before it is believed."""

import time
from dataclasses import replace
from functools import singledispatchmethod
from typing import Any

from .. import __version__
from ..config import Config
from ..data import Label, Labelling, Record
from ..engines.registry import make_labeler
from ..errors import InputError, LabelError
from . import messages as m


class LabelerProgram:
    """Runs on every rank of the team; all take the same decisions."""

    def __init__(self, config: Config, comm: Any):
        self._config, self._comm = config, comm
        self._engine = None

    def ready(self, team: str) -> m.Ready:
        """Build the engine: what the program itself refuses is bad input too."""
        try:
            self._engine = make_labeler(self._config.label, self._comm)
        except InputError as error:
            return m.Ready(team, tuple(error.problems))
        return m.Ready(team)

    @singledispatchmethod
    def handle(self, order: m.Order) -> m.Answer:
        raise TypeError(f"a labeler has no rule for {type(order).__name__}")

    @handle.register
    def _(self, order: m.LabelFrames) -> m.Answer:
        from ..engines.label.checks import label_all

        started = time.monotonic()
        frames = [record.frame for record in order.records]
        results = label_all(self._engine, frames, self._config.label, self._comm)
        seconds = time.monotonic() - started
        pairs = zip(order.records, results, strict=True)
        outcomes = tuple(self._outcome(record, result, seconds / len(frames)) for record, result in pairs)
        return m.Labelled(order.order_id, seconds, outcomes)

    def _outcome(self, record: Record, result: tuple[Label, int] | LabelError, seconds: float) -> m.LabelOutcome:
        if isinstance(result, LabelError):
            return m.LabelOutcome(record, str(result) or "no reason given")
        label, attempts = result
        labelling = Labelling(self._engine.level, self._config.label.type, seconds, attempts, __version__)
        return m.LabelOutcome(replace(record, label=label, labelling=labelling))
