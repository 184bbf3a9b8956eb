"""Models once on each node: who copies, what stays, what goes."""

import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import pytest

from pfdhpc.errors import InputError
from pfdhpc.parallel import node
from pfdhpc.parallel.node import NodeCopies


@pytest.fixture
def memory(tmp_path, monkeypatch):
    """A folder that counts as another device than the one with the models, in which things are copied."""
    place = tmp_path / "memory"
    place.mkdir()
    monkeypatch.setattr(node, "_device", lambda path: "memory" if place in (path, *path.parents) else "shared")
    return place


@pytest.fixture
def copied(monkeypatch):
    """The files that were copied."""
    found, copy = [], node._copy
    monkeypatch.setattr(node, "_copy", lambda shared, *rest: (found.append(shared.name), copy(shared, *rest)))
    return found


def model(folder: Path, text: str) -> tuple[Path, str]:
    path = folder / f"{text}.pth"
    path.write_text(text)
    return path, sha256(text.encode()).hexdigest()


def inside(memory: Path) -> set[str]:
    return {path.read_text() for folder in memory.iterdir() for path in folder.iterdir() if path.name != ".lock"}


def test_the_ranks_of_a_node_share_one_copy_which_the_last_one_removes(tmp_path, memory, copied):
    first, second = NodeCopies([memory]), NodeCopies([memory])
    paths = {copies.take(*model(tmp_path, "a")[:1], "explore") for copies in (first, second)}
    assert len(paths) == 1 and paths.pop().read_text() == "a" and copied == ["a.pth"]
    first.clear()
    assert inside(memory) == {"a"}
    second.clear()
    assert inside(memory) == set()


def test_an_old_version_goes_when_the_last_rank_has_taken_the_new_one(tmp_path, memory):
    (a, sum_a), (b, sum_b) = model(tmp_path, "a"), model(tmp_path, "b")
    first, second = NodeCopies([memory]), NodeCopies([memory])
    for copies in (first, second):
        copies.take(a, "explore", sum_a)
    first.take(b, "explore", sum_b)
    assert inside(memory) == {"a", "b"}
    second.take(b, "explore", sum_b)
    assert inside(memory) == {"b"}


def test_a_rank_holds_a_copy_for_each_use(tmp_path, memory):
    copies = NodeCopies([memory])
    copies.take(model(tmp_path, "a")[0], "explore")
    copies.take(model(tmp_path, "b")[0], "predict")
    copies.take(model(tmp_path, "c")[0], "explore")
    assert inside(memory) == {"b", "c"}


def test_what_killed_ranks_left_goes_at_the_next_start(tmp_path, memory):
    path, _ = model(tmp_path, "a")
    program = (
        "import os, signal, sys; from pathlib import Path; from pfdhpc.parallel import node;"
        "node._device = lambda path: 'memory' if 'memory' in str(path) else 'shared';"
        "node.NodeCopies([Path(sys.argv[1])]).take(Path(sys.argv[2]), 'explore');"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", program, str(memory), str(path)], check=False)
    (folder,) = memory.iterdir()
    (folder / ".half.pth").write_text("ha")
    assert inside(memory) == {"a", "ha"}
    NodeCopies([memory])
    assert inside(memory) == set()


def test_a_model_that_is_not_what_was_published_is_refused(tmp_path, memory):
    path, digest = model(tmp_path, "a")
    path.write_text("b")
    with pytest.raises(InputError, match="a.pth: damaged"):
        NodeCopies([memory]).take(path, "explore", digest)
    assert inside(memory) == set()


def test_without_room_the_shared_file_is_read_and_the_log_says_so(tmp_path, memory, monkeypatch, caplog):
    path, _ = model(tmp_path, "a")  # a byte
    monkeypatch.setattr(node.shutil, "disk_usage", lambda place: SimpleNamespace(free=1))
    assert NodeCopies([memory]).take(path, "explore") == path
    assert "a.pth is read from where it is" in caplog.text and "are free" in caplog.text
    roomy = tmp_path / "memory" / "disk"
    roomy.mkdir()
    monkeypatch.setattr(node.shutil, "disk_usage", lambda place: SimpleNamespace(free=1 + str(place).count("disk")))
    assert NodeCopies([memory, roomy]).take(path, "explore").parent.parent == roomy


def test_what_is_in_memory_already_is_not_copied(tmp_path, memory):
    path, _ = model(memory, "a")
    assert NodeCopies([memory]).take(path, "explore") == path
    assert NodeCopies([]).take(path, "explore") == path


def test_a_folder_of_somebody_else_is_not_used(tmp_path, memory, caplog):
    path, _ = model(tmp_path, "a")
    (tmp_path / "elsewhere").mkdir()
    (memory / f"pfdhpc-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    assert NodeCopies([memory]).take(path, "explore") == path
    assert "belongs to somebody else" in caplog.text
