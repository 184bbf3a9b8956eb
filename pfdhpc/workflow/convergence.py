"""When a run is over, and whether that is a success."""

from collections.abc import Collection

from ..config import Config
from ..config.schema import ConvergeSection
from ..data.error_metrics import ErrorTable
from .state import RoundRecord, RunState

CONVERGED = "converged"
SATURATED = "saturated"
ACCURATE = "accurate"
ALL_FAILED = "all_failed"
MAX_ROUNDS = "max_rounds"
MAX_LABELS = "max_labels"
MAX_SECONDS = "max_seconds"
MAX_CORE_HOURS = "max_core_hours"

MEANING = {
    CONVERGED: "the convergence criteria hold",
    SATURATED: "the selection found nothing new to label",
    ACCURATE: "every frame of the pool is labelled, or within the trust of the committee",
    ALL_FAILED: "no candidate is left, but frames beyond the trust band",
    MAX_ROUNDS: "converge.max_rounds was reached",
    MAX_LABELS: "converge.max_labels was reached",
    MAX_SECONDS: "converge.max_seconds was reached",
    MAX_CORE_HOURS: "converge.max_core_hours was reached",
}


def has_criteria(section: ConvergeSection) -> bool:
    return any(value is not None for value in (section.force_rmse, section.energy_rmse, section.virial_rmse))


def satisfied(section: ConvergeSection, errors: ErrorTable | None) -> bool:
    """Whether the exploring model's errors on a round's new labels meet every criterion given.

    Energies that are off as a whole meet none, whatever is asked for: a model with such energies is of no use, and
    trained on them its forces get worse.
    """
    if errors is None or errors.offsets or errors.total.n_frames < section.min_frames or not has_criteria(section):
        return False
    pairs = (
        (errors.total.force, section.force_rmse),
        (errors.total.energy, section.energy_rmse),
        (errors.total.virial, section.virial_rmse),
    )
    return all(value <= limit for value, limit in pairs if limit is not None)


def reason_to_end(section: ConvergeSection, state: RunState) -> str:
    """Why the run is over after the current round; empty if it goes on."""
    last = state.history[-section.patience :]
    if len(last) == section.patience and all(satisfied(section, item.errors) for item in last):
        return CONVERGED
    if state.current.scanned and not state.current.candidates:
        return ALL_FAILED if state.current.failed else ACCURATE
    return SATURATED if state.current.saturated else reason_of_limits(section, state)


def reason_of_limits(section: ConvergeSection, state: RunState) -> str:
    """The limit that was reached; empty if none was."""
    if section.max_labels is not None and state.n_paid >= section.max_labels:
        return MAX_LABELS
    if state.round >= section.max_rounds:
        return MAX_ROUNDS
    if section.max_seconds is not None and state.elapsed >= section.max_seconds:
        return MAX_SECONDS
    if section.max_core_hours is not None and state.core_hours >= section.max_core_hours:
        return MAX_CORE_HOURS
    return ""


STRAGGLERS = 0.2
"""Share of a round's labels that may still be missing when its model is judged: nobody waits for the slowest."""


def answered(state: RunState, number: int) -> bool:
    """Whether a round has its labels, but for :data:`STRAGGLERS`."""
    record = state.history[number]
    missing = sum(item.origin.round == number for item in state.pending)
    return missing <= STRAGGLERS * (missing + record.labelled + record.rejected)


def judged(state: RunState) -> list[RoundRecord]:
    """The rounds whose model's errors can be believed, in order."""
    return [item for item in state.history[1:] if item.errors is not None and answered(state, item.round)]


def converged(section: ConvergeSection, state: RunState) -> bool:
    """Whether the criteria hold in the last ``patience`` rounds that are judged."""
    last = judged(state)[-section.patience :]
    return len(last) == section.patience and all(satisfied(section, item.errors) for item in last)


def reason_to_be_over(config: Config, state: RunState, changed: Collection[str]) -> str:
    """Why a run that was evaluated stays over; empty if it goes on. ``changed``: keys that differ from before."""
    settled = state.ended == CONVERGED and not any(key.startswith("converge.") for key in changed)
    if settled or converged(config.converge, state):
        return CONVERGED
    return SATURATED if state.current.saturated else reason_of_limits(config.converge, state)
