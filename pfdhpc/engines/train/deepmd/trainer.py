"""Training with deepmd-kit's PyTorch trainer in process, data parallel: fine-tuning, or a student from scratch."""

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ....config.train import RANDOM, ModelSection, TrainSection
from ....data import Frame, Label
from ....errors import InputError, TaskError
from ...base import Product, Trainer, TrainResult, TrainTask
from ...team_calls import by_leader, leads, together
from ..alignment import Predict, completing_shift, energies_less, joining_notes, level_notes
from .checkpoint import State, is_compiled, kind_of, read, read_branches, save
from .checkpoint_formats import read_model
from .evaluate import aligned_bias, errors, evaluate, initial_bias, shifted_bias
from .freeze_compress import produce
from .monitor import DIVERGED, Monitor, diverged
from .mpi_ddp import fit_for_mpi, process_group
from .prepare import LATER, Plan, build, prepare, read_curve
from .pretrained_model import open_parent
from .replay import Branches, Replayed, read_replay, retyped_all, taken_along, taken_apart, whole
from .round_restart import Keeper, Kept, identity, take_up
from .runtime import build_model, freeze, logging_to, seed_everything, weights_of
from .train_input import check_deepmd_input
from .type_map import new_elements, retyped

Notes = dict[str, str]
BIAS = "model.Default.atomic_model.out_bias"


class DeepmdTrainer(Trainer):
    """See :class:`~pfdhpc.engines.base.Trainer`. ``comm``: the team's mpi4py communicator, None for one rank.

    All ranks make the same calls and get the same answers; an exception on one rank is raised on all of
    them. A training is seeded by its task alone.
    """

    def __init__(self, model: ModelSection, train: TrainSection, comm: Any = None):
        problems = check_deepmd_input(train, model)
        if problems:
            raise InputError(problems)
        self.model = model
        self.section = train
        self.comm = comm
        self._loaded: tuple[Any, Any] = (None, None)
        self._replay: dict[str, Replayed] | None = None

    def import_parent(self, directory: Path) -> TrainResult:
        """The pre-trained model as single-task files in ``directory``: parent.pt and parent.pth.

        parent.pt has the elements of the given file, from which the first round takes up those of
        ``model.type_map``; parent.pth, and all that is predicted, has the latter.
        Raises InputError when the checkpoint cannot be used or ``[model]`` and ``train.replay`` do not fit it.
        """

        def work(start: float) -> TrainResult:
            state, branches = open_parent(self.model), {}
            if self.section.replay:
                branches = taken_along(read_model(self.model.checkpoint), state, tuple(self.section.replay))
            return self._publish(state, directory / "parent.pt", start, branches)

        return self._alone(work, directory)

    def produce(self, checkpoint: Path, frames: Sequence[Frame], directory: Path, compress: bool) -> Product:
        """product.pth in ``directory``: see :func:`produce`."""
        return self._alone(lambda _: produce(checkpoint, frames, directory, compress), directory)

    def predict(self, checkpoint: Path, frames: Sequence[Frame]) -> list[Label]:
        """Energy (eV), forces (eV/Å) and, in cells, virial (eV) of frames; the last model stays loaded."""
        return by_leader(self.comm, lambda: evaluate(self._load(checkpoint), frames))

    def train(self, task: TrainTask) -> TrainResult:
        """One round, in an empty directory: last.pt, or best.pt where ``train.best`` and :class:`Monitor` agree.

        With ``train.restart_after`` it may hold what :mod:`.round_restart` left of the same round.
        Raises TaskError when the training diverges or a frame has an element the model does not know.
        """
        if task.steps == 0:
            return self._no_steps(task)
        start = time.perf_counter()
        with logging_to(self._log(task.directory)):
            plan, kept, notes = by_leader(self.comm, lambda: self._plan(task))
            trainer, monitor, step_seconds = together(self.comm, lambda: self._run(task, plan, kept))
            result = by_leader(self.comm, lambda: self._finish(task, trainer, monitor, start))
        begun_at = 0 if kept is None else kept.step
        seconds = time.perf_counter() - start
        return replace(result, step_seconds=step_seconds, seconds=seconds, begun_at=begun_at, notes=notes)

    def _plan(self, task: TrainTask) -> tuple[Plan, Kept | None, Notes]:
        """Of the round, or of what is left of one that was killed; and what the user must know of its labels."""
        kept = None if self.section.restart_after is None else take_up(task, self._identity(task))
        bias, notes = self._bias(task)
        if kept is None:
            return prepare(self.section, task, bias, self.model, self._replayed(task)), None, notes
        plan = prepare(self.section, task, None, self.model, self._replayed(task))  # its bias is in the weights
        return replace(plan, start={"restart_model": str(kept.path)}, finetune_links=None), kept, notes

    def _run(self, task: TrainTask, plan: Plan, kept: Kept | None) -> tuple[Any, Monitor, float]:
        """The steps of a round, on all ranks; no MPI call but those that open the process group."""
        if kept is not None:  # other draws than those of its beginning
            plan.config["training"]["seed"] = (task.seed + kept.step) % 2**32
        seed_everything(task.seed if kept is None else task.seed + kept.step)
        with fit_for_mpi(), process_group(self.comm):
            trainer = build(plan, task)
            trainer.full_validator = monitor = self._monitor(trainer, task)
            monitor.begin() if kept is None else monitor.remember(kept.memory())
            start = time.perf_counter() - monitor.seconds
            try:
                trainer.run()
            except RuntimeError as error:  # deepmd's own checks for NaN, on the first rank alone
                if diverged(trainer.wrapper):
                    raise TaskError(DIVERGED) from error
                raise
            return trainer, monitor, time.perf_counter() - start - monitor.seconds

    def _monitor(self, trainer: Any, task: TrainTask) -> Monitor:
        interval, keeper = self.section.restart_after, None
        if interval is not None and trainer.rank == 0:
            keeper = Keeper(trainer, task, self._identity(task), interval)
        return Monitor(trainer, task.validation, task.steps, keeper)

    def _identity(self, task: TrainTask) -> str:
        return identity(self.section, task, self._replayed(task))

    def _finish(self, task: TrainTask, trainer: Any, monitor: Monitor, start: float) -> TrainResult:
        """Write the models of a training that has run its steps."""
        for written in (*task.directory.glob("model.ckpt*"), task.directory / "checkpoint"):
            written.unlink()  # deepmd's own, with optimizer moments that no round continues from
        found = monitor.better_than_last() if self.section.best else None
        name, step = ("last.pt", task.steps) if found is None else ("best.pt", found.step)
        state, branches = taken_apart(weights_of(trainer) if found is None else found.weights)
        result = self._publish(state, task.directory / name, start, branches)
        kept = self._forgetting(task, {0: task.parent, step: result.checkpoint})
        return replace(result, best_step=step, curve=_curve(task.directory, monitor, kept))

    def _no_steps(self, task: TrainTask) -> TrainResult:
        """A round of no steps: only the bias moves."""
        if task.parent is None:
            raise TaskError("a model from scratch needs training steps; set train.first_steps to 1 or more")

        def work(start: float) -> TrainResult:
            state, branches = self._with_branches(task.parent)
            bias, notes = self._bias(task)
            state = state if bias is None else {**state, BIAS: bias}
            return replace(self._publish(state, task.directory / "last.pt", start, branches), notes=notes)

        return self._alone(work, task.directory)

    def _alone(self, work: Any, directory: Path) -> TrainResult:
        """``work(start time)`` by the leader, its log in ``directory``."""
        with logging_to(self._log(directory)):
            return by_leader(self.comm, lambda: work(time.perf_counter()))

    def _log(self, directory: Path) -> Path:
        return directory / ("train.log" if leads(self.comm) else f"train-{self.comm.rank}.log")

    def _bias(self, task: TrainTask) -> tuple[Any, Notes]:
        """The energy bias a training starts with, None: its parent's; and what the user must know of the labels."""
        if task.parent is not None and not task.first:
            return self._completed_bias(task)
        records = task.old + task.new
        if task.parent is None:
            return initial_bias(task.model, records), {}
        return self._first_bias(task, read(task.parent))

    def _first_bias(self, task: TrainTask, state: State) -> tuple[Any, Notes]:
        """By ``train.bias``, of the model's elements; a random fitting net knows nothing that could be shifted."""
        records, there = task.old + task.new, retyped(state, self.model.type_map)
        if self.section.bias == "set" or self.model.branch == RANDOM:
            bias = initial_bias({"type_map": there["_extra_state"]["model_params"]["type_map"]}, records)
        elif self.section.bias == "none":
            bias = there[BIAS]
        elif task.steps and (new_elements(state, self.model.type_map) or not self.section.use_pretrain_script):
            bias = LATER
        else:
            differences = energies_less(records, self._predict(task))
            bias = aligned_bias(self._load(task.parent), records, differences).cpu()
            return bias, level_notes(records, differences)
        return bias, {}  # without a prediction, what phases differ by is not told from what methods differ by

    def _completed_bias(self, task: TrainTask) -> tuple[Any, Notes]:
        """Of a later round: what its new labels determine and those before did not."""
        predict = self._predict(task)
        if self.section.bias == "none":
            return None, {}
        notes, shift = joining_notes(task.old, task.new, predict), completing_shift(task.old, task.new, predict)
        if not shift:
            return None, notes
        model = self._start(task)
        delta = [shift.get(name, 0.0) for name in model.get_type_map()]
        return shifted_bias(model, np.array(delta)).cpu(), notes

    def _predict(self, task: TrainTask) -> Predict:
        """Predictions by the model a training starts from, which is loaded when they are asked for."""
        return lambda frames: evaluate(self._start(task), frames)

    def _start(self, task: TrainTask) -> Any:
        """The model a training starts from; a student has its own elements."""
        return self._load(task.parent) if task.model is None else build_model(read(task.parent))

    def _replayed(self, task: TrainTask) -> dict[str, Replayed]:
        """The data of ``train.replay``, read once a job; a student replays nothing."""
        if task.model is not None or not self.section.replay:
            return {}
        if self._replay is None:
            self._replay = read_replay(self.section.replay)
        return self._replay

    def _forgetting(self, task: TrainTask, checkpoints: dict[int, Path]) -> dict[int, dict[str, float]]:
        """Errors of the replayed branches on their held-out frames, by step: ``{0: {"rmse_f_a": ...}, ...}``."""
        rows: dict[int, dict[str, float]] = {}
        for name, data in self._replayed(task).items():
            frames = [record.frame for record in data.held_out]
            for step, checkpoint in checkpoints.items():
                branch = retyped(whole(name, read(checkpoint), read_branches(checkpoint)), self.model.type_map)
                found = errors(data.held_out, evaluate(build_model(branch), frames))
                row = {f"{key}_{name}": value for key, value in found.items() if math.isfinite(value)}
                rows.setdefault(step, {}).update(row)
        return rows

    def _with_branches(self, checkpoint: Path) -> tuple[State, Branches]:
        """The state in a checkpoint and its replayed branches, with the elements the input asks for."""
        state, types = read(checkpoint), self.model.type_map
        return retyped(state, types), retyped_all(state, read_branches(checkpoint), types)

    def _load(self, checkpoint: Path) -> Any:
        """The model of a checkpoint in memory; the last one asked for is kept."""
        facts = checkpoint.stat()
        key = (checkpoint, facts.st_mtime_ns, facts.st_size)
        if self._loaded[0] != key:
            self._loaded = (key, build_model(retyped(read(checkpoint), self.model.type_map)))
        return self._loaded[1]

    def _publish(self, state: State, path: Path, start: float, branches: dict[str, State] | None = None) -> TrainResult:
        """Save a state as a checkpoint, and freeze it beside with the elements the input asks for.

        A DPA-4 is not frozen: it explores as a checkpoint.
        """
        checkpoint, there = save(state, path, branches), retyped(state, self.model.type_map)
        if is_compiled(kind_of(state)):
            return TrainResult(checkpoint, checkpoint, 0, (), time.perf_counter() - start, 0.0)
        source = checkpoint if there is state else save(there, path.with_name("retyped.pt"))
        frozen = freeze(source, path.with_suffix(".pth"))
        if source != checkpoint:
            source.unlink()
        return TrainResult(checkpoint, frozen, 0, (), time.perf_counter() - start, 0.0)


def _curve(directory: Path, monitor: Monitor, kept: dict[int, dict[str, float]]) -> tuple[dict[str, float], ...]:
    """Errors on single training batches (deepmd's lcurve.out), on all validation frames, and on what is ``kept``
    of replayed branches, by step."""
    curve = read_curve(directory / "lcurve.out")
    for step, found in (*monitor.curve.items(), *kept.items()):
        curve.setdefault(step, {}).update(found)
    return tuple({"step": float(step), **curve[step]} for step in sorted(curve))
