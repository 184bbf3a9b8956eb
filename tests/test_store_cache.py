"""The cache of arrays: shared by its writers, bounded in files, never wrong when a file is."""

import multiprocessing

import numpy as np
import pytest

from pfdhpc.errors import StoreError
from pfdhpc.store import array_cache as cache_module
from pfdhpc.store.array_cache import ArrayCache


def array(seed, dtype="f8"):
    return np.random.default_rng(seed).normal(size=(seed % 4, 3)).astype(dtype)


def files(directory):
    return sorted(path.name for path in directory.iterdir())


def test_arrays_come_back_as_they_were_here_and_elsewhere(tmp_path):
    first, second = ArrayCache(tmp_path, "explorer-1"), ArrayCache(tmp_path, "explorer-10")
    kept = {"a": array(1), "b": array(2, "f4"), "empty": array(0), "ü:pbe": array(3)[::-1]}
    first.put(kept)
    first.put({"a": array(7)})  # known: what was kept stays
    second.put({"c": array(3, ">f8")})
    for cache in (first, second, ArrayCache(tmp_path, "later")):
        found = cache.get(["a", "b", "empty", "ü:pbe", "c", "never"])
        assert sorted(found) == ["a", "b", "c", "empty", "ü:pbe"]
        for key, expected in {**kept, "c": array(3)}.items():
            assert np.array_equal(found[key], expected) and found[key].dtype == expected.dtype
    assert len(files(tmp_path)) == 2


@pytest.mark.parametrize("bad", [np.zeros(3), np.zeros((2, 2), int), np.array([["x"]], object)])
def test_only_matrices_of_floats_are_taken(tmp_path, bad):
    with pytest.raises(TypeError, match="array k"):
        ArrayCache(tmp_path, "a").put({"k": bad})
    assert files(tmp_path) == []


def test_many_small_puts_leave_few_files_also_for_readers_that_know_the_old_ones(tmp_path):
    writer, reader = ArrayCache(tmp_path, "w"), ArrayCache(tmp_path, "r")
    for seed in range(300):
        writer.put({str(seed): array(seed)})
        if seed % 50 == 0:
            assert len(reader.get(map(str, range(seed + 1)))) == seed + 1
    assert len(files(tmp_path)) <= 3 * cache_module.TIER
    for cache in (reader, writer, ArrayCache(tmp_path, "w")):
        found = cache.get(map(str, range(300)))
        assert all(np.array_equal(found[str(seed)], array(seed)) for seed in range(300))


@pytest.mark.parametrize("place", [0, 20, 60, -1, "cut", "empty"])
def test_a_damaged_file_is_missing_and_its_owner_removes_it(tmp_path, place):
    owner = ArrayCache(tmp_path, "own")
    owner.put({"bad": array(3)})
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    if place == "cut":
        content = content[:-5]
    elif place == "empty":
        content = b""
    else:
        content[place] ^= 1
    path.write_bytes(content)
    (tmp_path / "foreign.arrays").write_bytes(b"no cache of ours")
    (tmp_path / ".own-000009.arrays.unfinished").write_bytes(b"half")
    ArrayCache(tmp_path, "other").put({"good": array(2)})
    assert list(ArrayCache(tmp_path, "third").get(["good", "bad"])) == ["good"]
    assert path.exists()
    again = ArrayCache(tmp_path, "own")
    assert list(again.get(["good", "bad"])) == ["good"] and not path.exists()
    again.put({"bad": array(3)})
    for cache in (again, owner, ArrayCache(tmp_path, "third")):
        assert np.array_equal(cache.get(["bad"])["bad"], array(3))
    assert files(tmp_path) == ["foreign.arrays", "other-000001.arrays", "own-000001.arrays"]


def test_a_folder_that_refuses_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file"):
        ArrayCache(tmp_path / "file", "a")


def fill(directory, name):
    cache = ArrayCache(directory, name)
    for seed in range(100):
        cache.put({f"{name}:{seed}": array(seed)})


def test_writers_and_readers_at_once_see_only_whole_arrays(tmp_path):
    fork = multiprocessing.get_context("fork")
    writers = [fork.Process(target=fill, args=(tmp_path, name)) for name in "ab"]
    for writer in writers:
        writer.start()
    reader = ArrayCache(tmp_path, "r")
    keys = [f"{name}:{seed}" for name in "ab" for seed in range(100)]
    while any(writer.is_alive() for writer in writers):
        for key, found in reader.get(keys).items():
            assert np.array_equal(found, array(int(key.split(":")[1])))
    assert len(reader.get(keys)) == 200
