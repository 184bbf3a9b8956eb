"""From one exploration round to the next."""

from dataclasses import replace

from ..parallel import layout
from .state import EXPLORE, RoundRecord, RunState


def next_round(state: RunState) -> RunState:
    """Begin the next exploration round with the newest model."""
    number = state.round + 1
    return check_alive(
        replace(
            state,
            phase=EXPLORE,
            round=number,
            explored=(),
            picked=(),
            ended="",
            history=(*state.history, RoundRecord(number, model_version=state.newest)),
            attempt=0,
        )
    )


def check_alive(state: RunState) -> RunState:
    """Exploration needs a replica."""
    if state.phase == EXPLORE and not alive(state):
        reason = "every replica was retired by its guards; see logs/, explore.guard and explore.max_restarts"
        return replace(state, broken=reason, missing=state.missing | {layout.EXPLORER})
    return state


def alive(state: RunState) -> bool:
    """Whether there is a replica left to explore."""
    return not all(replica.retired for replica in state.replicas)
