"""From one exploration round to the next."""

from dataclasses import replace

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
    if state.phase == EXPLORE and all(replica.retired for replica in state.replicas):
        return replace(
            state, failure="every replica was retired by its guards; see logs/, explore.guard and explore.max_restarts"
        )
    return state
