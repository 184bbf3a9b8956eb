"""The end of a job before its run is over: labels that will be there in time are awaited, programs ended, all saved."""

import math
import time
from collections.abc import Collection

from .. import messages as m
from ..errors import EXIT_INCOMPLETE
from ..workflow.time_forecast import expected_by, labels_under_way
from .answer_inbox import AnswerInbox
from .run_context import POLL, RunContext

LEAVE = 5.0
"""Seconds in which a program that did not end by itself is killed, and its team has said so."""
NO_PROGRESS = "nothing was finished for good in this job: give it a longer wall-time"


class Shutdown:
    """The agreed stop of one run."""

    def __init__(self, run: RunContext, inbox: AnswerInbox):
        self._run, self._inbox = run, inbox

    def interrupt(self, reason: str) -> int:
        """Wait for labels that will be there in time, and save everything; returns the exit code."""
        run = self._run
        run.listener.say(f"stopping: {reason}")
        self._drain(reason)
        self._inbox.receive(0.0)
        self._inbox.settle(wait=True)
        run.recorder.save_what_can_be(run.state)
        too_short = run.stopping.left() is not None and not (run.stopping.asked or run.awaited)
        if too_short and not run.recorder.got_on():
            reason = f"{reason}; {NO_PROGRESS}"
            run.listener.say(NO_PROGRESS)
        run.recorder.status(run.state, "incomplete", reason)
        return EXIT_INCOMPLETE

    def _drain(self, reason: str) -> None:
        """Take the labels under way that are forecast to be made before the job must end; have the others ended."""
        run, stopping = self._run, self._run.stopping
        began, grace = time.monotonic(), run.config.run.grace
        latest = stopping.latest(began, grace)
        awaited = expected_by(latest, run.state, {key: sent.at for key, sent in run.sent.items()})
        until = min(latest, max([began + grace, *awaited.values()]))
        if until <= began:
            awaited = {}
        hopeless = self._can_be_ended() - awaited.keys()
        if not awaited and not hopeless:
            return
        run.recorder.save(run.state)  # a kill may come first
        run.recorder.status(run.state, "running", f"stopping: {reason}")
        deadline = self._call_off(hopeless)
        if awaited:
            run.listener.say(f"waiting for {len(awaited)} label orders, {until - began:.0f} s at most")
        while awaited.keys() & run.state.job.running.keys() and time.monotonic() < until:
            self._inbox.receive(POLL)
            self._inbox.write_status()
            until = min(until, stopping.latest(began, grace))  # a signal shortens it
        deadline = max(deadline, self._call_off(self._can_be_ended() - hopeless))
        while self._can_be_ended() and time.monotonic() < deadline:
            self._inbox.receive(POLL)

    def _can_be_ended(self) -> set[str]:
        """The label orders under way whose program is a process of its own."""
        own = self._run.config.label.launch is not None and not self._run.state.teacher
        return set(labels_under_way(self._run.state)) if own else set()

    def _call_off(self, order_ids: Collection[str]) -> float:
        """Have the programs of these orders, which the next job gives again, ended; until when (monotonic) to wait."""
        if not order_ids:
            return -math.inf
        run = self._run
        seconds = run.stopping.farewell(run.config.run.grace)
        run.listener.say(f"{len(order_ids)} label orders are called off: their programs have {seconds:.0f} s to end")
        for team in run.layout.teams:
            for order_id in order_ids:
                if run.state.job.running[order_id].team == team.name:
                    run.channel.send(team.leader, m.CallOff(order_id, seconds))
        return time.monotonic() + min(seconds + LEAVE, 2 * run.stopping.farewell(math.inf))
