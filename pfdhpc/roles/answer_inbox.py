"""The coordinator's inbox: answers of teams are received, their labels committed, and applied to the state."""

import time

from .. import messages as m
from ..parallel.ledger import WAIT, ledger
from ..workflow.apply import apply
from ..workflow.time_forecast import delayed
from .label_commits import KilledLabels
from .run_context import RunContext
from .team_watch import TeamWatch, raise_crash

TELL = 1.0
"""Seconds between two reports of new labels in status.json: on some file systems each takes as long as many a label."""
PULSE = 60.0
"""Seconds after which status.json is written although there is nothing new: that is how others know the job lives."""


class AnswerInbox:
    """Answers of one run; those with labels are applied when these are on the disk."""

    def __init__(self, run: RunContext, watch: TeamWatch):
        self._run, self._watch = run, watch
        self._killed = KilledLabels()
        self._news = False  # labels came that status.json does not tell of yet
        self._told = -TELL  # when it last told of some

    def receive(self, timeout: float) -> None:
        """Apply every answer that is here, waiting up to ``timeout`` seconds for the first."""
        run = self._run
        with ledger().during(WAIT):
            found = run.channel.receive(timeout, run.commits.ready)
        while found is not None:
            source, answer = found
            if isinstance(answer, m.Crashed):
                raise_crash(answer)
            if isinstance(answer, m.Labelled):
                answer = self._killed.sift(answer, bool(run.stopping.asked))
            if isinstance(answer, m.Labelled):
                run.commits.take(source, run.untested.sift(answer), run.levels)
            else:
                self._accept(source, answer)
            found = run.channel.poll()
        self.settle()

    def settle(self, wait: bool = False) -> None:
        """Apply the answers whose labels are on the disk; with ``wait``, all that are held."""
        settled = self._run.commits.settled(wait)
        for source, answer in settled:
            self._accept(source, answer)
        self._news |= bool(settled)

    def write_status(self) -> None:
        """Tell in status.json that labels have come (a job killed from now on has got on), or that the job lives."""
        if time.monotonic() - self._told >= (TELL if self._news else PULSE):
            self._run.recorder.status(self._run.state, "running", self._run.state.phase)
            self._news, self._told = False, time.monotonic()

    def _accept(self, source: int, answer: m.Answer) -> None:
        """Apply an answer, but not that of a team given up, whose work another one does now."""
        run = self._run
        team = run.layout.team_of(source)
        if team is None:
            return
        run.state = run.state.in_job(late=run.state.job.late - {team.name})
        if isinstance(answer, m.Resigned):
            self._watch.take_leave(team, answer)
        elif answer.order_id in run.state.job.running and run.state.job.running[answer.order_id].team == team.name:
            self.apply(answer)
        else:
            run.sent.pop(answer.order_id, None)

    def apply(self, answer: m.Answer) -> None:
        """The state after an answer to an order that is running, told to the listener."""
        run = self._run
        before = run.state
        run.state = apply(run.config, run.recorder.aged(before), answer, run.store.records)
        if isinstance(answer, m.Selected) and answer.report is not None:
            run.selection_told = time.monotonic()
        sent = run.sent.pop(answer.order_id, None)
        if sent is not None:
            seconds = time.monotonic() - sent.at - answer.seconds
            run.overheads.setdefault(sent.order.kind, []).append(seconds)
            run.state = delayed(run.state, sent.order.kind, seconds)
        run.listener.event(before, run.state, answer)
