"""[ranks]: how the ranks of the job are shared out."""

from typing import Annotated, Literal

from pydantic import Field

from .base import Section

TeamCount = Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, lt=1)] | Literal["rest"]
"""A number of teams, a fraction of the working ranks (0 < f < 1), or "rest": whatever is left."""


class TeamSection(Section):
    teams: TeamCount = Field(1, description='teams of this role: a count, a fraction of the working ranks, or "rest"')
    ranks: int = Field(1, ge=1, description="ranks in each team")


class TrainerRanks(Section):
    ranks: int = Field(1, ge=1, description="ranks of the one trainer team (data parallel)")


class RanksSection(Section):
    trainer: TrainerRanks = TrainerRanks()
    explorer: TeamSection = TeamSection(teams=1)
    labeler: TeamSection = TeamSection(teams="rest")
    threads: int = Field(1, ge=1, description="threads per rank for torch, LAMMPS and BLAS")
    gpus: Literal["auto", "none"] = Field("auto", description="auto: one visible GPU per rank, by node-local rank")
