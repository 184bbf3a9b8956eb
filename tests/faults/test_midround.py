"""A job that is killed in a training that is kept as it goes: the next one goes on from there."""

import os
import re
import signal

from e2e.jobs import Job, finish, results_of, write_copper
from faults.kills import RANKS, faults_of_store, pid_of

from pfdhpc.engines.train.deepmd.round_restart import kept_step
from pfdhpc.store.status import read_status


def test_a_kill_in_a_long_training_costs_the_steps_since_it_was_kept(tmp_path):
    path, run = write_copper(tmp_path, rounds=1), tmp_path / "run"
    text = path.read_text().replace("first_steps = 20\nsteps = 20", "first_steps = 200\nrestart_after = 0.1\nsteps = 5")
    path.write_text(text)
    scratch = run / "scratch" / "train-000"
    job = Job(path)
    job.wait_for(r"label +5/5")
    before = read_status(run)["progress"]
    job.wait_for_state(lambda: scratch.is_dir() and kept_step(scratch) > 20)
    os.kill(pid_of(path, RANKS["trainer"]), signal.SIGKILL)
    job.wait(60)
    kept = kept_step(scratch)

    output = finish(path)
    assert re.findall(r"round 0 +train .* gone on after step (\d+)", output.replace("\n", " ")) == [str(kept)]
    assert read_status(run)["progress"] > before
    assert faults_of_store(tmp_path) == [] and kept_step(scratch) == 0, "nothing of it stays"
    results = results_of(run)
    assert results["labels"] == 5 + 3
    steps = [float(line.split()[0]) for line in (scratch / "lcurve.out").read_text().splitlines() if line[0] != "#"]
    assert steps == sorted(steps) and (steps[0], steps[-1]) == (1, 200)
