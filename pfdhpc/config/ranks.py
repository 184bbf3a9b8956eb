"""[ranks]: how the ranks of the job are shared out."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .base import Section

TeamCount = Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, lt=1)] | Literal["rest"]
"""A number of teams, a fraction of the working ranks (0 < f < 1), or "rest": whatever is left."""

COUNT = 'teams of this role: a count, a fraction of the working ranks, or "rest"'


class TrainerRanks(Section):
    """One team trains; the models of a committee can be trained by several at a time."""

    teams: int = Field(1, ge=1, description="simplify: teams that train the models of the committee side by side")
    ranks: int = Field(1, ge=1, description="ranks of a trainer team (data parallel)")


class ExplorerRanks(Section):
    """An explorer is one rank: LAMMPS with a deepmd model on more ranks hangs when the model fails."""

    teams: TeamCount = Field(1, description=COUNT)


class LabelerRanks(Section):
    """Each team labels one frame at a time."""

    teams: TeamCount = Field("rest", description=COUNT)
    ranks: int = Field(1, ge=1, description="ranks in each team")


class FlexibleRanks(Section):
    """Teams of one rank that explore or label, whichever the run lacks."""

    teams: Annotated[int, Field(ge=0)] | Annotated[float, Field(gt=0, lt=1)] = Field(
        0, description="teams that are explorer or labeler as the queue wants it: a count, or a fraction of the ranks"
    )


class RanksSection(Section):
    """How the ranks of the job are shared out: rank 0 coordinates, the others form teams."""

    trainer: TrainerRanks = TrainerRanks()
    explorer: ExplorerRanks = ExplorerRanks()
    labeler: LabelerRanks = LabelerRanks()
    flexible: FlexibleRanks = FlexibleRanks()
    threads: int = Field(1, ge=1, description="threads per rank for torch, LAMMPS and BLAS")
    gpus: Literal["auto", "none"] = Field("auto", description="auto: one visible GPU per rank, by node-local rank")

    @model_validator(mode="after")
    def _consistent(self):
        if self.flexible.teams and self.labeler.ranks > 1:
            raise ValueError(
                f"flexible.teams: a flexible team is one rank, but labeler.ranks = {self.labeler.ranks}; remove one"
            )
        return self
