"""One tidy line per event on the terminal of rank 0."""

import logging
from collections.abc import Sequence
from functools import singledispatchmethod
from typing import Any

from rich.text import Text

from ... import messages as m
from ...config import Config
from ...data import Record
from ...data.compositions import listed
from ...log import Clock, console
from ...parallel.layout import Layout
from ...store.run_directory import RunFolder
from ...workflow.convergence import satisfied
from ...workflow.label_cost import estimate
from ...workflow.overlap import queued
from ...workflow.pool_rules import described
from ...workflow.state import INIT, LABEL, RunState

_log = logging.getLogger("pfdhpc.run")


class EventLog:
    """Tells what happens; :class:`Coordinator` calls it after each answer was applied."""

    def __init__(self, config: Config, folder: RunFolder, layout: Layout):
        self._clock = Clock()
        self._replayed = tuple(config.train.replay)
        self._converge, self._overlapped = config.converge, config.overlapped
        self._config, self._layout = config, layout
        self._warned = False  # of an unsuitable bandwidth: once is enough
        self._awaited = 0  # frames whose labels come from outside, as last told
        counts = {role: len(layout.of_role(role)) for role in ("trainer", "explorer", "labeler", "idle")}
        shape = ", ".join(f"{count} {role}{'s' * (count > 1)}" for role, count in counts.items() if count)
        self.say(f"{config.workflow} on {layout.world_size} rank{'s' * (layout.world_size > 1)}: {shape}")
        self.say(f"run directory {folder.directory}")

    def say(self, text: str, style: str = "") -> None:
        """One line; the text is printed as it is, whatever a program or a path put into it."""
        console.print(Text.assemble((self._clock.stamp(), "dim"), " ", (text, style)))
        _log.info(text)

    def event(self, before: RunState, after: RunState, message: Any) -> None:
        self._tell(message, before, after)
        for about, text in after.warnings.items():
            if before.warnings.get(about) != text:
                self.say(f"WARNING: {text}", "yellow")
        if not _timed(before) and (cost := estimate(self._config, after, self._layout)):
            self.say(f"estimate: {cost}", "bold")
        if after.round != before.round:
            version = after.current.model_version
            model = f"model {version}" if version >= 0 else "the teacher, no student yet"
            self.say(f"round {after.round} begins with {model}", "bold")

    @singledispatchmethod
    def _tell(self, message: Any, before: RunState, after: RunState) -> None:
        """Nothing is told of an answer without a rule of its own."""

    def _line(self, state: RunState, kind: str, text: str, style: str = "") -> None:
        self.say(f"round {state.round}  {kind:<8} {text}", style)

    @_tell.register
    def _tell_imported(self, message: m.Imported, before: RunState, after: RunState) -> None:
        what = "teacher is ready" if after.teacher else "pre-trained model taken as model 0"
        self._line(before, "model", f"{what}, {message.seconds:.1f} s")

    @_tell.register
    def _tell_explored(self, message: m.Explored, before: RunState, after: RunState) -> None:
        if after.history[before.round].scanned:
            return self._scanned(before, after, message)
        active = [replica for replica in after.replicas if not replica.retired]
        text = f"{len(after.explored)}/{len(active)} {message.replica}: {message.steps} steps,"
        text += f" {message.n_candidates} candidates, {message.seconds:.1f} s"
        if message.stopped:
            text += f" (stopped: {message.stopped}; restarts)"
        self._line(before, "explore", text, "yellow" if message.stopped else "")

    def _scanned(self, before: RunState, after: RunState, message: m.Explored) -> None:
        n_chunks, n_done, now = len(after.replicas), len(before.explored) + 1, after.history[before.round]
        text = f"{n_done}/{n_chunks} {message.replica}: "
        text += described(message.accurate, message.n_candidates, message.failed)
        self._line(before, "scan", f"{text}, {message.seconds:.1f} s")
        if n_done == n_chunks > 1:
            self._line(before, "scan", described(now.accurate, now.candidates, now.failed))

    @_tell.register
    def _tell_selected(self, message: m.Selected, before: RunState, after: RunState) -> None:
        report = message.report
        if report is None:
            return
        dropped = ", ".join(f"{count} {reason}" for reason, count in sorted(report.filtered.items()))
        text = f"{len(report.gains)} of {report.n_candidates} candidates"
        if report.gains and report.gains[0] == report.gains[0]:  # not drawn by lot
            text += f", entropy gain {report.gains[0]:.1f} to {report.gains[-1]:.1f} nat"
        text += f"; filtered out: {dropped}" if dropped else ""
        text += "; nothing more is new" if report.saturated else ""
        text += f"; late: {', '.join(report.absent)}" if report.absent else ""
        dropped = sum(item.dropped for item in after.history) - sum(item.dropped for item in before.history)
        text += f"; {dropped} that waited are redundant now" if dropped else ""
        self._line(before, "select", text)
        if report.warning and not self._warned:
            self._line(before, "select", report.warning, "yellow")
            self._warned = True

    @_tell.register
    def _tell_unselected(self, message: m.Unselected, before: RunState, after: RunState) -> None:
        if message.absent not in before.job.late:
            self._line(before, "select", f"{message.reason}: selecting without it", "yellow")

    @_tell.register
    def _tell_labelled(self, message: m.Labelled, before: RunState, after: RunState) -> None:
        counter = self._counter(before, after)
        accepted = [outcome.record for outcome in message.outcomes if outcome.accepted]
        if accepted:
            self._line(before, "label", f"{counter} {_described(accepted, again=not message.seconds)}")
        for outcome in message.outcomes:
            if not outcome.accepted:
                text = f"{counter} {outcome.record.origin.system} rejected: {outcome.reason}"
                self._line(before, "label", text, "yellow")
        for then, now in zip(before.history, after.history, strict=False):
            if now.errors is not None and then.errors is None:
                self._test(before, now)

    @_tell.register
    def _tell_unlabelled(self, message: m.Unlabelled, before: RunState, after: RunState) -> None:
        self._line(before, "label", f"nothing found out, it is asked for again: {message.reason}", "yellow")

    def _counter(self, before: RunState, after: RunState) -> str:
        """Labels of the round that are there, of how many; where rounds overlap, how many wait."""
        if self._overlapped:
            return f"{len(queued(after))} queued;"
        now = after.history[before.round]
        total = now.labelled + now.rejected + (len(after.pending) if after.phase in (INIT, LABEL) else 0)
        return f"{now.labelled + now.rejected}/{total}"

    @_tell.register
    def _tell_simulated(self, message: m.Simulated, before: RunState, after: RunState) -> None:
        text = f"{message.trajectory}: {message.step} steps, {message.seconds:.1f} s for {message.calculations}"
        if message.point is None:
            text = f"{message.trajectory} breaks off: {message.reason}"
        self._line(before, "aimd", text, "" if message.point is not None else "yellow")

    @_tell.register
    def _tell_awaiting(self, message: m.Awaiting, before: RunState, after: RunState) -> None:
        if message.frames != self._awaited:
            self._line(before, "label", f"{message.frames} frames wait for labels: {message.folder}/todo")
        self._awaited = message.frames

    def _test(self, before: RunState, now) -> None:
        errors = now.errors.total
        text = f"model {now.model_version} on {errors.n_frames} new labels: force {errors.force:.3f} eV/Å,"
        text += f" energy {1000 * errors.energy:.1f} meV/atom" if errors.energy == errors.energy else " no energy"
        text += f" ({listed(now.errors.undetermined)} first seen: not aligned yet)" if now.errors.undetermined else ""
        text += f", virial {1000 * errors.virial:.1f} meV/atom" if errors.virial == errors.virial else ""
        good = satisfied(self._converge, now.errors)
        self._line(before, "test", text + ("  criteria hold" if good else ""), "green" if good else "")

    @_tell.register
    def _tell_trained(self, message: m.Trained, before: RunState, after: RunState) -> None:
        if after.members or after.committee:
            self._line(before, "train", f"member {message.member} of the committee, {message.seconds:.1f} s")
        if after.members:
            return
        text = f"model {message.model.version} from {len(after.train_ids)} frames, best step {message.best_step},"
        text += f" {message.seconds:.1f} s ({message.seconds - message.step_seconds:.1f} s of it overhead)"
        text += f"; gone on after step {message.begun_at}" if message.begun_at else ""
        self._line(before, "train", text)
        new = after.determining.keys() - before.determining.keys()
        if before.determining and new and self._config.train.bias != "none":
            self._line(before, "train", f"energies aligned to the first labels of {listed(new)}")
        for name in self._replayed:
            errors = [row[f"rmse_f_{name}"] for row in message.curve if f"rmse_f_{name}" in row]
            if errors:
                text = f"from {1000 * errors[0]:.1f} to {1000 * errors[-1]:.1f} meV/Å"
                self._line(before, "train", f"replayed branch {name}: force error on its held-out frames {text}")

    @_tell.register
    def _tell_failed(self, message: m.Failed, before: RunState, after: RunState) -> None:
        self._line(before, "failed", f"{message.order_id}: {message.reason}", "yellow")

    @_tell.register
    def _tell_probed(self, message: m.Probed, before: RunState, after: RunState) -> None:
        teacher, student = message.teacher_speed, message.student_speed
        text = f"{message.atoms} atoms: teacher {teacher:.3g}, student {student:.3g} steps/s;"
        text += " stable at constant energy" if message.stable else f" NOT stable: {message.reason}"
        self._line(before, "probe", text, "" if message.stable else "yellow")


def _timed(state: RunState) -> bool:
    """Whether a label was measured before."""
    return any(key.startswith("label.") for key in state.durations)


def _described(records: Sequence[Record], again: bool) -> str:
    """Labels that came together, in a few words."""
    systems = ", ".join(sorted({record.origin.system for record in records}))
    seconds = sum(record.labelling.seconds for record in records)
    sizes = sorted({len(record.frame) for record in records})
    atoms = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    count = f"{len(records)} frames of " if len(records) > 1 else ""
    took = f", {seconds:.1f} s" if seconds == seconds else ""  # of a label made elsewhere it is not known
    return f"{count}{systems}, {atoms} atoms{took}{' (from the store)' if again else ''}"
