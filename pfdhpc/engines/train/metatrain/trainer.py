"""Training PET models with metatrain: ``mtt train`` as a child process for every stage of a round.

The child is started by the :class:`Spawner`, in a process group that is killed with this rank. A round goes on from
weights alone, as metatrain's full fine-tuning does; a killed one is trained again from its beginning, which gives the
same weights on a CPU. Checkpoints of metatrain are pickles: loading one runs code that is in it, as ``mtt`` does.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ....config.train import ModelSection, TrainSection
from ....data import Frame, Label, Record
from ....errors import InputError, TaskError
from ...base import Product, Trainer, TrainResult, TrainTask
from ...isolated.spawner import Spawner, clean_environment
from ...label.programs.common import last_words
from ...metatomic import MetatomicPredictor
from ...team_calls import by_leader
from ..alignment import completing_shift, energies_less, joining_notes, level_notes
from ..deepmd.monitor import MIN_FRAMES, scores, surpasses
from .model import aligned, check_finite, export, latest, load_pet, new_pet, save, shifted
from .train_input import Stage, check_options, epoch, read_curve, read_options, round_options, stages, write_frames

POLL = 0.05
"""Seconds between two looks at the child."""
FAREWELL = 3.0
"""Seconds it has to end by itself when its rank does not want it any more."""


class MetatrainTrainer(Trainer):
    """See :class:`~pfdhpc.engines.base.Trainer`. A team of one rank; a training is seeded by its task alone."""

    def __init__(self, model: ModelSection, train: TrainSection, comm: Any, spawner: Spawner):
        """Raises InputError when metatrain is not there or refuses ``train.metatrain``."""
        if problems := check_options(model, train):
            raise InputError(problems)
        self.model, self.section, self.comm = model, train, comm
        self._spawner = spawner
        self._loaded: tuple[Any, Any] = (None, None)

    def import_parent(self, directory: Path) -> TrainResult:
        """The pre-trained model, or a random one of the named elements: parent.ckpt and parent.pt."""
        return self._alone(lambda start: self._publish(self._parent(), directory / "parent.ckpt", start))

    def produce(self, checkpoint: Path, frames: Sequence[Frame], directory: Path, compress: bool) -> Product:
        """The exported model, product.pt; there is nothing to compress in a PET model."""
        reason = "a PET model has no tables to be compressed into" if compress else ""
        return self._alone(lambda _: Product(export(load_pet(checkpoint), directory / "product.pt"), False, reason))

    def predict(self, checkpoint: Path, frames: Sequence[Frame]) -> list[Label]:
        """Energy (eV), conservative forces (eV/Å) and, in cells, virial (eV); the last model stays loaded."""
        return by_leader(self.comm, lambda: self._predictor(checkpoint)(frames))

    def train(self, task: TrainTask) -> TrainResult:
        """One round: last.ckpt, or best.ckpt where ``train.best`` says so, and the exported model beside it.

        Raises TaskError when metatrain fails or a weight is not finite.
        """
        return self._alone(lambda start: self._train(task, start))

    def _train(self, task: TrainTask, start: float) -> TrainResult:
        parent, notes = self._aligned(task)
        if task.steps == 0:
            if parent is None:
                raise TaskError("a model from scratch needs training steps; set train.first_steps to 1 or more")
            return replace(self._publish(load_pet(parent), task.directory / "last.ckpt", start), notes=notes)
        done, curve, clock = 0, [], time.perf_counter()
        for stage in stages(self.section, task.steps, task.first):
            folder = task.directory / stage.name
            n_steps, n_epochs = self._prepare(task, stage, parent, folder)
            self._run(folder, task.directory / "train.log")
            curve += read_curve(next(folder.glob("outputs/*/*/train.csv")), done, n_steps)
            parent, done = folder / "model.ckpt", done + n_steps * n_epochs
        step_seconds = time.perf_counter() - clock
        model, best_epoch = self._chosen(parent, task.validation)
        step = done if best_epoch is None else done - n_steps * (n_epochs - 1 - best_epoch)
        result = self._publish(model, task.directory / f"{'last' if best_epoch is None else 'best'}.ckpt", start)
        seconds = time.perf_counter() - start
        return TrainResult(result.checkpoint, result.frozen, step, tuple(curve), seconds, step_seconds, notes=notes)

    def _prepare(self, task: TrainTask, stage: Stage, parent: Path | None, folder: Path) -> tuple[int, int]:
        """Options and frames of a stage in a folder of its own; the steps of an epoch, and the epochs."""
        import yaml

        frames = epoch(self.section, task.old, task.new, stage.steps, task.seed)
        validation = task.validation or (*task.old, *task.new)
        virial = all(record.label.virial is not None for record in (*frames, *validation))
        folder.mkdir()
        write_frames(frames, virial, folder / "training.xyz")
        write_frames(validation, virial, folder / "validation.xyz")
        n_steps = len(frames) // self.section.batch_size
        n_epochs = -(-stage.steps // n_steps)
        data = {"n_batch": self.section.batch_size, "virial": virial}
        data |= {"training": "training.xyz", "validation": "validation.xyz"}
        options = round_options(self.section, stage, parent, self._numbers(), n_epochs, task.seed, **data)
        (folder / "options.yaml").write_text(yaml.safe_dump(options))
        return n_steps, n_epochs

    def _run(self, folder: Path, log: Path) -> None:
        """``mtt train`` in a folder; what it says goes on to ``log`` as it says it."""
        command = [sys.executable, "-m", "metatrain", "train", "options.yaml", "-o", "model.pt"]
        variables = clean_environment()  # metatrain would train in parallel where it sees the tasks of a Slurm job
        variables = {name: value for name, value in variables.items() if not name.startswith("SLURM_")}
        output = folder / "standard.out"
        pid = self._spawner.launch(command, variables, folder, None, output)
        try:
            with open(output, "rb") as said, open(log, "ab", buffering=0) as passed_on:
                ended = False
                while not ended:
                    ended = self._spawner.ended(pid)
                    passed_on.write(said.read())
                    time.sleep(0 if ended else POLL)
        finally:
            code = self._spawner.stop(pid, FAREWELL)
        if code or not (folder / "model.ckpt").is_file():
            words = last_words(output, output.with_suffix(".err"))
            raise TaskError(f"metatrain failed (exit code {code}){words}; where losses are nan, lower train.start_lr")

    def _chosen(self, checkpoint: Path, validation: Sequence[Record]) -> tuple[Any, int | None]:
        """The model to go on with, and the epoch it is of; None: the last one."""
        last, best, epoch_number = latest(checkpoint)
        check_finite(last)
        if not self.section.best or best is None or len(validation) < MIN_FRAMES:
            return last, None
        frames = [record.frame for record in validation]
        values = [scores(validation, MetatomicPredictor(model.export())(frames)) for model in (best, last)]
        return (best, epoch_number) if surpasses(*values) else (last, None)

    def _aligned(self, task: TrainTask) -> tuple[Path | None, dict[str, str]]:
        """The checkpoint a round starts from, its energies aligned by ``train.bias``; and what the user must know.

        All of them before the first round, in a later one those of elements (or ratios) that had no label before:
        metatrain fits them in a training from scratch alone.
        """
        records, bias, path = [*task.old, *task.new], self.section.bias, task.directory / "start.ckpt"

        def predict(frames: Sequence[Frame]) -> list[Label]:
            return self._predictor(task.parent)(frames)

        if not task.first:
            if bias == "none":
                return task.parent, {}
            shift, notes = completing_shift(task.old, task.new, predict), joining_notes(task.old, task.new, predict)
            return save(shifted(load_pet(task.parent), shift), path) if shift else task.parent, notes
        given = self.model.checkpoint is not None
        predicted = given and bias == "change"
        wanted = energies_less(records, predict if predicted else None)
        if given and bias != "none":
            save(aligned(load_pet(task.parent), records, wanted, bias == "change"), path)
        parent = None if not given else task.parent if bias == "none" else path
        return parent, level_notes(records, wanted) if predicted and records else {}

    def _parent(self) -> Any:
        if self.model.checkpoint is not None:
            return load_pet(self.model.checkpoint)
        return new_pet(read_options(self.section).get("model", {}), self._numbers())

    def _numbers(self) -> list[int]:
        from ase.data import atomic_numbers

        return [atomic_numbers[name] for name in self.model.type_map or ()]

    def _predictor(self, checkpoint: Path) -> MetatomicPredictor:
        facts = checkpoint.stat()
        key = (checkpoint, facts.st_mtime_ns, facts.st_size)
        if self._loaded[0] != key:
            self._loaded = (key, MetatomicPredictor(load_pet(checkpoint).export()))
        return self._loaded[1]

    def _alone(self, work: Any) -> Any:
        """``work(start time)`` by the leader."""
        return by_leader(self.comm, lambda: work(time.perf_counter()))

    def _publish(self, model: Any, path: Path, start: float) -> TrainResult:
        """Save a model as a checkpoint, and export it beside."""
        checkpoint, frozen = save(model, path), export(model, path.with_suffix(".pt"))
        return TrainResult(checkpoint, frozen, 0, (), time.perf_counter() - start, 0.0)
