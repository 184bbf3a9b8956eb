"""The labeler's part in ``pfdhpc validate``: what it is asked, as far as its labels are affordable."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..config.label import EXTERNAL, LabelSection
from ..engines.isolated.spawner import Spawner
from ..errors import InputError, LabelError
from ..parallel.devices import visible_gpus

if TYPE_CHECKING:
    from ..report.validation.first_principles import Price

HERE = ("ase", "deepmd", "gpaw")
"""Labelers that run in this process."""
TEAM = "validate"
"""What labels made here are called among those of the run's teams."""
MINUTES = 30.0
"""That labels may take where --label says no more."""
PATIENCE = 5.0
"""Seconds a program has to end by itself when they are over."""


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


def spawner(run: Any, minutes: float | None) -> AbstractContextManager[Spawner | None]:
    """What starts the labeler's programs, if it is one of those and is asked; to be made before threads start."""
    wanted = minutes is not None and run.config["label"]["type"] in EXTERNAL
    return Spawner() if wanted else nullcontext()


def planned(
    run: Any, structures: Mapping[str, Any], phonons: bool, minutes: float | None, starts: Spawner | None = None
) -> Plan:
    """What is asked within so many minutes; nothing, but told of, where they are None. Raises InputError.

    ``starts``: what :func:`spawner` gave.
    """
    from ..report.validation.first_principles import affordable, prices, seconds_by

    kind, team = run.config["label"]["type"], run.config["ranks"]["labeler"]["ranks"]
    if minutes is None and kind not in (*HERE, *EXTERNAL):
        return Plan()
    slower = team / _processes(run) if kind in EXTERNAL else team
    wanted = prices(structures, phonons, seconds_by(run.labelled, slower))
    if minutes is None:
        return Plan(left=wanted)
    taken, left = affordable(wanted, 60 * minutes)
    return Plan(taken, left, labeler(run, minutes, starts), minutes)


def labeler(run: Any, minutes: float, starts: Spawner | None = None) -> Callable[[str, Any], Any]:
    """The label of a frame of a system by the run's labeler on this rank, for so long; raises InputError.

    A system of ``label.systems`` has options of its own. Programs run on the cores of this process.
    """
    from ..engines.label.label_checks import label_with_ladder
    from ..engines.registry import make_labeler
    from ..report.validation.crystal_properties import NoCrystal
    from ..store.run_directory import RunFolder

    section, end = _section(run), time.monotonic() + 60 * minutes

    def over() -> float | None:
        return PATIENCE if time.monotonic() > end else None

    engine = make_labeler(section, None, starts, RunFolder(run.directory).engine_log(TEAM), over)

    def label(system: str, frame: Any) -> Any:
        problem = None
        if over() is None:
            try:
                return label_with_ladder(engine, frame, section.of(system), None)[0]
            except LabelError as error:
                problem = error
        if over() is not None:
            raise NoCrystal(f"the {minutes:g} minutes of --label are over") from problem
        raise NoCrystal(f"a label failed: {problem}") from problem

    return label


def _section(run: Any) -> LabelSection:
    """[label] as it is asked here; raises InputError for what cannot answer."""
    from ..config.load import parse_section

    values = run.config["label"]
    if values["type"] == "teacher":
        raise InputError("--label: the teacher labels here, which is among the models already; leave it out")
    if values["type"] not in (*HERE, *EXTERNAL):
        known = ", ".join((*HERE, *EXTERNAL))
        raise InputError(f'--label: label.type = "{values["type"]}" computes nothing that could be asked; {known} do')
    section = parse_section("label", LabelSection, {**values, "isolation": "none"})
    if section.launch is None:
        return section
    environment = {"CUDA_VISIBLE_DEVICES": ",".join(visible_gpus()), **section.launch.env}
    launch = section.launch.model_copy(update={"processes": _processes(run), "env": environment})
    return section.model_copy(update={"launch": launch})


def _processes(run: Any) -> int:
    """Of a program here: as many as a team's, but no more than this process has cores, unless the input says how many.

    No number depends on it.
    """
    team, cores = run.config["ranks"]["labeler"]["ranks"], len(os.sched_getaffinity(0))
    return run.config["label"]["launch"].get("processes") or min(team, cores)
