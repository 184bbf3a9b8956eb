"""A wall clock that is set while a job runs: by days, forth and back, at every look at it."""

import random
import time

from test_loop import fingerprint
from toys import ToyRun, make_config

from pfdhpc.errors import EXIT_COMPLETE
from pfdhpc.store.status import read_status

DAY = 86400.0


def test_a_clock_that_is_set_again_and_again_changes_nothing(tmp_path, monkeypatch):
    """Neither the end of the job, nor a team's time, nor what a forecast, a limit of the run or the accounts see."""
    limits = {"max_rounds": 1, "max_seconds": 3000.0}
    undisturbed = ToyRun(make_config(tmp_path / "undisturbed", converge=limits))
    assert undisturbed.run() == EXIT_COMPLETE
    config = make_config(tmp_path / "run", converge=limits, run={"time_limit": 3000.0, "overdue": 600.0})
    rng, right = random.Random(1), time.time
    monkeypatch.setattr(time, "time", lambda: right() + rng.uniform(-30, 30) * DAY)
    run = ToyRun(config)
    run.stopping.obey(config.run)
    assert run.run() == EXIT_COMPLETE
    assert fingerprint(run) == fingerprint(undisturbed)
    assert 0 < run.state.elapsed < 600
    assert all(0 <= seconds < 600 for values in run.state.durations.values() for seconds in values)
    assert read_status(run.folder.directory)["state"] == "complete"
