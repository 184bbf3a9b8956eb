"""[ranks]: how the ranks of the job are shared out."""

from typing import Annotated, Literal

from pydantic import Field

from .base import Section

TeamCount = Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, lt=1)] | Literal["rest"]
"""A number of teams, a fraction of the working ranks (0 < f < 1), or "rest": whatever is left."""

COUNT = 'teams of this role: a count, a fraction of the working ranks, or "rest"'


class TrainerRanks(Section):
    ranks: int = Field(1, ge=1, description="ranks of the one trainer team (data parallel)")


class ExplorerRanks(Section):
    """An explorer is one rank: LAMMPS with a deepmd model on more ranks hangs when the model fails."""

    teams: TeamCount = Field(1, description=COUNT)


class LabelerRanks(Section):
    teams: TeamCount = Field("rest", description=COUNT)
    ranks: int = Field(1, ge=1, description="ranks in each team")


class RanksSection(Section):
    trainer: TrainerRanks = TrainerRanks()
    explorer: ExplorerRanks = ExplorerRanks()
    labeler: LabelerRanks = LabelerRanks()
    threads: int = Field(1, ge=1, description="threads per rank for torch, LAMMPS and BLAS")
    gpus: Literal["auto", "none"] = Field("auto", description="auto: one visible GPU per rank, by node-local rank")
