"""Fine-tuning with deepmd in process: what a run relies on, with a tiny model and made-up labels."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import write

from pfdhpc import messages as m
from pfdhpc.config import parse
from pfdhpc.config.train import ModelSection, TrainSection
from pfdhpc.data import Frame, Label, Labelling, Record
from pfdhpc.engines.base import TrainTask
from pfdhpc.engines.train.deepmd.checkpoint import read
from pfdhpc.engines.train.deepmd.monitor import Checkpoint, Monitor
from pfdhpc.engines.train.deepmd.train_input import LOSS, check_deepmd_input
from pfdhpc.engines.train.deepmd.trainer import DeepmdTrainer
from pfdhpc.errors import InputError, TaskError
from pfdhpc.roles.trainer import TrainerProgram
from pfdhpc.start.input_checks import model_facts
from pfdhpc.store.run_directory import RunFolder
from pfdhpc.workflow.apply import apply
from pfdhpc.workflow.state import EVALUATE, RoundRecord, RunState
from tests.models import tiny_checkpoint

BIAS = "model.Default.atomic_model.out_bias"


def make_records(n, seed, atoms=None, virial=True):
    """Rattled crystals with random labels: enough to see what a training did with them."""
    rng = np.random.default_rng(seed)
    records = []
    for _ in range(n):
        copy = (atoms or bulk("SiC", "zincblende", a=4.36, cubic=True)).copy()
        copy.rattle(0.05, rng=rng)
        forces = rng.normal(size=(len(copy), 3))
        tensor = rng.normal(size=(3, 3)) if virial else None
        label = Label(-7.0 * len(copy) + rng.normal(0, 0.1), forces, tensor)
        records.append(Record(Frame.from_atoms(copy), label=label))
    return tuple(sorted(records, key=lambda record: record.frame_id))


OLD = make_records(3, 1) + make_records(2, 2, bulk("Si", cubic=True))
NEW = make_records(3, 3) + make_records(1, 4, virial=False)
VALIDATION = make_records(3, 5)


def make_trainer(checkpoint, branch=None, **train):
    model = ModelSection.model_validate({"checkpoint": checkpoint, "branch": branch})
    return DeepmdTrainer(model, TrainSection.model_validate({"batch_size": 2, **train}), None)


def later_round(parent, directory, **changes):
    values = dict(round=1, parent=parent, first=False, old=OLD, new=NEW, validation=VALIDATION)
    values |= dict(steps=12, seed=5)
    return TrainTask(**{**values, "directory": Path(directory), **changes})


def weights(checkpoint):
    return {key: value for key, value in read(checkpoint).items() if key != "_extra_state"}


def same_weights(first, second, atol=0.0):
    a, b = weights(first), weights(second)
    return a.keys() == b.keys() and all(np.allclose(a[k], b[k], rtol=0, atol=atol) for k in a)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("pretrained"), branches=("a", "b"))


@pytest.fixture(scope="module")
def trainer(pretrained):
    return make_trainer(pretrained, "b")


@pytest.fixture(scope="module")
def parent(trainer, tmp_path_factory):
    return trainer.import_parent(tmp_path_factory.mktemp("parent"))


@pytest.fixture(scope="module")
def first(trainer, parent, tmp_path_factory):
    """The first round, in an empty working directory: result, files left there, forks seen."""
    folder, forks, before = tmp_path_factory.mktemp("cwd"), [], Path.cwd()
    os.register_at_fork(before=lambda: forks.append(1))
    task = later_round(parent.checkpoint, tmp_path_factory.mktemp("first"), first=True, old=(), new=OLD)
    os.chdir(folder)
    try:
        return trainer.train(task), list(folder.iterdir()), Path.cwd() == folder and not forks
    finally:
        os.chdir(before)


def test_what_is_no_checkpoint_is_refused(tmp_path):
    import torch

    (tmp_path / "text.pt").write_text("not a model")
    torch.save({"weights": torch.zeros(3)}, tmp_path / "other.pt")
    for name in ("text.pt", "other.pt", "absent.pt"):
        with pytest.raises(InputError, match=name) as caught:
            read(tmp_path / name)
        assert len(caught.value.problems) == 1 and "\n" not in str(caught.value)


def test_branch_must_fit_the_checkpoint(pretrained, parent, tmp_path):
    for checkpoint, branch, words in (
        (pretrained, None, 'multi-task.*"a" or "b"'),
        (pretrained, "c", 'no "c".*"a" or "b"'),
        (parent.checkpoint, "a", "single-task"),
    ):
        with pytest.raises(InputError, match=words):
            make_trainer(checkpoint, branch).import_parent(tmp_path)


def test_imported_parent_is_the_branch(pretrained, parent, trainer):
    from deepmd.infer import DeepPot

    frames = [record.frame for record in VALIDATION]
    for frame, label in zip(frames, trainer.predict(parent.checkpoint, frames), strict=True):
        types = [0 if z == 14 else 1 for z in frame.numbers]
        place = frame.positions.reshape(1, -1), frame.cell.reshape(1, 9), types
        for model in (DeepPot(str(pretrained), head="b"), DeepPot(str(parent.frozen))):
            energy, force, virial = model.eval(*place)[:3]
            assert label.energy == pytest.approx(energy.item(), abs=1e-8)
            assert np.allclose(label.forces, force[0], atol=1e-8)
            assert np.allclose(label.virial.ravel(), virial[0], atol=1e-8)


def test_first_round_leaves_its_models_and_nothing_else(first):
    result, stray, undisturbed = first
    assert result.checkpoint.is_file() and result.frozen.suffix == ".pth" and result.frozen.is_file()
    assert {path.name for path in result.checkpoint.parent.iterdir()} == {
        *("last.pt", "last.pth", "lcurve.out", "train.log", "data")
    }
    assert not stray and undisturbed
    assert 0 < result.step_seconds < result.seconds
    steps = [row["step"] for row in result.curve]
    assert steps == sorted(set(steps)) and steps[0] == 0 and steps[-1] == 12
    assert all(row["rmse_f_val"] > 0 for row in result.curve) and result.best_step == 12


def test_first_round_keeps_the_closest_pair_for_compression(first):
    distances = [record.frame.to_atoms().get_all_distances(mic=True) for record in OLD]
    closest = np.min([table[~np.eye(8, dtype=bool)].min() for table in distances])
    kept = weights(first[0].checkpoint)["model.Default.min_nbor_dist"].item()
    assert kept == pytest.approx(closest, abs=1e-6)


def aligned(trainer, parent, records, directory):
    """A first round of no steps."""
    task = later_round(parent.checkpoint, directory, round=0, first=True, old=(), new=records, steps=0)
    return trainer.train(task)


def test_bias_is_aligned_with_the_smallest_shift(trainer, parent, tmp_path):
    compound = make_records(4, 6)
    result = aligned(trainer, parent, compound, tmp_path)
    shift = (weights(result.checkpoint)[BIAS] - weights(parent.checkpoint)[BIAS]).numpy().ravel()
    assert shift[0] == pytest.approx(shift[1])  # at 1:1 nothing tells Si from C: they share it
    predicted = trainer.predict(result.checkpoint, [record.frame for record in compound])
    errors = [p.energy - r.label.energy for r, p in zip(compound, predicted, strict=True)]
    assert np.mean(errors) == pytest.approx(0, abs=1e-6)
    rest = {key: value for key, value in weights(result.checkpoint).items() if key != BIAS}
    assert all((weights(parent.checkpoint)[key] == value).all() for key, value in rest.items())


def test_absent_elements_keep_their_bias(trainer, parent, tmp_path):
    result = aligned(trainer, parent, make_records(2, 7, bulk("Si", cubic=True)), tmp_path)
    shift = (weights(result.checkpoint)[BIAS] - weights(parent.checkpoint)[BIAS]).numpy().ravel()
    assert abs(shift[0]) > 0.1 and shift[1] == pytest.approx(0, abs=1e-10)


def test_later_no_steps_change_nothing(trainer, first, tmp_path):
    later = trainer.train(later_round(first[0].checkpoint, tmp_path / "later", steps=0))
    assert same_weights(later.checkpoint, first[0].checkpoint)


def test_without_labels_there_is_nothing_to_align_to(trainer, parent, tmp_path):
    with pytest.raises(TaskError, match="no labelled frame"):
        aligned(trainer, parent, (), tmp_path)


def predicted_by(trainer, checkpoint, records):
    labels = trainer.predict(checkpoint, [record.frame for record in records])
    return tuple(replace(record, label=label) for record, label in zip(records, labels, strict=True))


def test_best_is_believed_with_enough_validation_frames_only(trainer, first, tmp_path):
    """Where the start is right and the training data are noise, training can only make it worse."""
    right = predicted_by(trainer, first[0].checkpoint, make_records(10, 11))
    result = trainer.train(later_round(first[0].checkpoint, tmp_path / "10", validation=right))
    assert result.best_step == 0 and result.checkpoint.name == "best.pt"
    again = predicted_by(trainer, result.checkpoint, right)
    assert all(np.array_equal(new.label.forces, old.label.forces) for new, old in zip(again, right, strict=True))
    few = trainer.train(later_round(first[0].checkpoint, tmp_path / "9", validation=right[:9]))
    assert few.best_step == 12 and few.checkpoint.name == "last.pt"


def test_best_must_be_better_than_noise():
    rng = np.random.default_rng(1)
    monitor = Monitor(SimpleNamespace(rank=0), make_records(20, 12), 100)
    hard = rng.uniform(1, 2, 20)  # how hard a frame is, for every checkpoint
    monitor.last_scores = hard + rng.normal(0, 0.01, 20)
    for gain, wins in ((0.0, False), (0.1, True)):
        monitor.best = Checkpoint(60, {}, hard - gain + rng.normal(0, 0.01, 20))
        assert (monitor.better_than_last() is monitor.best) is wins


def test_later_round_depends_on_its_task_alone(trainer, first, tmp_path):
    """Twice here, another training between and frames in another order; in a new process: the same bytes."""
    one = trainer.train(later_round(first[0].checkpoint, tmp_path / "1"))
    trainer.train(later_round(first[0].checkpoint, tmp_path / "x", seed=99, steps=3))
    two = trainer.train(later_round(first[0].checkpoint, tmp_path / "2", old=OLD[::-1], new=NEW[::-1]))
    code = (
        "import sys; sys.path.insert(0, sys.argv[3]); from pathlib import Path\n"
        "from tests.engines.test_trainer import *\n"
        "print(make_trainer(sys.argv[1]).train(later_round(Path(sys.argv[1]), sys.argv[2])).checkpoint)"
    )
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", code, first[0].checkpoint, tmp_path / "3", root]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    three = Path(done.stdout.strip())  # a training prints nothing itself
    assert one.checkpoint.read_bytes() == two.checkpoint.read_bytes() == three.read_bytes()
    assert one.frozen.read_bytes() == two.frozen.read_bytes()
    assert (weights(one.checkpoint)[BIAS] == weights(first[0].checkpoint)[BIAS]).all()
    assert not same_weights(one.checkpoint, first[0].checkpoint)
    assert one.seconds > one.step_seconds > 0


@pytest.mark.parametrize("new_fraction", [0.0, 1.0])
def test_new_fraction_decides_what_is_drawn(pretrained, first, tmp_path, new_fraction):
    """At the ends of its range the labels of the frames that are never drawn change nothing."""
    trainer = make_trainer(pretrained, "b", new_fraction=new_fraction, best=False)
    task = later_round(first[0].checkpoint, tmp_path / "1", steps=4)
    unused = "old" if new_fraction else "new"
    shifted = [replace(r, label=replace(r.label, energy=r.label.energy + 9)) for r in getattr(task, unused)]
    other = replace(task, directory=tmp_path / "2", **{unused: tuple(shifted)})
    assert same_weights(trainer.train(task).checkpoint, trainer.train(other).checkpoint)


def test_parts_can_be_frozen_and_molecules_trained(pretrained, first, tmp_path):
    user = {"model": {"descriptor": {"trainable": False}}, "loss": {"type": "ener", "start_pref_f": 10}}
    trainer = make_trainer(pretrained, "b", deepmd=user)
    molecules = make_records(2, 8, Atoms("SiC", [[0, 0, 0], [0, 0, 1.8]]), virial=False)
    result = trainer.train(later_round(first[0].checkpoint, tmp_path, new=molecules, validation=()))
    before, after = weights(first[0].checkpoint), weights(result.checkpoint)
    changed = {key for key in after if not (before[key] == after[key]).all()}
    assert changed and not any(".descriptor." in key for key in changed)
    assert result.checkpoint.name == "last.pt" and result.best_step == 12


def test_a_diverging_training_is_a_failed_task(pretrained, first, tmp_path):
    user = {"training": {"gradient_max_norm": 0.0}}
    trainer = make_trainer(pretrained, "b", start_lr=1e300, stop_lr=1e299, deepmd=user)
    with pytest.raises(TaskError, match="diverged"):
        trainer.train(later_round(first[0].checkpoint, tmp_path))


def test_an_unknown_element_is_a_failed_task(trainer, first, tmp_path):
    iron = make_records(1, 9, bulk("Fe", cubic=True))
    with pytest.raises(TaskError, match="Fe"):
        trainer.train(later_round(first[0].checkpoint, tmp_path, new=iron))


def test_predictions_do_not_depend_on_the_batch(trainer, first):
    frames = [record.frame for record in OLD + NEW] + [make_records(1, 10, bulk("Si"))[0].frame]
    together = trainer.predict(first[0].checkpoint, frames)
    for frame, label in zip(frames, together, strict=True):
        alone = trainer.predict(first[0].checkpoint, [frame])[0]
        assert alone.energy == pytest.approx(label.energy, abs=1e-5)
        assert np.allclose(alone.forces, label.forces, atol=1e-5)
        assert np.allclose(alone.virial, label.virial, atol=1e-5)


def altered(checkpoint, folder, change):
    """The checkpoint with its parameters changed, as one from another deepmd would have them."""
    import torch

    content = torch.load(checkpoint, weights_only=True)
    change(content["model"]["_extra_state"]["model_params"])
    torch.save(content, folder / "other.pt")
    return folder / "other.pt"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"type": "dpa9"}, "cannot be built by deepmd-kit"),
        ({"neuron": [5, 7]}, "cannot be built by deepmd-kit"),
    ],
)
def test_a_model_that_cannot_be_used_is_found_beforehand(parent, tmp_path, change, words):
    other = altered(parent.checkpoint, tmp_path, lambda params: params["descriptor"].update(change))
    problems, type_map = model_facts(ModelSection.model_validate({"checkpoint": other}))
    assert len(problems) == 1 and re.match(f"model.checkpoint: .*{words}", problems[0]) and type_map == ()
    assert "\n" not in problems[0]


def test_a_usable_model_tells_its_elements(pretrained):
    assert model_facts(ModelSection.model_validate({"checkpoint": pretrained, "branch": "b"})) == ([], ("Si", "C"))


@pytest.fixture(scope="module")
def program(pretrained, tmp_path_factory):
    """The trainer team of one rank in a run directory, its parent imported: program, folder, parent."""
    base = tmp_path_factory.mktemp("program")
    write(base / "sic.vasp", bulk("SiC", "zincblende", a=4.36))
    values = {
        "workflow": "finetune",
        "model": {"checkpoint": str(pretrained), "branch": "b"},
        "system": [{"name": "SiC", "structures": ["sic.vasp"]}],
        "explore": {},
        "label": {"type": "ase", "options": {"calculator": "ase.calculators.emt.EMT"}},
        "train": {"batch_size": 2},
    }
    folder = RunFolder(base / "run")
    program = TrainerProgram(parse(values, base), folder, None)
    return program, folder, program.handle(m.ImportParent("import")).model


def train_order(parent, **changes):
    records = tuple(replace(record, labelling=Labelling("pbe", "ase")) for record in OLD)
    ids = tuple(record.label_id for record in records)
    values = dict(order_id="train/0", round=0, version=1, parent=parent, first=True, old_ids=(), new_ids=ids)
    values |= dict(validation_ids=(), steps=4, seed=5, records=records)
    return m.Train(**values | changes)


def test_only_logs_stay_of_what_a_team_wrote(program):
    team, folder, parent = program
    trained = team.handle(train_order(parent))
    order = train_order(parent)
    evaluated = team.handle(
        m.Evaluate("evaluate/1", parent, trained.model, order.new_ids, order.new_ids[:1], records=order.records)
    )
    assert len(evaluated.parent) == len(evaluated.final) == 1
    left = {str(path.relative_to(folder.directory / "scratch")) for path in folder.directory.glob("scratch/*/*")}
    assert left == {"import/train.log", "train-000/train.log", "train-000/lcurve.out"}
    assert folder.checkpoint(trained.model.digest).is_file() and folder.frozen(trained.model.digest).is_file()


def test_leftovers_of_a_killed_attempt_change_nothing(program):
    team, folder, parent = program
    undisturbed = team.handle(train_order(parent))
    scratch = folder.scratch("train-000")
    (scratch / "data" / "new" / "Si8-virial" / "set.000").mkdir(parents=True)
    (scratch / "data" / "new" / "Si8-virial" / "type.raw").write_text("junk")
    for name in ("model.ckpt-2.pt", "checkpoint", "last.pt", "lcurve.out", "train-1.log"):
        (scratch / name).write_text("half written")
    again = team.handle(train_order(parent))
    assert again.model.digest == undisturbed.model.digest and again.curve == undisturbed.curve
    assert {path.name for path in scratch.iterdir()} == {"train.log", "lcurve.out"}


def test_the_parent_is_compared_as_it_would_be_with_its_bias_aligned(program, trainer, tmp_path):
    team, folder, parent = program
    order = train_order(parent)
    ids, records = order.new_ids, {record.label_id: record for record in order.records}
    asked = m.Evaluate("evaluate/0/0", parent, parent, ids[:3], ids[3:], records=order.records)
    state = RunState(
        phase=EVALUATE, models=(parent,), train_ids=ids[:3], test_ids=ids[3:], history=(RoundRecord(0),),
    ).issued(asked, "trainer-0")  # fmt: skip
    state = apply(team._config, state, team.handle(asked), lambda keys: [records[key] for key in keys])
    task = later_round(folder.checkpoint(parent.digest), tmp_path, first=True, old=(), steps=0)
    result = trainer.train(replace(task, new=tuple(records[key] for key in ids[:3])))
    expected = trainer.predict(result.checkpoint, [records[key].frame for key in ids[3:]])
    assert len(ids[3:]) == len(state.job.evaluated.parent) > 0
    for found, label in zip(state.job.evaluated.parent, expected, strict=True):
        assert found.energy == pytest.approx(label.energy, abs=1e-6)
        assert np.allclose(found.forces, label.forces, rtol=0, atol=1e-9)


def test_models_can_be_compared_without_any_training_frame(program):
    team, _, parent = program
    order = train_order(parent)
    evaluated = team.handle(m.Evaluate("evaluate/2", parent, parent, (), order.new_ids[:2], records=order.records))
    for before, after in zip(evaluated.parent, evaluated.final, strict=True):
        assert before.energy == after.energy


@pytest.mark.parametrize(
    ("deepmd", "words"),
    [
        ({}, None),
        ({"loss": {"type": "ener", "start_pref_e": 1}, "_comment": "fine"}, None),
        ({"learning_rate": {"type": "cosine", "start_lr": 1e-4, "stop_lr": 1e-6}}, None),
        ({"training": {"numb_steps": 10}}, "training.numb_steps.*train.steps"),
        ({"training": {"training_data": {"systems": []}}}, "training_data.*set by the run"),
        ({"training": {"seed": 1}}, "training.seed"),
        ({"training": {"gradient_max_nrm": 1}}, "gradient_max_nrm"),
        ({"loss": {"type": "ener", "start_prefe": 1}}, "start_prefe"),
        ({"loss": {"type": "dos"}}, "loss.type"),
        ({"model": {"descriptor": {"type": "dpa3"}}}, "comes from the checkpoint"),
        ({"validating": {}}, "train.deepmd.validating: not used"),
        ({"loss": 3}, "train.deepmd.loss: must be a table"),
    ],
)
def test_the_deepmd_input_is_checked(deepmd, words, tmp_path):
    (tmp_path / "input.json").write_text(json.dumps(deepmd))
    for given in (deepmd, tmp_path / "input.json"):
        problems = check_deepmd_input(TrainSection.model_validate({"deepmd": given}))
        if words is None:
            assert problems == []
        else:
            with pytest.raises(AssertionError if not problems else InputError, match=words):
                raise InputError(problems)


def test_a_learning_rate_given_twice_is_refused(tmp_path):
    section = TrainSection.model_validate({"start_lr": 1e-3, "deepmd": {"learning_rate": {"start_lr": 1e-4}}})
    assert "remove one" in check_deepmd_input(section)[0]
    (tmp_path / "input.json").write_text("{")
    section = TrainSection.model_validate({"deepmd": tmp_path / "input.json"})
    assert "input.json" in check_deepmd_input(section)[0]


def dp_train(checkpoint, branch, ours, batch_size):
    """Start the fine-tuning of ``ours`` by deepmd's own program, in a folder beside; returns the process."""
    systems = sorted(str(path.parent) for path in ours.rglob("type.raw"))
    training = {
        "training_data": {"systems": systems, "batch_size": batch_size},
        **{"numb_steps": 12, "seed": 5, "save_freq": 100, "disp_freq": 1, "gradient_max_norm": 5.0},
    }
    rates = {"type": "exp", "start_lr": 1e-3, "stop_lr": 1e-5, "decay_steps": 1}
    model = {"type_map": ["Si", "C"], "data_stat_nbatch": 1000, "descriptor": {}, "fitting_net": {}}
    folder = ours.with_name(ours.name + "-dp")
    folder.mkdir()
    content = {"model": model, "learning_rate": rates, "loss": LOSS, "training": training}
    (folder / "input.json").write_text(json.dumps(content))
    command = [Path(sys.executable).with_name("dp"), "--pt", "train", "input.json", "--finetune", checkpoint]
    command += ["--use-pretrain-script", *(["--model-branch", branch] if branch else [])]
    with open(folder / "out", "w") as out:
        environment = {**os.environ, "NUM_WORKERS": "0"}
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=subprocess.STDOUT)


def test_weights_equal_those_of_dp_train(pretrained, parent, tmp_path):
    """`dp --pt train --finetune` gives the same weights, from a single-task model and from a branch.

    Building the multi-task model draws random numbers, so from a branch `dp` shuffles the frames otherwise;
    there every batch holds all frames.
    """
    runs = {}
    cases = ("single", parent.checkpoint, None, 2, OLD), ("branch", pretrained, "b", 8, make_records(3, 1))
    for name, checkpoint, branch, batch_size, records in cases:
        trainer = make_trainer(pretrained, "b", best=False, batch_size=batch_size)
        task = later_round(parent.checkpoint, tmp_path / name, first=True, old=(), new=records)
        ours = trainer.train(task).checkpoint
        runs[ours] = dp_train(checkpoint, branch, tmp_path / name, batch_size)
    for ours, process in runs.items():
        folder = ours.parent.with_name(ours.parent.name + "-dp")
        assert process.wait() == 0, (folder / "out").read_text()[-2000:]
        assert same_weights(ours, folder / "model.ckpt-12.pt", atol=1e-8)


def test_frames_are_read_without_threads(tmp_path, monkeypatch):
    """Python 3.11 fails now and then where two of them parse the headers of arrays."""
    import threading

    from deepmd.pt.utils.dataset import DeepmdDataSetForLoader
    from deepmd.utils.data import DataRequirementItem

    from pfdhpc.engines.train.deepmd.dataset import write_systems
    from pfdhpc.engines.train.deepmd.mpi_ddp import fit_for_mpi

    records = make_records(3, 1)
    (folder,) = write_systems(records, ["Si", "C"], tmp_path / "data")
    with fit_for_mpi():
        data = DeepmdDataSetForLoader(system=str(folder), type_map=["Si", "C"])
        data.add_data_requirement([DataRequirementItem("energy", 1), DataRequirementItem("force", 3, atomic=True)])
        monkeypatch.setattr(threading.Thread, "start", lambda thread: pytest.fail("a thread is started"))
        found = [float(data[index]["energy"][0]) for index in range(3)]
    ordered = sorted(records, key=lambda record: record.frame_id)
    assert found == pytest.approx([record.label.energy for record in ordered])
