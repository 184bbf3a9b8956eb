"""The coordinator's desk: answers come in, are filed and applied; teams that are not heard of any more are given up."""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from ..config import Config
from ..engines.label.level import Levels
from ..parallel.channel import Channel
from ..parallel.layout import TRAINER, Layout, Team
from ..parallel.ledger import WAIT, ledger
from ..store.store import Store
from . import messages as m
from .apply import apply, lose
from .books import Books
from .elastic import unmanned
from .estimate import unconfirmed
from .evaluation import KIND, patience
from .filing import Filing
from .flow import useful
from .folder import RunFolder
from .forecast import delayed
from .repeated_frames import Untested
from .state import DONE, RunState
from .stopping import Stopping
from .unjudged import Unjudged

TELL = 1.0
"""Seconds between two reports of new labels in status.json: on some file systems each takes as long as many a label."""
PULSE = 60.0
"""Seconds after which status.json is written although there is nothing new: that is how others know the job lives."""
POLL = 0.25
"""Seconds the coordinator sleeps at most before it looks at the clock and the signals again."""


class Sent(NamedTuple):
    """To which team an order went, and when (monotonic seconds)."""

    team: str
    at: float


@dataclass
class Listener:
    """What is told of the run as it goes; the terminal lines are one (:mod:`pfdhpc.roles.narrate`)."""

    event: Callable[[RunState, RunState, Any], None] = lambda before, after, message: None
    say: Callable[[str], None] = lambda text: None
    conclude: Callable[["Desk"], None] = lambda coordinator: None


@dataclass
class Desk:
    """One run of one job. ``levels`` are the levels of theory labels are made at.

    ``overheads`` holds, by kind of order, the seconds from sending an order to its answer being
    filed (committed, for a label) less those the team worked on it.
    """

    config: Config
    folder: RunFolder
    layout: Layout
    channel: Channel
    stopping: Stopping
    levels: Levels
    attrs: dict[str, str]
    changed: Collection[str] = ()  # mutable keys that differ from the run so far
    listener: Listener = field(default_factory=Listener)

    def __post_init__(self):
        self.state = RunState()
        self._resigned: set[str] = set()  # teams that were given up but hear
        self._sent: dict[str, Sent] = {}  # orders without an answer, also those that others have been asked for
        self._news = False  # labels came that status.json does not tell of yet
        self._told = -TELL  # when it last told of some
        self._unjudged = Unjudged()
        self._untested = Untested(())
        self._reported = 0.0  # when the last selection's root told its outcome
        self.overheads: dict[str, list[float]] = {}
        self.store: Store  # these three are there when the run has been taken up
        self.books: Books
        self._filing: Filing

    def _over(self) -> bool:
        return self.state.phase == DONE or bool(self.state.failure)

    def _awaited(self) -> str:
        """What only people can give this run: labels made elsewhere, or the word that it may cost so much."""
        return self.state.standstill or unconfirmed(self.config, self.state, self.layout)

    def _receive(self, timeout: float) -> None:
        """Apply every answer that is here, those with labels when these are on the disk."""
        with ledger().during(WAIT):
            found = self.channel.receive(timeout, self._filing.ready)
        while found is not None:
            source, answer = found
            if isinstance(answer, m.Crashed):
                crashed(answer)
            if isinstance(answer, m.Labelled):
                answer = self._unjudged.sift(answer, bool(self.stopping.asked))
            if isinstance(answer, m.Labelled):
                answer = self._untested.sift(answer)
                self._filing.take(source, answer, self._levels())
            else:
                self._accept(source, answer)
            found = self.channel.poll()
        self._settle()

    def _settle(self, wait: bool = False) -> None:
        settled = self._filing.settled(wait)
        for source, answer in settled:
            self._accept(source, answer)
        self._news |= bool(settled)

    def _tell(self) -> None:
        """That labels have come: a job killed from now on has got on. And, now and again, that it lives."""
        if time.monotonic() - self._told >= (TELL if self._news else PULSE):
            self.books.status(self.state, "running", self.state.phase)
            self._news, self._told = False, time.monotonic()

    def _accept(self, source: int, answer: m.Answer) -> None:
        """Apply an answer, but not that of a team given up, whose work another one does now."""
        team = self.layout.team_of(source)
        if team is None:
            return
        self.state = replace(self.state, late=self.state.late - {team.name})
        if isinstance(answer, m.Resigned):
            self._take_leave(team, answer)
        elif self.state.running.get(answer.order_id) == team.name:
            self._apply(answer)
        else:
            self._sent.pop(answer.order_id, None)

    def _take_leave(self, team: Team, answer: m.Resigned) -> None:
        self._sent.pop(answer.order_id, None)
        if len(team.ranks) == 1:  # others of its ranks may be waiting for one that failed
            self._resigned.add(team.name)
        if team.name not in self.state.lost:
            reason = " ".join(answer.reason.split())
            self.listener.say(f"{team.name} is retired: {reason}")
            self._give_up(team.name, f": {reason}")

    def _apply(self, answer: m.Answer) -> None:
        before = self.state
        self.state = apply(self.config, self.books.aged(before), answer, self.store.records)
        if isinstance(answer, m.Selected) and answer.report is not None:
            self._reported = time.monotonic()
        sent = self._sent.pop(answer.order_id, None)
        if sent is not None:
            kind = answer.order_id.split("/")[0]
            seconds = time.monotonic() - sent.at - answer.seconds
            self.overheads.setdefault(kind, []).append(seconds)
            self.state = delayed(self.state, answer.order_id, seconds)
        self.listener.event(before, self.state, answer)

    def _give_up_overdue(self) -> None:
        now = time.monotonic()
        for order_id, (team, since) in list(self._sent.items()):
            if team in self.state.lost or now - since <= self._patience(order_id):
                continue
            self.listener.say(f"{team} gave no answer to {order_id} in {now - since:.0f} s: given up")
            self._give_up(team)

    def _give_up(self, team: str, reason: str = "") -> None:
        """What it works on is asked of others; where no team of its role is left the run cannot go on."""
        self.state = lose(self.config, self.state, team, self.store.records)
        missing = frozenset(unmanned(self.layout, self.state))
        if self.state.phase != DONE and missing - self.state.missing:
            broken = f"no {min(missing - self.state.missing)} team is left{reason}"
            self.state = replace(self.state, broken=self.state.broken or broken, missing=self.state.missing | missing)
            if useful(self.state):
                self.listener.say(f"{self.state.broken}; what is under way is still used")

    def _patience(self, order_id: str) -> float:
        if order_id.startswith("aimd/"):
            calculations = (1 + self.config.init.aimd.interval) * (1 + len(self.config.label.retries))
            return 60 + 2 * self.config.label.timeout * calculations
        if frames := m.frames_of(order_id):
            attempts = 1 + len(self.config.label.retries)
            return 60 + 2 * self.config.label.timeout * attempts * len(frames)
        if order_id.startswith(KIND) and not self._sent[order_id].team.startswith(TRAINER):
            return min(patience(self.state), self.config.run.overdue)
        if order_id.startswith("select/") and self.state.reported:  # the others have ended: so should this one
            return self._reported - self._sent[order_id].at + 4 * self.config.select.patience
        return self.config.run.overdue

    def _levels(self) -> Levels:
        """The levels of theory of the labels being made now."""
        return self.state.levels(self.levels)


def crashed(crash: m.Crashed) -> None:
    """A bug in a team ends the job. Raises RuntimeError."""
    raise RuntimeError(f"{crash.team} crashed in {crash.order_id}:\n{crash.traceback}")
