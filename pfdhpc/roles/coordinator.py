"""The coordinator: receive, commit, apply, plan, send, checkpoint. It decides nothing itself."""

import time

from .. import messages as m
from ..errors import EXIT_BUG, EXIT_COMPLETE, EXIT_INCOMPLETE, InputError
from ..parallel.layout import TRAINER
from ..parallel.ledger import ledger
from ..report.final_files import export_held_out
from ..start.fresh_state import begin, with_imports
from ..start.given_labels import imported
from ..store.checkpoint import load_checkpoint
from ..store.store import Store
from ..workflow.flexible_teams import balanced
from ..workflow.label_split import with_compositions
from ..workflow.overlap import CYCLE, useful
from ..workflow.plan import plan, shortage
from ..workflow.resume import resume, still_there
from ..workflow.state import DONE, DRAIN, INIT, LABEL, RunState
from ..workflow.state_codec import from_tree
from .answer_inbox import AnswerInbox
from .record_delivery import Delivery
from .run_context import POLL, RunContext, Sent
from .shutdown import Shutdown
from .team_watch import TeamWatch, all_ready


class Coordinator:
    """The whole of a job, from the first word of its teams to its exit code."""

    def __init__(self, context: RunContext):
        self.context = context
        self._watch = TeamWatch(context)
        self._inbox = AnswerInbox(context, self._watch)
        self._shutdown = Shutdown(context, self._inbox)
        self._delivery: Delivery  # it is there when the run has been taken up

    @property
    def state(self) -> RunState:
        return self.context.state

    def run(self) -> int:
        """The whole job; returns the exit code. Raises InputError before anything was written."""
        run = self.context
        ready = all_ready(run.layout, run.channel, run.stopping, run.listener.say)
        if ready is None:
            return EXIT_INCOMPLETE
        ledger().switch("decide")
        run.listener.say(f"all {len(ready)} teams have started")
        self._open(ready)
        try:
            return self._loop()
        except BaseException as error:
            reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            run.recorder.status(run.state, "failed", reason)
            raise
        finally:
            run.commits.close()

    def _loop(self) -> int:
        run, recorder = self.context, self.context.recorder
        while not run.over:
            if reason := run.stopping.reason() or run.awaited:
                return self._shutdown.interrupt(reason)
            self._issue()
            recorder.workload.note(run.state)
            self._inbox.write_status()
            recorder.save_if_due(run.state)
            recorder.tell_if_kept(run.state)
            if reason := shortage(run.config, run.state, run.layout, run.stopping.left()):
                return self._shutdown.interrupt(reason)
            self._inbox.receive(POLL)
            self._watch.give_up_overdue()
            if run.state.job.missing and not useful(run.state):
                self._break_off()
        return self._finish()

    def hear_all(self, patience: float) -> None:
        """Wait for teams that are at work on what nobody waits for any more, so that they hear what comes next."""
        run, until = self.context, time.monotonic() + patience
        while run.sent and time.monotonic() < until and not run.stopping.reason():
            found = run.channel.receive(POLL)
            if found is not None:
                run.sent.pop(found[1].order_id, None)

    def dismiss(self, code: int, patience: float = 5.0) -> bool:
        """Send everyone home with an exit code; False if some team is still inside a task and cannot hear."""
        channel = self.context.channel
        for team in self.context.layout.teams:
            channel.send(team.leader, m.Shutdown("shutdown", code))
        return self._watch.all_hear and channel.flush(patience)

    def _open(self, ready: list[m.Ready]) -> None:
        """Take up the kept state, or make a fresh one."""
        run = self.context
        problems = sorted({problem for answer in ready for problem in answer.problems})
        if problems:
            raise InputError(problems)
        type_map = next(answer.type_map for answer in ready if answer.team.startswith(TRAINER))
        start = begin(run.config, type_map)  # raises InputError before anything is written
        store = Store(run.folder.frames, run.attrs)
        self._delivery = Delivery(store, run.config.select.blocks)
        tree = load_checkpoint(run.folder.checkpoints)
        if tree is None:
            store.commit((*start.given, *start.fixed))
            state = start.state
            for line in start.told:
                run.listener.say(line)
        else:
            kept = still_there(from_tree(tree["state"]), store, run.first_principles, run.listener.say)
            new = imported(kept.label_ids, store.label_ids)
            run.folder.check_models(kept.models_in_use)  # before labels are paid that it could not train on
            resumed = resume(run.config, kept, with_imports(start, store), run.changed, new)
            state = with_compositions(resumed, store.records)
            self._tell_resumed(state, store)
        run.open(store, state)
        run.recorder.save_if_due(state)
        run.folder.keep_input(run.attrs["input"])

    def _tell_resumed(self, state: RunState, store: Store) -> None:
        if state.phase == DONE:
            self.context.listener.say(f"this run is complete ({state.ended}); nothing is left to do")
        else:
            self.context.listener.say(f"resumed: round {state.round}, {state.phase}, {len(store)} labels kept")

    def _issue(self) -> None:
        """Send what the policy wants done; labels that exist already are not asked for again."""
        run = self.context
        self._apply_known_labels()
        run.state = balanced(run.config, run.state, run.layout)
        for team, order in plan(run.config, run.recorder.aged(run.state), run.layout, run.stopping.left()):
            with ledger().during("talk"):
                run.channel.send(team.leader, self._delivery.complete(team.name, order, run.levels))
            run.state = run.state.sent(order, team.name)
            run.sent[order.order_id] = Sent(order, team.name, time.monotonic())

    def _apply_known_labels(self) -> None:
        run = self.context
        if run.state.phase not in (INIT, LABEL, *CYCLE, DRAIN) or run.state.job.running:
            return  # only at the start of the phase, fresh or resumed, can a label be there already
        known = tuple(filter(None, (run.commits.known(record, run.levels) for record in run.state.pending)))
        if known:
            order = m.LabelFrames("label/known", tuple(outcome.record for outcome in known))
            run.state = run.state.issued(order, "store")
            self._inbox.apply(m.Labelled(order.order_id, 0.0, known))

    def _break_off(self) -> None:
        """The end of a run that lacks teams of some role, when what was under way has been used."""
        run = self.context
        self._issue()
        if not useful(run.state) and not run.over:
            run.recorder.save_if_due(run.state)
            run.state = run.state.in_job(failure=run.state.job.broken)

    def _finish(self) -> int:
        run = self.context
        if run.state.job.failure:
            run.recorder.status(run.state, "failed", run.state.job.failure)
            run.listener.say(f"failed: {run.state.job.failure}")
            return EXIT_BUG
        if run.state.job.evaluated is not None:
            run.folder.conclude(run.state.model.digest, run.config.train.final_names)
            if run.config.student is None:
                export_held_out(run.folder, run.state, run.store)
            run.listener.conclude(run.snapshot())
            run.recorder.save(run.state)
        run.recorder.status(run.state, "complete", run.state.ended)
        return EXIT_COMPLETE
