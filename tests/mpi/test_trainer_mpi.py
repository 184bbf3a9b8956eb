"""Data-parallel fine-tuning over the ranks of a team: run under mpiexec with 1, 2 and 4 ranks."""

import hashlib
import pickle
import shutil
import tempfile
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from ase.io import write

from pfdhpc.config.train import ModelSection, TrainSection
from pfdhpc.data import Frame, Label, Record
from pfdhpc.data.io import labelled_atoms
from pfdhpc.engines.base import TrainTask
from pfdhpc.engines.team_calls import by_leader
from pfdhpc.engines.train.deepmd import mpi_ddp
from pfdhpc.engines.train.deepmd.checkpoint import read, read_branches
from pfdhpc.engines.train.deepmd.monitor import Monitor
from pfdhpc.engines.train.deepmd.prepare import LATER, Plan
from pfdhpc.engines.train.deepmd.trainer import DeepmdTrainer
from pfdhpc.errors import InputError, TaskError
from tests.models import DESCRIPTORS, tiny_checkpoint


class WatchedTrainer(DeepmdTrainer):
    """Remembers a digest of the weights this rank ended with; ``fail_on``: a rank that fails in a step."""

    fail_on = None

    def _run(self, task, plan, kept):
        if self.comm.rank == self.fail_on:
            plan.config["training"]["disp_freq"] = 0  # a division by zero in deepmd's loop
        trainer, *rest = super()._run(task, plan, kept)
        digest = hashlib.sha256()
        for weight in trainer.wrapper.parameters():
            digest.update(weight.detach().numpy().tobytes())
        self.digest = digest.hexdigest()
        return trainer, *rest


def make_records(n, seed, symbols="SiC"):
    from ase.build import bulk

    rng = np.random.default_rng(seed)
    records = []
    for _ in range(n):
        atoms = bulk(symbols, "zincblende", a=4.36)
        atoms.rattle(0.05, rng=rng)
        label = Label(-14 + rng.normal(0, 0.1), rng.normal(size=(2, 3)), rng.normal(size=(3, 3)))
        records.append(Record(Frame.from_atoms(atoms), label=label))
    return tuple(records)


@pytest.fixture(scope="module")
def team():
    """The communicator, a folder all ranks see and a trainer on a tiny two-branch model."""
    from mpi4py import MPI

    comm = MPI.COMM_WORLD.Dup()
    folder = Path(comm.bcast(tempfile.mkdtemp(prefix="pfdhpc-") if comm.rank == 0 else None))
    checkpoint = folder / "tiny.pt"
    if comm.rank == 0:
        tiny_checkpoint(folder, branches=("a", "b"))
    comm.Barrier()
    model = ModelSection.model_validate({"checkpoint": checkpoint, "branch": "b"})
    yield comm, folder, WatchedTrainer(model, TrainSection.model_validate({}), comm)
    comm.Barrier()
    if comm.rank == 0:
        shutil.rmtree(folder)
    comm.Free()


def make_task(folder, parent, **changes):
    values = dict(round=0, first=True, old=(), new=make_records(6, 1), validation=make_records(2, 2))
    values |= dict(steps=8, seed=3)
    return TrainTask(**{**values, "parent": parent, "directory": folder, **changes})


def test_ranks_end_with_equal_weights_and_twice_the_same(team):
    comm, folder, trainer = team
    parent = trainer.import_parent(folder / "parent").checkpoint
    first = trainer.train(make_task(folder / "first", parent))
    assert len(set(comm.allgather(trainer.digest))) == 1
    assert len(set(comm.allgather((first.checkpoint, first.best_step)))) == 1
    results = []
    for name in ("one", "two"):
        changes = dict(first=False, old=make_records(6, 1), new=make_records(3, 4), seed=9)
        results.append(trainer.train(make_task(folder / name, first.checkpoint, **changes)))
        assert len(set(comm.allgather(trainer.digest))) == 1
    assert results[0].checkpoint.read_bytes() == results[1].checkpoint.read_bytes()
    labels = trainer.predict(results[0].checkpoint, [record.frame for record in make_records(2, 7)])
    assert len(set(comm.allgather(tuple(label.energy for label in labels)))) == 1


def test_the_bias_does_not_depend_on_the_number_of_ranks(team):
    """Every rank trains on its own share of the frames, but the alignment sees them all."""
    comm, folder, trainer = team
    parent = trainer.import_parent(folder / "parent2").checkpoint
    result = trainer.train(make_task(folder / "bias", parent, steps=1))
    alone = DeepmdTrainer(trainer.model, trainer.section, None)
    own = folder / f"alone-{comm.rank}"
    aligned = alone.train(make_task(own, parent, steps=0))
    key = "model.Default.atomic_model.out_bias"
    assert np.allclose(read(result.checkpoint)[key], read(aligned.checkpoint)[key], rtol=0, atol=1e-9)


def test_a_round_that_was_broken_off_goes_on_on_all_ranks(team, monkeypatch):
    comm, folder, trainer = team
    parent = trainer.import_parent(folder / "parent4").checkpoint
    keeping = WatchedTrainer(trainer.model, TrainSection.model_validate({"restart_after": 1e-6}), comm)
    task, steps, run = make_task(folder / "broken", parent, steps=12), [], Monitor.run

    def stopping(self, **step):
        run(self, **step)
        steps.append(step["display_step"])
        if step["display_step"] == 7 and 1 in steps:
            raise TaskError("killed")

    monkeypatch.setattr(Monitor, "run", stopping)
    with pytest.raises(TaskError, match="killed"):
        keeping.train(task)
    comm.Barrier()
    if comm.rank == 0:
        shutil.rmtree(task.directory / "data")
    comm.Barrier()
    steps.clear()
    result = keeping.train(task)
    assert result.begun_at == 7 and steps == [8, 9, 10, 11, 12]
    assert len(set(comm.allgather(keeping.digest))) == 1
    assert [row["step"] for row in result.curve] == [float(step) for step in range(13)]


def test_an_error_reaches_every_rank(team, monkeypatch):
    comm, folder, trainer = team
    parent = trainer.import_parent(folder / "parent3").checkpoint
    trainer.fail_on = comm.size - 1
    with monkeypatch.context() as patch, pytest.raises(Exception, match="modulo|zero"):
        patch.setattr(mpi_ddp, "TIMEOUT", timedelta(seconds=15))
        trainer.train(make_task(folder / "failing", parent))
    trainer.fail_on = None
    bad = TrainSection.model_validate({"start_lr": 1e300, "stop_lr": 1e299})
    with pytest.raises(TaskError, match="diverged"):
        DeepmdTrainer(trainer.model, bad, comm).train(make_task(folder / "diverging", parent))
    wrong = trainer.model.model_copy(update={"branch": "c"})
    with pytest.raises(InputError, match='no "c"'):
        DeepmdTrainer(wrong, trainer.section, comm).import_parent(folder / "wrong")
    assert trainer.train(make_task(folder / "after", parent)).checkpoint.is_file()


class Odd(Exception):
    """An error whose constructor does not take what it is pickled with."""

    def __init__(self, one, other):
        super().__init__(f"{one} and {other}")


def test_an_error_that_cannot_be_sent_reaches_every_rank(team):
    def fail():
        raise Odd("one", "other")

    with pytest.raises(RuntimeError, match="Odd: one and other"):
        by_leader(team[0], fail)


def test_a_plan_is_the_same_on_every_rank(team):
    """A bias to be fitted later is told by a sentinel, which must be itself where it comes to."""
    plan = Plan({}, {}, None, LATER, {})
    assert all(found.bias is LATER for found in (team[0].bcast(plan), pickle.loads(pickle.dumps(plan))))


def test_frozen_layers_and_replayed_branches_are_the_same_on_all_ranks(team):
    comm, folder, trainer = team
    frames = [labelled_atoms(record.frame, record.label) for record in make_records(6, 8)]
    if comm.rank == 0:
        write(folder / "a.xyz", frames, format="extxyz", parallel=False)
    comm.Barrier()
    train = {"replay": {"a": {"data": [folder / "a.xyz"]}}, "freeze": ["descriptor", "fitting_net.layers.0"]}
    keeping = DeepmdTrainer(trainer.model, TrainSection.model_validate({**train, "best": False}), comm)
    parent = keeping.import_parent(folder / "parent5").checkpoint
    result = keeping.train(make_task(folder / "frozen", parent))
    before, after = read(parent), read(result.checkpoint)
    moved = {key for key in before if key != "_extra_state" and not (before[key] == after[key]).all()}
    assert {key.split(".layers.")[1][0] for key in moved if ".layers." in key} == {"1", "2"}
    assert not [key for key in moved if ".descriptor." in key]
    one, two = (read_branches(path)["a"] for path in (parent, result.checkpoint))
    assert not any((one[key] == two[key]).all() for key in one if ".filter_layers." in key)


OWN = {
    "use_pretrain_script": False,
    "deepmd": {"model": {"descriptor": {**DESCRIPTORS["dpa1"], "rcut": 4.0}, "fitting_net": {"neuron": [8, 8]}}},
}
OWN["deepmd"]["model"]["fitting_net"]["precision"] = "float64"
BRANCHES = {  # of deepmd's ways to begin a fine-tuning: the kind of parent, [model], [train]
    "new elements": ("dpa1", {"type_map": ["Ge", "Si"]}, {}),
    "more elements": ("dpa1", {"type_map": ["Si", "C", "Ge"]}, {}),
    "fewer elements": ("dpa1", {"type_map": ["Si"]}, {}),
    "random head": ("dpa1", {"branch": "RANDOM"}, {}),
    "own model section": ("dpa1", {}, OWN),
    "elements, replayed": ("dpa1", {"type_map": ["Si", "C", "Ge"]}, {"replay": ["a"]}),
    "two stages": ("dpa1", {}, {"stages": ["direct", "conservative"], "direct_share": 0.5}),
    "adapters": ("dpa4", {}, {"type": "dpa4", "lora": {"rank": 1}}),
    "all of a DPA-4": ("dpa4", {}, {"type": "dpa4"}),
}


@pytest.fixture(scope="module")
def parents(team):
    """Two branches of each kind that the modes begin with."""
    comm, folder, _ = team
    kinds = ("dpa1", "dpa4")
    if comm.rank == 0:
        for kind in kinds:
            tiny_checkpoint(folder / kind, branches=("a", "b"), descriptor=kind)
        write(folder / "si.xyz", [labelled_atoms(r.frame, r.label) for r in make_records(3, 6)], parallel=False)
    comm.Barrier()
    return {kind: folder / kind / "tiny.pt" for kind in kinds}


@pytest.mark.parametrize("name", BRANCHES)
def test_every_way_of_fine_tuning_runs_on_all_ranks(team, parents, name):
    """At a learning rate of nothing: the weights are those of all ranks, the energies of the frames of all are met."""
    comm, folder, _ = team
    if comm.size < 4:
        pytest.skip("once, on four ranks; tests/engines/test_modes.py is for one")
    kind, model, train = BRANCHES[name]
    if "replay" in train:
        train = {**train, "replay": {"a": {"data": [folder / "si.xyz"]}}}
    given = ModelSection.model_validate({"checkpoint": parents[kind], "branch": "b", **model})
    rates = {"batch_size": 2, "best": False, "start_lr": 1e-9, "stop_lr": 1e-10}
    trainer = WatchedTrainer(given, TrainSection.model_validate({**rates, **train}), comm)
    known = given.type_map or ["Si", "C"]
    new = make_records(6, 1, known[0] * 2 if len(known) == 1 else f"{known[-1]}{known[0]}")
    directory = folder / name.replace(" ", "-")
    parent = trainer.import_parent(directory / "parent").checkpoint
    first = trainer.train(make_task(directory / "first", parent, new=new, validation=(), steps=2))
    assert len(set(comm.allgather(trainer.digest))) == 1
    assert list(read(first.checkpoint)["_extra_state"]["model_params"]["type_map"]) == known
    predicted = trainer.predict(first.checkpoint, [record.frame for record in new])
    off = np.mean([label.energy - record.label.energy for label, record in zip(predicted, new, strict=True)])
    assert given.branch == "RANDOM" or abs(off) < 1e-5  # a random net is not aligned: its bias is that of the labels
    later = dict(first=False, old=new[:2], new=new[:2], validation=(), steps=2)
    trainer.train(make_task(directory / "later", first.checkpoint, **later))
    assert len(set(comm.allgather(trainer.digest))) == 1
