"""The labeler team's program: first-principles labels, each checked before it is believed."""

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import singledispatchmethod
from typing import Any

from .. import __version__
from .. import messages as m
from ..config import Config
from ..config.init import AimdSection
from ..config.label import LabelSection
from ..config.teacher import labeling, of_teacher
from ..data import Frame, Label, Labelling, Origin, Record
from ..engines.base import Labeler
from ..engines.label.aimd import run_segment
from ..engines.label.launch.exit_reason import Wish, never
from ..engines.label.level_of_theory import Levels, level_hash, levels_of
from ..engines.registry import make_labeler
from ..errors import InputError, LabelError
from ..parallel.layout import LABELER
from ..store.run_directory import RunFolder
from ..workflow.state import teacher_level
from .evaluator import Evaluator
from .published_model import PublishedModel

Answer = tuple[Label, int] | LabelError
"""A label with the number of attempts it took, or why there is none."""


class LabelerProgram:
    """Runs on every rank of the team; all take the same decisions."""

    def __init__(self, config: Config, comm: Any, spawner: Any = None, called_off: Wish = never):
        self._config, self._comm, self._spawner, self._called_off = config, comm, spawner, called_off
        self._engine = None
        folder = RunFolder(config.run.directory)
        self._published_model = PublishedModel(folder)
        self._evaluator = Evaluator(config, folder, LABELER, spawner=spawner)

    def ready(self, team: str) -> m.Ready:
        """Build the engine: what the program itself refuses is bad input too."""
        section = labeling(self._config)
        if section.type == "teacher":
            return m.Ready(team)  # it is published by the trainer
        if self._config.label.type == "pool":
            self._levels = levels_of(self._config.label)
            return m.Ready(team)
        try:
            log = RunFolder(self._config.run.directory).engine_log(team)
            self._engine = make_labeler(section, self._comm, self._spawner, log, self._called_off)
            self._levels = levels_of(section)
        except InputError as error:
            return m.Ready(team, tuple(of_teacher(self._config.model, error.problems)))
        return m.Ready(team)

    @singledispatchmethod
    def handle(self, order: m.Order) -> m.Answer:
        raise TypeError(f"a labeler has no rule for {type(order).__name__}")

    @handle.register
    def _handle_label_frames(self, order: m.LabelFrames) -> m.Answer:
        started = time.monotonic()
        if order.teacher is None:
            levels, name = self._levels, self._config.label.type
            results = self._computed(order.records)
        else:
            levels, name = Levels(teacher_level(order.teacher)), "teacher"
            results = self._taught(order.teacher, [record.frame for record in order.records])
        seconds = time.monotonic() - started
        labelling = Labelling("", name, seconds / len(order.records), code_version=__version__)
        outcomes = [
            _outcome(record, answer, replace(labelling, level=levels.of(record.origin.system)))
            for record, answer in zip(order.records, results, strict=True)
        ]
        return m.Labelled(order.order_id, seconds, tuple(outcomes))

    @handle.register
    def _handle_simulate(self, order: m.Simulate) -> m.Answer:

        return carry_out(self._engine, self._config.label, self._config.init.aimd, self._comm, order)

    @handle.register
    def _handle_evaluate(self, order: m.Evaluate) -> m.Answer:
        return self._evaluator.help(order)

    def _computed(self, records: Sequence[Record]) -> list[Answer]:
        """Labels by the program, those of each system with its own options."""
        from ..engines.label.label_checks import check_energy, check_given, label_all

        section, found = self._config.label, {}
        if section.type == "pool":
            return [check_energy(record, check_given(record, section), section) for record in records]
        for system in dict.fromkeys(record.origin.system for record in records):
            places = [place for place, record in enumerate(records) if record.origin.system == system]
            answers = label_all(self._engine, [records[n].frame for n in places], section.of(system), self._comm)
            found |= dict(zip(places, answers, strict=True))
        return [check_energy(record, found[place], section) for place, record in enumerate(records)]

    def _taught(self, teacher: m.ModelRef, frames: Sequence[Frame]) -> list[Answer]:
        """Labels by a published model, whose frames the ranks of the team share out, or by a calculator."""
        from ..engines.label.label_checks import label_all

        engine, section = self._engine or self._published_model.engine(teacher), self._config.label
        if self._comm is None or self._comm.Get_size() == 1:
            return label_all(engine, frames, section, None)
        size = self._comm.Get_size()
        shares = self._comm.allgather(label_all(engine, frames[self._comm.Get_rank() :: size], section, None))
        return [shares[index % size][index // size] for index in range(len(frames))]


def _outcome(record: Record, answer: Answer, labelling: Labelling) -> m.LabelOutcome:
    if isinstance(answer, LabelError):
        return m.LabelOutcome(record, str(answer) or "no reason given", answer.killed)
    label, attempts = answer
    return m.LabelOutcome(replace(record, label=label, labelling=replace(labelling, attempts=attempts)))


def carry_out(engine: Labeler, section: LabelSection, aimd: AimdSection, comm: Any, order: m.Simulate) -> m.Simulated:
    """A labeler team's work on one segment."""
    started, now = time.monotonic(), order.trajectory
    result = run_segment(engine, section.of(now.system), aimd, comm, now.point, now.temperature, order.seed)
    seconds = time.monotonic() - started
    level = level_hash(section, now.system)
    labelling = Labelling(level, section.type, seconds / max(result.calculations, 1), code_version=__version__)
    steps = range(
        now.step + (0 if now.point.label is None else aimd.interval), now.step + aimd.interval + 1, aimd.interval
    )
    outcomes = [
        m.LabelOutcome(Record(point.frame, _origin(now, step), None, point.label, labelling))
        for step, point in zip(steps, result.kept, strict=False)
    ]
    if result.failed is not None:
        outcomes.append(m.LabelOutcome(Record(result.failed, _origin(now, -1)), result.reason, result.killed))
    point = None if result.reason else result.kept[-1]
    return m.Simulated(
        order.order_id, seconds, tuple(outcomes), now.name, point, now.step + aimd.interval, result.calculations,
        result.reason,
    )  # fmt: skip


def _origin(now: m.Trajectory, step: int) -> Origin:
    return Origin(system=now.system, replica=now.name, round=0, step=step, temperature=now.temperature)
