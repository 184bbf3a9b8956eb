"""Files of every format version are read for ever; files of a newer one, or of anybody else, do no harm."""

import json

import h5py
import numpy as np
import pytest
import samples
from stores import problems_of, records_in, write_records
from test_store import identical, same_tree

from pfdhpc.errors import InputError, StoreError
from pfdhpc.store.checkpoint import load_checkpoint, read_checkpoint
from pfdhpc.store.hdf5_file import FORMAT_VERSION, Damaged, write_hdf5
from pfdhpc.store.shard_folder import shard_paths
from pfdhpc.store.shards import read_columns, read_rows, read_table
from pfdhpc.store.store import Store, read_records
from pfdhpc.store.verify import check_store

VERSIONS = range(1, FORMAT_VERSION + 1)


@pytest.mark.parametrize("version", VERSIONS)
def test_frames_of_every_version_read_the_same(version):
    table, attrs = read_table(samples.FORMATS / f"frames-labelled-{version}.h5")
    assert all(identical(a, b) for (a, _), b in zip(table.rows(), samples.labelled(), strict=True))
    assert attrs == samples.ATTRS
    path = samples.FORMATS / f"frames-rejected-{version}.h5"
    rejected = read_table(path)[0].rows()
    assert all(identical(a, b) for (a, _), b in zip(rejected, samples.rejected(), strict=True))
    assert [texts for _, texts in rejected] == [{"reason": reason, "level": "pbe"} for reason in samples.REASONS]
    ((record, texts),) = read_rows(path, [1])
    assert identical(record, samples.rejected()[1]) and texts["reason"] == samples.REASONS[1]


@pytest.mark.parametrize("version", VERSIONS)
def test_checkpoints_of_every_version_read_the_same(version):
    assert same_tree(read_checkpoint(samples.FORMATS / f"checkpoint-{version}.h5"), samples.TREE)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_store_of_an_older_version_goes_on_and_is_rewritten_as_it_is_merged(tmp_path, monkeypatch, version):
    from pfdhpc.store import shard_folder

    for part in ("labelled", "rejected"):
        (tmp_path / part).mkdir()
        content = (samples.FORMATS / f"frames-{part}-{version}.h5").read_bytes()
        (tmp_path / part / "shard-000001.h5").write_bytes(content)
    (tmp_path / "labelled" / "shard-000002.h5").write_bytes(
        (samples.FORMATS / f"frames-labelled-{FORMAT_VERSION}.h5").read_bytes()
    )  # the same rows once more, in the present format: what a merge cut short leaves
    assert [part.problems for part in check_store(tmp_path)] == [[], []]
    monkeypatch.setattr(shard_folder, "FAN", 2)
    store = Store(tmp_path, samples.ATTRS)
    assert [path.name for path in shard_paths(tmp_path / "labelled")] == ["shard-000002.h5"]
    assert store.was_rejected(samples.rejected()[0].frame_id, "pbe") == samples.REASONS[0]
    for index in range(10, 16):
        store.commit([samples.record(index, 200)])
        store.reject(samples.record(index, 9), "why", "pbe")
    assert len(store) == 9 and store.n_rejected == 8 and problems_of(tmp_path) == []
    assert len(read_records(tmp_path)) == 9
    reread = Store(tmp_path, {"another": "job"})
    assert identical(reread.get(samples.labelled()[1].frame_id, "pbe"), samples.labelled()[1])


def test_the_samples_are_those_of_this_code(tmp_path):
    """Where this fails the format has changed: raise its version, keep a step from the older one."""
    samples.write(tmp_path)
    made = read_columns(tmp_path / f"frames-labelled-{FORMAT_VERSION}.h5", ("checksum", "frame_id"))
    kept = read_columns(samples.FORMATS / f"frames-labelled-{FORMAT_VERSION}.h5", ("checksum", "frame_id"))
    assert made[0].data["checksum"].tolist() == kept[0].data["checksum"].tolist(), (
        "the format changed: raise its version"
    )


def test_files_keep_to_the_forms_of_hdf5_1_10(tmp_path):
    """What "latest" means to HDF5 2.0, older ones cannot read: booleans and compressed datasets."""

    def fill(file):
        file.create_dataset("flags", data=np.array([True, False]), track_times=False)
        file.create_dataset("z", data=np.zeros((1000, 3)), chunks=(10, 3), compression=1, track_times=False)

    write_hdf5(tmp_path / "file.h5", "frames", fill)
    expected = {}
    for libver in (("v110", "v110"), "latest"):
        with h5py.File("x", "w", driver="core", backing_store=False, libver=libver, userblock_size=512) as file:
            fill(file)
            file.flush()
            expected[libver] = file.id.get_file_image()
    assert (tmp_path / "file.h5").read_bytes()[512:] == expected["v110", "v110"]
    if h5py.version.hdf5_version_tuple >= (2, 0):
        assert expected["latest"] != expected["v110", "v110"]


def test_a_file_of_a_newer_hdf5_is_told_in_a_line_and_left_as_it_is(tmp_path, monkeypatch):
    from pfdhpc.data.io import read_frames
    from pfdhpc.store import checkpoint, shards

    def too_new(*arguments):
        raise KeyError("Unable to synchronously open object (bad version number for datatype message)")

    Store(tmp_path, samples.ATTRS).commit(samples.labelled())
    (shard,) = shard_paths(tmp_path / "labelled")
    saved = checkpoint.save_checkpoint(tmp_path / "checkpoints", {"a": 1})
    for module in (shards, checkpoint):
        monkeypatch.setattr(module, "read_dataset", too_new)
    said = "written by a newer h5py, in a form that h5py .* cannot read; use h5py 3.16 or newer"
    readers = (read_table, shard), (lambda path: read_rows(path, [0]), shard), (read_checkpoint, saved)
    for read, path in (*readers, (load_checkpoint, tmp_path / "checkpoints"), (lambda path: Store(path, {}), tmp_path)):
        with pytest.raises(StoreError, match=said) as refused:
            read(path)
        assert not isinstance(refused.value, Damaged) and str(refused.value).startswith(str(tmp_path))
    part, _ = check_store(tmp_path)
    assert part.damaged == [] and [remedy for _, remedy in part.problems] == ["use h5py 3.16 or newer"]
    monkeypatch.setattr("pfdhpc.data.io._from_hdf5", lambda path: map(too_new, [path]))
    with pytest.raises(InputError, match=f"cannot be read as frames: {said}"):
        read_frames(shard)


@pytest.mark.parametrize("read", [read_table, lambda path: read_rows(path, [0]), read_checkpoint])
def test_a_newer_version_is_refused(tmp_path, read):
    path = tmp_path / "file.h5"
    kind = "checkpoint" if read is read_checkpoint else "frames"
    path.write_bytes(f"pfdhpc {kind} {FORMAT_VERSION + 1} 00\n".encode().ljust(512, b"\0") + b"rest")
    with pytest.raises(StoreError, match="use the newer pfdhpc") as refused:
        read(path)
    assert not isinstance(refused.value, Damaged)


def crafted_links(file, target):
    file["n_atoms"] = h5py.ExternalLink(str(target), "/n_atoms")


def crafted_objects(file, target):
    file.create_dataset("n_atoms", data=np.array([1]))
    file.create_dataset("frame_id", (1,), dtype=h5py.ref_dtype)


def crafted_nonsense(file, target):
    file.create_dataset("n_atoms", data=np.array([2**40, -5]))
    file.create_dataset("numbers", data=np.arange(3))


def crafted_nothing(file, target):
    pass


@pytest.mark.parametrize("fill", [crafted_links, crafted_objects, crafted_nonsense, crafted_nothing])
def test_a_strangers_shard_is_refused_without_a_traceback(tmp_path, fill):
    """Its checksum is right: somebody else made it with care."""
    (tmp_path / "labelled").mkdir()
    other = tmp_path / "other.h5"
    write_records(other, *samples.labelled())
    path = tmp_path / "labelled" / "shard-000001.h5"
    write_hdf5(path, "frames", lambda file: (file.create_group("columns"), fill(file, other)))
    for read in (read_table, lambda path: read_rows(path, [0])):
        with pytest.raises(Damaged):
            read(path)
    with pytest.raises(StoreError):
        Store(tmp_path, {})
    assert len(check_store(tmp_path)[0].damaged) == 1


class Bomb:
    """Whoever unpickles this runs code."""

    def __reduce__(self):
        return (open, ("/tmp/pfdhpc-was-here", "w"))


@pytest.mark.parametrize(
    "tree",
    [
        {"a": {"$array": [0, 8, "O", [1]]}},
        {"a": {"$array": [0, 8, "|O8", [1]]}},
        {"a": {"$array": [0, 800, "<f8", [100]]}},
        {"a": {"$bytes": "x"}},
        {"$array": []},
        "not json {",
    ],
)
def test_a_strangers_checkpoint_runs_no_code_and_is_passed_over(tmp_path, monkeypatch, tree):
    import pickle

    for name in ("loads", "load", "Unpickler"):
        monkeypatch.setattr(pickle, name, lambda *args, **kwargs: pytest.fail("something was unpickled"))
    text = tree if isinstance(tree, str) else json.dumps(tree)

    def fill(file):
        file.create_dataset("tree", data=text, dtype=h5py.string_dtype())
        file.create_dataset("blobs", data=np.frombuffer(pickle.dumps(Bomb()), np.uint8))

    write_hdf5(tmp_path / "checkpoint-000001.h5", "checkpoint", fill)
    with pytest.raises(Damaged):
        read_checkpoint(tmp_path / "checkpoint-000001.h5")
    with pytest.raises(StoreError, match="none of its 1 checkpoints"):
        load_checkpoint(tmp_path)


def test_frames_are_read_without_unpickling(monkeypatch):
    import pickle

    for name in ("loads", "load", "Unpickler"):
        monkeypatch.setattr(pickle, name, lambda *args, **kwargs: pytest.fail("something was unpickled"))
    for version in VERSIONS:
        records_in(samples.FORMATS / f"frames-labelled-{version}.h5")
