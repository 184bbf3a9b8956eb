"""The coordinator: receive, file, apply, plan, send, checkpoint. It decides nothing itself."""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from ..config import Config
from ..engines.label.level import Levels
from ..errors import EXIT_BUG, EXIT_COMPLETE, EXIT_INCOMPLETE, InputError
from ..parallel.channel import Channel
from ..parallel.layout import IDLE, TRAINER, Layout, Team
from ..parallel.ledger import WAIT, ledger
from ..store.checkpoint import load_checkpoint
from ..store.store import Store
from . import messages as m
from .acts import hand_over
from .apply import apply, lose
from .begin import begin, resume, without_missing
from .books import Books
from .delivery import Delivery
from .elastic import balanced, unmanned
from .estimate import unconfirmed
from .filing import Filing
from .flow import CYCLE
from .folder import RunFolder
from .forecast import expected_by
from .given import imported
from .persist import from_tree
from .policy import plan, shortage
from .state import DONE, DRAIN, INIT, LABEL, RunState
from .stopping import Stopping
from .unjudged import Unjudged

WRITE = 0.002
"""Seconds it waits for a message while the disk is at work."""
POLL = 0.25
"""Seconds the coordinator sleeps at most before it looks at the clock and the signals again."""
NO_PROGRESS = "nothing was finished for good in this job: give it a longer wall-time"
START_PATIENCE = 900.0
"""Seconds in which every team must have loaded its programs."""


class Sent(NamedTuple):
    """To which team an order went, and when (monotonic seconds)."""

    team: str
    at: float


@dataclass
class Listener:
    """What is told of the run as it goes; the terminal lines are one (:mod:`pfdhpc.roles.narrate`)."""

    event: Callable[[RunState, RunState, Any], None] = lambda before, after, message: None
    say: Callable[[str], None] = lambda text: None
    conclude: Callable[["Coordinator"], None] = lambda coordinator: None


@dataclass
class Coordinator:
    """One run of one job. ``levels`` are the levels of theory labels are made at.

    ``evaluated`` is the answer with the predictions of the held-out frames, if it came in this job;
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
        self._unjudged = Unjudged()
        self._reported = 0.0  # when the last selection's root told its outcome
        self.overheads: dict[str, list[float]] = {}
        self.evaluated: m.Evaluated | None = None

    def run(self) -> int:
        """The whole job; returns the exit code. Raises InputError before anything was written."""
        ready = self._gather_ready()
        if ready is None:
            return EXIT_INCOMPLETE
        ledger().switch("decide")
        self.listener.say(f"all {len(ready)} teams have started")
        self._open(ready)
        try:
            return self._loop()
        except BaseException as error:
            reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            self.books.status(self.state, "failed", reason)
            raise
        finally:
            self._filing.close()

    def _loop(self) -> int:
        while not self._over():
            if reason := self.stopping.reason() or self._awaited():
                return self._interrupt(reason)
            self._issue()
            self.books.workload.note(self.state)
            self._tell()
            self.books.save_if_due(self.state)
            self.books.tell_if_kept(self.state)
            if reason := shortage(self.config, self.state, self.layout, self.stopping.left()):
                return self._interrupt(reason)
            self._receive(POLL)
            self._give_up_overdue()
        return self._finish()

    def hear_all(self, patience: float) -> None:
        """Wait for teams that are at work on what nobody waits for any more, so that they hear what comes next."""
        until = time.monotonic() + patience
        while self._sent and time.monotonic() < until and not self.stopping.reason():
            found = self.channel.receive(POLL)
            if found is not None:
                self._sent.pop(found[1].order_id, None)

    def dismiss(self, code: int, patience: float = 5.0) -> bool:
        """Send everyone home with an exit code; False if some team is still inside a task and cannot hear."""
        for team in self.layout.teams:
            self.channel.send(team.leader, m.Shutdown("shutdown", code))
        idle = not self._sent and self.state.lost <= self._resigned  # every order has been answered
        return idle and self.channel.flush(patience)

    # start

    def _open(self, ready: list[m.Ready]) -> None:
        """Take up the kept state, or make a fresh one."""
        problems = sorted({problem for answer in ready for problem in answer.problems})
        if problems:
            raise InputError(problems)
        type_map = next(answer.type_map for answer in ready if answer.team.startswith(TRAINER))
        start = begin(self.config, type_map)  # raises InputError before anything is written
        self.store = Store(self.folder.frames, self.attrs)
        self._delivery = Delivery(self.store, self.config.select.blocks)
        tree = load_checkpoint(self.folder.checkpoints)
        if tree is None:
            self.store.commit((*start.given, *start.fixed))
            self.state = start.state
        else:
            kept = self._still_there(from_tree(tree["state"]))
            new = imported(kept.label_ids, self.store.label_ids)
            self.state = resume(self.config, kept, start.state, self.changed, new)
            self._tell_resumed()
        self._filing = Filing(self.store)
        self.books = Books(self.config, self.folder, self.layout, self.store, self.stopping, self.attrs, self.state)
        self.books.save_if_due(self.state)
        self.folder.keep_input(self.attrs["input"])

    def _still_there(self, kept: RunState) -> RunState:
        levels = kept.levels(self.levels)

        def refused(frame_id: str) -> bool:
            return any(self.store.was_rejected(frame_id, level) for level in levels)

        state = without_missing(kept, self.store, refused)
        missing = kept.n_labels - state.n_labels + len(kept.refused) - len(state.refused)
        if missing:
            self.listener.say(f"{missing} frames of this run are not in {self.store.directory} any more: left out")
        return state

    def _tell_resumed(self) -> None:
        if self.state.phase == DONE:
            self.listener.say(f"this run is complete ({self.state.ended}); nothing is left to do")
        else:
            self.listener.say(f"resumed: round {self.state.round}, {self.state.phase}, {len(self.store)} labels kept")

    def _gather_ready(self) -> list[m.Ready] | None:
        """Wait until every team has started; None if the job is to stop before that."""
        ready: list[m.Ready] = []
        expected = {team.name for team in self.layout.teams if team.role != IDLE}
        deadline = time.monotonic() + START_PATIENCE
        while len(ready) < len(expected):
            if reason := self.stopping.reason():
                self.listener.say(f"stopping before the start: {reason}")
                return None
            found = self.channel.receive(POLL)
            if found is not None and isinstance(found[1], m.Crashed):
                self._crash(found[1])
            if found is not None:
                ready.append(found[1])
            elif time.monotonic() > deadline:
                missing = sorted(expected - {answer.team for answer in ready})
                raise RuntimeError(f"{', '.join(missing)} did not start within {START_PATIENCE:.0f} s; see logs/")
        return ready

    # the loop

    def _over(self) -> bool:
        return self.state.phase == DONE or bool(self.state.failure)

    def _awaited(self) -> str:
        """What only people can give this run: labels made elsewhere, or the word that it may cost so much."""
        return self.state.standstill or unconfirmed(self.config, self.state, self.layout)

    def _receive(self, timeout: float) -> None:
        """Apply every answer that is here, those with labels when these are on the disk."""
        with ledger().during(WAIT):
            found = self.channel.receive(WRITE if self._filing.waiting else timeout)
        while found is not None:
            source, answer = found
            if isinstance(answer, m.Crashed):
                self._crash(answer)
            if isinstance(answer, m.Labelled):
                answer = self._unjudged.sift(answer, bool(self.stopping.asked))
            if isinstance(answer, m.Labelled):
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
        """That labels have come: a job killed from now on has got on."""
        if self._news:
            self.books.status(self.state, "running", self.state.phase)
        self._news = False

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
        if isinstance(answer, m.Evaluated):
            self.evaluated = answer
        if isinstance(answer, m.Selected) and answer.report is not None:
            self._reported = time.monotonic()
        sent = self._sent.pop(answer.order_id, None)
        if sent is not None:
            kind = answer.order_id.split("/")[0]
            self.overheads.setdefault(kind, []).append(time.monotonic() - sent.at - answer.seconds)
        self.listener.event(before, self.state, answer)

    def _issue(self) -> None:
        """Send what the policy wants done; labels that exist already are not asked for again."""
        self._apply_known_labels()
        self.state = balanced(self.config, self.state, self.layout)
        for team, order in plan(self.config, self.books.aged(self.state), self.layout, self.stopping.left()):
            with ledger().during("talk"):
                self.channel.send(team.leader, self._delivery.complete(team.name, order, self._levels()))
            self.state = self.state.sent(order, team.name)
            self._sent[order.order_id] = Sent(team.name, time.monotonic())

    def _apply_known_labels(self) -> None:
        if self.state.phase not in (INIT, LABEL, *CYCLE, DRAIN) or self.state.running:
            return  # only at the start of the phase, fresh or resumed, can a label be there already
        known = tuple(filter(None, (self._filing.known(record, self._levels()) for record in self.state.pending)))
        if known:
            order_id = "label/known"
            self.state = self.state.issued(order_id, "store")
            self._apply(m.Labelled(order_id, 0.0, known))

    def _give_up_overdue(self) -> None:
        now = time.monotonic()
        for order_id, (team, since) in list(self._sent.items()):
            if team in self.state.lost or now - since <= self._patience(order_id):
                continue
            self.listener.say(f"{team} gave no answer to {order_id} in {now - since:.0f} s: given up")
            self._give_up(team)

    def _give_up(self, team: str, reason: str = "") -> None:
        """What it works on is asked of others; where no team of its role is left the run has failed."""
        self.state = lose(self.config, self.state, team, self.store.records)
        if self.state.phase != DONE and (missing := unmanned(self.layout, self.state)):
            self.state = replace(self.state, failure=f"no {missing} team is left{reason}")

    def _patience(self, order_id: str) -> float:
        if order_id.startswith("aimd/"):
            calculations = (1 + self.config.init.aimd.interval) * (1 + len(self.config.label.retries))
            return 60 + 2 * self.config.label.timeout * calculations
        if frames := m.frames_of(order_id):
            attempts = 1 + len(self.config.label.retries)
            return 60 + 2 * self.config.label.timeout * attempts * len(frames)
        if order_id.startswith("select/") and self.state.reported:  # the others have ended: so should this one
            return self._reported - self._sent[order_id].at + 4 * self.config.select.patience
        return self.config.run.overdue

    def _levels(self) -> Levels:
        """The levels of theory of the labels being made now."""
        return self.state.levels(self.levels)

    # the end

    def _interrupt(self, reason: str) -> int:
        """An agreed stop: labels that will be there in time are waited for, everything is saved."""
        self.listener.say(f"stopping: {reason}")
        self._drain(reason)
        self._receive(0.0)
        self._settle(wait=True)
        self.books.save_what_can_be(self.state)
        too_short = self.stopping.left() is not None and not (self.stopping.asked or self._awaited())
        if too_short and not self.books.got_on():
            reason = f"{reason}; {NO_PROGRESS}"
            self.listener.say(NO_PROGRESS)
        self.books.status(self.state, "incomplete", reason)
        return EXIT_INCOMPLETE

    def _drain(self, reason: str) -> None:
        """Take the labels that are under way and forecast to be made before the job must end."""
        began, grace = time.monotonic(), self.config.run.grace
        latest = self.stopping.latest(began, grace)
        awaited = expected_by(latest, self.state, {key: sent.at for key, sent in self._sent.items()})
        until = min(latest, max([began + grace, *awaited.values()]))
        if not awaited or until <= began:
            return
        self.books.save(self.state)  # a kill may come first
        self.books.status(self.state, "running", f"stopping: {reason}")
        self.listener.say(f"waiting for {len(awaited)} label orders, {until - began:.0f} s at most")
        while awaited.keys() & self.state.running.keys() and time.monotonic() < until:
            self._receive(POLL)
            self._tell()
            until = min(until, self.stopping.latest(began, grace))  # a signal shortens it

    def _finish(self) -> int:
        if self.state.failure:
            self.books.status(self.state, "failed", self.state.failure)
            self.listener.say(f"failed: {self.state.failure}")
            return EXIT_BUG
        if self.evaluated is not None:
            self.folder.conclude(self.state.model.digest)
            if self.config.student is None:
                hand_over(self.folder, self.state, self.store)
            self.listener.conclude(self)
            self.books.save(self.state)
        self.books.status(self.state, "complete", self.state.ended)
        return EXIT_COMPLETE

    def _crash(self, crash: m.Crashed) -> None:
        raise RuntimeError(f"{crash.team} crashed in {crash.order_id}:\n{crash.traceback}")
