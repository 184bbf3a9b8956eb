"""The trainer team's program: imports the parent, trains a round, evaluates models."""

from functools import singledispatchmethod
from typing import Any

from ..config import Config
from ..data import Record
from ..engines.base import TrainTask
from ..engines.registry import make_trainer
from . import messages as m
from .folder import RunFolder
from .preflight import model_facts


class TrainerProgram:
    """Runs on every rank of the team; only the leader publishes models."""

    def __init__(self, config: Config, folder: RunFolder, comm: Any):
        self._config, self._folder = config, folder
        self._leader = comm is None or comm.Get_rank() == 0
        self._engine = make_trainer(config.model, config.train, config.seed, comm)
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
        result = self._engine.import_parent(self._folder.scratch("import"))
        return m.Imported(order.order_id, result.seconds, self._publish(result, 0))

    @handle.register
    def _(self, order: m.Train) -> m.Answer:
        self._keep(order.records)
        directory = self._folder.scratch(f"train-{order.round:03d}")
        result = self._engine.train(
            TrainTask(
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
        )
        model = self._publish(result, order.version)
        return m.Trained(
            order.order_id, result.seconds, model, result.best_step, result.step_seconds, tuple(result.curve)
        )

    @handle.register
    def _(self, order: m.Evaluate) -> m.Answer:
        self._keep(order.records)
        frames = [record.frame for record in self._named(order.test_ids)]
        aligned = self._engine.align(
            self._folder.checkpoint(order.parent.digest),
            self._named(order.train_ids),
            self._folder.scratch("pretrained-aligned"),
        )
        parent = self._engine.predict(aligned.checkpoint, frames)
        final = self._engine.predict(self._folder.checkpoint(order.final.digest), frames)
        return m.Evaluated(order.order_id, aligned.seconds, order.test_ids, tuple(parent), tuple(final))

    def _publish(self, result, version: int) -> m.ModelRef:
        digest = self._folder.publish(result.checkpoint, result.frozen) if self._leader else ""
        return m.ModelRef(version, digest)

    def _keep(self, records: tuple[Record, ...]) -> None:
        self._records.update((record.label_id, record) for record in records)

    def _named(self, label_ids: tuple[str, ...]) -> tuple[Record, ...]:
        return tuple(self._records[label_id] for label_id in label_ids)
