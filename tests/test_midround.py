"""Trainings that are kept as they go: begun although they cannot end in this job, and counted as progress."""

import pytest
from test_loop import fingerprint
from test_roles import config, started
from toys import ToyRun, make_config

from pfdhpc import messages as m
from pfdhpc.errors import EXIT_COMPLETE, EXIT_INCOMPLETE
from pfdhpc.parallel.layout import plan_layout
from pfdhpc.roles import run_recorder
from pfdhpc.store.status import read_status
from pfdhpc.workflow.plan import plan, shortage
from pfdhpc.workflow.state import TRAIN, RunState
from pfdhpc.workflow.time_forecast import forecast, measured

LAYOUT = plan_layout(config().ranks, 4)
TRAINED = m.Trained("train/1", 30.0, m.ModelRef(1, "x"), 1, 20.0)


def long(**train):
    """20 s a step were measured and 10 s besides; a round has 100 steps. The first is over."""
    setup = config(train={"first_steps": 1, "steps": 100, **train})
    state = measured(setup, RunState(), TRAINED)
    return setup, started(phase=TRAIN, fresh=("y:pbe",), durations=state.durations)


def test_a_training_that_cannot_end_in_this_job_is_begun_if_it_is_kept_in_time():
    for left, restart_after, begun in ((2000, None, False), (100, 60.0, True), (80, 60.0, False), (2500, None, True)):
        setup, state = long(restart_after=restart_after)
        assert bool(plan(setup, state, LAYOUT, left)) is begun
        assert bool(shortage(setup, state, LAYOUT, left)) is not begun
    assert "needs about 84 s" in shortage(*long(restart_after=60.0), LAYOUT, 80)


def test_a_short_training_is_forecast_by_its_steps_and_one_gone_on_with_by_those_it_did():
    setup, state = long(restart_after=1e5)
    order = plan(setup, state, LAYOUT)[0][1]
    assert forecast(order, setup, state) == pytest.approx(1.2 * (10 + 20 * 100))
    gone_on = m.Trained("train/1", 110.0, m.ModelRef(1, "x"), 1, 100.0, begun_at=95)
    assert measured(setup, state, gone_on).durations["train.step"][-1] == 20.0


def test_what_a_training_kept_is_progress_and_the_counter_never_falls(tmp_path, monkeypatch):
    """Jobs in which a training gets further, and nothing else: job scripts go on as long as the counter changes."""
    monkeypatch.setattr(run_recorder, "LOOK", 0.0)
    setup = make_config(tmp_path, train={"restart_after": 60.0, "first_steps": 100})
    undisturbed = ToyRun(make_config(tmp_path / "undisturbed"))
    assert undisturbed.run() == EXIT_COMPLETE
    counts, seen = [], []
    for step in (10, 40, 99, None):
        run = ToyRun(setup)
        handle = run.trainer.handle

        def train(order, run=run, step=step, handle=handle):
            if isinstance(order, m.Train) and step is not None:
                scratch = run.folder.training(order.round)
                scratch.mkdir(parents=True, exist_ok=True)
                for path in scratch.iterdir():
                    path.unlink()
                (scratch / f"restart-{step:09d}-0.pt").touch()
                run.context.recorder.tell_if_kept(run.state)
                seen.append(read_status(run.folder.directory)["progress"])
                run.stopping.reason = lambda: "the test wants it"
                return m.Imported("of nobody", 0.0, None)
            return handle(order)

        run.trainer.handle = train
        assert run.run() == (EXIT_COMPLETE if step is None else EXIT_INCOMPLETE)
        counts.append(read_status(run.folder.directory)["progress"])
        assert step is None or run.context.recorder.got_on()
    assert seen == counts[:3], "told as it goes, too"
    assert counts == sorted(set(counts)) and counts[1] - counts[0] == pytest.approx(0.3)
    assert isinstance(counts[-1], int) and fingerprint(run) == fingerprint(undisturbed)
