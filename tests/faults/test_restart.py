"""A lost rank and the job scripts: when pfdhpc is started again in the same allocation, and when it is not."""

import json
import os
import signal
import subprocess
import sys

import pytest
from e2e.jobs import ROOT, Job, write_copper
from faults.kills import RANKS, faults_of_store, pid_of, stored, write_faulty

# Stands in for mpiexec: one start after the other ends as planned.
LAUNCHER = """
line=$(head -n 1 plan); sed -i 1d plan
read -r code status <<<"$line"
[[ -n $status ]] && { mkdir -p run; echo "$status" >run/status.json; }
echo x >>starts
exit "$code"
"""


def ending(code, state="", progress=0, reason=""):
    """A line of the plan: the exit code, and what status.json says then."""
    return f"{code} " + (json.dumps({"state": state, "progress": progress, "reason": reason}) if state else "")


RUNNING = [ending(9, "running", progress) for progress in range(1, 9)]


@pytest.mark.parametrize(
    "plan, starts, code",
    [
        ([*RUNNING[:2], ending(0, "complete", 5)], 3, 0),
        ([RUNNING[0], RUNNING[0], ending(0, "complete", 5)], 2, 9),  # the second got nowhere
        ([ending(9)], 1, 9),  # not even a first checkpoint
        (RUNNING, 4, 9),  # MAX_STARTS
        ([ending(137, "incomplete", 2, "received SIGTERM"), ending(0, "complete", 5)], 2, 0),  # of srun
        ([ending(137, "incomplete", 2, "run.time_limit was reached")], 1, 137),
        ([ending(3, "incomplete", 2, "received SIGTERM")], 1, 3),
        ([ending(1, "failed", 2, "a bug")], 1, 1),
        ([ending(137, "failed", 2, "a bug")], 1, 137),
        ([ending(2, "running", 2)], 1, 2),  # bad input, beside the status of an earlier job
    ],
)
def test_a_job_is_started_again_only_where_a_rank_was_lost_and_something_was_gained(tmp_path, plan, starts, code):
    write_copper(tmp_path)
    (tmp_path / "launcher.sh").write_text(LAUNCHER)
    (tmp_path / "plan").write_text("\n".join(plan) + "\n")
    script = f"INPUT=input.toml LAUNCH=(bash launcher.sh); source {ROOT}/jobscripts/restart.sh; run_job; exit $code"
    environment = {**os.environ, "MAX_STARTS": "4", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert len((tmp_path / "starts").read_text().splitlines()) == starts


class Local(Job):
    """A job started by the job script."""

    def command(self, path, n_ranks):
        return ["env", f"PFDHPC_VENV={sys.prefix}", "bash", "jobscripts/local.sh", str(path), "-n", str(n_ranks)]


def test_local_goes_on_after_a_lost_rank_to_a_good_end(tmp_path):
    path = write_faulty(tmp_path, "Slow", "seconds = 0.2", rounds=1)
    job = Local(path)
    job.wait_for(r"round 0 +label +2/5")
    held = stored(tmp_path)
    os.kill(pid_of(path, RANKS["labeler"]), signal.SIGKILL)
    assert job.wait() == 0, job.text()
    assert "a rank was lost (exit code 9)" in job.text() and "resumed" in job.text()
    assert len(held) >= 2 and held.keys() <= stored(tmp_path).keys()
    assert len(stored(tmp_path)) == 8 and faults_of_store(tmp_path) == []
