"""Training with deepmd-kit's PyTorch trainer in process, data parallel: fine-tuning, or a student from scratch."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...config.train import ModelSection, TrainSection
from ...data import Frame, Label, Record
from ...errors import InputError, TaskError
from ..base import Product, Trainer, TrainResult, TrainTask
from .checkpoint import State, read, save
from .ddp_shim import fit_for_mpi, process_group
from .evaluate import aligned_bias, evaluate, initial_bias
from .monitor import DIVERGED, Monitor, diverged
from .prepare import Plan, build, prepare, read_curve
from .production import produce
from .runtime import freeze, load_model, logging_to, open_parent, seed_everything, weights_of
from .settings import check_deepmd_input
from .team import by_leader, leads, together


class DeepmdTrainer(Trainer):
    """See :class:`~pfdhpc.engines.base.Trainer`. ``comm``: the team's mpi4py communicator, None for one rank.

    All ranks make the same calls and get the same answers; an exception on one rank is raised on all of
    them. A training is seeded by its task alone.
    """

    def __init__(self, model: ModelSection, train: TrainSection, comm: Any = None):
        problems = check_deepmd_input(train)
        if problems:
            raise InputError(problems)
        self.model = model
        self.section = train
        self.comm = comm
        self._loaded: tuple[Any, Any] = (None, None)

    def import_parent(self, directory: Path) -> TrainResult:
        """The pre-trained model as single-task files in ``directory``: parent.pt and parent.pth.

        Raises InputError when the checkpoint cannot be used or ``model.branch`` does not fit it.
        """

        def work(start: float) -> TrainResult:
            state = open_parent(self.model.checkpoint, self.model.branch)
            return _publish(state, directory / "parent.pt", start)

        return self._alone(work, directory)

    def align(self, checkpoint: Path, records: Sequence[Record], directory: Path) -> TrainResult:
        """``checkpoint`` with its bias fitted to ``records`` (:func:`aligned_bias`): aligned.pt and .pth."""

        def work(start: float) -> TrainResult:
            bias = aligned_bias(self._load(checkpoint), records).cpu()
            state = {**read(checkpoint), "model.Default.atomic_model.out_bias": bias}
            return _publish(state, directory / "aligned.pt", start)

        return self._alone(work, directory)

    def produce(self, checkpoint: Path, frames: Sequence[Frame], directory: Path, compress: bool) -> Product:
        """product.pth in ``directory``: see :func:`produce`."""
        return self._alone(lambda _: produce(checkpoint, frames, directory, compress), directory)

    def predict(self, checkpoint: Path, frames: Sequence[Frame]) -> list[Label]:
        """Energy (eV), forces (eV/Å) and, in cells, virial (eV) of frames; the last model stays loaded."""
        return by_leader(self.comm, lambda: evaluate(self._load(checkpoint), frames))

    def train(self, task: TrainTask) -> TrainResult:
        """One round, in an empty directory: last.pt, or best.pt where ``train.best`` and :class:`Monitor` agree.

        Raises TaskError when the training diverges or a frame has an element the model does not know.
        """
        if task.steps == 0:
            return self._no_steps(task)
        start = time.perf_counter()
        with logging_to(self._log(task.directory)):
            plan = by_leader(self.comm, lambda: prepare(self.section, task, self._bias(task)))
            trainer, monitor, step_seconds = together(self.comm, lambda: self._run(task, plan))
            result = by_leader(self.comm, lambda: self._finish(task, trainer, monitor, start))
        return replace(result, step_seconds=step_seconds, seconds=time.perf_counter() - start)

    def _run(self, task: TrainTask, plan: Plan) -> tuple[Any, Monitor, float]:
        """The steps of a round, on all ranks; no MPI call but those that open the process group."""
        seed_everything(task.seed)
        with fit_for_mpi(), process_group(self.comm):
            trainer = build(plan, task)
            trainer.full_validator = monitor = Monitor(trainer, task.validation, task.steps)
            monitor.begin()
            start = time.perf_counter() - monitor.seconds
            try:
                trainer.run()
            except RuntimeError as error:  # deepmd's own checks for NaN, on the first rank alone
                if diverged(trainer.model):
                    raise TaskError(DIVERGED) from error
                raise
            return trainer, monitor, time.perf_counter() - start - monitor.seconds

    def _finish(self, task: TrainTask, trainer: Any, monitor: Monitor, start: float) -> TrainResult:
        """Write the models of a training that has run its steps."""
        for written in (*task.directory.glob("model.ckpt*"), task.directory / "checkpoint"):
            written.unlink()  # deepmd's own, with optimizer moments that no round continues from
        found = monitor.better_than_last() if self.section.best else None
        if found is None:
            result, step = _publish(weights_of(trainer), task.directory / "last.pt", start), task.steps
        else:
            result, step = _publish(found.weights, task.directory / "best.pt", start), found.step
        return replace(result, best_step=step, curve=_curve(task.directory, monitor))

    def _no_steps(self, task: TrainTask) -> TrainResult:
        """A round of no steps: only the bias moves, and only in the first."""
        if task.parent is None:
            raise TaskError("a model from scratch needs training steps; set train.first_steps to 1 or more")
        if task.first:
            return self.align(task.parent, task.old + task.new, task.directory)
        folder = task.directory
        return self._alone(lambda start: _publish(read(task.parent), folder / "last.pt", start), folder)

    def _alone(self, work: Any, directory: Path) -> TrainResult:
        """``work(start time)`` by the leader, its log in ``directory``."""
        with logging_to(self._log(directory)):
            return by_leader(self.comm, lambda: work(time.perf_counter()))

    def _log(self, directory: Path) -> Path:
        return directory / ("train.log" if leads(self.comm) else f"train-{self.comm.rank}.log")

    def _bias(self, task: TrainTask) -> Any:
        if task.parent is None:
            return initial_bias(task.model, task.old + task.new)
        if not task.first:
            return None
        return aligned_bias(self._load(task.parent), task.old + task.new).cpu()

    def _load(self, checkpoint: Path) -> Any:
        """The model of a checkpoint in memory; the last one asked for is kept."""
        facts = checkpoint.stat()
        key = (checkpoint, facts.st_mtime_ns, facts.st_size)
        if self._loaded[0] != key:
            self._loaded = (key, load_model(checkpoint))
        return self._loaded[1]


def _publish(state: State, path: Path, start: float) -> TrainResult:
    """Save a state as a checkpoint and freeze it beside."""
    checkpoint = save(state, path)
    frozen = freeze(checkpoint)
    return TrainResult(checkpoint, frozen, 0, (), time.perf_counter() - start, 0.0)


def _curve(directory: Path, monitor: Monitor) -> tuple[dict[str, float], ...]:
    """Errors on single training batches (deepmd's lcurve.out) and on all validation frames, by step."""
    curve = read_curve(directory / "lcurve.out")
    for step, found in monitor.curve.items():
        curve.setdefault(step, {}).update(found)
    return tuple({"step": float(step), **curve[step]} for step in sorted(curve))
