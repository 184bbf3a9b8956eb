"""One tidy line per event on the terminal of rank 0."""

import logging
from collections.abc import Sequence
from typing import Any

from rich.text import Text

from ..config import Config
from ..data import Record
from ..log import Clock, console
from ..parallel.layout import Layout
from . import messages as m
from .converge import satisfied
from .folder import RunFolder
from .state import LABEL, RunState

_log = logging.getLogger("pfdhpc.run")


class Narrator:
    """Tells what happens; :class:`Coordinator` calls it after each answer was applied."""

    def __init__(self, config: Config, folder: RunFolder, layout: Layout):
        self._clock = Clock()
        self._converge = config.converge
        self._warned = False  # of an unsuitable bandwidth: once is enough
        counts = {role: len(layout.of_role(role)) for role in ("trainer", "explorer", "labeler", "idle")}
        shape = ", ".join(f"{count} {role}{'s' * (count > 1)}" for role, count in counts.items() if count)
        self.say(f"{config.workflow} on {layout.world_size} rank{'s' * (layout.world_size > 1)}: {shape}")
        self.say(f"run directory {folder.directory}")

    def say(self, text: str, style: str = "") -> None:
        """One line; the text is printed as it is, whatever a program or a path put into it."""
        console.print(Text.assemble((self._clock.stamp(), "dim"), " ", (text, style)))
        _log.info(text)

    def event(self, before: RunState, after: RunState, message: Any) -> None:
        tell = getattr(self, f"_{type(message).__name__.lower()}", None)
        if tell is not None:
            tell(before, after, message)
        if after.round != before.round:
            self.say(f"round {after.round} begins with model {after.model.version}", "bold")

    def _line(self, state: RunState, kind: str, text: str, style: str = "") -> None:
        self.say(f"round {state.round}  {kind:<8} {text}", style)

    def _imported(self, before: RunState, after: RunState, message: m.Imported) -> None:
        what = "teacher is ready" if after.teacher else "pre-trained model taken as model 0"
        self._line(before, "model", f"{what}, {message.seconds:.1f} s")

    def _explored(self, before: RunState, after: RunState, message: m.Explored) -> None:
        active = [replica for replica in after.replicas if not replica.retired]
        text = f"{len(after.explored)}/{len(active)} {message.replica}: {message.steps} steps,"
        text += f" {message.n_candidates} candidates, {message.seconds:.1f} s"
        if message.stopped:
            text += f" (stopped: {message.stopped}; restarts)"
        self._line(before, "explore", text, "yellow" if message.stopped else "")

    def _selected(self, before: RunState, after: RunState, message: m.Selected) -> None:
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
        self._line(before, "select", text)
        if report.warning and not self._warned:
            self._line(before, "select", report.warning, "yellow")
            self._warned = True

    def _unselected(self, before: RunState, after: RunState, message: m.Unselected) -> None:
        if message.absent not in before.late:
            self._line(before, "select", f"{message.reason}: selecting without it", "yellow")

    def _labelled(self, before: RunState, after: RunState, message: m.Labelled) -> None:
        now = after.history[before.round]
        total = now.labelled + now.rejected + (len(after.pending) if after.phase == LABEL else 0)
        counter = f"{now.labelled + now.rejected}/{total}"
        accepted = [outcome.record for outcome in message.outcomes if outcome.accepted]
        if accepted:
            self._line(before, "label", f"{counter} {_described(accepted, again=not message.seconds)}")
        for outcome in message.outcomes:
            if not outcome.accepted:
                text = f"{counter} {outcome.record.origin.system} rejected: {outcome.reason}"
                self._line(before, "label", text, "yellow")
        if now.errors is not None and before.history[-1].errors is None:
            self._test(before, now)

    def _test(self, before: RunState, now) -> None:
        errors = now.errors.total
        text = f"model {now.model_version} on {errors.n_frames} new labels: force {errors.force:.3f} eV/Å,"
        text += f" energy {1000 * errors.energy:.1f} meV/atom, virial {1000 * errors.virial:.1f} meV/atom"
        good = satisfied(self._converge, now.errors)
        self._line(before, "test", text + ("  criteria hold" if good else ""), "green" if good else "")

    def _trained(self, before: RunState, after: RunState, message: m.Trained) -> None:
        text = f"model {message.model.version} from {len(after.train_ids)} frames, best step {message.best_step},"
        text += f" {message.seconds:.1f} s ({message.seconds - message.step_seconds:.1f} s of it overhead)"
        self._line(before, "train", text)

    def _failed(self, before: RunState, after: RunState, message: m.Failed) -> None:
        self._line(before, "failed", f"{message.order_id}: {message.reason}", "yellow")

    def _probed(self, before: RunState, after: RunState, message: m.Probed) -> None:
        teacher, student = message.teacher_speed, message.student_speed
        text = f"{message.atoms} atoms: teacher {teacher:.3g}, student {student:.3g} steps/s;"
        text += " stable at constant energy" if message.stable else f" NOT stable: {message.reason}"
        self._line(before, "probe", text, "" if message.stable else "yellow")


def _described(records: Sequence[Record], again: bool) -> str:
    """Labels that came together, in a few words."""
    systems = ", ".join(sorted({record.origin.system for record in records}))
    seconds = sum(record.labelling.seconds for record in records)
    sizes = sorted({len(record.frame) for record in records})
    atoms = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    count = f"{len(records)} frames of " if len(records) > 1 else ""
    return f"{count}{systems}, {atoms} atoms, {seconds:.1f} s{' (from the store)' if again else ''}"
