"""The coordinator: receive, file, apply, plan, send, checkpoint. It decides nothing itself."""

import math
import time
from collections.abc import Collection
from dataclasses import replace

from ..errors import EXIT_BUG, EXIT_COMPLETE, EXIT_INCOMPLETE, InputError
from ..parallel.layout import TRAINER
from ..parallel.ledger import ledger
from ..store.checkpoint import load_checkpoint
from ..store.store import Store
from . import messages as m
from .acts import hand_over
from .begin import begin, resume
from .books import Books
from .delivery import Delivery
from .desk import POLL, Desk, Listener, Sent
from .elastic import balanced
from .filing import Filing
from .flow import CYCLE, useful
from .forecast import expected_by, labels_under_way
from .given import imported
from .opening import all_ready, still_there, with_imports
from .persist import from_tree
from .policy import plan, shortage
from .repeated_frames import Untested
from .split import with_compositions
from .state import DONE, DRAIN, INIT, LABEL

__all__ = ["Coordinator", "Listener"]

LEAVE = 5.0
"""Seconds in which a program that did not end by itself is killed, and its team has said so."""
NO_PROGRESS = "nothing was finished for good in this job: give it a longer wall-time"


class Coordinator(Desk):
    """The whole of a job, from the first word of its teams to its exit code."""

    def run(self) -> int:
        """The whole job; returns the exit code. Raises InputError before anything was written."""
        ready = all_ready(self.layout, self.channel, self.stopping, self.listener.say)
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
            if self.state.missing and not useful(self.state):
                self._break_off()
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
            for line in start.told:
                self.listener.say(line)
        else:
            kept = still_there(from_tree(tree["state"]), self.store, self.levels, self.listener.say)
            new = imported(kept.label_ids, self.store.label_ids)
            self.folder.check_models(kept.models_in_use)  # before labels are paid that it could not train on
            resumed = resume(self.config, kept, with_imports(start, self.store), self.changed, new)
            self.state = with_compositions(resumed, self.store.records)
            self._tell_resumed()
        self._filing = Filing(self.store)
        self._untested = Untested(self.store.records(self.state.fixed_ids))
        self.books = Books(self.config, self.folder, self.layout, self.store, self.stopping, self.attrs, self.state)
        self.books.save_if_due(self.state)
        self.folder.keep_input(self.attrs["input"])

    def _tell_resumed(self) -> None:
        if self.state.phase == DONE:
            self.listener.say(f"this run is complete ({self.state.ended}); nothing is left to do")
        else:
            self.listener.say(f"resumed: round {self.state.round}, {self.state.phase}, {len(self.store)} labels kept")

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

    def _break_off(self) -> None:
        """The end of a run that lacks teams of some role, when what was under way has been used."""
        self._issue()
        if not useful(self.state) and not self._over():
            self.books.save_if_due(self.state)
            self.state = replace(self.state, failure=self.state.broken)

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
        """Take the labels under way that are forecast to be made before the job must end; have the others ended."""
        began, grace = time.monotonic(), self.config.run.grace
        latest = self.stopping.latest(began, grace)
        awaited = expected_by(latest, self.state, {key: sent.at for key, sent in self._sent.items()})
        until = min(latest, max([began + grace, *awaited.values()]))
        if until <= began:
            awaited = {}
        hopeless = self._can_be_ended() - awaited.keys()
        if not awaited and not hopeless:
            return
        self.books.save(self.state)  # a kill may come first
        self.books.status(self.state, "running", f"stopping: {reason}")
        deadline = self._call_off(hopeless)
        if awaited:
            self.listener.say(f"waiting for {len(awaited)} label orders, {until - began:.0f} s at most")
        while awaited.keys() & self.state.running.keys() and time.monotonic() < until:
            self._receive(POLL)
            self._tell()
            until = min(until, self.stopping.latest(began, grace))  # a signal shortens it
        deadline = max(deadline, self._call_off(self._can_be_ended() - hopeless))
        while self._can_be_ended() and time.monotonic() < deadline:
            self._receive(POLL)

    def _can_be_ended(self) -> set[str]:
        """The label orders under way whose program is a process of its own."""
        own = self.config.label.launch is not None and not self.state.teacher
        return set(labels_under_way(self.state)) if own else set()

    def _call_off(self, order_ids: Collection[str]) -> float:
        """Have the programs of these orders, which the next job gives again, ended; until when (monotonic) to wait."""
        if not order_ids:
            return -math.inf
        seconds = self.stopping.farewell(self.config.run.grace)
        self.listener.say(f"{len(order_ids)} label orders are called off: their programs have {seconds:.0f} s to end")
        for team in self.layout.teams:
            for order_id in order_ids:
                if self.state.running[order_id] == team.name:
                    self.channel.send(team.leader, m.CallOff(order_id, seconds))
        return time.monotonic() + min(seconds + LEAVE, 2 * self.stopping.farewell(math.inf))

    def _finish(self) -> int:
        if self.state.failure:
            self.books.status(self.state, "failed", self.state.failure)
            self.listener.say(f"failed: {self.state.failure}")
            return EXIT_BUG
        if self.state.evaluated is not None:
            self.folder.conclude(self.state.model.digest, self.config.train.final_names)
            if self.config.student is None:
                hand_over(self.folder, self.state, self.store)
            self.listener.conclude(self)
            self.books.save(self.state)
        self.books.status(self.state, "complete", self.state.ended)
        return EXIT_COMPLETE
