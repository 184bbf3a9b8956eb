"""A round that is killed in its middle goes on from what it kept: deepmd for real, a tiny model, made-up labels."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.io import write
from engines.test_modes import write_xyz
from engines.test_trainer import NEW, OLD, VALIDATION, make_records, make_trainer, train_order, weights
from models import tiny_checkpoint

from pfdhpc import messages as m
from pfdhpc.config import parse
from pfdhpc.engines.base import TrainTask
from pfdhpc.engines.train.deepmd import round_restart
from pfdhpc.engines.train.deepmd.monitor import Monitor
from pfdhpc.roles.trainer import TrainerProgram
from pfdhpc.store.run_directory import RunFolder

STEPS = 40


def keeping(checkpoint, seconds=1e-6, **train):
    """A trainer that keeps its rounds after every step, unless told otherwise."""
    return make_trainer(checkpoint, restart_after=seconds, **train)


def task(parent, directory, **changes):
    values = dict(round=1, parent=parent, first=False, old=OLD, new=NEW, validation=VALIDATION, steps=STEPS, seed=5)
    return TrainTask(**{**values, "directory": Path(directory), **changes})


def files(folder):
    return sorted(path.name for path in folder.glob(round_restart.FILES))


def begin_again(folder):
    """What the trainer's program does before an order: everything goes but what a round may go on from."""
    for path in folder.iterdir():
        if path.is_file() and not path.match(round_restart.FILES):
            path.unlink()
    for path in sorted((folder / "data").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (folder / "data").rmdir()


class Killed(Exception):
    """Stands for the end of the process."""


def broken_off(trainer, monkeypatch, at, work):
    """Train, and break it off after so many steps."""
    seen, run = [], Monitor.run

    def stopping(self, **step):
        run(self, **step)
        seen.append(step["display_step"])
        if step["display_step"] == at:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Monitor, "run", stopping)
        try:
            return (trainer.handle if isinstance(work, m.Order) else trainer.train)(work), seen
        except Killed:
            return None, seen


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parent")
    return make_trainer(tiny_checkpoint(folder)).import_parent(folder).checkpoint


@pytest.fixture(scope="module")
def undisturbed(parent, tmp_path_factory):
    """Without the key."""
    return make_trainer(parent).train(task(parent, tmp_path_factory.mktemp("undisturbed")))


def test_a_round_that_is_not_disturbed_is_the_same_bit_for_bit_with_and_without_the_key(parent, undisturbed, tmp_path):
    kept = keeping(parent).train(task(parent, tmp_path))
    assert kept.checkpoint.read_bytes() == undisturbed.checkpoint.read_bytes()
    assert kept.begun_at == undisturbed.begun_at == 0
    assert files(undisturbed.checkpoint.parent) == []
    assert [name.split("-")[1] for name in files(tmp_path)] == [f"{STEPS - 1:09d}"], "the last one alone"


def test_a_round_goes_on_where_it_was_broken_off(parent, undisturbed, tmp_path, monkeypatch):
    """Steps, learning rate, learning curve and the best weights so far go on; the model has learnt as much."""
    right = make_trainer(parent).predict(parent, [record.frame for record in make_records(12, 11)])
    validation = tuple(replace(r, label=p) for r, p in zip(make_records(12, 11), right, strict=True))
    work = task(parent, tmp_path, validation=validation)
    trainer = keeping(parent)
    assert broken_off(trainer, monkeypatch, 21, work)[1] == list(range(1, 22))
    begin_again(tmp_path)
    result, steps = broken_off(trainer, monkeypatch, None, work)
    assert result.begun_at == 21 and steps == list(range(22, STEPS + 1))
    curve = (tmp_path / "lcurve.out").read_text().splitlines()
    rows = np.array([line.split() for line in curve if not line.startswith("#")], float)
    whole = np.loadtxt(undisturbed.checkpoint.parent / "lcurve.out")
    assert (rows[:, 0] == whole[:, 0]).all() and np.allclose(rows[:, -1], whole[:, -1], rtol=1e-6), "learning rates"
    keys = [[(row["step"], "rmse_f_val" in row) for row in item.curve] for item in (result, undisturbed)]
    assert keys[0] == keys[1], "errors on batches and on all validation frames, from the first step to the last"
    assert result.best_step == 0, "the start is right, the training data are noise"
    best, start = weights(result.checkpoint), weights(parent)
    assert all((best[key] == start[key]).all() for key in start if key != "model.Default.min_nbor_dist")


@pytest.fixture
def team(parent, tmp_path):
    """``team()``: the trainer's program of another job of one run, its parent known."""
    write(tmp_path / "sic.vasp", bulk("SiC", "zincblende", a=4.36))
    values = {
        "workflow": "finetune",
        "model": {"checkpoint": str(parent)},
        "system": [{"name": "SiC", "structures": ["sic.vasp"]}],
        "explore": {},
        "label": {"type": "ase", "options": {"calculator": "ase.calculators.emt.EMT"}},
        "train": {"restart_after": 1e-6},
    }
    folder = RunFolder(tmp_path / "run")
    return folder, lambda: TrainerProgram(parse(values, tmp_path), folder, None)


def test_an_order_given_again_is_gone_on_with_and_nothing_of_it_stays_when_the_run_is_over(team, monkeypatch):
    folder, program = team
    first = program()
    model = first.handle(m.ImportParent("import")).model
    order = train_order(model, steps=40)
    assert broken_off(first, monkeypatch, 17, order)[0] is None
    assert round_restart.kept_step(folder.training(0)) == 17
    trained = program().handle(order)
    assert trained.begun_at == 17 and round_restart.kept_step(folder.training(0)) == 39, "its answer may be lost"
    last = program()
    again = last.handle(order)
    assert again.begun_at == 39
    values = dict(old_ids=order.new_ids, new_ids=(), first=False, parent=again.model)
    last.handle(replace(order, order_id="train/1", round=1, version=2, **values))
    assert [path.name for path in folder.trainings() if files(path)] == ["train-001"]
    last.handle(m.Evaluate("evaluate/1", model, again.model, order.new_ids, order.new_ids[:1]))
    assert [path.name for path in folder.trainings() if files(path)] == []


@pytest.mark.parametrize("way", ["damaged", "other"])
def test_what_is_damaged_or_of_another_round_is_passed_over_and_the_round_is_replayed(
    parent, undisturbed, tmp_path, monkeypatch, way
):
    trainer, work = keeping(parent), task(parent, tmp_path)
    broken_off(trainer, monkeypatch, 9, replace(work, seed=6) if way == "other" else work)
    begin_again(tmp_path)
    path = tmp_path / files(tmp_path)[0]
    if way == "damaged":  # one bit, which torch itself would not notice
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 4
        path.write_bytes(content)
    result = trainer.train(work)
    assert result.begun_at == 0 and result.checkpoint.read_bytes() == undisturbed.checkpoint.read_bytes()
    said = (tmp_path / "train.log").read_text()
    assert f"{path.name} is not gone on from: it is {'of another round' if way == 'other' else 'damaged'}" in said


def test_without_the_key_nothing_is_gone_on_from(parent, undisturbed, tmp_path, monkeypatch):
    work = task(parent, tmp_path)
    broken_off(keeping(parent), monkeypatch, 9, work)
    begin_again(tmp_path)
    result = make_trainer(parent).train(work)
    assert result.begun_at == 0 and result.checkpoint.read_bytes() == undisturbed.checkpoint.read_bytes()


def test_a_round_is_known_by_its_parent_its_data_its_seed_and_the_settings(parent, tmp_path):
    section, work = keeping(parent).section, task(parent, tmp_path)
    changed = [replace(work, old=OLD[1:]), replace(work, seed=6), replace(work, steps=9), replace(work, first=True)]
    relabelled = (replace(NEW[0], label=replace(NEW[0].label, energy=0.0)), *NEW[1:])
    other = tiny_checkpoint(tmp_path / "other", ("Si", "C"), descriptor="dpa3")
    changed += [replace(work, new=relabelled), replace(work, parent=other)]
    known = {round_restart.identity(section, item) for item in changed}
    known.add(round_restart.identity(section.model_copy(update={"start_lr": 1e-4}), work))
    assert len(known) == len(changed) + 1 and round_restart.identity(section, work) not in known
    assert round_restart.identity(section.model_copy(update={"restart_after": 9.0}), work) == round_restart.identity(
        section, replace(work, directory=tmp_path / "elsewhere")
    )


def test_a_round_with_replay_goes_on_with_the_data_it_began_with_only(tmp_path, monkeypatch):
    """The file that is replayed has the same name, but other labels in the end."""
    single = tiny_checkpoint(tmp_path / "single")
    write_xyz(tmp_path / "known.xyz", OLD)
    replay = {"Default": {"data": [tmp_path / "known.xyz"]}}
    imported = keeping(single, replay=replay).import_parent(tmp_path / "parent").checkpoint
    for stop, expected in ((9, 0), (12, 9), (None, 0)):
        if stop is None:
            write_xyz(tmp_path / "known.xyz", tuple(replace(r, label=replace(r.label, energy=0.0)) for r in OLD))
        work = task(imported, tmp_path / "round", first=True, old=())
        work.directory.mkdir(exist_ok=True)
        result, steps = broken_off(keeping(single, replay=replay), monkeypatch, stop, work)
        assert steps[0] == expected + 1
        if stop is not None:
            begin_again(work.directory)
    assert result.begun_at == 0


def test_a_full_disk_costs_the_file_and_not_the_round(parent, undisturbed, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    result = keeping(parent).train(task(parent, tmp_path))
    assert result.checkpoint.read_bytes() == undisturbed.checkpoint.read_bytes()
    assert "could not be kept at step 1: [Errno 28] No space left" in (tmp_path / "train.log").read_text()
    assert files(tmp_path) == [] and not list(tmp_path.glob("*unfinished*"))
