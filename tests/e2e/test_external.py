"""A job whose labels come from the real pw.x: stopped as a batch system stops it, killed, and gone on with."""

import os
import signal
import time
from pathlib import Path

from ase.build import bulk
from ase.io import write
from e2e.jobs import COPPER, PRETRAINED, Job, finish
from espresso import PSEUDO, needs_qe
from faults.kills import faults_of_store, stored

from pfdhpc.engines.isolated.processes import descendants
from pfdhpc.store.status import read_status
from pfdhpc.store.store import Store

LABELS = f"""
type = "qe"
[label.launch]
command = "mpiexec -n 1 pw.x"
[label.options]
pseudo_dir = "{PSEUDO}"
pseudopotentials = {{ Si = "Si.pz-vbc.UPF" }}
kpts = [4, 4, 4]
input = {{ system = {{ ecutwfc = 16 }}, electrons = {{ conv_thr = 1e-9 }} }}
"""
EMT = """
type = "ase"
options = { calculator = "ase.calculators.emt.EMT" }
"""


def write_silicon(folder: Path) -> Path:
    """The copper input with silicon, labelled by pw.x."""
    write(folder / "si.vasp", bulk("Si", a=5.43), format="vasp")
    text = COPPER.format(model=PRETRAINED, branch="MPtrj_PBE", rounds=1)
    assert EMT in text
    path = folder / "input.toml"
    path.write_text(text.replace("Cu", "Si").replace("cu.vasp", "si.vasp").replace(EMT, LABELS))
    return path


SLOW = {"conv_thr = 1e-9": "conv_thr = 1e-15, mixing_beta = 0.02, electron_maxstep = 500", "[4, 4, 4]": "[9, 9, 9]"}
"""Labels of minutes."""


def programs(job: Job) -> list[int]:
    """The pw.x that run below a job."""
    found = []
    for pid in descendants(job.process.pid):
        try:
            found += [pid] if Path(f"/proc/{pid}/comm").read_text().strip() == "pw.x" else []
        except OSError:  # it has ended
            continue
    return found


def wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline, "a pw.x outlives its job"
        time.sleep(0.05)


@needs_qe
def test_a_stop_ends_a_label_that_takes_too_long_by_the_programs_own_way(tmp_path):
    path, run = write_silicon(tmp_path), tmp_path / "run"
    quick = path.read_text()
    slow = quick.replace("[run]", "[run]\ngrace = 5.0")
    for old, new in SLOW.items():
        slow = slow.replace(old, new)
    path.write_text(slow)
    job = Job(path)
    job.wait_for_state(lambda: programs(job))
    time.sleep(2)
    begun = time.monotonic()
    job.interrupt(signal.SIGUSR1)  # the notice of a batch system, to the launcher alone
    assert job.wait(60) == 3, job.text()
    assert time.monotonic() - begun < 30
    assert "called off" in job.text() and "it is asked for again" in job.text()
    (output,) = (run / "labels").glob("*/standard.out")
    assert "Program stopped by user request" in output.read_text()
    assert read_status(run)["state"] == "incomplete" and not Store(run / "frames", {}).rejected()
    assert not stored(tmp_path)


@needs_qe
def test_no_label_of_a_program_is_lost_or_made_twice_by_a_stop_or_a_kill(tmp_path):
    path, run = write_silicon(tmp_path), tmp_path / "run"
    job = Job(path)
    job.wait_for(r"label +1/5")
    job.wait_for_state(lambda: programs(job))
    for pid in descendants(job.process.pid):  # as where a batch system tells all processes of a job to stop
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            continue
    job.interrupt()
    job.wait(60)
    assert read_status(run)["state"] == "incomplete", job.text()
    assert not Store(run / "frames", {}).rejected(), job.text()
    first = stored(tmp_path)

    job = Job(path)
    job.wait_for_state(lambda: len(stored(tmp_path)) > len(first) and programs(job))
    left = programs(job)
    job.kill()
    wait_until_gone(left)
    second = stored(tmp_path)
    assert first.keys() <= second.keys() and len(second) < 5 + 3

    assert "resumed" in finish(path)
    assert second.keys() <= stored(tmp_path).keys() and len(stored(tmp_path)) == 5 + 3
    assert faults_of_store(tmp_path) == [] and not Store(run / "frames", {}).rejected()
