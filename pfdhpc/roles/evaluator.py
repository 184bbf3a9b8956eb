"""What a team does that evaluates: predictions by both models, each of which stays in memory."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from .. import messages as m
from ..config import Config
from ..data import Frame, Label, Record
from ..engines.base import Trainer
from ..engines.registry import make_trainer
from ..errors import EngineLost, TaskError
from ..store.run_directory import RunFolder

BEFORE, AFTER = "before", "after"


class Evaluator:
    """Carries out parts of the evaluation on every rank of a team of some ``role``.

    All teams predict alike, as the trainer does; who has not done it before loads what it takes first.
    """

    def __init__(self, config: Config, folder: RunFolder, role: str, comm: Any = None, spawner: Any = None):
        self._config, self._folder, self._role = config, folder, role
        self._comm, self._spawner = comm, spawner
        self._engines: dict[str, Trainer] = {}  # one for each model, which it keeps

    def help(self, order: m.Evaluate) -> m.Evaluated:
        """As :meth:`evaluate`, for a team whose work this is not. Raises EngineLost where it cannot do it."""
        try:
            return self.evaluate(order, {record.label_id: record for record in order.records})
        except TaskError:
            raise
        except Exception as error:  # out of memory, say: torch and deepmd raise anything
            reason = (str(error).splitlines() or [""])[0]
            raise EngineLost(f"it cannot help with the evaluation: {type(error).__name__}: {reason}") from error

    def evaluate(self, order: m.Evaluate, records: Mapping[str, Record]) -> m.Evaluated:
        """The answer to an order, whose frames are in ``records``, by label id.

        Raises TaskError for frames that a model does not know. Does not ask a teacher that is a calculator.
        """
        started = time.monotonic()
        test, fixed = (self._frames(records, keys) for keys in (order.test_ids, order.fixed_ids))
        train = self._frames(records, order.train_ids) if order.parent is not None else []
        if order.parent is not None:
            before = self._predict(BEFORE, order.parent, [*train, *test, *fixed])
        elif order.teacher is not None and self._config.model.calculator is None:
            before = self._predict(BEFORE, order.teacher, fixed)
        else:
            before = []
        after = self._predict(AFTER, order.final, [*test, *fixed])
        return m.Evaluated(
            order.order_id, time.monotonic() - started, order.test_ids,
            parent=tuple(before[len(train) : len(before) - len(fixed)]),
            final=tuple(after[: len(test)]),
            fixed_before=tuple(before[len(before) - len(fixed) :]) if before else (),
            fixed_final=tuple(after[len(test) :]),
            energies=tuple(float(label.energy) for label in before[: len(train)]),
            role=self._role,
        )  # fmt: skip

    def _frames(self, records: Mapping[str, Record], label_ids: Sequence[str]) -> list[Frame]:
        return [records[label_id].frame for label_id in label_ids]

    def _predict(self, which: str, model: m.ModelRef, frames: Sequence[Frame]) -> list[Label]:
        if not frames:
            return []
        if which not in self._engines:
            self._engines[which] = make_trainer(self._config.model, self._config.train, self._comm, self._spawner)
        return self._engines[which].predict(self._folder.checkpoint(model.digest), frames)
