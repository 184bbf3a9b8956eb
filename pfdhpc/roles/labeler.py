"""The labeler team's program: first-principles labels, each checked before it is believed."""

import time
from dataclasses import replace
from functools import singledispatchmethod
from typing import Any

from .. import __version__
from ..config import Config
from ..data import Labelling, Record
from ..engines.registry import make_labeler
from ..errors import LabelError
from . import messages as m


class LabelerProgram:
    """Runs on every rank of the team; all take the same decisions."""

    def __init__(self, config: Config, comm: Any):
        self._config, self._comm = config, comm
        self._engine = None

    def ready(self, team: str) -> m.Ready:
        from ..engines.label.preflight import check_labeler

        n_ranks = 1 if self._comm is None else self._comm.Get_size()
        return m.Ready(team, tuple(check_labeler(self._config.label, n_ranks)))

    @singledispatchmethod
    def handle(self, order: m.Order) -> m.Answer:
        raise TypeError(f"a labeler has no rule for {type(order).__name__}")

    @handle.register
    def _(self, order: m.LabelFrames) -> m.Answer:
        started = time.monotonic()
        if self._engine is None:
            self._engine = make_labeler(self._config.label, self._comm)
        outcomes = tuple(self._label(record) for record in order.records)
        return m.Labelled(order.order_id, time.monotonic() - started, outcomes)

    def _label(self, record: Record) -> m.LabelOutcome:
        from ..engines.label.checks import label_with_ladder

        started = time.monotonic()
        labelling = Labelling(self._engine.level, self._config.label.type, code_version=__version__)
        try:
            label, attempts = label_with_ladder(self._engine, record.frame, self._config.label, self._comm)
        except LabelError as error:
            return m.LabelOutcome(record, str(error) or "no reason given")
        labelling = replace(labelling, seconds=time.monotonic() - started, attempts=attempts)
        return m.LabelOutcome(replace(record, label=label, labelling=labelling))
