"""Leader to leader inside one selection: messages by kind, requests answered while waiting for something else."""

import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from typing import Any

from .. import messages as m
from ..errors import TaskError
from ..parallel.channel import Channel
from ..parallel.ledger import ledger

STOP = "stop"
"""The kind of message that breaks a selection off for whoever gets it."""
DONE = "done"
"""The kind of message by which the root ends a selection; its content are the teams left out."""


class Unheard(TaskError):
    """The selection does not come about for this team. ``team`` did not answer; empty where another team knows."""

    team = ""


class Over(Unheard):
    """The selection has ended, and another team has said so."""


class Absent(Unheard):
    """A team does not answer."""

    def __init__(self, team: str, what: str, seconds: float):
        super().__init__(f"{team} gave no {what} within {seconds:g} s")
        self.team = team


class Mailbox:
    """A team's post over all its selections: what belongs to one that is still to come is kept for it."""

    def __init__(self, channel: Channel):
        self._channel = channel
        self._kept: dict[str, deque[tuple[int, m.PeerMessage]]] = defaultdict(deque)
        self._closed: set[str] = set()

    def send(self, rank: int, message: m.PeerMessage) -> None:
        self._channel.send(rank, message)

    def next(self, name: str, timeout: float) -> tuple[int, m.PeerMessage] | None:
        """The next message of one selection, None after ``timeout`` seconds; those of past ones are dropped."""
        deadline = time.monotonic() + timeout
        while not self._kept[name]:
            with ledger().during("wait others"):
                found = self._channel.receive(max(0.0, deadline - time.monotonic()))
            if found is None:
                return None
            if found[1].order_id not in self._closed:
                self._kept[found[1].order_id].append(found)
        return self._kept[name].popleft()

    def close(self, name: str) -> None:
        self._closed.add(name)
        self._kept.pop(name, None)


class PeerMessages:
    """One team's part of the talk in one selection. ``others`` are the leaders' ranks by team."""

    def __init__(self, mailbox: Mailbox, name: str, team: str, others: Mapping[str, int]):
        self._mailbox, self._name, self._team, self.others = mailbox, name, team, others
        self.done = False  # the root has ended the selection, with this team in it
        self._teams = {rank: team for team, rank in others.items()}
        self._heard: dict[str, deque[tuple[str, Any]]] = defaultdict(deque)
        self._rules: dict[str, Callable[[str, Any], None]] = {}

    def answer(self, kind: str, rule: Callable[[str, Any], None]) -> None:
        """From now on ``rule(team, content)`` answers messages of a kind, whatever is waited for."""
        self._rules[kind] = rule

    def tell(self, team: str, kind: str, content: Any = None) -> None:
        self._mailbox.send(self.others[team], m.PeerMessage(self._name, kind, content))

    def tell_all(self, kind: str, content: Any = None) -> None:
        for team in self.others:
            self.tell(team, kind, content)

    def wait(self, kind: str, timeout: float) -> tuple[str, Any] | None:
        """``(team, content)`` of the next message of a kind; None after ``timeout`` seconds, or when the root is done.

        Raises Over.
        """
        deadline = time.monotonic() + timeout
        while not self._heard[kind]:
            if self.done or not self._take(max(0.0, deadline - time.monotonic())):
                return None
        return self._heard[kind].popleft()

    def serve(self) -> None:
        """Answer what is here. Raises Over."""
        while self._take(0.0):
            pass

    def end(self) -> None:
        """Hear no more of this selection."""
        self._mailbox.close(self._name)

    def _take(self, timeout: float) -> bool:
        if not self.others:
            return False  # alone: the channel is none of ours
        found = self._mailbox.next(self._name, timeout)
        if found is None:
            return False
        team, message = self._teams[found[0]], found[1]
        if message.kind == STOP or (message.kind == DONE and self._team in message.content):
            raise Over("the selection has ended without this team")
        if message.kind == DONE:
            self.done = True
            return True
        if message.kind in self._rules:
            self._rules[message.kind](team, message.content)
        else:
            self._heard[message.kind].append((team, message.content))
        return True
