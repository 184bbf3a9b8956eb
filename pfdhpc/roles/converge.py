"""When a run is over, and whether that is a success."""

from ..config.schema import ConvergeSection
from .metrics import ErrorTable
from .state import RunState

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
