"""From the world size to the role table."""

from dataclasses import dataclass

from ..config.ranks import RanksSection
from ..errors import InputError

TRAINER, EXPLORER, LABELER, IDLE = "trainer", "explorer", "labeler", "idle"
COORDINATOR = 0
"""Rank of the coordinator."""


@dataclass(frozen=True)
class Team:
    """A fixed set of ranks with one role; its first rank is the leader."""

    name: str
    role: str
    ranks: tuple[int, ...]

    @property
    def leader(self) -> int:
        return self.ranks[0]


@dataclass(frozen=True)
class Layout:
    """Who does what. Rank 0 is the coordinator and in no team."""

    world_size: int
    teams: tuple[Team, ...]

    def team_of(self, rank: int) -> Team | None:
        return next((team for team in self.teams if rank in team.ranks), None)

    def of_role(self, role: str) -> tuple[Team, ...]:
        return tuple(team for team in self.teams if team.role == role)


def plan_layout(section: RanksSection, world_size: int) -> Layout:
    """The role table for ``world_size`` ranks.

    One rank alone plays all roles in turn: its teams are laid out as for the smallest world.
    Raises InputError, with the arithmetic, when the request does not fit.
    """
    size = smallest_world(section) if world_size == 1 else world_size
    counts = _team_counts(section, size)
    shapes = [
        (TRAINER, 1, section.trainer.ranks),
        (EXPLORER, counts[EXPLORER], section.explorer.ranks),
        (LABELER, counts[LABELER], section.labeler.ranks),
    ]
    teams, rank = [], 1
    for role, n_teams, n_ranks in shapes:
        for index in range(n_teams):
            teams.append(Team(f"{role}-{index}", role, tuple(range(rank, rank + n_ranks))))
            rank += n_ranks
    teams += [Team(f"{IDLE}-{index}", IDLE, (left,)) for index, left in enumerate(range(rank, size))]
    return Layout(world_size, tuple(teams))


def smallest_world(section: RanksSection) -> int:
    """The fewest ranks this section can run on (besides one rank alone)."""
    total = 1 + section.trainer.ranks
    for part in (section.explorer, section.labeler):
        total += part.ranks * (part.teams if isinstance(part.teams, int) else 1)
    return total


def _team_counts(section: RanksSection, size: int) -> dict[str, int]:
    left = size - 1 - section.trainer.ranks
    parts = {EXPLORER: section.explorer, LABELER: section.labeler}
    counts = {}
    for role, part in parts.items():
        if part.teams == "rest":
            continue
        fraction = isinstance(part.teams, float)
        counts[role] = max(1, int(part.teams * (size - 1)) // part.ranks) if fraction else part.teams
        left -= counts[role] * part.ranks
    takers = [role for role in parts if role not in counts]
    for index, role in enumerate(takers):
        share = left // (len(takers) - index)
        counts[role] = share // parts[role].ranks
        left -= counts[role] * parts[role].ranks
    if left < 0 or min(counts.values()) < 1:
        raise InputError(_arithmetic(section, size, {role: max(1, counts[role]) for role in parts}))
    return counts


def _arithmetic(section: RanksSection, size: int, counts: dict[str, int]) -> str:
    explorer, labeler = section.explorer.ranks, section.labeler.ranks
    need = 1 + section.trainer.ranks + counts[EXPLORER] * explorer + counts[LABELER] * labeler
    return (
        f"ranks: {need} ranks are needed, {size} were given: 1 coordinator + {section.trainer.ranks} trainer"
        f" + {counts[EXPLORER]} explorer teams x {explorer} + {counts[LABELER]} labeler teams x {labeler} = {need};"
        f" start at least {max(need, smallest_world(section))} ranks, or 1 to run all roles in turn,"
        " or ask for less in [ranks]"
    )
