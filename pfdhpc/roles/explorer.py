"""The explorer team's program: segments of MD, whose candidates stay here until one is picked."""

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import singledispatchmethod
from typing import Any

from ase.data import chemical_symbols

from ..config import Config
from ..data import Record
from ..engines.base import Explorer, SegmentResult
from ..engines.registry import make_explorer
from ..errors import InputError
from . import messages as m
from .folder import RunFolder
from .judge import Published, judged
from .pool import ACCURATE, FAILED, Scanner
from .selector import Selector


class ExplorerProgram:
    """One rank, one replica at a time."""

    def __init__(self, config: Config, folder: RunFolder, team: str, peers: Any, spawner: Any = None):
        self._config, self._folder, self._spawner = config, folder, spawner
        self._selector = Selector(config, folder, team, peers)
        self._engine: Explorer | None = None
        self._model = ""
        self._published = Published(folder)
        self._scanner = Scanner(config, folder) if config.pool else None

    def ready(self, team: str) -> m.Ready:
        """Build the engine, which opens its program: one that does not start is bad input too."""
        try:
            if self._scanner is not None:
                self._scanner.read()
                return m.Ready(team)
            self._engine = make_explorer(self._config.explore, self._spawner, self._folder.engine_log(team))
        except InputError as error:
            return m.Ready(team, tuple(error.problems))
        return m.Ready(team)

    @singledispatchmethod
    def handle(self, order: m.Order) -> m.Answer:
        raise TypeError(f"an explorer has no rule for {type(order).__name__}")

    @handle.register
    def _(self, order: m.Explore) -> m.Answer:
        started = time.monotonic()
        result = self._segment(order)
        model = order.judge or order.model
        origin = {"round": order.round, "model_version": model.version, "model_hash": model.digest}
        candidates = [record.with_origin(**origin) for record in self._tested(order, result.records)]
        self._selector.hold(order.round, order.task.replica, candidates)
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
    def _(self, order: m.Scan) -> m.Answer:
        started = time.monotonic()
        candidates, counts = self._scanner.scan(order)
        self._selector.hold(order.round, order.replica, candidates)
        return m.Explored(
            order.order_id, time.monotonic() - started, order.replica, None, sum(counts.values()), len(candidates), "",
            counts[ACCURATE], counts[FAILED],
        )  # fmt: skip

    @handle.register
    def _(self, order: m.Select) -> m.Answer:
        try:
            return self._selector.select(order)
        except InputError as error:
            raise RuntimeError(f"selection is not possible: {error}") from error

    @handle.register
    def _(self, order: m.Probe) -> m.Answer:
        from ..engines.probe import speed, stability

        started, section = time.monotonic(), self._config.student
        elements = tuple(chemical_symbols[number] for number in order.species)
        models = [self._folder.frozen(order.teacher.digest), self._folder.product(order.student.digest)]
        few = max(10, section.probe_steps // 20)
        found = speed(models, order.frame, elements, few, 1, section.probe_atoms, order.temperature)
        held = stability(
            models[1], order.frame, elements, order.temperature, section.probe_steps, section.probe_atoms,
            self._config.explore.timestep, self._config.explore.guard,
        )  # fmt: skip
        return m.Probed(
            order.order_id, time.monotonic() - started, found[0].atoms, found[0].steps_per_second,
            found[1].steps_per_second, held.drift, held.ok, held.reason,
        )  # fmt: skip

    def _tested(self, order: m.Explore, records: Sequence[Record]) -> Sequence[Record]:
        """The candidates with the predictions that are to be tested on their labels."""
        if not order.distilling or not records:
            return records
        if order.judge is None:
            return [replace(record, prediction=None) for record in records]
        frames = [record.frame for record in records]
        return judged(records, self._published.engine(order.judge).label_batch(frames, {}, self._config.run.overdue))

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
