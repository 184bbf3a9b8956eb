"""Labels whose program was ended from outside are asked for again; one that is killed again and again is rejected."""

import signal

import pytest
from ase.build import bulk
from toys import ToyRun, make_config

from pfdhpc import messages as m
from pfdhpc.data import Frame, Record
from pfdhpc.engines import registry
from pfdhpc.engines.base import Labeler
from pfdhpc.errors import EXIT_COMPLETE, EXIT_INCOMPLETE, LabelError
from pfdhpc.roles import labeler as program
from pfdhpc.roles.label_commits import TRIES, KilledLabels


class Ended(Labeler):
    """The run's own labeler, whose attempts end as ``how(frame_id, attempt)`` says: None, or as a signal's number."""

    def __init__(self, inner, how):
        self._inner, self._how, self.level, self.tried = inner, how, inner.level, {}

    def label(self, frame, changes, timeout):
        attempt = self.tried[frame.frame_id] = self.tried.get(frame.frame_id, 0) + 1
        if (killed := self._how(frame.frame_id, attempt)) is not None:
            raise LabelError("it ended early", killed)
        return self._inner.label(frame, changes, timeout)


@pytest.fixture
def job(monkeypatch, tmp_path):
    """``job(how, **changes)``: a run, and the labeler in it."""

    def made(how, folder="run", **changes):
        found = []

        def make(*arguments):
            found.append(Ended(registry.make_labeler(*arguments), how))
            return found[-1]

        monkeypatch.setattr(program, "make_labeler", make)
        run = ToyRun(make_config(tmp_path / folder, converge={"max_rounds": 1}, **changes))
        return run, found[0]

    return made


def labels(run):
    return sorted(record.label_id for record in run.store.records())


def test_programs_that_were_stopped_cost_no_frame_its_label(job):
    plain, _ = job(lambda *_: None, "plain")
    ended, engine = job(lambda _, attempt: signal.SIGTERM if attempt == 1 else None, label={"retries": [{}]})
    assert plain.run() == ended.run() == EXIT_COMPLETE
    assert labels(ended) == labels(plain) and not ended.store.rejected()
    assert set(engine.tried.values()) == {2} and ended.events.count("Unlabelled") == 4 + 3
    assert [item.rejected for item in ended.state.history] == [0, 0]


def test_what_kills_its_program_again_and_again_is_rejected_after_the_ladder(job):
    victims = []

    def how(frame_id, attempt):
        victims[:] = victims or [frame_id]
        return signal.SIGKILL if frame_id in victims else None

    run, engine = job(how, label={"retries": [{}]})
    assert run.run() == EXIT_COMPLETE
    ((record, reason),) = run.store.rejected()
    assert record.frame_id == victims[0] and "attempt 2: it ended early" in reason
    assert engine.tried[victims[0]] == 2 * TRIES


@pytest.mark.parametrize("killed", [0, int(signal.SIGTERM), int(signal.SIGKILL)])
def test_a_stop_that_reaches_the_programs_too_leaves_their_frames_to_the_next_job(job, killed):
    """0: a launcher that only says it failed, as Open MPI's does when it is told to stop."""
    found = []

    def how(frame_id, attempt):
        if len(found) < 2 and frame_id not in found:
            found.append(frame_id)
            return None
        run.stopping.asked = "received SIGTERM"
        return killed

    run, _ = job(how)
    assert run.run() == EXIT_INCOMPLETE
    assert len(run.store) == 2 and not run.store.rejected() and len(run.state.pending) == 2
    again, engine = job(lambda *_: None)
    assert again.run() == EXIT_COMPLETE
    assert not again.store.rejected() and len(again.store) == 4 + 3
    assert not engine.tried.keys() & set(found), "labels that are there are not made again"


def outcome(place, reason="", killed=None):
    return m.LabelOutcome(Record(Frame.from_atoms(bulk("Cu", a=3.6 + 0.1 * place))), reason, killed)


def test_of_a_batch_only_what_was_judged_is_answered():
    good, refused, stopped = outcome(0), outcome(1, "SCF"), outcome(2, "ended", int(signal.SIGTERM))
    answer = m.Labelled("label/x", 3.0, (good, refused, stopped))
    assert KilledLabels().sift(answer, stopping=False).outcomes == (good, refused)
    failed = m.Labelled("label/x", 3.0, (good, outcome(1, "exit code 1", 0)))
    assert KilledLabels().sift(failed, stopping=False) is failed
    assert KilledLabels().sift(failed, stopping=True).outcomes == (good,)


def test_a_segment_of_dynamics_whose_program_was_stopped_is_made_again():
    ended = outcome(0, "ended", int(signal.SIGTERM))
    answer = m.Simulated("aimd/a/0", 3.0, (outcome(1), ended), "a", None, 5, 3, "ended")
    assert isinstance(KilledLabels().sift(answer, stopping=False), m.Unlabelled)
    broken = m.Simulated("aimd/a/0", 3.0, (outcome(0, "SCF"),), "a", None, 5, 3, "SCF")
    assert KilledLabels().sift(broken, stopping=True) is broken


def test_a_segment_whose_program_is_always_killed_is_given_up_although_its_frames_differ():
    unjudged = KilledLabels()
    killed = [outcome(place, "killed", int(signal.SIGKILL)) for place in range(TRIES)]
    answers = [m.Simulated("aimd/a/0", 1.0, (item,), "a", None, 0, 1, "killed") for item in killed]
    found = [type(unjudged.sift(answer, stopping=False)) for answer in answers]
    assert found == [m.Unlabelled] * (TRIES - 1) + [m.Simulated]
