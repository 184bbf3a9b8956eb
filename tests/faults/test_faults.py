"""Real runs that meet every fault a cluster has: no committed label is lost, none is there twice, each run completes.

A signal with notice, a kill of the whole job and two jobs on one directory are in tests/e2e.
"""

import contextlib
import os
import shutil
import subprocess

import pytest
from e2e.jobs import Job, finish, results_of
from faults.kills import RANKS, WRITER, Victim, faults_of_store, stored, write_faulty
from stores import records_in

from pfdhpc.store.checkpoint import checkpoint_paths
from pfdhpc.store.shard_folder import shard_paths
from pfdhpc.store.status import read_status
from pfdhpc.store.store import Store


def cut_short(path):
    os.truncate(path, path.stat().st_size // 2)


def turn_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def fill(path):
    """Leave no byte free on the file system of ``path``."""
    with open(path, "wb", buffering=0) as handle:
        try:
            for block in (2**16, 1):
                with contextlib.suppress(OSError):
                    while handle.write(bytes(block)):
                        pass
        finally:
            os.fsync(handle.fileno())


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 32 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", disk]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("a small file system cannot be mounted here (that needs root)")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.fixture(scope="module")
def hung(tmp_path_factory):
    """A run whose first label hangs for ever; begun first and looked at last, as it mostly waits."""
    folder = tmp_path_factory.mktemp("hung")
    met = f'met = "{folder}/met"'
    path = write_faulty(folder, "Hanging", met, rounds=1, more="timeout = 1.0")
    path.write_text(path.read_text().replace("[model]", "[ranks]\nlabeler = { teams = 2 }\n[model]"))
    job = Job(path, n_ranks=5)
    yield folder, job
    if job.process.poll() is None:
        job.kill()


@pytest.fixture(scope="module")
def killed(hung, tmp_path_factory):
    """A run that lost each of its ranks twice at random instants, and a writer in the middle of a shard twice.

    A fifth of its labels do not converge, some of the others have forces that are not finite.
    """
    folder = tmp_path_factory.mktemp("killed")
    path = write_faulty(folder, "Unsteady", "seconds = 0.3, scf = 0.2, nan = 0.1", rounds=1000)
    path.write_text(path.read_text().replace("frames = 5", "frames = 10"))
    victim = Victim(path, seed=7, window=5)
    for kind in [*RANKS, WRITER] * 2:
        victim.kill(kind)
    victim.finish()
    return victim


def test_whichever_rank_is_killed_no_label_is_lost_or_doubled_and_the_run_completes(killed):
    assert [kill.kind for kill in killed.kills] == [*RANKS, WRITER] * 2
    assert killed.lost() == 0
    assert faults_of_store(killed.folder) == []
    assert read_status(killed.folder / "run")["state"] == "complete"
    assert results_of(killed.folder / "run")["labels"] == len(stored(killed.folder)) > 8


def test_a_failed_scf_and_forces_that_are_no_numbers_are_rejected_and_the_rest_goes_on(killed):
    store = Store(killed.folder / "run" / "frames", {})
    reasons = [reason for _, reason in store.rejected()]
    assert any("SCFError: no convergence" in reason for reason in reasons)
    assert any("not finite" in reason for reason in reasons)
    rounds = results_of(killed.folder / "run")["rounds"]
    assert sum(item["labelled"] for item in rounds) == len(store)
    assert sum(item["rejected"] for item in rounds) == len(reasons)


def test_damaged_newest_checkpoints_cost_nothing(killed):
    """One with a bit turned and one cut short: the run goes on from the one before, to the same end."""
    folder, before = killed.folder, stored(killed.folder)
    model = results_of(folder / "run")["model"]
    newest = checkpoint_paths(folder / "run" / "checkpoints")
    turn_a_bit(newest[-1])
    cut_short(newest[-2])
    finish(killed.path)
    assert stored(folder) == before and results_of(folder / "run")["model"] == model
    assert faults_of_store(folder) == []


def test_damaged_shards_are_named_and_moved_away_the_run_completes_without_them(killed):
    folder = killed.folder
    *sound, last_but_one, last = shard_paths(folder / "run" / "frames" / "labelled")
    others = {record.label_id for path in sound for record in records_in(path)}
    cut_short(last)
    turn_a_bit(last_but_one)
    killed.more_rounds()
    damaged = {last, last_but_one}
    while damaged:
        job = Job(killed.path, n_ranks=1)
        assert job.wait() == 1 and "Traceback" not in job.text(), job.text()
        named = {path for path in damaged if f"{path}: damaged" in job.text().replace("\n", "")}
        assert named, job.text()
        for path in named:
            path.rename(folder / path.name)
        damaged -= named
    finish(killed.path)
    assert others <= stored(folder).keys() and faults_of_store(folder) == []


def test_a_full_disk_is_told_in_one_line_and_with_room_again_the_run_completes(tmp_path, small_disk):
    """Full when the coordinator commits a label, then when the trainer writes its model."""
    path = write_faulty(tmp_path, "Slow", "seconds = 0.5", rounds=1)
    path.write_text(path.read_text().replace('directory = "run"', f'directory = "{small_disk}/run"'))
    (tmp_path / "run").symlink_to(small_disk / "run")
    held = {}
    for line in (r"label +2/5", r"label +5/5"):
        job = Job(path)
        job.wait_for(line)
        fill(small_disk / "ballast")
        assert job.wait() == 1, job.text()
        assert "Traceback" not in job.text() and "No space left" in job.text(), job.text()
        assert held.keys() <= stored(tmp_path).keys()
        held = stored(tmp_path)
        (small_disk / "ballast").unlink()
    finish(path)
    assert len(held) == 5 and held.keys() <= stored(tmp_path).keys() and len(stored(tmp_path)) == 5 + 3
    assert faults_of_store(tmp_path) == []


def test_a_hung_labeler_is_given_up_and_another_one_does_its_work(hung):
    folder, job = hung
    assert job.wait(200) == 0, job.text()
    assert "given up" in job.text()
    assert len(stored(folder)) == 5 + 3 and faults_of_store(folder) == []
