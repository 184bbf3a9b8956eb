"""Energies that are off as a whole: such a round does not converge, and the user is told why."""

from collections.abc import Sequence
from dataclasses import replace

from ..config import Config
from ..data.compositions import FACTOR, FLOOR, listed
from ..data.error_metrics import ErrorTable
from ..engines.label.level_of_theory import OWN, in_words
from .convergence import CONVERGED, judged, reason_to_be_over, reason_to_end
from .state import DONE, PROBE, RunState, next_round

ENERGIES, FINAL, TEST_DATA = "energies", "final energies", "energies of test.data"
"""What warnings are about."""
LEVELS = "levels "
"""How those of labels of two levels of theory begin (:mod:`pfdhpc.engines.train.alignment`)."""


def doubted(config: Config, state: RunState, number: int) -> RunState:
    """The state with a warning if the exploring model of a round is off in energy as a whole."""
    found = state.history[number]
    if found.errors is None or not found.errors.offsets or ENERGIES in state.warnings:
        return state
    what = f"round {number}: the energies of model {found.model_version} are off"
    return state.warned(ENERGIES, f"{what} {in_words_of(found.errors)}. {_remedy(config, state)}")


def confirmed(config: Config, state: RunState) -> RunState:
    """The state after the last evaluation: a run that had converged goes on if its final energies are off."""
    if state.phase not in (DONE, PROBE):
        return state
    state = state.unwarned(FINAL, TEST_DATA)  # they were of an earlier end
    state, worse = _with_test_data(state), _worse(state)
    if not worse:
        return state
    state = state.warned(FINAL, f"the energies of the final model are off {worse}. {_remedy(config, state)}")
    if state.ended != CONVERGED:
        return state
    state = _unconverged(config, state)
    reason = reason_to_be_over(config, replace(state, ended=""), ()) if config.overlapped else ""
    reason = reason or reason_to_end(config.converge, state)
    return replace(state, ended=reason) if reason else next_round(state)


def in_words_of(errors: ErrorTable) -> str:
    """By how much energies are off, and of which compositions."""
    worst = max(errors.offsets.values(), key=abs)
    return f"by up to {worst:+.3g} eV/atom ({listed(errors.offsets)})"


def undetermined_note(tables: Sequence[ErrorTable]) -> str:
    """What energy errors leave out, in words; empty where that is nothing."""
    found = {text for table in tables for text in table.undetermined}
    return f"energies of {listed(found)} left out: no label in training determines them" if found else ""


def _worse(state: RunState) -> str:
    after, before = state.finetuned, state.pretrained
    if after is None:
        return ""
    if after.offsets:
        return f"{in_words_of(after)} on the held-out frames"
    if before is None or not after.total.energy > max(FLOOR, FACTOR * before.total.energy):
        return ""
    pair = f"{after.total.energy:.3g} eV/atom, against {before.total.energy:.3g} of the pre-trained model, aligned"
    return f"on the held-out frames: {pair}"


def _with_test_data(state: RunState) -> RunState:
    table = state.fixed.get("final")
    if table is None or not table.offsets:
        return state
    text = (
        f"the energies of the final model are off {in_words_of(table)} on test.data: are these labels of the same level"
    )
    return state.warned(TEST_DATA, f"{text} of theory (functional, pseudopotentials) as those trained on?")


def _remedy(config: Config, state: RunState) -> str:
    """What the user can do, by what is known of the labels."""
    if config.train.bias == "none" and config.student is None:
        return 'It was not aligned (train.bias = "none"): begin a run with train.bias = "change"'
    levels = {in_words(key.partition(":")[2]) for key in state.label_ids}
    brought = {text for text in levels if not text.startswith(OWN)}  # options by system make levels of [label], too
    told_apart = any(about.startswith(LEVELS) for about in state.warnings)
    if len(levels) > 1 and (brought or told_apart):
        named = " and ".join(sorted(levels))
        return f"The labels of this run are of several levels of theory ({named}): make them all with one method"
    return "Train longer, or look for labels of these compositions that are no ground state or made with other settings"


def _unconverged(config: Config, state: RunState) -> RunState:
    """The last round that was judged, with what the final model showed."""
    rounds = judged(state) if config.overlapped else [state.current]
    last = rounds[-1]
    offsets = {**last.errors.offsets, **(state.finetuned.offsets or {"all": state.finetuned.total.energy})}
    return state.note_round(last.round, errors=replace(last.errors, offsets=offsets))
