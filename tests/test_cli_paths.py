"""Every command that takes a run directory, given something else: one clear line for each problem, exit code 2."""

import json
import shutil
import socket

import pytest
import samples
import specimens

from pfdhpc.cli.main import main
from pfdhpc.store.hdf5_file import FORMAT_VERSION

COMMANDS = {
    "status": ["status", "{}"],
    "status-f": ["status", "-f", "--json", "{}"],
    "report": ["report", "{}", "-o", "out.html"],
    "validate": ["validate", "{}"],
    "compare": ["compare", "{}", "{run}"],
    "export": ["export", "{}", "out.extxyz"],
    "import": ["import", "some.extxyz", "--into", "{}"],
    "store-ls": ["store", "ls", "{}"],
    "store-verify": ["store", "verify", "{}"],
}
FRAMES = {"store-ls", "store-verify", "export"}
"""What looks at the frames alone, and needs no checkpoint."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What a user may name instead of a run."""
    tmp_path = tmp_path_factory.mktemp("places")
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "input.toml").write_text("workflow = 'finetune'")
    (tmp_path / "begun").mkdir()
    shutil.copy(specimens.finished() / "input.json", tmp_path / "begun")
    shutil.copytree(specimens.finished(), tmp_path / "newer")
    for path in [*(tmp_path / "newer").rglob("checkpoint-*.h5"), *(tmp_path / "newer").rglob("shard-*.h5")]:
        head = path.read_bytes()
        newer = head.replace(b" %d " % FORMAT_VERSION, b" %d " % (FORMAT_VERSION + 7), 1)
        assert newer != head
        path.write_bytes(newer)
    return tmp_path


@pytest.fixture
def places(folder, monkeypatch):
    monkeypatch.chdir(folder)


def tell(command, path, capsys):
    words = [word.format(path, run=specimens.finished()) for word in COMMANDS[command]]
    code = main(words)
    told = capsys.readouterr()
    assert "Traceback" not in told.err
    return code, told


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("place", ["nowhere", "empty", "notes.txt", "input.toml", "begun"])
def test_what_is_no_run_is_told(places, command, place, capsys):
    code, told = tell(command, place, capsys)
    assert code == 2
    (line,) = told.err.splitlines()
    assert line.startswith("pfdhpc: ") and place in line
    if place == "input.toml" and command not in FRAMES - {"export"}:
        assert "pfdhpc where input.toml" in line


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "store-verify"])
def test_files_of_a_newer_version_are_told_and_what_reads_them(places, command, capsys):
    code, told = tell(command, "newer", capsys)
    assert code == 2 and "use the newer pfdhpc" in told.err and "newer" in told.err


def test_a_store_of_an_old_version_is_read(tmp_path, capsys):
    """Format 1, as the first pfdhpc wrote it."""
    run = tmp_path / "run"
    shutil.copytree(specimens.finished(), run)
    shutil.rmtree(run / "frames" / "labelled")
    (run / "frames" / "labelled").mkdir()
    shutil.copy(samples.FORMATS / "frames-labelled-1.h5", run / "frames" / "labelled" / "shard-000001.h5")
    assert main(["store", "ls", str(run), "--json"]) == 0
    assert sum(group["frames"] for group in json.loads(capsys.readouterr().out)["groups"]) == len(samples.labelled())
    assert main(["export", str(run), str(tmp_path / "old.extxyz")]) == 0
    assert main(["store", "verify", str(run)]) == 0


def test_what_an_ending_does_not_tell_is_asked(tmp_path, capsys):
    assert main(["export", str(specimens.finished()), str(tmp_path / "frames.cif")]) == 2
    told = capsys.readouterr().err
    assert ".extxyz" in told and "--format" in told and not (tmp_path / "frames.cif").exists()


def test_the_same_run_twice_is_no_comparison(capsys):
    run = str(specimens.finished())
    assert main(["compare", run, f"{run}/"]) == 2 and "named twice" in capsys.readouterr().err


def test_a_run_whose_processes_are_gone_is_not_said_to_run(tmp_path, capsys):
    import fcntl

    run = tmp_path / "run"
    shutil.copytree(specimens.stopped(), run)
    path = run / "status.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"state": "running"}))

    def state():
        assert main(["status", str(run), "--json"]) == 0
        return json.loads(capsys.readouterr().out)["state"]

    lock = run / "run.lock"
    lock.write_text(json.dumps({"host": "another", "pid": 1, "since": ""}))
    assert state() == "running"  # on a node whose locks may not be seen here
    lock.write_text(json.dumps({"host": socket.gethostname(), "pid": 1, "since": ""}))
    with open(lock) as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert state() == "running"
    assert state() == "lost"
    assert main(["status", "-f", str(run)]) == 0  # nothing to follow
    assert "run it again to go on" in capsys.readouterr().out


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path):
    """pfdhpc completion bash | head -1"""
    import subprocess
    import sys

    command = [sys.executable, "-m", "pfdhpc", "schema", "--json"]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    writer.stdout.read(10)
    writer.stdout.close()
    told = writer.stderr.read().decode()
    assert writer.wait(60) == 0 and told == ""
