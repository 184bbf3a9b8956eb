"""Rules of workflow = "simplify": what a scan of the pool means for the state."""

from .. import messages as m
from ..engines.explore.committee import ACCURATE, CANDIDATE, FAILED
from .state import RunState


def done_with(state: RunState) -> tuple[str, ...]:
    """Ids of frames that are out of the pool: labelled, kept to test on, or refused by the labeler."""
    labelled = (key.partition(":")[0] for key in (*state.label_ids, *state.fixed_ids))
    return tuple(sorted({*labelled, *state.refused, *state.elsewhere}))


def scanned(state: RunState, answer: m.Explored) -> RunState:
    """The counts of a chunk in the record of the round."""
    now = state.current
    return state.note(scanned=True, accurate=now.accurate + answer.accurate, failed=now.failed + answer.failed)


def described(accurate: int, candidates: int, failed: int) -> str:
    """The sets of a round in words."""
    total = accurate + candidates + failed
    if not total:
        return "no frame of the pool is without a label"
    shares = ((accurate, ACCURATE), (candidates, CANDIDATE), (failed, FAILED))
    return f"{total} frames without a label: " + ", ".join(f"{n} {name} ({n / total:.0%})" for n, name in shares)
