"""The trainer team's program: imports the parent, trains a round, evaluates models."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import singledispatchmethod
from pathlib import Path
from typing import Any

from ase.data import chemical_symbols

from .. import messages as m
from ..config import Config
from ..config.teacher import calculator_identity, labeling
from ..data import Label, Record
from ..engines.base import TrainResult, TrainTask
from ..engines.registry import make_labeler, make_trainer
from ..engines.team_calls import by_leader, leads
from ..engines.train.deepmd.round_restart import FILES, forget
from ..parallel.layout import TRAINER
from ..start.input_checks import committee_problems, model_facts, student_problems, training_problems
from ..store.run_directory import RunFolder
from .evaluator import Evaluator

KEPT = ("train.log", "lcurve.out")
"""What stays of a round's scratch folder; its models are published, its frames are in the store."""


class TrainerProgram:
    """Runs on every rank of the team; only the leader publishes models and clears folders."""

    def __init__(self, config: Config, folder: RunFolder, comm: Any, spawner: Any = None):
        self._config, self._folder = config, folder
        self._comm = comm
        self._engine = make_trainer(config.model, config.train, comm, spawner)
        self._evaluator = Evaluator(config, folder, TRAINER, comm, spawner)
        self._records: dict[str, Record] = {}

    def ready(self, team: str) -> m.Ready:
        """Look at the pre-trained model and the trainer's own input before anything starts."""
        problems, type_map = model_facts(self._config.model, self._config.train)
        problems += training_problems(self._config)
        problems += student_problems(self._config)
        problems += committee_problems(self._config)
        return m.Ready(team, tuple(problems), type_map)

    @singledispatchmethod
    def handle(self, order: m.Order) -> m.Answer:
        raise TypeError(f"a trainer has no rule for {type(order).__name__}")

    @handle.register
    def _handle_import_parent(self, order: m.ImportParent) -> m.Answer:
        if self._config.model.calculator is not None:
            return m.Imported(order.order_id, 0.0, m.ModelRef(0, calculator_identity(self._config.model)))
        with self._scratch(self._folder.scratch("import")) as directory:
            result = self._engine.import_parent(directory)
            return m.Imported(order.order_id, result.seconds, self._publish(result, 0))

    @handle.register
    def _handle_train(self, order: m.Train) -> m.Answer:
        self._keep(order.records)
        with self._scratch(self._folder.training(order.round, order.member), self._spared) as directory:
            result = self._engine.train(self._task(order, directory))
            model = self._publish(result, order.version)
        self._forget(order.round)  # the round is over when the coordinator has saved that: the next order tells
        return m.Trained(
            order.order_id, result.seconds, model, result.best_step, result.step_seconds, tuple(result.curve),
            result.begun_at, dict(result.notes), order.member,
        )  # fmt: skip

    @property
    def _spared(self) -> tuple[str, ...]:
        """What a killed round may go on from, and its log."""
        return () if self._config.train.restart_after is None else (FILES, "train*.log")

    @handle.register
    def _handle_evaluate(self, order: m.Evaluate) -> m.Answer:
        """Both models on the frames; asks a teacher that is a calculator, and makes the model for production."""
        self._keep(order.records)
        started = time.monotonic()
        found = self._evaluator.evaluate(order, self._records)
        if self._config.model.calculator is not None and order.fixed_ids:
            found = replace(found, fixed_before=tuple(self._calculated(self._named(order.fixed_ids))))
        if order.product:
            found = replace(found, product=self._produce(order.final, self._named(order.train_ids)))
        self._forget()
        return replace(found, seconds=time.monotonic() - started)

    def _calculated(self, records: tuple[Record, ...]) -> list[Label]:
        """Predictions of the teacher, a calculator."""
        frames, section = [record.frame for record in records], labeling(self._config)
        return by_leader(self._comm, lambda: make_labeler(section, None).label_batch(frames, {}, section.timeout))

    def _produce(self, model: m.ModelRef, train: tuple[Record, ...]) -> str:
        """Publish the model for production; says whether it is compressed."""
        frames = [record.frame for record in train]
        with self._scratch(self._folder.scratch("production")) as directory:
            checkpoint, compress = self._folder.checkpoint(model.digest), self._config.student.compress
            product = self._engine.produce(checkpoint, frames, directory, compress)
            by_leader(self._comm, lambda: self._folder.keep_product(model.digest, product.frozen))
        if not product.compressed:
            return f"not compressed: {product.reason or 'student.compress = false'}"
        return f"compressed, which changes forces by at most {product.force_change:.1e} eV/Å"

    def _task(self, order: m.Train, directory: Path) -> TrainTask:
        return TrainTask(
            round=order.round,
            parent=None if order.parent is None else self._folder.checkpoint(order.parent.digest),
            model=self._student(order.species),
            first=order.first,
            old=self._named(order.old_ids),
            new=self._named(order.new_ids),
            validation=self._named(order.validation_ids),
            steps=order.steps,
            seed=order.seed,
            directory=directory,
        )

    def _student(self, species: tuple[int, ...]) -> dict[str, Any] | None:
        """deepmd's model section of the student; None in a fine-tuning."""
        from ..engines.train.deepmd.student_model import student_model

        section = self._config.student
        return None if section is None else student_model(section, tuple(chemical_symbols[z] for z in species))

    @contextmanager
    def _scratch(self, directory: Path, spared: tuple[str, ...] = ()) -> Iterator[Path]:
        """A folder that is empty at first, whatever a killed attempt left, and holds only ``KEPT`` after success.

        Files ``spared`` stay. After a failure all of it stays, to be looked into.
        """
        by_leader(self._comm, lambda: _prepare(directory, spared))
        yield directory
        # every call of the engine ends with an answer of the leader to all ranks: none reads its files any more
        if leads(self._comm):
            _clear(directory, (*KEPT, *spared))

    def _forget(self, but: int | None = None) -> None:
        """Remove what trainings that are over might have gone on from; not those of the round ``but``, some of which
        may be under way."""
        for directory in self._folder.trainings(but) if leads(self._comm) else ():
            forget(directory)

    def _publish(self, result: TrainResult, version: int) -> m.ModelRef:
        digest = by_leader(self._comm, lambda: self._folder.publish(result.checkpoint, result.frozen))
        return m.ModelRef(version, digest)

    def _keep(self, records: tuple[Record, ...]) -> None:
        self._records.update((record.label_id, record) for record in records)

    def _named(self, label_ids: tuple[str, ...]) -> tuple[Record, ...]:
        return tuple(self._records[label_id] for label_id in label_ids)


def _prepare(directory: Path, spared: tuple[str, ...]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    _clear(directory, spared)


def _clear(directory: Path, kept: tuple[str, ...] = ()) -> None:
    """Remove what is in a folder but the files ``kept``; what a file system holds on to is left to the next time."""
    for path in directory.iterdir():
        if any(path.match(name) for name in kept):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
