"""The store, the run lock, checkpoints and exports: what survives a kill, a full disk, a damaged file."""

import json
import multiprocessing
import os
import random
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from stores import problems_of, records_in, write_rows

from pfdhpc.data import Frame, Label, Labelling, Origin, Record
from pfdhpc.data.fields import FIELDS, get
from pfdhpc.errors import InputError, StoreError
from pfdhpc.store import shard_folder as folder_module
from pfdhpc.store.checkpoint import checkpoint_paths, load_checkpoint, save_checkpoint
from pfdhpc.store.lock import RunLock
from pfdhpc.store.shard_folder import shard_paths
from pfdhpc.store.shards import read_table
from pfdhpc.store.status import read_status, write_status
from pfdhpc.store.store import Store, read_records

ATTRS = {"input": '{"seed": 0}', "versions": "{}"}


def make_record(seed, n_atoms=3, labelled=True, virial=True, level="pbe"):
    rng = np.random.default_rng(seed)
    frame = Frame(rng.choice([6, 14], n_atoms), 5 * np.eye(3) + rng.random((3, 3)), 5 * rng.random((n_atoms, 3)))

    def label():
        matrix = rng.normal(size=(3, 3))
        return Label(rng.normal(), rng.normal(size=(n_atoms, 3)), matrix + matrix.T if virial else None)

    return Record(
        frame,
        Origin("SiC-α", "SiC-0", round=1, segment=2, step=seed, temperature=300.0, model_hash="ab"),
        prediction=label(),
        label=label() if labelled else None,
        labelling=Labelling(level, "gpaw", 1.5, 2, "0.1") if labelled else None,
    )


def identical(one, other):
    """Whether two records are equal to the last bit."""
    for item in FIELDS:
        ours, theirs = (np.asarray(get(record, item)) for record in (one, other))
        if ours.dtype != theirs.dtype or ours.tobytes() != theirs.tobytes():
            return False
    return one.frame_id == other.frame_id


# shards


@pytest.mark.parametrize("n_atoms", [[1], [3, 1, 7], [400] * 4])
def test_a_shard_gives_back_what_was_written(tmp_path, n_atoms):
    records = tuple(
        make_record(seed, n, labelled=seed % 2 == 0, virial=seed % 3 == 0) for seed, n in enumerate(n_atoms)
    )
    path = tmp_path / "shard-000001.h5"
    write_rows(path, ((record, {"reason": "ü"}) for record in records), ATTRS)
    table, attrs = read_table(path)
    back = [record for record, _ in table.rows()]
    assert all(identical(a, b) for a, b in zip(records, back, strict=True))
    assert [texts["reason"] for _, texts in table.rows()] == ["ü"] * len(records) and attrs == ATTRS
    assert [record.label is None for record in back] == [record.label is None for record in records]
    assert back[0].label.virial is not None


def test_a_shard_explains_itself_to_plain_h5py(tmp_path):
    record = make_record(0)
    write_rows(tmp_path / "shard.h5", ((item, {}) for item in (record, make_record(1, 5))), ATTRS)
    with h5py.File(tmp_path / "shard.h5") as file:
        assert set(file) == {"n_atoms", "frame_id", "checksum", "columns", *(item.name for item in FIELDS)}
        assert file["label_forces"].shape == (8, 3) and file["label_forces"].dtype == "f8"
        assert file["label_forces"].attrs["unit"] == "eV/Å"
        assert file["frame_id"].asstr()[0] == record.frame_id
        assert file["origin_system"].asstr()[0] == "SiC-α"
        assert file.attrs["input"] == ATTRS["input"]
    assert [path.name for path in tmp_path.iterdir()] == ["shard.h5"]


# the store


def test_a_store_keeps_every_label_once_over_restarts(tmp_path):
    records = [make_record(seed) for seed in range(6)]
    store = Store(tmp_path / "frames", ATTRS)
    store.commit(records[:4])
    store.commit(records[2:])
    other_level = replace(records[0], labelling=replace(records[0].labelling, level="r2scan"))
    store.commit([other_level, other_level])
    store.commit([])
    for opened in (store, Store(tmp_path / "frames", ATTRS)):
        assert len(opened) == 7
        assert [r.label_id for r in opened.records()] == sorted(r.label_id for r in [*records, other_level])
        wanted = [records[3].label_id, records[0].label_id]
        assert [r.label_id for r in opened.records(wanted)] == wanted
        assert identical(opened.get(records[5].frame_id, "pbe"), records[5])
        assert opened.get(records[5].frame_id, "other") is None
        assert problems_of(tmp_path / "frames") == []
    assert len(read_records(tmp_path / "frames")) == 7


def test_rejected_frames_are_kept_apart_with_their_reason(tmp_path):
    store = Store(tmp_path, ATTRS)
    without, with_label = make_record(0, labelled=False), make_record(1)
    store.reject(without, "SCF did not\0 converge \udc80", "pbe")
    store.reject(with_label, "force 200 eV/Å", "pbe")
    store.reject(with_label, "a second reason", "pbe")
    reopened = Store(tmp_path, ATTRS)
    assert len(reopened) == 0
    assert reopened.was_rejected(without.frame_id, "pbe") == "SCF did not converge ?"
    assert reopened.was_rejected(without.frame_id, "r2scan") is None
    assert identical(reopened.refused(with_label.frame_id, "pbe"), with_label)
    assert sorted(reason for _, reason in reopened.rejected()) == ["SCF did not converge ?", "force 200 eV/Å"]


def test_only_good_labels_are_committed(tmp_path):
    store = Store(tmp_path, ATTRS)
    good = make_record(0)
    bad = replace(good, label=replace(good.label, energy=float("nan")))
    for record in (make_record(1, labelled=False), bad):
        with pytest.raises(ValueError, match=record.frame_id):
            store.commit([good, record])
    assert len(store) == 0 and Store(tmp_path, ATTRS).records() == []


def test_small_shards_are_merged_and_leftovers_of_a_kill_cleaned(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_module, "FAN", 8)
    labelled = tmp_path / "labelled"
    store = Store(tmp_path, ATTRS)
    for seed in range(7):
        store.commit([make_record(seed)])
    parts = {path: path.read_bytes() for path in shard_paths(labelled)}
    assert len(parts) == 7
    store.commit([make_record(7), make_record(8)])
    assert len(shard_paths(labelled)) == 1 and len(store) == 9
    for path, content in parts.items():  # killed after the merged file was there, before the parts went
        path.write_bytes(content)
    (labelled / ".shard-000099.h5.unfinished").write_bytes(b"half")
    assert len(read_records(tmp_path)) == 9
    assert len(Store(tmp_path, ATTRS)) == 9 and problems_of(tmp_path) == [] and len(shard_paths(labelled)) == 1
    assert len(list(labelled.iterdir())) == 1
    for seed in range(9, 30):
        store.commit([make_record(seed)])
    assert len(Store(tmp_path, ATTRS)) == 30 and len(shard_paths(labelled)) <= 9


def test_a_job_with_other_attributes_leaves_those_of_the_first(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_module, "FAN", 2)
    for job in ("a", "b"):
        store = Store(tmp_path, {"input": job})
        for seed in range(3):
            store.commit([make_record(10 * ord(job) + seed)])
    tables = [read_table(path) for path in shard_paths(tmp_path / "labelled")]
    kept = {attrs["input"]: len(table) for table, attrs in tables}
    assert kept == {"a": 3, "b": 3}


def test_a_damaged_shard_is_refused_with_its_name(tmp_path):
    store = Store(tmp_path, ATTRS)
    store.commit([make_record(0)])
    (path,) = shard_paths(tmp_path / "labelled")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    (problem,) = problems_of(tmp_path)
    assert str(path) in problem
    with pytest.raises(StoreError, match="verify --repair"):
        Store(tmp_path, ATTRS)
    path.write_bytes(b"pfdhpc frames 99 00\n".ljust(512, b"\0"))
    with pytest.raises(StoreError, match="use the newer pfdhpc"):
        Store(tmp_path, ATTRS)


def test_a_disk_that_refuses_is_reported_and_nothing_is_lost(tmp_path):
    store = Store(tmp_path, ATTRS)
    store.commit([make_record(0)])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(StoreError, match="everything committed is safe"):
            store.commit([make_record(1)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(store) == 1 and len(Store(tmp_path, ATTRS)) == 1
    store.commit([make_record(1)])
    assert len(Store(tmp_path, ATTRS)) == 2
    with pytest.raises(StoreError, match="blocked"):
        (tmp_path / "blocked").write_text("")
        Store(tmp_path / "blocked", ATTRS)


def write_until_killed(directory, start, told):
    store = Store(directory, ATTRS)
    for seed in range(start, start + 10000, 2):
        records = [make_record(seed), make_record(seed + 1)]
        store.commit(records)
        told.send([record.label_id for record in records])


def test_a_killed_writer_loses_nothing_it_acknowledged(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_module, "FAN", 5)
    rng = random.Random(0)
    fork = multiprocessing.get_context("fork")
    acknowledged = []
    for attempt in range(15):
        heard, told = fork.Pipe(duplex=False)
        writer = fork.Process(target=write_until_killed, args=(tmp_path, attempt * 10000, told))
        writer.start()
        told.close()
        acknowledged += heard.recv()  # it is at work
        time.sleep(0.3 * rng.random())
        writer.kill()
        acknowledged += told_until_the_end(heard)
        writer.join()
        store = Store(tmp_path, ATTRS)
        assert problems_of(tmp_path) == []
        kept = [record.label_id for record in store.records()]
        assert len(kept) == len(set(kept)) and set(acknowledged) <= set(kept)
        assert len(kept) <= len(acknowledged) + 2 * (attempt + 1)  # a batch may be kept and not yet acknowledged
    on_disk = [r.label_id for path in shard_paths(tmp_path / "labelled") for r in records_in(path)]
    assert sorted(on_disk) == sorted(kept) and len(acknowledged) >= 2 * 15


def told_until_the_end(heard):
    keys = []
    while True:
        try:
            keys += heard.recv()
        except EOFError:
            return keys


# the lock


def test_a_directory_takes_one_live_run(tmp_path):
    script = (
        "import sys, time; from pfdhpc.store.lock import RunLock\n"
        "lock = RunLock(sys.argv[1]); print(1, flush=True); time.sleep(60)"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[1]
    )
    other.stdout.readline()
    with pytest.raises(InputError, match=f"in use by another run .host .*, pid {other.pid}, since 20"):
        RunLock(tmp_path)
    other.kill()
    other.wait()
    lock = RunLock(tmp_path)
    assert lock.held
    with pytest.raises(InputError, match=f"pid {os.getpid()}"):
        RunLock(tmp_path)
    lock.release()
    lock.release()
    RunLock(tmp_path).release()
    with pytest.raises(InputError, match="No such file"):
        RunLock(tmp_path / "absent")


# checkpoints

numbers = st.integers() | st.floats(allow_nan=False) | st.booleans() | st.none()
arrays = hnp.arrays(
    st.sampled_from(["f8", "f4", "i4", "i8", "?", "u1", ">f8", "c16"]),
    hnp.array_shapes(min_dims=0, min_side=0),
)
texts = st.text(max_size=8) | st.sampled_from(["$bytes", "$array", "$$"])
trees = st.recursive(
    numbers | texts | st.binary() | arrays,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


def same_tree(one, other):
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    if isinstance(one, dict):
        return list(one) == list(other) and all(same_tree(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same_tree, one, other))
    return type(one) is type(other) and one == other


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(texts, trees, max_size=4))
def test_a_checkpoint_gives_back_any_tree(tmp_path, tree):
    save_checkpoint(tmp_path, tree, keep=1)
    assert same_tree(tree, load_checkpoint(tmp_path))


def test_a_checkpoint_holds_only_what_it_can_give_back(tmp_path):
    save_checkpoint(tmp_path, {"n": np.int64(3), "x": np.float32(0.5), "t": (1, 2), "nan": float("nan")})
    back = load_checkpoint(tmp_path)
    assert (back["n"], back["x"], back["t"]) == (3, 0.5, [1, 2]) and np.isnan(back["nan"])
    for bad in ({"x": object()}, {"x": np.array(["a"])}, {1: 2}):
        with pytest.raises(TypeError):
            save_checkpoint(tmp_path, bad)


def test_the_last_checkpoints_are_kept(tmp_path):
    assert load_checkpoint(tmp_path / "none") is None
    for step in range(5):
        save_checkpoint(tmp_path / "c", {"step": step}, keep=2)
    assert [path.name for path in checkpoint_paths(tmp_path / "c")] == [
        "checkpoint-000004.h5",
        "checkpoint-000005.h5",
    ]
    assert load_checkpoint(tmp_path / "c") == {"step": 4}


def truncate(content):
    return content[: len(content) // 2]


def flip(place):
    def damage(content):
        where = int(place * (len(content) - 1))
        return content[:where] + bytes([content[where] ^ 4]) + content[where + 1 :]

    return damage


@pytest.mark.parametrize("damage", [truncate, lambda content: b"", *map(flip, (0.0, 0.02, 0.3, 0.6, 1.0))])
def test_a_damaged_checkpoint_falls_back_with_a_warning(tmp_path, caplog, damage):
    for step in range(2):
        newest = save_checkpoint(tmp_path, {"step": step, "a": np.arange(1000)})
    newest.write_bytes(damage(newest.read_bytes()))
    for _ in range(2):
        assert load_checkpoint(tmp_path)["step"] == 0
    (warning,) = caplog.messages
    assert newest.name in warning and "going back to the checkpoint before" in warning
    checkpoint_paths(tmp_path)[0].write_bytes(b"")
    with pytest.raises(StoreError, match="none of its 2 checkpoints"):
        load_checkpoint(tmp_path)
    assert caplog.messages == [warning]  # there is none to go back to
    save_checkpoint(tmp_path, {"step": 2})
    assert load_checkpoint(tmp_path) == {"step": 2}


# the status


def test_the_status_is_plain_json(tmp_path):
    assert read_status(tmp_path) is None
    write_status(tmp_path, "incomplete", "end of the wall time", 7, round=2)
    status = read_status(tmp_path)
    assert (status["state"], status["reason"], status["progress"], status["round"]) == (
        "incomplete",
        "end of the wall time",
        7,
        2,
    )
    assert json.loads((tmp_path / "status.json").read_text()) == status
    (tmp_path / "status.json").write_text("{")
    with pytest.raises(StoreError):
        read_status(tmp_path)
