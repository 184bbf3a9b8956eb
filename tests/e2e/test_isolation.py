"""Engines in child processes, in a real job: what crashes or hangs costs a label or a segment, never the job."""

import os
import signal
import time
from pathlib import Path

import pytest
from e2e.jobs import Job, write_copper
from stores import problems_of

from pfdhpc.store.store import Store

# Each way of dying is met once, by whichever label comes first to it; "always" hangs every time.
FAULTY = """
import ctypes, os, signal, time
from pathlib import Path
from ase.calculators.emt import EMT

def hang():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    time.sleep(1000)

WAYS = {"segfault": lambda: ctypes.string_at(0), "abort": os.abort, "hang": hang, "exit": lambda: os._exit(5)}

class Faulty(EMT):
    def __init__(self, always=False):
        super().__init__()
        self.always = always
    def calculate(self, *args):
        for name, die in WAYS.items():
            try:
                os.close(os.open(Path(__file__).parent / f"met-{name}", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                continue
            hang() if self.always else die()
        super().calculate(*args)
"""


def write_faulty(folder, arguments=""):
    """Copper with labels by the calculator above; explorer and labeler in child processes."""
    path = write_copper(folder, rounds=1)
    (folder / "faulty.py").write_text(FAULTY)
    text = path.read_text()
    old = 'options = { calculator = "ase.calculators.emt.EMT" }'
    options = f'calculator = "faulty.Faulty", path = ".", arguments = {{ {arguments} }}'
    new = f'options = {{ {options} }}\nisolation = "process"\ntimeout = 2.0'
    text = text.replace(old, new).replace("[explore]", '[explore]\nisolation = "process"')
    path.write_text(text.replace("frames = 5", "frames = 10").replace("[run]", "[run]\ngrace = 1.0"))
    return path


def children(folder):
    """Process ids by team of the engines of the run in a folder."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().decode().split("\0")
            except OSError:
                continue
            logs = [Path(word).name for word in command if word.startswith(str(folder / "run" / "logs"))]
            found |= {name.removesuffix(".engine.log"): int(entry.name) for name in logs}
    return found


def none_left(folder, seconds=15.0):
    deadline = time.monotonic() + seconds
    while left := children(folder):
        if time.monotonic() > deadline:
            return left
        time.sleep(0.1)
    return {}


def test_deaths_are_rejected_labels_and_restarted_replicas_and_the_job_goes_on(tmp_path):
    job = Job(write_faulty(tmp_path))
    job.wait_for("taken as model 0")
    os.kill(children(tmp_path)["explorer-0"], signal.SIGKILL)
    assert job.wait() == 0, job.text()
    frames = tmp_path / "run" / "frames"
    reasons = sorted(reason for _, reason in Store(frames, {}).rejected())
    for reason, said in zip(
        reasons,
        ("no answer in 2 s: killed", "exit code 5", "killed by SIGABRT", "killed by SIGSEGV"),
        strict=True,
    ):
        assert said in reason, reasons
    assert problems_of(frames) == []
    assert "SIGKILL" in job.text(), "the explorer's death is told"
    assert none_left(tmp_path) == {}


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 3), (signal.SIGKILL, None)])
def test_a_job_that_ends_leaves_no_child_behind(tmp_path, number, code):
    path = write_faulty(tmp_path, "always = true")
    path.write_text(path.read_text().replace("timeout = 2.0", "timeout = 1000.0"))
    job = Job(path)
    while not (tmp_path / "met-segfault").exists():
        assert job.process.poll() is None, job.text()
        time.sleep(0.05)
    assert {"labeler-0", "explorer-0"} <= children(tmp_path).keys()
    if number == signal.SIGKILL:
        job.kill()
    else:
        job.interrupt(number)
        assert job.wait(30) == code, job.text()
    assert none_left(tmp_path) == {}
