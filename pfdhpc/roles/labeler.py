"""The labeler team's program: first-principles labels, each checked before it is believed."""

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import singledispatchmethod
from typing import Any

from .. import __version__
from ..config import Config
from ..data import Frame, Label, Labelling, Record
from ..engines.registry import make_labeler
from ..errors import InputError, LabelError
from . import messages as m
from .folder import RunFolder
from .judge import Published
from .state import teacher_level

Answer = tuple[Label, int] | LabelError
"""A label with the number of attempts it took, or why there is none."""


class LabelerProgram:
    """Runs on every rank of the team; all take the same decisions."""

    def __init__(self, config: Config, comm: Any, spawner: Any = None):
        self._config, self._comm, self._spawner = config, comm, spawner
        self._engine = None
        self._published = Published(RunFolder(config.run.directory))

    def ready(self, team: str) -> m.Ready:
        """Build the engine: what the program itself refuses is bad input too."""
        if self._config.label.type == "teacher":
            return m.Ready(team)  # it is published by the trainer
        try:
            log = RunFolder(self._config.run.directory).engine_log(team)
            self._engine = make_labeler(self._config.label, self._comm, self._spawner, log)
        except InputError as error:
            return m.Ready(team, tuple(error.problems))
        return m.Ready(team)

    @singledispatchmethod
    def handle(self, order: m.Order) -> m.Answer:
        raise TypeError(f"a labeler has no rule for {type(order).__name__}")

    @handle.register
    def _(self, order: m.LabelFrames) -> m.Answer:
        from ..engines.label.checks import label_all

        started = time.monotonic()
        frames = [record.frame for record in order.records]
        if order.teacher is None:
            level, name = self._engine.level, self._config.label.type
            results = label_all(self._engine, frames, self._config.label, self._comm)
        else:
            level, name = teacher_level(order.teacher), "teacher"
            results = self._taught(order.teacher, frames)
        seconds = time.monotonic() - started
        labelling = Labelling(level, name, seconds / len(frames), code_version=__version__)
        pairs = zip(order.records, results, strict=True)
        return m.Labelled(order.order_id, seconds, tuple(_outcome(*pair, labelling) for pair in pairs))

    def _taught(self, teacher: m.ModelRef, frames: Sequence[Frame]) -> list[Answer]:
        """Labels by a published model; the ranks of the team share the frames out."""
        from ..engines.label.checks import label_all

        engine, section = self._published.engine(teacher), self._config.label
        if self._comm is None or self._comm.Get_size() == 1:
            return label_all(engine, frames, section, None)
        size = self._comm.Get_size()
        shares = self._comm.allgather(label_all(engine, frames[self._comm.Get_rank() :: size], section, None))
        return [shares[index % size][index // size] for index in range(len(frames))]


def _outcome(record: Record, answer: Answer, labelling: Labelling) -> m.LabelOutcome:
    if isinstance(answer, LabelError):
        return m.LabelOutcome(record, str(answer) or "no reason given")
    label, attempts = answer
    return m.LabelOutcome(replace(record, label=label, labelling=replace(labelling, attempts=attempts)))
