"""When a job ends, who says so, and what makes it stop before."""

import os
import signal
import subprocess
import sys
import time
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pfdhpc.config.schema import RunSection
from pfdhpc.parallel import scheduler
from pfdhpc.parallel.scheduler import Notice, job_end, pbs_left, seconds_of
from pfdhpc.roles import stopping as module
from pfdhpc.roles.stopping import Stopping

PBS_PRO = """Job Id: 4201.pbs01
    Job_Name = pfdhpc
    resources_used.cput = 01:02:03
    resources_used.walltime = 00:20:00
    job_state = R
    Resource_List.ncpus = 64
    Resource_List.select = 2:ncpus=32:mpiprocs=32
    Resource_List.walltime = 12:00:00
    stime = Mon Jan  5 10:00:00 2026
    Variable_List = PBS_O_HOME=/home/me,PBS_O_LANG=C,
\tPBS_O_PATH=/usr/bin:/bin,PBS_O_WORKDIR=/home/me/run
    comment = Job run at Mon Jan 05 at 10:00 on (n1:ncpus=32)+(n2:ncpus=32)
"""
TORQUE = """Job Id: 77.head
    resources_used.walltime = 00:00:40
    Resource_List.walltime = 01:00:00
    start_time = Mon Jan  5 10:00:00 2026
    Walltime.Remaining = 3512
"""


@pytest.mark.parametrize(
    "text, seconds",
    [
        ("90", 90),
        ("9:59", 599),
        ("11:30:00", 41400),
        ("1-02:03:04", 93784),
        ("2:00:00:00", 172800),
        ("UNLIMITED", None),
        ("INVALID", None),
        ("", None),
        ("1-2", None),
        ("-5", None),
        ("1e3", None),
    ],
)
def test_times_as_schedulers_print_them(text, seconds):
    assert seconds_of(f"{text}\n") == seconds


@given(st.text(max_size=12))
def test_any_text_is_a_time_or_none(text):
    assert (seconds_of(text) or 0) >= 0


def test_slurm_says_the_end_in_the_environment_or_when_asked():
    def never(command):
        raise AssertionError("asked although the environment says it")

    given_end = {"SLURM_JOB_ID": "7", "SLURM_JOB_END_TIME": str(int(time.time()) + 3600)}
    assert job_end(given_end, never).seconds == pytest.approx(3600, abs=3)
    asked = []
    found = job_end({"SLURM_JOB_ID": "7"}, lambda command: asked.append(command) or "1-00:00:10\n")
    assert found == Notice("Slurm", 86410.0)
    assert asked == [["squeue", "-h", "-j", "7", "-o", "%L"]]
    assert job_end({"SLURM_JOB_ID": "7"}, lambda command: "UNLIMITED\n") == Notice("Slurm", None)


def test_only_the_first_rank_asks():
    environ = {"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "PMI_RANK": "3"}  # mpiexec inside a batch script
    assert job_end(environ, lambda command: "10:00") is None
    assert job_end({**environ, "PMI_RANK": "0"}, lambda command: "10:00") == Notice("Slurm", 600.0)
    assert job_end({}, lambda command: "10:00") is None


def test_pbs_the_exact_start_counts_where_it_can_be_true_and_the_time_used_otherwise():
    assert pbs_left(PBS_PRO, datetime(2026, 1, 5, 10, 25)) == 11 * 3600 + 35 * 60
    assert pbs_left(PBS_PRO, datetime(2026, 1, 5, 3, 25)) == 11 * 3600 + 40 * 60  # another time zone
    assert pbs_left(PBS_PRO.replace("    Resource_List.walltime = 12:00:00\n", ""), datetime.now()) is None
    assert pbs_left(TORQUE, datetime.now()) == 3512
    assert pbs_left("", datetime.now()) is None
    assert job_end({"PBS_JOBID": "77.head"}, lambda command: TORQUE) == Notice("PBS", 3512.0)


def test_a_batch_system_that_does_not_answer_is_told_of(tmp_path, monkeypatch):
    for code in ("exit 1", "sleep 30"):
        script = tmp_path / "squeue"
        script.write_text(f"#!/bin/sh\necho 10:00\n{code}\n")
        script.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
        monkeypatch.setattr(scheduler, "PATIENCE", 0.5)
        for name in scheduler.RANK_VARIABLES:
            monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv("SLURM_JOB_END_TIME", raising=False)
        monkeypatch.setenv("SLURM_JOB_ID", "7")
        stopping = Stopping()
        stopping.ask_scheduler()
        assert stopping.left() is None
        assert stopping.describe() == "Slurm does not tell when this job ends; say it by --time"


def test_the_earliest_end_counts_whoever_says_it(monkeypatch):
    monkeypatch.setattr(module, "job_end", lambda: Notice("PBS", 500.0))
    stopping = Stopping()
    stopping.limit(None, "--time")
    assert stopping.left() is None and stopping.ends_at() is None and stopping.describe() == ""
    stopping.limit(1000, "--time")
    stopping.ask_scheduler()
    stopping.obey(RunSection(time_limit=2000, margin=100))
    assert stopping.left() == pytest.approx(400, abs=5)
    assert "(PBS)" in stopping.describe()
    ends = datetime.fromisoformat(stopping.ends_at())
    assert (ends - datetime.now().astimezone()).total_seconds() == pytest.approx(500, abs=5)


def test_a_clock_that_jumps_during_the_job_moves_no_end(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + 1000))
    for name in scheduler.RANK_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    stopping = Stopping()
    stopping.ask_scheduler()
    before = stopping.left()
    monkeypatch.setattr(time, "time", lambda: 1e6)
    assert before > 900 and stopping.left() == pytest.approx(before, abs=5) and stopping.reason() == ""


def test_a_time_that_is_over_is_a_reason_to_stop():
    stopping = Stopping()
    stopping.limit(25.0, "--time")
    assert stopping.reason() == ""
    stopping.margin = 30.0
    assert "25 s are left" in stopping.reason() and "--time" in stopping.reason()


def test_the_file_stop_stops_one_job_and_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LOOK", 0.0)
    stopping = Stopping()
    stopping.obey(RunSection(directory=tmp_path))
    assert stopping.reason() == ""
    (tmp_path / "STOP").touch()
    assert "STOP" in stopping.reason() and not (tmp_path / "STOP").exists()
    assert "STOP" in stopping.reason()  # it stays asked for
    following = Stopping()
    following.obey(RunSection(directory=tmp_path))
    assert following.reason() == ""


def test_labels_are_waited_for_up_to_the_end_unless_someone_is_in_a_hurry():
    now = time.monotonic()
    stopping = Stopping()
    assert stopping.latest(now, 20.0) == now + 20
    stopping.limit(1000.0)
    stopping.margin = 30.0
    stopping._note(signal.SIGUSR1, None)
    assert stopping.latest(now, 20.0) == pytest.approx(now + 970, abs=5)
    stopping._note(signal.SIGTERM, None)
    assert stopping.latest(now, 20.0) == pytest.approx(now + 20, abs=5)
    assert "SIGTERM" in stopping.reason()
    with pytest.raises(KeyboardInterrupt):
        stopping._note(signal.SIGINT, None)


@pytest.mark.parametrize("text", ["11:30", "soon", "0", "-3", ""])
def test_a_time_on_the_command_line_that_is_none_is_refused(text):
    command = [sys.executable, "-m", "pfdhpc", "run", "input.toml", f"--time={text}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "give H:M:S" in done.stderr
