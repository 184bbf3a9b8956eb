"""When a label is trusted, and what is tried when it is not."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...config.label import LabelSection
from ...data import Frame, Label, Record
from ...errors import LabelError, TaskError
from ..base import Labeler
from .launch.exit_reason import STOPS


def label_with_ladder(labeler: Labeler, frame: Frame, section: LabelSection, comm: Any) -> tuple[Label, int]:
    """Label a frame, with each of ``section.attempts`` in turn: the options as given, then those of each retry.

    All ranks of the team ``comm`` (None: one rank) call it and take the same decisions.
    Returns the label and the number of attempts. Raises LabelError with the reason of every attempt; the last one
    is that in which the program was stopped from outside, as all of the job may be about to be.
    """
    reasons, killed = [], None
    for attempt, changes in enumerate(section.attempts, 1):
        label, reason, killed = None, "", None
        try:
            label = labeler.label(frame, changes, section.timeout)
            check_label(frame, label, section)
        except TaskError as error:
            reason, killed = str(error), getattr(error, "killed", None)
        reason = first_reason(reason, comm)
        if not reason:
            return label, attempt
        reasons.append(f"attempt {attempt}: {reason}" if section.retries else reason)
        if killed in STOPS:
            break
    raise LabelError("; ".join(reasons), killed)


def label_all(
    labeler: Labeler, frames: Sequence[Frame], section: LabelSection, comm: Any
) -> list[tuple[Label, int] | LabelError]:
    """Label several frames in one batch; those that the batch does not settle go through the ladder alone.

    One answer per frame, in order: the label and its number of attempts, or the error.
    """
    labels: Sequence[Label | None] = [None] * len(frames)
    batched = type(labeler).label_batch is not Labeler.label_batch
    if batched and len(frames) > 1:
        reason = ""
        try:
            labels = labeler.label_batch(frames, section.attempts[0], section.timeout * len(frames))
        except TaskError as error:
            reason = str(error)
        if first_reason(reason, comm):
            labels = [None] * len(frames)
    pairs = zip(frames, labels, strict=True)
    return [_settle(labeler, frame, label, section, comm) for frame, label in pairs]


def _settle(labeler: Labeler, frame: Frame, label: Label | None, section: LabelSection, comm: Any):
    try:
        if label is None:
            return label_with_ladder(labeler, frame, section, comm)
        check_label(frame, label, section)
        return label, 1
    except LabelError as error:
        return error


def check_label(frame: Frame, label: Label, section: LabelSection) -> None:
    """Raise LabelError unless the label fits the frame, is finite and within ``section.max_force``."""
    if label.forces.shape != (len(frame), 3):
        raise LabelError(f"forces have the shape {label.forces.shape}, the frame has {len(frame)} atoms")
    if section.virial and frame.has_virial and label.virial is None:
        raise LabelError("there is no virial; set label.virial = false if the program has none")
    if not label.is_finite():
        raise LabelError("energy, forces or virial are not finite")
    largest = float(np.linalg.norm(label.forces, axis=1).max(initial=0.0))
    if largest > section.max_force:
        raise LabelError(f"largest force {largest:.1f} eV/Å exceeds label.max_force = {section.max_force:g}")
    if frame.has_virial and label.virial is not None and largest > 0 and not label.virial.any():
        raise LabelError("the stress is exactly zero while there are forces: a placeholder; set label.virial = false")


def check_given(record: Record, section: LabelSection) -> tuple[Label, int] | LabelError:
    """The label a record brings along, with or without a virial, or what is wrong with it."""
    try:
        check_label(record.frame, record.label, section.model_copy(update={"virial": False}))
    except LabelError as error:
        return error
    return record.label, 1


def check_energy(
    record: Record, answer: tuple[Label, int] | LabelError, section: LabelSection
) -> tuple[Label, int] | LabelError:
    """The answer, or a LabelError in its place if it is further than ``section.energy_outlier`` from the prediction."""
    if section.energy_outlier is None or record.prediction is None or isinstance(answer, LabelError):
        return answer
    apart = abs(answer[0].energy - record.prediction.energy) / len(record.frame)
    if apart <= section.energy_outlier:
        return answer
    return LabelError(
        f"{apart:.3g} eV/atom from the energy of the model that explored it, more than label.energy_outlier ="
        f" {section.energy_outlier:g}"
    )


def check_unmoved(frame: Frame, atoms: Any) -> None:
    """Raise LabelError if a calculator changed the ``atoms``; its answer is for another frame then."""
    same = (
        np.array_equal(atoms.numbers, frame.numbers)
        and np.array_equal(atoms.positions, frame.positions)
        and np.array_equal(np.asarray(atoms.cell), frame.cell)
    )
    if not same:
        raise LabelError("the calculator changed the geometry; turn off its relaxation or symmetrization")


def first_reason(reason: str, comm: Any) -> str:
    """The lowest rank's reason that is not empty, on every rank: what fails on one rank fails on all."""
    if comm is None or comm.Get_size() == 1:
        return reason
    return next(filter(None, comm.allgather(reason)), "")
