"""The coordinator: receive, file, apply, plan, send, checkpoint. It decides nothing itself."""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..config import Config
from ..data import Record
from ..errors import EXIT_BUG, EXIT_COMPLETE, EXIT_INCOMPLETE, InputError
from ..parallel.channel import Channel
from ..parallel.layout import IDLE, TRAINER, Layout
from ..store.checkpoint import load_checkpoint, save_checkpoint
from ..store.status import write_status
from ..store.store import Store
from . import messages as m
from .apply import apply, lose
from .begin import begin, resume
from .delivery import Delivery
from .folder import RunFolder
from .persist import from_tree, to_tree
from .policy import in_flight, plan
from .state import DONE, EXPLORE, LABEL, SELECT, RunState
from .stopping import Stopping

POLL = 0.25
"""Seconds the coordinator sleeps at most before it looks at the clock and the signals again."""
START_PATIENCE = 900.0
"""Seconds in which every team must have loaded its programs."""


@dataclass
class Listener:
    """What is told of the run as it goes; the terminal lines are one (:mod:`pfdhpc.roles.narrate`)."""

    event: Callable[[RunState, RunState, Any], None] = lambda before, after, message: None
    say: Callable[[str], None] = lambda text: None
    conclude: Callable[["Coordinator"], None] = lambda coordinator: None


@dataclass
class Coordinator:
    """One run of one job. ``level`` is the hash of the level of theory labels are made at.

    ``evaluated`` is the answer with the predictions of the held-out frames, if it came in this job;
    ``overheads`` holds, by kind of order, the seconds from sending an order to its answer being
    filed (committed, for a label) less those the team worked on it.
    """

    config: Config
    folder: RunFolder
    layout: Layout
    channel: Channel
    stopping: Stopping
    level: str
    attrs: dict[str, str]
    changed: Collection[str] = ()  # mutable keys that differ from the run so far
    listener: Listener = field(default_factory=Listener)

    def __post_init__(self):
        self.state = RunState()
        self._since: dict[str, float] = {}
        self.overheads: dict[str, list[float]] = {}
        self.evaluated: m.Evaluated | None = None
        self._saved: tuple = ()
        self._kept = 0  # progress in the last checkpoint
        self._started = time.monotonic()
        self._before = 0.0  # seconds of earlier jobs

    def run(self) -> int:
        """The whole job; returns the exit code. Raises InputError before anything was written."""
        ready = self._gather_ready()
        if ready is None:
            return EXIT_INCOMPLETE
        self._open(ready)
        try:
            return self._loop()
        except BaseException as error:
            self._status("failed", f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
            raise

    def _loop(self) -> int:
        while not self._over():
            self._issue()
            self._checkpoint_if_due()
            if reason := self.stopping.reason():
                return self._interrupt(reason)
            self._receive(POLL)
            self._give_up_overdue()
        return self._finish()

    def dismiss(self, code: int, patience: float = 5.0) -> bool:
        """Send everyone home with an exit code; False if some team is still inside a task and cannot hear."""
        for team in self.layout.teams:
            self.channel.send(team.leader, m.Shutdown("shutdown", code))
        idle = not self.state.running and not self.state.lost
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
        self._delivery = Delivery(self.store, self.level)
        tree = load_checkpoint(self.folder.checkpoints)
        if tree is None:
            self.store.commit(start.given)
            self.state = start.state
        else:
            self.state = resume(self.config, from_tree(tree["state"]), start.state, self.changed)
            self._kept = self.state.progress
            self._tell_resumed()
        self._before = self.state.elapsed
        if self.state.phase != DONE and self._may_save():
            self._save()
        self.folder.keep_input(self.attrs["input"])

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

    def seconds(self) -> float:
        """Since this job began."""
        return time.monotonic() - self._started

    # the loop

    def _over(self) -> bool:
        return self.state.phase == DONE or bool(self.state.failure)

    def _receive(self, timeout: float) -> None:
        """File and apply every answer that is here; their labels are committed together, first."""
        answers = []
        found = self.channel.receive(timeout)
        while found is not None:
            source, answer = found
            if isinstance(answer, m.Crashed):
                self._crash(answer)
            answers.append((source, answer))
            found = self.channel.poll()
        self._file([answer for _, answer in answers if isinstance(answer, m.Labelled)])
        for source, answer in answers:
            team = self.layout.team_of(source)
            if team is not None and self.state.running.get(answer.order_id) == team.name:
                self._apply(answer)  # not that of a team given up, whose work another one does now

    def _file(self, answers: Sequence[m.Labelled]) -> None:
        outcomes = [outcome for answer in answers for outcome in answer.outcomes]
        accepted = [outcome.record for outcome in outcomes if outcome.accepted]
        if accepted:
            self.store.commit(accepted)
        for outcome in outcomes:
            if not outcome.accepted:
                self.store.reject(outcome.record, outcome.reason, self.level)

    def _apply(self, answer: m.Answer) -> None:
        before = self.state
        elapsed = self._before + self.seconds()
        self.state = apply(self.config, replace(before, elapsed=elapsed), answer, self.store.records)
        if isinstance(answer, m.Evaluated):
            self.evaluated = answer
        since = self._since.pop(answer.order_id, None)
        if since is not None:
            kind = answer.order_id.split("/")[0]
            self.overheads.setdefault(kind, []).append(time.monotonic() - since - answer.seconds)
        self.listener.event(before, self.state, answer)

    def _issue(self) -> None:
        """Send what the policy wants done; labels that exist already are not asked for again."""
        self._apply_known_labels()
        for team, order in plan(self.config, self.state, self.layout):
            self.channel.send(team.leader, self._delivery.complete(team.name, order))
            self.state = self.state.issued(order.order_id, team.name)
            self._since[order.order_id] = time.monotonic()

    def _apply_known_labels(self) -> None:
        if self.state.phase != LABEL or self.state.running:
            return  # only at the start of the phase, fresh or resumed, can a label be there already
        known = tuple(filter(None, (self._known(record) for record in self.state.pending)))
        if known:
            order_id = "label/known"
            self.state = self.state.issued(order_id, "store")
            self._apply(m.Labelled(order_id, 0.0, known))

    def _known(self, record: Record) -> m.LabelOutcome | None:
        found = self.store.get(record.frame_id, self.level)
        if found is not None:
            return m.LabelOutcome(found)
        reason = self.store.was_rejected(record.frame_id, self.level)
        return None if reason is None else m.LabelOutcome(record, reason)

    def _give_up_overdue(self) -> None:
        now = time.monotonic()
        for order_id, since in list(self._since.items()):
            team = self.state.running.get(order_id)
            if team is None or now - since <= self._patience(order_id):
                continue
            self.listener.say(f"{team} gave no answer to {order_id} in {now - since:.0f} s: given up")
            role = team.rsplit("-", 1)[0]
            self.state = lose(self.config, self.state, team, self.store.records)
            if all(other.name in self.state.lost for other in self.layout.of_role(role)):
                self.state = replace(self.state, failure=f"no {role} team is left")

    def _patience(self, order_id: str) -> float:
        if order_id.startswith("label/"):
            attempts = 1 + len(self.config.label.retries)
            frames = order_id.count("+") + 1
            return 60 + 2 * self.config.label.timeout * attempts * frames
        return self.config.run.overdue

    # checkpoints and the end

    def _checkpoint_if_due(self) -> None:
        """At the start of each phase; not while candidates are being made or reduced: they are not kept.

        That the run is done is saved last of all, when its results are written.
        """
        key = (self.state.phase, self.state.round)
        if key != self._saved and self._may_save():
            self._save()

    def _may_save(self) -> bool:
        lost = self.state.phase == SELECT or (self.state.phase == EXPLORE and self.state.explored)
        return not (lost or self.state.phase == DONE or self.state.failure)

    def _save(self) -> None:
        tree = {"state": to_tree(self.state), **self.attrs}
        save_checkpoint(self.folder.checkpoints, tree, self.config.run.keep_checkpoints)
        self._kept = self.state.progress
        self._saved = (self.state.phase, self.state.round)
        self._status("running", self.state.phase)

    def _status(self, state: str, reason: str) -> None:
        write_status(
            self.folder.directory,
            state,
            reason,
            progress=self._kept + len(self.store),
            round=self.state.round,
            phase=self.state.phase,
            labels=len(self.store),
        )

    def _interrupt(self, reason: str) -> int:
        """An agreed stop: labels that are nearly there are taken, everything is saved."""
        grace = self.config.run.grace if in_flight(self.state) else 0.0
        self.listener.say(f"stopping: {reason}" + (f"; {grace:g} s for the labels being made" if grace else ""))
        deadline = time.monotonic() + grace
        while in_flight(self.state) and time.monotonic() < deadline:
            self._receive(POLL)
        if self._may_save():
            self._save()
        self._status("incomplete", reason)
        return EXIT_INCOMPLETE

    def _finish(self) -> int:
        if self.state.failure:
            self._status("failed", self.state.failure)
            self.listener.say(f"failed: {self.state.failure}")
            return EXIT_BUG
        if self.evaluated is not None:
            self.folder.conclude(self.state.model.digest)
            self.listener.conclude(self)
            self._save()
        self._status("complete", self.state.ended)
        return EXIT_COMPLETE

    def _crash(self, crash: m.Crashed) -> None:
        raise RuntimeError(f"{crash.team} crashed in {crash.order_id}:\n{crash.traceback}")
