"""The explorer team's program: segments of MD, whose candidates stay here until one is picked."""

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import singledispatchmethod
from pathlib import Path
from typing import Any

from ase.data import chemical_symbols

from .. import messages as m
from ..config import Config
from ..config.teacher import of_teacher
from ..data import Record
from ..engines.base import Explorer, SegmentResult
from ..engines.explore.committee import ACCURATE, FAILED
from ..engines.registry import make_explorer
from ..errors import InputError
from ..parallel.layout import EXPLORER
from ..store.run_directory import RunFolder
from .candidates import Selector
from .evaluator import Evaluator
from .pool_scanner import Scanner
from .published_model import PublishedModel, judged, near_copy


class ExplorerProgram:
    """One rank, one replica at a time."""

    def __init__(self, config: Config, folder: RunFolder, team: str, peers: Any, spawner: Any = None):
        self._config, self._folder, self._spawner = config, folder, spawner
        self._selector = Selector(config, folder, team, peers)
        self._engine: Explorer | None = None
        self._model = ""
        self._published_model = PublishedModel(folder)
        self._scanner = Scanner(config, folder) if config.pool else None
        self._evaluator = Evaluator(config, folder, EXPLORER, spawner=spawner)

    def ready(self, team: str) -> m.Ready:
        """Build the engine, which opens its program: one that does not start is bad input too."""
        try:
            if self._scanner is not None:
                self._scanner.read()
                return m.Ready(team)
            self._engine = make_explorer(self._config.explore, self._spawner, self._folder.engine_log(team))
        except InputError as error:
            return m.Ready(team, tuple(of_teacher(self._config.model, error.problems)))
        return m.Ready(team)

    @singledispatchmethod
    def handle(self, order: m.Order) -> m.Answer:
        raise TypeError(f"an explorer has no rule for {type(order).__name__}")

    @handle.register
    def _handle_explore(self, order: m.Explore) -> m.Answer:
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
    def _handle_scan(self, order: m.Scan) -> m.Answer:
        started = time.monotonic()
        candidates, counts = self._scanner.scan(order)
        self._selector.hold(order.round, order.replica, candidates)
        return m.Explored(
            order.order_id, time.monotonic() - started, order.replica, None, sum(counts.values()), len(candidates), "",
            counts[ACCURATE], counts[FAILED],
        )  # fmt: skip

    @handle.register
    def _handle_select(self, order: m.Select) -> m.Answer:
        return self._selector.select(order)

    @handle.register
    def _handle_evaluate(self, order: m.Evaluate) -> m.Answer:
        return self._evaluator.help(order)

    @handle.register
    def _handle_probe(self, order: m.Probe) -> m.Answer:
        from ..engines.explore.stability_test import stability

        started, section = time.monotonic(), self._config.student
        elements = tuple(chemical_symbols[number] for number in order.species)
        student = self._folder.product(order.student.digest)
        slow, fast, engine = self._speeds(order, student, elements)
        held = stability(
            student, order.frame, elements, order.temperature, section.probe_steps, section.probe_atoms,
            self._config.explore.timestep, self._config.explore.guard,
        )  # fmt: skip
        return m.Probed(
            order.order_id, time.monotonic() - started, fast.atoms, slow.steps_per_second,
            fast.steps_per_second, held.drift, held.ok, held.reason, engine,
        )  # fmt: skip

    def _speeds(self, order: m.Probe, student: Path, elements: tuple[str, ...]) -> tuple[Any, Any, str]:
        """Of the teacher and of the student, and the program the teacher ran in."""
        from ..engines.explore.stability_test import calculator_speed, speed

        section = self._config.student
        few, n_atoms = max(10, section.probe_steps // 20), section.probe_atoms
        if self._config.model.calculator is None:
            models = [self._folder.frozen(order.teacher.digest), student]
            return *speed(models, order.frame, elements, few, 1, n_atoms, order.temperature), "LAMMPS"
        explorer = make_explorer(self._config.explore.model_copy(update={"isolation": "none"}))
        explorer.load_models(self._models(order.teacher), elements)
        slow = calculator_speed(explorer, order.frame, few, n_atoms, order.temperature)
        return slow, *speed([student], order.frame, elements, few, 1, n_atoms, order.temperature), "ASE"

    def _tested(self, order: m.Explore, records: Sequence[Record]) -> Sequence[Record]:
        """The candidates with the predictions that are to be tested on their labels."""
        if not order.distilling or not records:
            return records
        if order.judge is None:
            return [replace(record, prediction=None) for record in records]
        frames = [record.frame for record in records]
        return judged(
            records, self._published_model.engine(order.judge).label_batch(frames, {}, self._config.run.overdue)
        )

    def _segment(self, order: m.Explore) -> SegmentResult:
        self._take_model(order)
        return self._engine.run(order.task)

    def _take_model(self, order: m.Explore) -> None:
        if order.model.digest != self._model:
            self._engine.load_models(self._models(order.model), order.type_map)
            self._model = order.model.digest

    def _models(self, driver: m.ModelRef) -> list[Path]:
        """The files of the model that explores and of its committee; those of a calculator are its own affair."""
        given = self._config.model
        if given.calculator is not None:
            return [given.checkpoint] if given.checkpoint else []
        return [near_copy(self._folder, driver.digest, "explore"), *self._config.explore.committee]
