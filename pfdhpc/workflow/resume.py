"""The kept state of a run taken up by a later job."""

from collections.abc import Callable, Collection, Container, Sequence
from dataclasses import replace

from ..config import Config
from ..data.frame import is_imported
from ..engines.label.level_of_theory import Levels
from ..store.store import Store
from .convergence import ACCURATE, ALL_FAILED, SATURATED, reason_to_be_over, reason_to_end
from .overlap import conform
from .state import DONE, EVALUATE, EXPLORE, LABEL, PROBE, SELECT, TRAIN, Replica, RunState, check_alive, next_round


def resume(
    config: Config, kept: RunState, fresh: RunState, changed: Collection[str] = (), imported: Sequence[str] = ()
) -> RunState:
    """The kept state under a configuration in which the mutable keys ``changed`` differ.

    Replicas at new temperatures or pressures join, those no longer asked for are left out; where
    [explore] changed, guard restarts are forgiven; where [ranks] changed, measured durations are forgotten; a run
    that had reached a limit which has been raised, or was saturated under another [explore] or [select], goes on.
    Labels ``imported`` since (their ids) are trained on next, also by a run that was over.
    """
    forgiven = any(key.startswith("explore.") for key in changed)
    old = {replica.replica: _again(replica, config, forgiven) for replica in kept.replicas}
    replicas = tuple(old.get(replica.replica, replica) for replica in fresh.replicas)
    kept = replace(kept, replicas=replicas, species=fresh.species, elsewhere=fresh.elsewhere)
    if any(key.startswith("ranks.") for key in changed):
        kept = replace(kept, durations={})
    kept = _with_imported(kept, imported)
    if kept.phase == TRAIN and not (kept.train_ids or kept.fresh):
        return kept.in_job(failure="frames/ holds no label to train on any more; put back the files taken out of it")
    if kept.phase in (EVALUATE, DONE):
        reason = reason_to_be_over(config, kept, changed) if config.overlapped else reason_to_end(config.converge, kept)
        searched_otherwise = any(key.startswith(("explore.", "select.", "pool.")) for key in changed)
        if not reason or (reason in (SATURATED, ACCURATE, ALL_FAILED) and searched_otherwise):
            return next_round(kept)
        return replace(kept, ended=reason)
    return check_alive(_conformed(config, kept))


def _conformed(config: Config, kept: RunState) -> RunState:
    """As the policy would have it; in lock-step, imported labels wait for the end of a round that is being explored."""
    held = {key for key in kept.fresh if is_imported(key)}
    if config.overlapped or kept.phase not in (EXPLORE, SELECT) or not held:
        return conform(config, kept)
    state = conform(config, replace(kept, fresh=tuple(key for key in kept.fresh if key not in held)))
    return replace(state, fresh=tuple(sorted({*state.fresh, *held})))


def _with_imported(kept: RunState, imported: Sequence[str]) -> RunState:
    if not imported:
        return kept
    frames = {key.partition(":")[0] for key in imported}
    kept = replace(
        kept,
        pending=tuple(record for record in kept.pending if record.frame_id not in frames),
        fresh=tuple(sorted({*kept.fresh, *imported})),
        given=kept.given + len(imported),
        members=(),  # those of a committee are trained on the same labels
    )
    if kept.phase == LABEL and not kept.pending:
        return replace(kept, phase=TRAIN)
    return replace(kept, phase=TRAIN, ended="") if kept.phase in (EVALUATE, PROBE, DONE) else kept


def without_missing(state: RunState, known: Container[str], rejected: Callable[[str], bool]) -> RunState:
    """The kept state without what the store does not hold any more: a damaged file was taken out of it.

    ``known`` holds label ids; ``rejected`` tells of a frame id.
    """
    names = ("train_ids", "validation_ids", "test_ids", "fresh", "training", "fixed_ids")
    labels = {name: tuple(key for key in getattr(state, name) if key in known) for name in names}
    history = tuple(
        replace(item, label_ids=tuple(key for key in item.label_ids if key in known)) for item in state.history
    )
    refused = tuple(key for key in state.refused if rejected(key))
    return replace(state, **labels, history=history, refused=refused)


def _again(replica: Replica, config: Config, forgiven: bool) -> Replica:
    restarts = 0 if forgiven else replica.restarts
    return replace(replica, restarts=restarts, retired=restarts > config.explore.max_restarts)


def still_there(kept: RunState, store: Store, first_principles: Levels, say: Callable[[str], None]) -> RunState:
    """The kept state without the frames that its store has lost."""
    levels = kept.levels(first_principles)

    def refused(frame_id: str) -> bool:
        return any(store.was_rejected(frame_id, level) for level in levels)

    state = without_missing(kept, store, refused)
    missing = kept.n_labels - state.n_labels + len(kept.refused) - len(state.refused)
    if missing:
        say(f"{missing} frames of this run are not in {store.directory} any more: left out")
    return state
