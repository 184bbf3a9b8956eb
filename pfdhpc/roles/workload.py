"""How many teams of each role are at work, now and over the last minutes, from the orders that are under way."""

import time
from collections import Counter, deque

from ..parallel.layout import IDLE, Layout
from .state import RunState

WINDOW = 300.0
"""Seconds looked back on."""
GRAIN = 5.0
"""Seconds between two entries."""


class Workload:
    """Of one job. Where one rank plays all roles in turn nothing can be said by role, and nothing is."""

    def __init__(self, layout: Layout):
        teams = () if layout.world_size == 1 else layout.teams
        self._role = {team.name: team.role for team in teams if team.role != IDLE}
        self.teams = dict(Counter(self._role.values()))
        self.at_work: dict[str, int] = dict.fromkeys(self.teams, 0)
        self._spent = dict.fromkeys(self.teams, 0.0)  # team seconds
        self._noted = time.monotonic()
        self._entries = deque([(self._noted, dict(self._spent))])

    def note(self, state: RunState) -> None:
        """Take in what is under way; call it whenever that may have changed."""
        now = time.monotonic()
        for role, count in self.at_work.items():
            self._spent[role] += count * (now - self._noted)
        busy = Counter(self._role[team] for team in {*state.running.values()} & self._role.keys())
        self.at_work, self._noted = {role: busy[role] for role in self.teams}, now
        if now - self._entries[-1][0] >= GRAIN:
            self._entries.append((now, dict(self._spent)))
        while len(self._entries) > 1 and self._entries[1][0] < now - WINDOW:
            self._entries.popleft()

    def busy(self) -> dict[str, float]:
        """By role: the share of its teams' time in the window with an order under way."""
        since, spent = self._entries[0]
        length = self._noted - since
        if length <= 0:
            return {}
        return {role: round((self._spent[role] - spent[role]) / length / n, 4) for role, n in self.teams.items()}
