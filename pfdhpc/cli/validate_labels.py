"""The labeler's part in ``pfdhpc validate``: what it is asked, as far as its labels are affordable."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InputError, LabelError

if TYPE_CHECKING:
    from ..report.labelled import Price

HERE = ("ase", "deepmd", "gpaw")
"""Labelers that run in this process."""
MINUTES = 30.0
"""That labels may take where --label says no more."""


@dataclass(frozen=True)
class Plan:
    """Questions to the labeler that are ``taken`` and those ``left`` out; ``label(system, frame)`` gives a Label."""

    taken: Sequence["Price"] = ()
    left: Sequence["Price"] = ()
    label: Callable[[str, Any], Any] | None = None
    minutes: float | None = None

    def of(self, structure: str) -> list[str]:
        return [price.question for price in self.taken if price.structure == structure]

    def lines(self) -> list[str]:
        """What it costs, and what is left out for it."""
        if self.minutes is None:
            return [f"--label would ask for the {_said(price)}" for price in self.left]
        found = [f"labels: {_said(price)}" for price in self.taken]
        return found + [f"left out: {_said(price)}; --label MIN allows more" for price in self.left]


def _said(price: "Price") -> str:
    time = f", about {_span(price.seconds)}" if price.seconds else ""
    return f"{price.question} of {price.structure}: {price.labels} labels of {price.atoms} atoms{time}"


def _span(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.0f} h"
    )


def planned(run: Any, structures: Mapping[str, Any], phonons: bool, minutes: float | None) -> Plan:
    """What is asked within so many minutes; nothing, but told of, where they are None. Raises InputError."""
    from ..report.labelled import affordable, prices, seconds_by

    if minutes is None and run.config["label"]["type"] not in HERE:
        return Plan()
    team = run.config["ranks"]["labeler"]["ranks"]
    wanted = prices(structures, phonons, seconds_by(run.labelled, team))
    if minutes is None:
        return Plan(left=wanted)
    taken, left = affordable(wanted, 60 * minutes)
    return Plan(taken, left, labeler(run, minutes), minutes)


def labeler(run: Any, minutes: float) -> Callable[[str, Any], Any]:
    """The label of a frame of a system by the run's labeler on this rank, for so long; raises InputError.

    A system of ``label.systems`` has options of its own.
    """
    from ..config.label import LabelSection
    from ..config.load import parse_section
    from ..engines.registry import make_labeler
    from ..report.physics import NoCrystal

    values = run.config["label"]
    if values["type"] == "teacher":
        raise InputError("--label: the teacher labels here, which is among the models already; leave it out")
    if values["type"] not in HERE:
        text = f'--label: label.type = "{values["type"]}" needs a job of its own; here {", ".join(HERE)} can label'
        raise InputError(text)
    section = parse_section("label", LabelSection, {**values, "isolation": "none"})
    engine = make_labeler(section, None)
    end = time.monotonic() + 60 * minutes

    def label(system: str, frame: Any) -> Any:
        if time.monotonic() > end:
            raise NoCrystal(f"the {minutes:g} minutes of --label are over")
        try:
            return engine.label(frame, section.of(system).attempts[0], section.timeout)
        except LabelError as error:
            raise NoCrystal(f"a label failed: {error}") from error

    return label
