"""From the world size to the role table."""

from dataclasses import dataclass
from functools import cached_property

from ..config.ranks import RanksSection
from ..errors import InputError

TRAINER, EXPLORER, LABELER, FLEXIBLE, IDLE = "trainer", "explorer", "labeler", "flexible", "idle"
COORDINATOR = 0
"""Rank of the coordinator."""
SEARCHED = 2_000
"""How many world sizes are tried before [ranks] is said to fit none."""


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
        return self._by_rank.get(rank)

    def of_role(self, role: str) -> tuple[Team, ...]:
        return self._by_role.get(role, ())

    @cached_property  # these two are asked for at every message, and there may be thousands of teams
    def _by_rank(self) -> dict[int, Team]:
        return {rank: team for team in self.teams for rank in team.ranks}

    @cached_property
    def _by_role(self) -> dict[str, tuple[Team, ...]]:
        roles = dict.fromkeys(team.role for team in self.teams)
        return {role: tuple(team for team in self.teams if team.role == role) for role in roles}


def plan_layout(section: RanksSection, world_size: int) -> Layout:
    """The role table for ``world_size`` ranks.

    One rank alone plays all roles in turn, whatever the section says: a team of one rank for each role,
    numbered as in a world of four. Raises InputError, with the arithmetic, when the request does not fit.
    """
    if world_size == 1:
        roles = (TRAINER, EXPLORER, LABELER)
        return Layout(1, tuple(Team(f"{role}-0", role, (rank,)) for rank, role in enumerate(roles, 1)))
    counts = _team_counts(section, world_size)
    if not _fits(section, counts, world_size):
        raise InputError(_arithmetic(section, world_size, counts))
    teams, rank = [], 1
    for role, n_ranks in _team_sizes(section).items():
        for index in range(counts[role]):
            teams.append(Team(f"{role}-{index}", role, tuple(range(rank, rank + n_ranks))))
            rank += n_ranks
    teams += [Team(f"{IDLE}-{index}", IDLE, (left,)) for index, left in enumerate(range(rank, world_size))]
    return Layout(world_size, tuple(teams))


def smallest_world(section: RanksSection, least: int = 2) -> int:
    """The fewest ranks, from ``least`` on, that this section can run on (besides one rank alone).

    Raises InputError when none of ``SEARCHED`` sizes fits, e.g. with fractions that leave nothing.
    """
    for size in range(least, least + SEARCHED):
        if _fits(section, _team_counts(section, size), size):
            return size
    raise InputError(
        f"ranks: no number of ranks up to {least + SEARCHED - 1} fits what is asked for;"
        ' ask for less in [ranks], e.g. explorer.teams = 1, labeler.teams = "rest"'
    )


def _team_sizes(section: RanksSection) -> dict[str, int]:
    """Ranks in a team, by role. An explorer is one rank."""
    return {TRAINER: section.trainer.ranks, EXPLORER: 1, LABELER: section.labeler.ranks, FLEXIBLE: 1}


def _team_counts(section: RanksSection, size: int) -> dict[str, int]:
    """Teams of each role as asked for; a fraction is at least one team, "rest" may come out empty."""
    sizes = _team_sizes(section)
    asked = {EXPLORER: section.explorer.teams, LABELER: section.labeler.teams, FLEXIBLE: section.flexible.teams}
    counts = {TRAINER: section.trainer.teams}
    left = size - 1 - counts[TRAINER] * sizes[TRAINER]
    for role, teams in asked.items():
        if teams == "rest":
            continue
        counts[role] = max(1, int(teams * (size - 1)) // sizes[role]) if isinstance(teams, float) else teams
        left -= counts[role] * sizes[role]
    takers = [role for role in asked if role not in counts]
    for index, role in enumerate(takers):
        counts[role] = max(0, left // (len(takers) - index)) // sizes[role]
        left -= counts[role] * sizes[role]
    return counts


def _fits(section: RanksSection, counts: dict[str, int], size: int) -> bool:
    used = sum(counts[role] * n_ranks for role, n_ranks in _team_sizes(section).items())
    return min(count for role, count in counts.items() if role != FLEXIBLE) >= 1 and 1 + used <= size


def _arithmetic(section: RanksSection, size: int, counts: dict[str, int]) -> str:
    trainer, labeler = section.trainer.teams * section.trainer.ranks, section.labeler.ranks
    n_explorers, n_labelers = max(1, counts[EXPLORER]), max(1, counts[LABELER])
    flexible = counts[FLEXIBLE]
    need = 1 + trainer + n_explorers + n_labelers * labeler + flexible
    more = f" + {flexible} flexible" if flexible else ""
    return (
        f"ranks: {need} ranks are needed, {size} were given: 1 coordinator + {trainer} trainer"
        f" + {n_explorers} explorers + {n_labelers} labeler teams x {labeler}{more} = {need};"
        f" start {smallest_world(section, size + 1)} ranks, or 1 to run all roles in turn, or ask for less in [ranks]"
    )
