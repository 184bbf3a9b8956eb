"""What fits into the rest of a job; runs that stop by themselves because nothing does."""

import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_loop import fingerprint
from test_roles import config as make
from test_roles import frame, started
from toys import ToyRun, bare, make_config

from pfdhpc import messages as m
from pfdhpc.data import Label, Labelling, Origin, Record
from pfdhpc.errors import EXIT_COMPLETE, EXIT_INCOMPLETE
from pfdhpc.parallel.layout import plan_layout
from pfdhpc.roles import stopping as stopping_module
from pfdhpc.roles.labeler import LabelerProgram
from pfdhpc.store.status import read_status
from pfdhpc.workflow.apply import apply
from pfdhpc.workflow.plan import plan, shortage
from pfdhpc.workflow.state import LABEL, TRAIN, RunState
from pfdhpc.workflow.state_codec import from_tree, to_tree
from pfdhpc.workflow.time_forecast import KEPT, LEAST, expected_by, exploration_seconds, label_seconds, measured

LAYOUT = plan_layout(make().ranks, 4)


def record(seed, n_atoms=2):
    return Record(frame(seed, n_atoms), Origin("Cu"))


def answer(seconds, *records):
    label = Label(0.0, np.zeros((1, 3)), None)
    made = tuple(m.LabelOutcome(replace(item, label=label, labelling=Labelling("pbe", "ase"))) for item in records)
    return m.Labelled("label/x", seconds, made)


def after(*answers, state=None):
    state = state or RunState(replicas=started().replicas)
    for item in answers:
        state = measured(make(), state, item)
    return state


def ids(orders):
    return [order.order_id for _, order in orders]


def test_labels_are_forecast_from_those_of_as_many_atoms_and_an_outlier_does_not_count():
    state = after(*(answer(seconds, record(0, 8)) for seconds in (10.0, 11.0, 900.0, 9.0, 10.0)))
    assert label_seconds(state, 8) == 15.0
    assert label_seconds(RunState(), 8) is None


def test_other_sizes_are_forecast_from_the_nearest_one_to_the_safe_side():
    state = after(answer(10.0, record(0, 8)), answer(100.0, record(0, 64)))
    assert label_seconds(state, 16) == 15.0 * 2**3
    assert label_seconds(state, 32) == 150.0 / 2
    assert label_seconds(state, 128) == 150.0 * 2**3


@given(st.lists(st.floats(0.1, 1e5), min_size=1, max_size=40), st.integers(1, 500))
def test_a_forecast_lies_above_what_is_usual_and_the_memory_is_bounded(seconds, n_atoms):
    state = after(*(answer(item, record(0, 8)) for item in seconds))
    last = seconds[-KEPT:]
    assert len(state.durations["label.8"]) == len(last)
    assert label_seconds(state, 8) >= np.median(last)
    assert label_seconds(state, n_atoms + 1) >= label_seconds(state, n_atoms) * (1 - 1e-12)


def test_a_batch_is_shared_out_by_atoms_and_labels_from_the_store_and_rejected_ones_tell_nothing():
    state = after(answer(30.0, record(0, 2), record(1, 4)), answer(0.0, record(2, 2)))
    assert state.durations == {"label.2": (10.0,), "label.4": (20.0,)}
    rejected = m.Labelled("label/x", 500.0, (m.LabelOutcome(record(0), "SCF"),))
    assert after(rejected).durations == {}


def test_training_is_forecast_by_steps():
    config, layout = make(train={"first_steps": 100, "steps": 1000}), LAYOUT
    state = replace(started(phase=TRAIN, round=0), fresh=("a:pbe",))
    state = measured(config, state, m.Trained("train/0", 30.0, m.ModelRef(1, "x"), 1, 20.0))
    state = replace(state, round=1)
    needed = 1.2 * (10 + 1000 * 0.2)
    assert ids(plan(config, state, layout, needed + 1)) == ["train/1"]
    assert list(plan(config, state, layout, needed - 1)) == []
    assert shortage(config, state, layout, 80.0) == "the next training round needs about 252 s, 80 s are left"
    assert shortage(config, state, layout, None) == "" == shortage(config, state, layout, needed + 1)


def test_what_was_never_measured_is_begun_unless_next_to_nothing_is_left():
    state = replace(started(phase=TRAIN), fresh=("a:pbe",))
    assert ids(plan(make(), state, LAYOUT, LEAST)) == ["train/1"]
    assert list(plan(make(), state, LAYOUT, LEAST - 0.1)) == []
    assert "not known" in shortage(make(), state, LAYOUT, LEAST - 0.1)


def test_a_small_label_is_made_where_a_large_one_before_it_does_not_fit():
    small, large = record(0, 2), record(1, 8)
    state = started(phase=LABEL, pending=(large, small))
    state = after(answer(10.0, small), answer(1000.0, large), state=state)
    assert ids(plan(make(), state, LAYOUT)) == [f"label/{large.frame_id}"]
    assert ids(plan(make(), state, LAYOUT, 100.0)) == [f"label/{small.frame_id}"]
    busy = state.issued(m.LabelFrames(f"label/{small.frame_id}", (small,)), "labeler-0")
    assert shortage(make(), busy, LAYOUT, 90.0) == ""  # worth waiting for
    alone = replace(state, pending=(large,))
    assert shortage(make(), alone, LAYOUT, 90.0) == "the next label needs about 1500 s, 90 s are left"


def test_an_exploration_is_begun_only_if_its_end_and_the_selection_fit():
    """Its candidates would be lost."""
    state = started()
    segment = m.Explored("explore/0/Cu-0", 10.0, "Cu-0", b"", 100, 1, "")
    report = m.SelectReport(1, {}, (1.0,), False)
    state = after(segment, m.Selected("select/0.0/explorer-0", 20.0, (), report), state=state)
    whole = 3 * 1.2 * 10 + 1.5 * 20
    assert exploration_seconds(make(), state, LAYOUT) == pytest.approx(whole)
    assert ids(plan(make(), state, LAYOUT, whole + 1)) == ["explore/1/Cu-0"]
    assert list(plan(make(), state, LAYOUT, whole - 1)) == []
    assert exploration_seconds(make(explore={"steps": 200}), state, LAYOUT) == pytest.approx(2 * 36 + 30)
    two = plan_layout(make(ranks={"explorer": {"teams": 2}}).ranks, 5)
    assert exploration_seconds(make(), state, two) == pytest.approx(18 + 30)
    begun = replace(state.issued(bare(m.Explore, "explore/1/Cu-2"), "explorer-0"), explored=("Cu-0",))
    assert exploration_seconds(make(), begun, LAYOUT) == pytest.approx(12 + 30)


def test_labels_under_way_are_waited_for_if_they_can_be_there_in_time():
    small, large, odd = record(0, 2), record(1, 8), record(2, 8)
    state = started(phase=LABEL, pending=(small, large, odd))
    for item in (small, large):
        state = state.issued(m.LabelFrames(f"label/{item.frame_id}", (item,)), f"labeler-{item.frame_id}")
    since = {key: 100.0 for key in state.job.running}
    assert set(expected_by(110.0, state, since).values()) == {-np.inf}
    state = after(answer(10.0, small), answer(1000.0, large), state=state)
    assert expected_by(200.0, state, since) == {f"label/{small.frame_id}": 115.0}
    assert len(expected_by(2000.0, state, since)) == 2


def test_a_teacher_is_timed_apart_from_first_principles():
    state = after(answer(3600.0, record(0, 8)))
    taught = replace(state, teacher=m.ModelRef(0, "t"))
    assert label_seconds(taught, 8) is None
    taught = after(answer(0.1, record(0, 8)), state=taught)
    assert label_seconds(taught, 8) == pytest.approx(0.15)
    assert label_seconds(replace(taught, teacher=None), 8) == 5400.0


def test_an_answer_is_measured_when_it_is_applied_and_kept_in_the_checkpoint():
    item = record(0)
    state = started(phase=LABEL, pending=(item, record(1))).issued(m.LabelFrames("label/x", ()), "labeler-0")
    state = apply(make(), state, answer(7.0, item), lambda ids: [])
    assert state.durations == {"label.2": (7.0,)}
    again = apply(make(), state, answer(7.0, item), lambda ids: [])
    assert again.durations == state.durations  # filed once
    kept = from_tree(to_tree(state))
    assert dict(kept.durations) == {"label.2": (7.0,)}


def test_a_checkpoint_from_before_durations_were_kept_is_read():
    tree = to_tree(started(core_hours=3.0))
    for name in ("durations", "core_hours"):
        del tree[name]
    old = from_tree(tree)
    assert old.durations == {} and old.core_hours == 0.0


# whole runs


class Timed(ToyRun):
    """A run whose training rounds say that they took 120 s, with ``left`` seconds from the n-th answer on."""

    def __init__(self, *arguments, left=1e6, after=0, **keywords):
        super().__init__(*arguments, **keywords)
        self._left, self._after = left, after
        self.stopping.left = lambda: self._left if len(self.events) >= self._after else 1e6

    def _program(self, *given):
        team, program = given[0], super()._program(*given)
        if team.role == "trainer":
            handle = program.handle
            program.handle = lambda order: self._slow(handle(order))
        return program

    @staticmethod
    def _slow(answer):
        return replace(answer, seconds=120.0, step_seconds=100.0) if isinstance(answer, m.Trained) else answer


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    run = ToyRun(make_config(tmp_path_factory.mktemp("whole")))
    assert run.run() == EXIT_COMPLETE
    return run


def test_a_run_stops_by_itself_says_why_and_goes_on_to_the_same_end(uninterrupted, tmp_path):
    config = make_config(tmp_path)
    first = Timed(config, left=80.0, after=8)
    assert first.run() == EXIT_INCOMPLETE
    assert first.events[-1] == "Labelled"
    status = read_status(config.run.directory)
    assert status["state"] == "incomplete"
    assert status["reason"] == "the next training round needs about 144 s, 80 s are left"
    assert status["measured_seconds"]["train.rest"] == 20.0
    second = Timed(config, left=80.0)
    progress = status["progress"]
    assert second.run() == EXIT_INCOMPLETE and second.events == []  # it remembers
    status = read_status(config.run.directory)
    assert status["progress"] == progress and "longer wall-time" in status["reason"]
    third = ToyRun(config)
    assert third.run() == EXIT_COMPLETE
    assert fingerprint(third) == fingerprint(uninterrupted)


def test_what_an_exploration_took_is_known_after_a_stop_that_kept_nothing_else_of_it(tmp_path):
    config = make_config(tmp_path)
    first = ToyRun(config)
    first.stop_after(7)  # import, four labels, a training, one of the segments
    assert first.run() == EXIT_INCOMPLETE and first.events[-1] == "Explored"
    second = Timed(config, left=1e-9)
    assert second.run() == EXIT_INCOMPLETE and second.events == []
    assert "explore.Cu" in second.state.durations and "needs about" in read_status(config.run.directory)["reason"]
    assert second.state.core_hours > 0
    spread = ToyRun(config, changed=["ranks.labeler.ranks"])  # other teams take other times
    spread.stopping.reason = lambda: "the test wants it" if hasattr(spread.context, "recorder") else ""
    assert spread.run() == EXIT_INCOMPLETE and spread.state.durations == {}


def test_the_file_stop_ends_a_job_and_the_next_one_goes_on(uninterrupted, tmp_path, monkeypatch):
    monkeypatch.setattr(stopping_module, "LOOK", 0.0)
    config = make_config(tmp_path)
    first = ToyRun(config)
    first.stopping.obey(config.run)
    event = first.context.listener.event

    def touch(before, after, message):
        event(before, after, message)
        if len(first.events) == 7:
            (config.run.directory / "STOP").touch()

    first.context.listener.event = touch
    assert first.run() == EXIT_INCOMPLETE and len(first.events) < 10
    assert "STOP" in read_status(config.run.directory)["reason"] and not (config.run.directory / "STOP").exists()
    second = ToyRun(config)
    second.stopping.obey(config.run)
    assert second.run() == EXIT_COMPLETE
    assert fingerprint(second) == fingerprint(uninterrupted)


def test_a_stop_before_the_start_is_an_order_not_to_start(tmp_path):
    config = make_config(tmp_path)
    config.run.directory.mkdir()
    (config.run.directory / "STOP").touch()
    run = ToyRun(config)
    run.stopping.obey(config.run)
    assert run.run() == EXIT_INCOMPLETE
    assert run.events == [] and "STOP was there" in run.lines[-1]
    assert not (config.run.directory / "STOP").exists()


@pytest.mark.parametrize("left, kept", [(1e6, 2), (1.0, 1)])
def test_labels_under_way_are_kept_if_they_can_be_made_before_the_end(tmp_path, monkeypatch, left, kept):
    handle = vars(LabelerProgram)["handle"]

    times = iter([0.2])  # the first; the others are still being made when its answer comes

    def slow(self, order):
        time.sleep(next(times, 0.6))
        return replace(handle.__get__(self, LabelerProgram)(order), seconds=2.0)

    monkeypatch.setattr(LabelerProgram, "handle", slow)
    ranks = {"labeler": {"teams": 2}}
    run = ToyRun(make_config(tmp_path, ranks=ranks, run={"grace": 0.0}, init={"frames": 8}), size=5, threads=True)
    run.stopping.limit(1e6)
    event = run.context.listener.event

    def ask(before, after, message):
        event(before, after, message)
        if isinstance(message, m.Labelled) and not run.stopping.asked:
            run.stopping.limit(time.monotonic() - run.stopping._started + left)
            run.stopping.asked = "the test wants it"

    run.context.listener.event = ask
    assert run.run() == EXIT_INCOMPLETE
    assert len(run.store) == kept and len(run.state.job.running) == 2 - kept


def test_the_budget_in_core_hours_ends_a_run_over_all_its_jobs(tmp_path):
    config = make_config(tmp_path, ranks={"threads": 2}, converge={"max_core_hours": 1e-9, "max_rounds": 9})
    first = ToyRun(config).stop_after(6)
    assert first.run() == EXIT_INCOMPLETE
    spent = read_status(config.run.directory)
    assert spent["core_hours"] >= 0 and spent["ends_at"] is None
    second = ToyRun(config)
    assert second.run() == EXIT_COMPLETE
    assert second.state.ended == "max_core_hours" and second.state.finetuned is not None
    assert second.state.core_hours == pytest.approx(4 * 2 * second.state.elapsed / 3600)
    assert second.context.recorder._before.elapsed > 0
    raised = ToyRun(make_config(tmp_path, ranks={"threads": 2}, converge={"max_core_hours": 1.0, "max_rounds": 1}))
    assert raised.run() == EXIT_COMPLETE and raised.state.ended == "max_rounds"
