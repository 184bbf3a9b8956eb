"""The writer thread: nothing is told before it is on the disk, and its errors arrive."""

import errno
import os
import subprocess
import threading
from dataclasses import replace

import pytest
from stores import problems_of
from test_store import ATTRS, identical, make_record

from pfdhpc.errors import StoreError
from pfdhpc.store import hdf5_file
from pfdhpc.store.shard_folder import shard_paths
from pfdhpc.store.store import Store, read_records
from pfdhpc.store.writer import Writer


@pytest.fixture
def gate(monkeypatch):
    """Files are published only while this is set."""
    gate = threading.Event()
    publish = hdf5_file.publish

    def wait_and_publish(path, content):
        assert gate.wait(20)
        publish(path, content)

    monkeypatch.setattr(hdf5_file, "publish", wait_and_publish)
    return gate


def test_what_comes_while_the_disk_is_busy_goes_into_one_file_and_is_told_after(tmp_path, gate):
    store = Store(tmp_path, ATTRS)
    writer = Writer(store)
    first = writer.submit([make_record(0)])
    tickets = [writer.submit([make_record(seed)], [(make_record(100 + seed), "why", "pbe")]) for seed in range(1, 9)]
    assert writer.done() == [] and len(store) == 0 and writer.pending == 9
    assert store.get(make_record(0).frame_id, "pbe") is None
    gate.set()
    writer.flush()
    assert writer.done() == [first, *tickets] and writer.done() == [] and writer.pending == 0
    assert len(shard_paths(tmp_path / "labelled")) <= 3 and len(shard_paths(tmp_path / "rejected")) <= 3
    assert len(store) == len(read_records(tmp_path)) == 9 and store.n_rejected == 8
    assert identical(store.get(make_record(3).frame_id, "pbe"), make_record(3))
    writer.close()


def test_closing_keeps_what_waits(tmp_path, gate):
    writer = Writer(Store(tmp_path, ATTRS))
    for seed in range(5):
        writer.submit([make_record(seed)])
    gate.set()
    writer.close()
    assert writer.done() == [1, 2, 3, 4, 5] and len(read_records(tmp_path)) == 5


def test_a_disk_that_refuses_is_told_by_every_later_call(tmp_path, monkeypatch):
    store = Store(tmp_path, ATTRS)
    writer = Writer(store)
    writer.submit([make_record(0)])
    writer.flush()

    def refuse(path, content):
        raise StoreError("no space left")

    monkeypatch.setattr(hdf5_file, "publish", refuse)
    writer.submit([make_record(1)])
    for call in (writer.flush, writer.done, lambda: writer.submit([make_record(2)]), writer.close):
        with pytest.raises(StoreError, match="no space left"):
            call()
    assert len(store) == 1 and [record.frame_id for record in read_records(tmp_path)] == [make_record(0).frame_id]


def test_a_bad_label_is_told_where_it_is_submitted(tmp_path):
    writer = Writer(Store(tmp_path, ATTRS))
    good = make_record(0)
    with pytest.raises(ValueError, match="only good labels"):
        writer.submit([good, replace(good, label=None)])
    assert writer.pending == 0
    writer.close()


def test_records_are_read_while_files_are_merged_under_the_reader(tmp_path, monkeypatch):
    from pfdhpc.store import shard_folder

    monkeypatch.setattr(shard_folder, "FAN", 2)
    monkeypatch.setattr(shard_folder, "RECENT_ATOMS", 1)  # nothing comes from memory
    store = Store(tmp_path, ATTRS)
    writer = Writer(store)
    records = [make_record(seed) for seed in range(60)]
    for record in records:
        writer.submit([record])
        found = store.records()
        assert all(identical(one, make_record(one.origin.step)) for one in found)
    writer.close()
    assert len(store.records()) == 60 and problems_of(store.directory) == []


def grown(tmp_path, n_frames):
    store = Store(tmp_path, ATTRS)
    for start in range(0, n_frames, 3):
        store.commit([make_record(seed) for seed in range(start, start + 3)])
    return store


def test_files_stay_few_and_only_the_newest_records_in_memory(tmp_path, monkeypatch):
    from pfdhpc.store import shard_folder

    monkeypatch.setattr(shard_folder, "FAN", 4)
    monkeypatch.setattr(shard_folder, "RECENT_ATOMS", 30)
    written = []
    publish = hdf5_file.publish
    monkeypatch.setattr(hdf5_file, "publish", lambda path, content: (written.append(path), publish(path, content)))
    store = grown(tmp_path, 120)
    assert len(shard_paths(tmp_path / "labelled")) <= 3 * 4
    assert len(written) < 1.5 * 40, "each frame is rewritten a few times, not with every append"
    assert len(store._labelled._recent._rows) <= 10
    assert all(identical(store.get(make_record(seed).frame_id, "pbe"), make_record(seed)) for seed in (0, 50, 119))
    assert all(identical(record, make_record(record.origin.step)) for record in store.records())
    assert Store(tmp_path, ATTRS)._labelled.index.keys() == store._labelled.index.keys()


def test_a_file_damaged_or_gone_during_the_run_is_told_when_it_is_read(tmp_path, monkeypatch):
    from pfdhpc.store import shard_folder

    monkeypatch.setattr(shard_folder, "RECENT_ATOMS", 1)
    store = Store(tmp_path, ATTRS)
    store.commit([make_record(seed) for seed in range(20)])
    (path,) = shard_paths(tmp_path / "labelled")
    content = path.read_bytes()
    wrong = store.records()[3].label.forces.tobytes()
    path.write_bytes(content.replace(wrong[:24], bytes(24)))
    assert path.read_bytes() != content, "small arrays are not compressed"
    with pytest.raises(StoreError, match="does not fit its checksum"):
        store.records()
    path.unlink()
    with pytest.raises(StoreError, match="has vanished"):
        store.records()


@pytest.mark.parametrize(
    ("number", "remedy"),
    [(errno.ENOSPC, "free space"), (errno.EDQUOT, "free space"), (errno.EROFS, "writable"), (errno.EIO, "check the")],
)
def test_a_disk_error_names_its_remedy_and_leaves_no_trace(tmp_path, monkeypatch, number, remedy):
    store = grown(tmp_path, 6)

    def refuse(descriptor):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(StoreError, match=remedy):
            store.commit([make_record(9)])
    assert len(store) == len(read_records(tmp_path)) == 6 and problems_of(store.directory) == []
    assert not list((tmp_path / "labelled").glob(".*"))
    store.commit([make_record(9)])
    assert len(Store(tmp_path, ATTRS)) == 7


@pytest.fixture
def small_disk(tmp_path):
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a file system can be mounted by root alone")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_keeps_what_was_committed(small_disk):
    store, kept = Store(small_disk / "frames", ATTRS), []
    with pytest.raises(StoreError, match="No space left.*free space"):
        for seed in range(1000):
            store.commit([make_record(seed, 400)])
            kept.append(make_record(seed, 400).label_id)
    assert len(kept) > 5
    again = Store(small_disk / "frames", ATTRS)
    assert (
        set(kept) <= set(again._labelled.index) and len(again) <= len(kept) + 1 and problems_of(again.directory) == []
    )
