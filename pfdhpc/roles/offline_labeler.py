"""The labeler team's program where labels are made elsewhere: it hands frames out, and takes results in."""

import time
from dataclasses import replace
from functools import singledispatchmethod
from typing import Any

from .. import __version__
from .. import messages as m
from ..config import Config
from ..data import Label, Labelling, Record
from ..engines.label import offline
from ..engines.label.label_checks import check_energy, check_label
from ..engines.registry import make_labeler
from ..errors import InputError, LabelError
from ..store.run_directory import RunFolder

LOOK = 5.0
"""Seconds after which an order is answered, with or without results: the coordinator may want to stop."""


class OfflineProgram:
    """One rank. All frames that wait are one order, which is given again until nothing is missing."""

    def __init__(self, config: Config, comm: Any):
        self._config, self._comm = config, comm
        self._order_id, self._since = "", 0.0

    def ready(self, team: str) -> m.Ready:
        try:
            log = RunFolder(self._config.run.directory).engine_log(team)
            self._engine = make_labeler(self._config.label, self._comm, log=log)
        except InputError as error:
            return m.Ready(team, tuple(error.problems))
        return m.Ready(team)

    @singledispatchmethod
    def handle(self, order: m.Order) -> m.Answer:
        raise TypeError(f"a labeler of files has no rule for {type(order).__name__}")

    @handle.register
    def _handle_label_frames(self, order: m.LabelFrames) -> m.Answer:
        started = time.monotonic()
        if order.order_id != self._order_id:
            self._order_id, self._since = order.order_id, started
        records = {record.frame_id: record for record in order.records}
        frames = [record.frame for record in order.records]
        self._engine.offer(order.records)
        wait = self._config.label.wait
        until = min(started + LOOK, max(self._since + wait, started + 2 * offline.PAUSE))
        while not (found := self._engine.collect(frames)) and time.monotonic() < until:
            time.sleep(offline.PAUSE)
        seconds = time.monotonic() - started
        if not found:
            idle = time.monotonic() - self._since
            return m.Awaiting(order.order_id, seconds, len(frames), idle, str(self._engine.folder))
        outcomes = [self._outcome(records[key], answer) for key, answer in found.items()]
        self._engine.close([outcome.record.frame for outcome in outcomes])
        return m.Labelled(order.order_id, seconds, tuple(outcomes))

    def _outcome(self, record: Record, answer: Label | LabelError) -> m.LabelOutcome:
        try:
            if isinstance(answer, LabelError):
                raise answer
            check_label(record.frame, answer, self._config.label)
            checked = check_energy(record, (answer, 1), self._config.label)
            if isinstance(checked, LabelError):
                raise checked
        except LabelError as error:
            return m.LabelOutcome(record, str(error))
        labelling = Labelling(self._engine.level, "offline", code_version=__version__)
        return m.LabelOutcome(replace(record, label=answer, labelling=labelling))
