"""`pfdhpc store`: a user checks, mends, merges and lists what runs have kept."""

import json
import os
import random
import stat
from dataclasses import replace

import h5py
import numpy as np
import pytest
import samples
from stores import problems_of, write_records
from test_store import ATTRS, identical, make_record

from pfdhpc.cli.main import main
from pfdhpc.store.checkpoint import checkpoint_paths, load_checkpoint, save_checkpoint
from pfdhpc.store.lock import RunLock
from pfdhpc.store.shard_folder import shard_paths
from pfdhpc.store.store import Store, read_records


@pytest.fixture
def run(tmp_path):
    """A run directory with 40 labels in one file, 3 in another, 2 rejected frames, 2 checkpoints."""
    run = tmp_path / "run"
    store = Store(run / "frames", ATTRS)
    store.commit([make_record(seed, 60) for seed in range(40)])
    store.commit([make_record(seed) for seed in range(40, 43)])
    store.reject_all([(make_record(seed), f"energy {seed}.5 eV too high", "pbe") for seed in (50, 51)])
    for step in range(2):
        save_checkpoint(run / "checkpoints", {"step": step})
    return run


def told(capsys):
    return " ".join(capsys.readouterr().out.split())


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)


def test_a_clean_run_verifies_also_while_it_is_written_to(run, capsys):
    lock = RunLock(run)
    (run / "frames" / "labelled" / ".shard-000007.h5.unfinished").write_bytes(b"being written")
    (run / "frames" / "labelled" / "shard-000001 (copy).h5").write_bytes(b"none of ours")
    assert main(["store", "verify", str(run)]) == 0
    assert "no problem found" in told(capsys)
    assert main(["store", "verify", str(run / "frames")]) == 0
    capsys.readouterr()
    assert main(["store", "verify", str(run), "--repair"]) == 2
    assert "in use by another run" in capsys.readouterr().err
    lock.release()
    assert main(["store", "verify", str(run), "--repair"]) == 0
    assert "1 unfinished files removed" in told(capsys)
    assert main(["store", "verify", str(run / "absent")]) == 2
    assert "neither a run directory nor a frames folder" in capsys.readouterr().err


def test_a_bit_costs_only_the_frames_it_touches(run, capsys):
    path, _ = shard_paths(run / "frames" / "labelled")
    with h5py.File(path) as file:
        place = file["label_forces"].id.get_chunk_info(0).byte_offset + 100
    flip(path, place + 512)  # HDF5 counts from the end of the header
    damaged = path.read_bytes()
    assert main(["store", "verify", str(run)]) == 1
    assert "checksum does not fit its content; run `pfdhpc store verify --repair`" in told(capsys)
    assert main(["store", "verify", str(run), "--repair"]) == 0
    n_saved = len(read_records(run / "frames")) - 3
    assert f"{n_saved} of 40 frames saved" in told(capsys) and 10 <= n_saved < 40
    originals = {record.frame_id: record for record in (make_record(seed, 60) for seed in range(40))}
    saved = [record for record in read_records(run / "frames") if len(record.frame) == 60]
    assert all(identical(record, originals[record.frame_id]) for record in saved)
    (aside,) = (run / "frames" / "damaged").iterdir()
    assert aside.read_bytes() == damaged and aside.name == f"labelled-{path.name}"
    store = Store(run / "frames", ATTRS)
    store.commit(list(originals.values()))  # labelled again
    assert len(store) == 43 and problems_of(store.directory) == []


@pytest.mark.parametrize("seed", range(12))
def test_whatever_is_damaged_no_wrong_frame_comes_out_and_the_rest_goes_on(run, capsys, seed):
    rng = random.Random(seed)
    originals = {record.frame_id: record for record in read_records(run / "frames")}
    path = rng.choice(shard_paths(run / "frames" / "labelled"))
    if seed % 4 == 0:
        path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size)])
    else:
        for _ in range(seed):
            flip(path, rng.randrange(path.stat().st_size))
    assert main(["store", "verify", str(run)]) == 1
    assert main(["store", "verify", str(run), "--repair"]) == 0
    kept = Store(run / "frames", ATTRS).records()
    assert len(kept) >= 3 and all(identical(record, originals[record.frame_id]) for record in kept)


def test_frames_of_format_1_cannot_be_proven_and_are_set_aside_whole(tmp_path, capsys):
    (tmp_path / "labelled").mkdir()
    path = tmp_path / "labelled" / "shard-000001.h5"
    path.write_bytes((samples.FORMATS / "frames-labelled-1.h5").read_bytes())
    flip(path, -1)
    assert main(["store", "verify", str(tmp_path), "--repair"]) == 0
    assert "0 of" in told(capsys) and (tmp_path / "damaged" / "labelled-shard-000001.h5").exists()


def test_a_damaged_checkpoint_is_told_and_set_aside(run, capsys):
    flip(checkpoint_paths(run / "checkpoints")[-1], 600)
    assert main(["store", "verify", str(run)]) == 1
    assert "checkpoint-000002.h5: damaged" in told(capsys)
    assert main(["store", "verify", str(run), "--repair"]) == 0
    assert load_checkpoint(run / "checkpoints") == {"step": 0}
    assert len(list((run / "checkpoints" / "damaged").iterdir())) == 1


def test_a_newer_format_is_told_and_left_alone(run, capsys):
    path = shard_paths(run / "frames" / "labelled")[0]
    path.write_bytes(b"pfdhpc frames 99 00\n".ljust(512, b"\0"))
    assert main(["store", "verify", str(run), "--repair"]) == 1
    assert "use the newer pfdhpc" in told(capsys) and path.exists()


def test_every_kind_of_wrong_frame_is_found(tmp_path):
    good = make_record(0)
    infinite = replace(make_record(1), label=replace(make_record(1).label, energy=float("inf")))
    moved = replace(make_record(2), frame=replace(make_record(2).frame, positions=np.full((3, 3), np.nan)))
    other = replace(good, label=replace(good.label, energy=good.label.energy + 1))
    (tmp_path / "labelled").mkdir()
    write_records(tmp_path / "labelled" / "shard-000001.h5", good, infinite, moved)
    write_records(tmp_path / "labelled" / "shard-000002.h5", other)
    found = "\n".join(problems_of(tmp_path))
    assert f"frame {infinite.frame_id}: its label is not finite" in found
    assert f"frame {moved.frame_id}: positions or cell are not finite" in found
    assert f"{good.label_id} is there twice, with different content" in found
    assert len(problems_of(tmp_path)) == 3


# merge


def test_stores_are_merged_each_label_once(run, tmp_path, capsys):
    other = Store(tmp_path / "other", {"input": "another"})
    seen_there = make_record(41).with_origin(replica="another", round=9)  # the same label, found in another run
    other.commit([make_record(0, 60), seen_there, make_record(90, level="r2scan")])
    other.reject(make_record(50), "another reason", "pbe")
    assert main(["store", "merge", str(run), str(tmp_path / "other"), "-o", str(tmp_path / "out")]) == 0
    assert "44 labelled frames, 2 rejected" in told(capsys)
    merged = Store(tmp_path / "out", ATTRS)
    assert len(merged) == 44 and merged.n_rejected == 2 and problems_of(tmp_path / "out") == []
    assert identical(merged.get(make_record(41).frame_id, "pbe"), make_record(41))
    assert identical(merged.get(make_record(90).frame_id, "r2scan"), make_record(90, level="r2scan"))
    assert main(["store", "merge", str(run), str(tmp_path / "other"), "-o", str(tmp_path / "out")]) == 2
    assert "is there already" in capsys.readouterr().err


def test_labels_that_contradict_each_other_are_not_merged(run, tmp_path, capsys):
    mine = make_record(40)
    other = replace(mine, label=replace(mine.label, energy=mine.label.energy + 1e-3))
    Store(tmp_path / "other", ATTRS).commit([other])
    assert main(["store", "merge", str(run), str(tmp_path / "other"), "-o", str(tmp_path / "out")]) == 2
    assert mine.label_id in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "run"]


# ls


def test_ls_tells_what_is_there(run, capsys):
    assert main(["store", "ls", str(run), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    (group,) = shown["groups"]
    assert (group["system"], group["level"], group["frames"], group["atoms"]) == ("SiC-α", "pbe", 43, 2409)
    assert group["rounds"] == [1] and group["rejected"] == {"energy N eV too high": 2}
    assert shown["files"] == 3
    assert shown["bytes"] == sum(path.stat().st_size for path in (run / "frames").rglob("*.h5"))
    assert main(["store", "ls", str(run)]) == 0
    text = told(capsys)
    assert "SiC-α" in text and "2 x energy N eV too high" in text


# permissions


@pytest.mark.parametrize(("umask", "allowed"), [(0o077, 0o700), (0o022, 0o755), (0o000, 0o775)])
def test_nothing_is_writable_for_all_nor_for_more_than_the_umask_says(tmp_path, umask, allowed):
    before = os.umask(umask)
    try:
        store = Store(tmp_path / "run" / "frames", ATTRS)
        store.commit([make_record(0)])
        store.reject(make_record(1), "why", "pbe")
        save_checkpoint(tmp_path / "run" / "frames" / "checkpoints", {})
    finally:
        os.umask(before)
    paths = [tmp_path / "run" / "frames", *(tmp_path / "run" / "frames").rglob("*")]
    assert len(paths) > 6
    for path in paths:
        assert stat.S_IMODE(path.stat().st_mode) & ~allowed == 0, path
