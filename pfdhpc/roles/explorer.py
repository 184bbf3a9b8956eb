"""The explorer team's program: segments of MD, whose candidates stay here until one is picked."""

import time
from functools import singledispatchmethod
from typing import Any

from ..config import Config
from ..data import Record
from ..engines.base import Explorer, SegmentResult
from ..engines.registry import make_explorer
from ..errors import InputError
from ..select.filters import Filter
from . import messages as m
from .folder import RunFolder
from .reduction import Reduction


class ExplorerProgram:
    """One rank, one replica at a time."""

    def __init__(self, config: Config, folder: RunFolder, team: str, peers: Any):
        self._config, self._folder = config, folder
        self._reduction = Reduction(config.select, team, peers)
        self._engine: Explorer | None = None
        self._model = ""
        self._round = -1
        self._candidates: dict[str, tuple[Record, ...]] = {}  # of this round, by replica

    def ready(self, team: str) -> m.Ready:
        """Build the engine, which opens its program: one that does not start is bad input too."""
        try:
            self._engine = make_explorer(self._config.explore)
        except InputError as error:
            return m.Ready(team, tuple(error.problems))
        return m.Ready(team)

    @singledispatchmethod
    def handle(self, order: m.Order) -> m.Answer:
        raise TypeError(f"an explorer has no rule for {type(order).__name__}")

    @handle.register
    def _(self, order: m.Explore) -> m.Answer:
        started = time.monotonic()
        if order.round != self._round:
            self._round, self._candidates = order.round, {}
        task, result = order.task, self._segment(order)
        self._candidates[task.replica] = tuple(
            record.with_origin(
                round=order.round, model_version=order.model.version, model_hash=order.model.digest
            )
            for record in result.records
        )
        return m.Explored(
            order.order_id,
            time.monotonic() - started,
            result.replica,
            result.state,
            result.steps,
            len(result.records),
            result.stopped,
        )

    @handle.register
    def _(self, order: m.Select) -> m.Answer:
        started = time.monotonic()
        mine = [record for name in order.replicas for record in self._candidates.get(name, ())]
        if order.round != self._round:
            mine = []
        reasons = Filter(self._config.select.filter, order.volumes)
        picked, report = self._reduction.run(order, mine, reasons)
        return m.Selected(order.order_id, time.monotonic() - started, picked, report)

    def _segment(self, order: m.Explore) -> SegmentResult:
        try:
            self._take_model(order)
            return self._engine.run(order.task)
        except InputError as error:
            # no fault of the replica, which a failed task would cost a restart: the job cannot go on
            raise RuntimeError(f"exploration is not possible: {error}") from error

    def _take_model(self, order: m.Explore) -> None:
        if order.model.digest != self._model:
            models = [self._folder.frozen(order.model.digest), *self._config.explore.committee]
            self._engine.load_models(models, order.type_map)
            self._model = order.model.digest
