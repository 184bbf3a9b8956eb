"""The job script under a real Slurm of one node: a run longer than the wall-time, submitted once."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from e2e.jobs import ROOT
from faults.kills import RANKS, faults_of_store, pid_of, stored, write_faulty

from pfdhpc.store.status import read_status

NEEDED = ("slurmctld", "slurmd", "munged", "sbatch")
SCRIPT = ROOT / "tests" / "slurm" / "slurm.sh"


def missing() -> str:
    path = f"{os.environ['PATH']}:/usr/sbin"
    absent = [name for name in NEEDED if shutil.which(name, path=path) is None]
    if absent:
        return f"{', '.join(absent)} not found: apt-get install slurm-wlm munge"
    return "" if os.geteuid() == 0 else "starting a Slurm of one's own needs root"


pytestmark = pytest.mark.skipif(bool(missing()), reason=f"no Slurm here: {missing()}")


class Slurm:
    """A Slurm in a folder of its own, and jobs submitted to it as a user does."""

    def __init__(self, folder: Path):
        self.folder = folder
        started = subprocess.run(["bash", SCRIPT, "start", folder], stdout=subprocess.PIPE, text=True)
        assert started.returncode == 0, "Slurm does not start"
        self.environment = {**os.environ, "SLURM_CONF": started.stdout.strip().split("=")[1]}

    def stop(self) -> None:
        subprocess.run(["bash", SCRIPT, "stop", self.folder], check=True)

    def ask(self, *command: str, **variables: str) -> str:
        environment = {**self.environment, **variables}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def submit(self, path: Path, minutes: int, notice: int) -> int:
        """The id of the first job of a chain. Slurm signals ``notice`` to ``notice + 60`` seconds before the end."""
        variables = {
            "PFDHPC_VENV": sys.prefix,
            "SBATCH_SIGNAL": f"B:USR1@{notice}",
            "SBATCH_OUTPUT": f"{path.parent}/%j.out",
        }
        command = ("sbatch", "--parsable", "--nodes=1", "--ntasks-per-node=4", f"--time={minutes}")
        return int(self.ask(*command, "jobscripts/slurm-cpu.sbatch", str(path), **variables))

    def drained(self, seconds: float) -> None:
        """Until no job runs or waits; a job submits the next one before it ends."""
        deadline = time.monotonic() + seconds
        while self.ask("squeue", "--noheader"):
            assert time.monotonic() < deadline, self.ask("squeue")
            time.sleep(0.5)

    def jobs(self, first: int) -> list[dict[str, str]]:
        """What Slurm knows of the jobs from ``first`` on."""
        lines = self.ask("scontrol", "show", "job", "--oneliner").splitlines()
        found = [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines]
        return [job for job in found if int(job["JobId"]) >= first]


@pytest.fixture(scope="module")
def slurm():
    folder = Path(tempfile.mkdtemp(prefix="slurm-")) / "s"  # a socket's path must be short
    slurm = Slurm(folder)
    yield slurm
    slurm.stop()
    shutil.rmtree(folder.parent, ignore_errors=True)


def wait_for(path: Path, pattern: str, seconds: float = 200.0) -> str:
    """Until what a job writes has a line that matches; returns all of it."""
    deadline = time.monotonic() + seconds
    while not (path.exists() and re.search(pattern, path.read_text())):
        assert time.monotonic() < deadline, path.read_text() if path.exists() else f"{path} is not there"
        time.sleep(0.1)
    return path.read_text()


def seconds_of(clock: str) -> int:
    """Of a time as Slurm prints it, ``hours:minutes:seconds``."""
    hours, minutes, seconds = map(int, clock.split(":"))
    return 3600 * hours + 60 * minutes + seconds


def test_a_run_longer_than_the_wall_time_stops_in_time_resubmits_itself_and_completes(slurm, tmp_path):
    path = write_faulty(tmp_path, "Slow", "seconds = 1.0", rounds=10)
    first = slurm.submit(path, minutes=3, notice=110)
    slurm.drained(seconds=500)
    jobs = slurm.jobs(first)
    output = "\n".join(job.read_text() for job in sorted(tmp_path.glob("*.out")))
    assert len(jobs) >= 2 and [job["ExitCode"] for job in jobs] == ["3:0"] * (len(jobs) - 1) + ["0:0"], output
    for job in jobs:
        assert job["TimeLimit"] == "00:03:00" and seconds_of(job["RunTime"]) < 180, output
        assert (job["NumNodes"], job["NumTasks"]) == ("1", "4")
    assert read_status(tmp_path / "run")["state"] == "complete"
    assert len(stored(tmp_path)) == 5 + 10 * 3 and faults_of_store(tmp_path) == []


def test_a_job_that_got_nowhere_is_the_last_one(slurm, tmp_path):
    path = write_faulty(tmp_path, "Slow")
    first = slurm.submit(path, minutes=60, notice=60)
    wait_for(tmp_path / f"{first}.out", "on 4 ranks")
    slurm.ask("scancel", "--batch", "--signal=USR1", str(first))  # what Slurm sends near the end
    slurm.drained(seconds=120)
    assert [job["ExitCode"] for job in slurm.jobs(first)] == ["3:0"]
    assert "nothing progressed in this job: not submitted again" in (tmp_path / f"{first}.out").read_text()


def test_a_lost_rank_is_made_good_inside_the_allocation(slurm, tmp_path):
    path = write_faulty(tmp_path, "Slow", "seconds = 0.2")
    first = slurm.submit(path, minutes=60, notice=60)
    output = tmp_path / f"{first}.out"
    wait_for(output, r"round 1 +label +1/3")
    held = stored(tmp_path)
    os.kill(pid_of(path, RANKS["explorer"]), 9)
    slurm.drained(seconds=300)
    text = output.read_text()
    assert [job["ExitCode"] for job in slurm.jobs(first)] == ["0:0"], text
    assert "a rank was lost" in text and "resumed" in text
    assert len(held) >= 6 and held.keys() <= stored(tmp_path).keys() and faults_of_store(tmp_path) == []


def test_a_cancelled_job_is_the_last_one(slurm, tmp_path):
    path = write_faulty(tmp_path, "Slow", "seconds = 0.5")
    path.write_text(path.read_text().replace("[run]", "[run]\ngrace = 0.5"))
    first = slurm.submit(path, minutes=60, notice=60)
    wait_for(tmp_path / f"{first}.out", r"label +1/5")
    slurm.ask("scancel", str(first))
    slurm.drained(seconds=120)
    assert [job["JobState"] for job in slurm.jobs(first)] == ["CANCELLED"]
    assert read_status(tmp_path / "run")["state"] in ("incomplete", "running") and faults_of_store(tmp_path) == []
