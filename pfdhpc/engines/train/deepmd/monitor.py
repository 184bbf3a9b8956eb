"""Watches a training as it runs: divergence, the errors on all validation frames, the best weights so far."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ....data import Label, Record
from ....errors import TaskError
from .checkpoint import State
from .evaluate import errors, evaluate
from .prepare import material
from .round_restart import Keeper
from .runtime import weights_of

WEIGHTS = {"rmse_f": 1.0, "rmse_e": 10.0, "rmse_v": 1.0}
"""What "best" means: the least sum of force (eV/Å), energy and virial (eV/atom) errors of a frame with these
weights, averaged over the validation frames."""

MIN_FRAMES = 10
"""Validation frames below which the last weights go on: with fewer, even the error of a mean is a guess."""
SIGNIFICANCE = 2.0
"""Standard errors by which an earlier checkpoint must be better than the last one."""

DIVERGED = "the training diverged, its weights are not finite; lower train.start_lr"


def diverged(model: Any) -> bool:
    """Whether any weight is NaN or infinite."""
    import torch

    return not all(torch.isfinite(weight).all() for weight in model.parameters())


@dataclass(frozen=True)
class Checkpoint:
    """The weights at one step, and what they are worth on each validation frame."""

    step: int
    weights: State
    scores: np.ndarray  # (n_frames,), see WEIGHTS


class Monitor:
    """Takes the place of deepmd's ``full_validator``, which the trainer calls after every step on every rank.

    deepmd's own knows one metric at a time and never looks for NaN. Validation uses all validation frames,
    on the first rank alone, outside any collective. There too a ``keeper`` writes what a killed round goes on from.
    """

    def __init__(self, trainer: Any, validation: Sequence[Record], steps: int, keeper: Keeper | None = None):
        self.trainer, self.keeper = trainer, keeper
        self.validation = validation if trainer.rank == 0 else ()
        self.steps = steps
        self.curve: dict[int, dict[str, float]] = {}
        self.best: Checkpoint | None = None
        self.last_scores: np.ndarray | None = None
        self.seconds = 0.0

    def begin(self) -> None:
        """Validate the weights the training starts from, as step 0."""
        start = time.perf_counter()
        self._validate(0)
        self.seconds += time.perf_counter() - start

    def memory(self) -> State:
        """What is known so far, of kinds that torch loads without running code."""
        import torch

        curve = {step: {key: float(value) for key, value in found.items()} for step, found in self.curve.items()}
        best = self.best and {**vars(self.best), "scores": torch.from_numpy(self.best.scores)}
        return {"curve": curve, "best": best}

    def remember(self, memory: State) -> None:
        """Go on with what the monitor of a killed round knew."""
        best = memory["best"]
        self.curve = memory["curve"]
        self.best = best and Checkpoint(best["step"], best["weights"], best["scores"].numpy())

    def run(self, *, step_id: int, display_step: int, lr: float, save_checkpoint: Any) -> None:
        """deepmd's hook. Raises TaskError when a weight is not finite.

        The ranks' weights are equal after every step, so they agree on that without asking each other.
        """
        start = time.perf_counter()
        if display_step == self.steps or display_step % self.trainer.disp_freq == 0:
            if diverged(self.trainer.wrapper):
                raise TaskError(f"{DIVERGED}, at step {display_step}")
            self._validate(display_step)
        if display_step != self.steps and self.keeper is not None and self.keeper.due():
            if not diverged(self.trainer.wrapper):  # which all ranks will find together, at the next validation
                self.keeper.keep(display_step, lr, self.memory)
        self.seconds += time.perf_counter() - start

    def better_than_last(self) -> Checkpoint | None:
        """The checkpoint to go on with instead of the last one, None if that is as good as can be told."""
        if self.best is None or len(self.validation) < MIN_FRAMES or self.best.step == self.steps:
            return None
        return self.best if surpasses(self.best.scores, self.last_scores) else None

    def _validate(self, step: int) -> None:
        if not self.validation:
            return
        predictions = evaluate(material(self.trainer), [record.frame for record in self.validation])
        found = errors(self.validation, predictions)
        self.curve[step] = {f"{key}_val": value for key, value in found.items() if math.isfinite(value)}
        self.last_scores = scores(self.validation, predictions)
        if self.best is None or self.last_scores.mean() < self.best.scores.mean():
            self.best = Checkpoint(step, weights_of(self.trainer), self.last_scores)


def scores(records: Sequence[Record], predictions: Sequence[Label]) -> np.ndarray:
    """What a model is worth on each frame, (n_frames,): the sum of its errors by :data:`WEIGHTS`."""
    return np.array([_score(errors([record], [label])) for record, label in zip(records, predictions, strict=True)])


def surpasses(best: np.ndarray, last: np.ndarray) -> bool:
    """Whether an earlier checkpoint is better than the last one by its scores on the same frames (``MIN_FRAMES``).

    The least of 20 noisy means is always below the last one. So the two are compared frame by frame, which takes out
    what the checkpoints have in common (how hard each frame is), and the gain must exceed ``SIGNIFICANCE`` standard
    errors of its mean; fewer frames give no such error.
    """
    gain = last - best
    return bool(gain.mean() > SIGNIFICANCE * gain.std(ddof=1) / math.sqrt(len(gain)))


def _score(found: dict[str, float]) -> float:
    return sum(weight * found[key] for key, weight in WEIGHTS.items() if math.isfinite(found[key]))
