"""Watches a training as it runs: divergence, the errors on all validation frames, the best weights so far."""

import math
import time
from collections.abc import Sequence
from typing import Any

from ...data import Record
from ...errors import TaskError
from .checkpoint import State
from .evaluate import errors, evaluate
from .runtime import weights_of

WEIGHTS = {"rmse_f": 1.0, "rmse_e": 10.0, "rmse_v": 1.0}
"""What "best" means: the least sum of force (eV/Å), energy and virial (eV/atom) errors with these weights."""

DIVERGED = "the training diverged, its weights are not finite; lower train.start_lr"


def diverged(model: Any) -> bool:
    """Whether any weight is NaN or infinite."""
    import torch

    return not all(torch.isfinite(weight).all() for weight in model.parameters())


class Monitor:
    """Takes the place of deepmd's ``full_validator``, which the trainer calls after every step on every rank.

    deepmd's own knows one metric at a time and never looks for NaN. Validation uses all validation frames,
    on the first rank alone, outside any collective.
    """

    def __init__(self, trainer: Any, validation: Sequence[Record], steps: int):
        self.trainer = trainer
        self.validation = validation if trainer.rank == 0 else ()
        self.steps = steps
        self.curve: dict[int, dict[str, float]] = {}
        self.best: State | None = None
        self.best_step = steps
        self.best_score = math.inf
        self.seconds = 0.0

    def run(self, *, step_id: int, display_step: int, lr: float, save_checkpoint: Any) -> None:
        """deepmd's hook. Raises TaskError when a weight is not finite.

        The ranks' weights are equal after every step, so they agree on that without asking each other.
        """
        if display_step != self.steps and display_step % self.trainer.disp_freq:
            return
        start = time.perf_counter()
        if diverged(self.trainer.model):
            raise TaskError(f"{DIVERGED}, at step {display_step}")
        self._validate(display_step, lr)
        self.seconds += time.perf_counter() - start

    def _validate(self, step: int, lr: float) -> None:
        if not self.validation:
            return
        predictions = evaluate(self.trainer.model, [record.frame for record in self.validation])
        found = errors(self.validation, predictions)
        self.curve[step] = {f"{key}_val": value for key, value in found.items() if math.isfinite(value)}
        score = sum(weight * found[key] for key, weight in WEIGHTS.items() if math.isfinite(found[key]))
        if score < self.best_score:
            self.best_score, self.best_step, self.best = score, step, weights_of(self.trainer)
