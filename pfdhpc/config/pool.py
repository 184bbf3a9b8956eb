"""[pool]: the frames that workflow ``simplify`` scans, and how it judges them."""

from typing import Any

from pydantic import Field, NonNegativeInt, TypeAdapter, ValidationError, model_validator

from .base import Section
from .init import Data, source


class PoolSection(Section):
    """Frames that exist already; a committee of models says which of them are worth a label."""

    data: list[Data] = Field(
        min_length=1, description="the frames, labelled or not: paths, or tables with path, format and level"
    )
    labeled: bool = Field(
        False, description="true: the labels of the pool are those to train on; false: [label] computes new ones"
    )
    models: int = Field(4, ge=1, description="models of the committee, which differ in their random seed")
    init_pick: int = Field(
        100,
        ge=0,
        description="frames labelled before the first training, drawn by lot; 0: the first round picks from all of the"
        " pool as [select] says",
    )
    trust_energy_lo: float | None = Field(
        None, gt=0, description="energy deviation in eV/atom below which a frame is accurate; none: not looked at"
    )
    trust_energy_hi: float | None = Field(
        None, gt=0, description="energy deviation in eV/atom from which on a frame has failed; none: never"
    )
    true_error: bool = Field(
        False, description="a frame counts by its deviation or its error against its label, whichever is larger"
    )
    chunk: int = Field(500, ge=1, description="frames an explorer scans at a time")

    @model_validator(mode="after")
    def _consistent(self):
        problems = []
        lo, hi = self.trust_energy_lo, self.trust_energy_hi
        if lo is not None and hi is not None and lo >= hi:
            problems.append(f"trust_energy_lo: {lo:g} is not below trust_energy_hi {hi:g}: no frame could be picked")
        if self.true_error and not self.labeled:
            problems.append("true_error: needs labels of the level trained on; set labeled = true, or remove it")
        if self.models == 1 and not self.true_error:
            problems.append("models: one model has no deviation; take 2 or more, or true_error = true")
        if problems:
            raise ValueError("\n".join(problems))
        return self

    @property
    def names(self) -> list[str]:
        """What the frames of each entry of ``data`` are called in reports."""
        return [source(data).path.stem for data in self.data]

    @property
    def energy_band(self) -> tuple[float, float]:
        """The energy deviations, eV/atom, between which a frame is a candidate."""
        return self.trust_energy_lo or float("inf"), self.trust_energy_hi or float("inf")


UNREAD = {
    "system": "the structures are those of [pool]",
    "explore": "no molecular dynamics runs here",
    "student": "no student is trained here",
    "overlap": "rounds are in lock-step here",
}
"""Sections a ``simplify`` input has no use for."""


def with_pool(values: dict[str, Any]) -> dict[str, Any]:
    """A ``simplify`` input with what [pool] implies for other sections filled in."""
    pool = values.get("pool", {})
    pool = pool if isinstance(pool, dict) else {}
    values = {"system": [], "explore": {}, **values}
    if pool.get("labeled") is True:
        label = values.get("label", {})
        values["label"] = {"type": "pool", **label} if isinstance(label, dict) else label
    init = values.get("init", {})
    if isinstance(init, dict):
        values["init"] = {"frames": _count(pool.get("init_pick", 100)), **init}
    return values


def _count(given: Any) -> int:
    """``init_pick`` as a number; any if it is none, which is told where it was given."""
    try:
        return TypeAdapter(NonNegativeInt).validate_python(given)
    except ValidationError:
        return 0


def pool_problems(config: Any) -> list[str]:
    """Where [pool] does not go with the rest of a whole input."""
    teams = config.ranks.trainer.teams
    if config.workflow != "simplify":
        problems = ['pool: only used in workflow = "simplify"; remove the section'] if config.pool else []
        if config.label.type == "pool":
            problems.append('label.type: "pool" is for workflow = "simplify"; name a first-principles program')
        if teams > 1:
            problems.append(
                f"ranks.trainer.teams: {teams}, but there is one model to train, not a committee (simplify);"
                " take more ranks.trainer.ranks"
            )
        return problems
    if config.pool is None:
        return ['pool: a simplify run needs one; e.g. [pool] data = ["pool.extxyz"]']
    problems = [f"{name}: {why}; remove it" for name, why in UNREAD.items() if _given(config, name)]
    if teams > config.pool.models:
        problems.append(
            f"ranks.trainer.teams: {teams}, but the committee has {config.pool.models} models (pool.models)"
        )
    return problems + _other_problems(config)


def _given(config: Any, name: str) -> bool:
    section = getattr(config, name)
    return bool(section.model_fields_set) if isinstance(section, Section) else bool(section)


def _other_problems(config: Any) -> list[str]:
    pool, init, select = config.pool, config.init, config.select
    problems = []
    if init.frames != pool.init_pick:
        problems.append(f"init.frames: {init.frames}; here pool.init_pick says how many; remove it")
    if init.aimd is not None:
        problems.append("init.aimd: no molecular dynamics runs here; remove it")
    if pool.labeled and config.label.type != "pool":
        problems.append("label.type: the labels of the pool are taken (pool.labeled); remove the section")
    if not pool.labeled and config.label.type == "pool":
        problems.append('label.type: "pool" takes labels the pool has; set pool.labeled = true, or name a program')
    if "max_volume_ratio" in select.filter.model_fields_set:
        problems.append("select.filter.max_volume_ratio: frames of a pool have no start volume; remove it")
    if select.trust_lo is None and pool.trust_energy_lo is None:
        problems.append("select.trust_lo: missing; the force deviation in eV/Å below which a frame is accurate")
    return problems
