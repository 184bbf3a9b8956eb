"""The trainer team's program: imports the parent, trains a round, evaluates models."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import singledispatchmethod
from pathlib import Path
from typing import Any

from ..config import Config
from ..data import Record
from ..engines.base import TrainResult, TrainTask
from ..engines.registry import make_trainer
from ..engines.train.team import by_leader, leads
from . import messages as m
from .folder import RunFolder
from .preflight import model_facts

KEPT = ("train.log", "lcurve.out")
"""What stays of a round's scratch folder; its models are published, its frames are in the store."""


class TrainerProgram:
    """Runs on every rank of the team; only the leader publishes models and clears folders."""

    def __init__(self, config: Config, folder: RunFolder, comm: Any):
        self._config, self._folder = config, folder
        self._comm = comm
        self._engine = make_trainer(config.model, config.train, comm)
        self._records: dict[str, Record] = {}

    def ready(self, team: str) -> m.Ready:
        """Look at the pre-trained model and the deepmd input before anything starts."""
        from ..engines.train.settings import check_deepmd_input

        problems, type_map = model_facts(self._config.model)
        return m.Ready(team, (*problems, *check_deepmd_input(self._config.train)), type_map)

    @singledispatchmethod
    def handle(self, order: m.Order) -> m.Answer:
        raise TypeError(f"a trainer has no rule for {type(order).__name__}")

    @handle.register
    def _(self, order: m.ImportParent) -> m.Answer:
        with self._scratch("import") as directory:
            result = self._engine.import_parent(directory)
            return m.Imported(order.order_id, result.seconds, self._publish(result, 0))

    @handle.register
    def _(self, order: m.Train) -> m.Answer:
        self._keep(order.records)
        with self._scratch(f"train-{order.round:03d}") as directory:
            result = self._engine.train(self._task(order, directory))
            model = self._publish(result, order.version)
        return m.Trained(
            order.order_id, result.seconds, model, result.best_step, result.step_seconds, tuple(result.curve)
        )

    @handle.register
    def _(self, order: m.Evaluate) -> m.Answer:
        """Both models on the test frames; the pre-trained one with its energy bias aligned, if there is data for it."""
        self._keep(order.records)
        frames = [record.frame for record in self._named(order.test_ids)]
        started, train = time.monotonic(), self._named(order.train_ids)
        parent = self._folder.checkpoint(order.parent.digest)
        with self._scratch("pretrained-aligned") as directory:
            if train:
                parent = self._engine.align(parent, train, directory).checkpoint
            before = self._engine.predict(parent, frames)
        after = self._engine.predict(self._folder.checkpoint(order.final.digest), frames)
        seconds = time.monotonic() - started
        return m.Evaluated(order.order_id, seconds, order.test_ids, tuple(before), tuple(after))

    def _task(self, order: m.Train, directory: Path) -> TrainTask:
        return TrainTask(
            round=order.round,
            parent=self._folder.checkpoint(order.parent.digest),
            first=order.first,
            old=self._named(order.old_ids),
            new=self._named(order.new_ids),
            validation=self._named(order.validation_ids),
            steps=order.steps,
            seed=order.seed,
            directory=directory,
        )

    @contextmanager
    def _scratch(self, name: str) -> Iterator[Path]:
        """A folder that is empty at first, whatever a killed attempt left, and holds only ``KEPT`` after success.

        After a failure all of it stays, to be looked into.
        """
        directory = by_leader(self._comm, lambda: _emptied(self._folder.scratch(name)))
        yield directory
        # every call of the engine ends with an answer of the leader to all ranks: none reads its files any more
        if leads(self._comm):
            _clear(directory, KEPT)

    def _publish(self, result: TrainResult, version: int) -> m.ModelRef:
        digest = by_leader(self._comm, lambda: self._folder.publish(result.checkpoint, result.frozen))
        return m.ModelRef(version, digest)

    def _keep(self, records: tuple[Record, ...]) -> None:
        self._records.update((record.label_id, record) for record in records)

    def _named(self, label_ids: tuple[str, ...]) -> tuple[Record, ...]:
        return tuple(self._records[label_id] for label_id in label_ids)


def _emptied(directory: Path) -> Path:
    _clear(directory)
    return directory


def _clear(directory: Path, kept: tuple[str, ...] = ()) -> None:
    """Remove what is in a folder but the files ``kept``; what a file system holds on to is left to the next time."""
    for path in directory.iterdir():
        if path.name in kept:
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
