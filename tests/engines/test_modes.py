"""Every way of fine-tuning deepmd has, held to `dp train` and to what a user would notice of it."""

import json
from dataclasses import replace

import numpy as np
import pytest
from ase.build import bulk
from ase.io import write

from pfdhpc.config import parse
from pfdhpc.config.train import ModelSection, TrainSection
from pfdhpc.data import Frame, Label, Record
from pfdhpc.data.io import labelled_atoms
from pfdhpc.engines.base import TrainTask
from pfdhpc.engines.deepmd_inference import Predictor
from pfdhpc.engines.train.deepmd.checkpoint import read, read_branches
from pfdhpc.engines.train.deepmd.evaluate import errors, evaluate
from pfdhpc.engines.train.deepmd.pretrained_model import check_training, open_parent
from pfdhpc.engines.train.deepmd.replay import read_replay, whole
from pfdhpc.engines.train.deepmd.runtime import build_model, freeze
from pfdhpc.engines.train.deepmd.train_input import LOSS, check_deepmd_input
from pfdhpc.engines.train.deepmd.trainer import DeepmdTrainer
from pfdhpc.errors import InputError
from pfdhpc.start.input_checks import model_facts
from tests import dp_runs
from tests.engines.test_student import ELEMENTS, labelled, round_of, tiny
from tests.models import tiny_checkpoint

BIAS = "model.Default.atomic_model.out_bias"
LABELS = ("energy", "forces", "virial")
HEAD = {"neuron": [8, 8], "precision": "float64"}


def make_records(n, seed, symbols="SiC", shift=0.0):
    """Rattled two-atom crystals with random labels, all of one composition."""
    rng, records = np.random.default_rng(seed), []
    for _ in range(n):
        atoms = bulk(symbols, "zincblende", a=4.36)
        atoms.rattle(0.1, rng=rng)
        label = Label(-14.0 + shift + rng.normal(0, 0.1), rng.normal(size=(2, 3)), rng.normal(size=(3, 3)))
        records.append(Record(Frame.from_atoms(atoms), label=label))
    return tuple(sorted(records, key=lambda record: record.frame_id))


def write_xyz(path, records):
    write(path, [labelled_atoms(r.frame, r.label) for r in records], format="extxyz", parallel=False)


DATA = make_records(3, 1)
OTHER = make_records(4, 2)  # what branch a was trained on


def make_trainer(checkpoint, branch=None, type_map=None, **train):
    model = ModelSection.model_validate({"checkpoint": checkpoint, "branch": branch, "type_map": type_map})
    return DeepmdTrainer(model, TrainSection.model_validate({"batch_size": 8, "best": False, **train}), None)


def first_round(trainer, folder, **changes):
    parent = trainer.import_parent(folder / "parent").checkpoint
    values = dict(round=0, parent=parent, first=True, old=(), new=DATA, validation=(), steps=12, seed=5)
    return trainer.train(TrainTask(**{**values, "directory": folder / "ours", **changes}))


def weights(checkpoint):
    return {key: value for key, value in read(checkpoint).items() if key != "_extra_state"}


def changed(before, after):
    one, two = weights(before), weights(after)
    return {key.removeprefix("model.Default.atomic_model.") for key in one if not (one[key] == two[key]).all()}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tmp_path_factory.mktemp("modes")


@pytest.fixture(scope="module")
def pretrained(base):
    """A DPA-1 with two branches, and the data of the first."""
    write_xyz(base / "a.xyz", OTHER)
    return tiny_checkpoint(base / "two", branches=("a", "b"), descriptor="dpa1")


@pytest.fixture(scope="module")
def single(base):
    return tiny_checkpoint(base / "single", ("Si", "C", "O"), descriptor="dpa1")


@pytest.fixture(scope="module")
def frozen(base, single):
    return freeze(single, base / "given.pth")


def dp_input(model, systems, **training):
    rates = {"type": "exp", "start_lr": 1e-3, "stop_lr": 1e-5, "decay_steps": 1}
    own = {"numb_steps": 12, "seed": 5, "save_freq": 100, "disp_freq": 1, "gradient_max_norm": 5.0}
    if "model_dict" not in model:
        data = {"training_data": {"systems": systems, "batch_size": 8}}
        return {"model": model, "learning_rate": rates, "loss": LOSS, "training": {**own, **data}}
    return {"model": model, "learning_rate": rates, "training": {**own, **training}}


def systems_of(folder, *parts):
    return sorted(str(path.parent) for path in folder.joinpath("ours", "data", *parts).rglob("type.raw"))


@pytest.fixture(scope="module")
def modes(base, pretrained, single, frozen):
    """Each mode trained here, and by deepmd's program: ``{name: (our checkpoint, its checkpoint)}``."""
    descriptor = {**read(single)["_extra_state"]["model_params"]["descriptor"], "rcut": 4.0}
    own = {"descriptor": descriptor, "fitting_net": {**HEAD, "activation_function": "gelu"}}
    elements = {"type_map": ["Si", "C"]}
    tune = ["--finetune", pretrained, "--use-pretrain-script", "--model-branch"]
    cases = {
        "random": (
            make_trainer(pretrained, "RANDOM", deepmd={"model": {"fitting_net": {"neuron": [6, 6]}}}),
            {**elements, "descriptor": {}, "fitting_net": {"neuron": [6, 6], "seed": 5}},
            [*tune, "RANDOM"],
        ),
        "descriptor frozen": (
            make_trainer(pretrained, "b", freeze=["descriptor"]),
            {**elements, "descriptor": {"trainable": False}, "fitting_net": {}},
            [*tune, "b"],
        ),
        "own model section": (
            make_trainer(single, use_pretrain_script=False, deepmd={"model": own}),
            {"type_map": ["Si", "C", "O"], **own},
            ["--finetune", single],
        ),
        "fewer elements": (
            make_trainer(single, type_map=["C", "Si"]),
            {"type_map": ["C", "Si"], "descriptor": {}, "fitting_net": {}},
            ["--finetune", single, "--use-pretrain-script"],
        ),
        "frozen parent": (
            make_trainer(frozen, bias="none"),
            {"type_map": ["Si", "C", "O"], "descriptor": {}, "fitting_net": {}},
            ["--init-frz-model", frozen, "--use-pretrain-script"],
        ),
        "replay": (
            make_trainer(pretrained, "b", replay={"a": {"data": [base / "a.xyz"], "weight": 0.5}}),
            None,
            ["--finetune", pretrained, "--use-pretrain-script"],
        ),
    }
    found, runs = {}, []
    for name, (trainer, model, flags) in cases.items():
        folder = base / name.replace(" ", "-")
        ours = first_round(trainer, folder)
        content = _multi_input(folder, pretrained) if model is None else dp_input(model, systems_of(folder))
        (folder / "dp").mkdir()
        (folder / "dp" / "input.json").write_text(json.dumps(content))
        runs.append((folder / "dp", ["--pt", "train", "input.json", *flags]))
        found[name] = ours, folder / "dp" / "model.ckpt-12.pt"
    process = dp_runs.start(runs, base)
    assert process.wait() == 0, [(folder / "out").read_text()[-1500:] for folder, _ in runs]
    return found


def _multi_input(folder, pretrained):
    """As the documentation has it: two branches share a descriptor, one begins with the head of branch b."""
    params = read(pretrained)["_extra_state"]["model_params"]["model_dict"]
    part = {"type_map": "elements", "descriptor": "descriptor", "fitting_net": params["b"]["fitting_net"]}
    shared = {"elements": ["Si", "C"], "descriptor": params["b"]["descriptor"]}
    other = {**part, "fitting_net": params["a"]["fitting_net"]}
    model = {"shared_dict": shared, "model_dict": {"downstream": {**part, "finetune_head": "b"}, "a": other}}
    paths = {"downstream": systems_of(folder, "new"), "a": systems_of(folder, "replay")}
    data = {name: {"training_data": {"systems": some, "batch_size": 8}} for name, some in paths.items()}
    content = dp_input(model, [], data_dict=data, model_prob={"downstream": 1.0, "a": 0.5})
    return {**content, "loss_dict": {"downstream": LOSS, "a": LOSS}}


@pytest.mark.parametrize(
    "name", ["random", "descriptor frozen", "own model section", "fewer elements", "frozen parent"]
)
def test_weights_equal_those_of_dp_train(modes, name):
    ours, theirs = weights(modes[name][0].checkpoint), weights(modes[name][1])
    assert ours.keys() == theirs.keys()
    passed_over = "out_std" if name == "frozen parent" else "nothing"  # of no use for energies
    different = [key for key in ours if not np.allclose(ours[key], theirs[key], rtol=0, atol=1e-8)]
    assert [key for key in different if passed_over not in key] == []


def test_replay_equals_multi_task_fine_tuning_by_dp_train(modes):
    result, theirs = modes["replay"][0], weights(modes["replay"][1])
    state, branches = read(result.checkpoint), read_branches(result.checkpoint)
    for name, part in (("downstream", state), ("a", whole("a", state, branches))):
        ours = {key.replace("Default", name): value for key, value in part.items() if key != "_extra_state"}
        assert ours.keys() == {key for key in theirs if key.startswith(f"model.{name}.")}
        assert not [key for key in ours if not np.allclose(ours[key], theirs[key], rtol=0, atol=1e-8)]


def test_replay_keeps_what_fine_tuning_forgets(tmp_path):
    """A model of EMT's CuAl is fine-tuned to forces 1.3 times as strong, of a denser crystal."""
    crystals, denser = labelled(24, 1), labelled(12, 9, a=2.8)
    stronger = tuple(replace(r, label=Label(*(1.3 * getattr(r.label, k) for k in LABELS))) for r in denser)
    nobody = make_trainer(tiny_checkpoint(tmp_path, ELEMENTS), batch_size=2, start_lr=5e-3)
    parent = nobody.train(round_of(tiny("dpa1"), tmp_path / "parent", crystals, steps=400)).checkpoint
    write_xyz(tmp_path / "old.xyz", crystals)
    replay = {"Default": {"data": [tmp_path / "old.xyz"], "weight": 1.0}}
    keeping, plain = make_trainer(parent, batch_size=2, replay=replay), make_trainer(parent, batch_size=2)
    curve = first_round(keeping, tmp_path / "with", steps=400, new=stronger).curve
    before, after = ({key: row[f"{key}_Default"] for key in ("rmse_e", "rmse_f")} for row in (curve[0], curve[-1]))
    result = first_round(plain, tmp_path / "without", steps=400, new=stronger)
    branches = read_branches(keeping.import_parent(tmp_path / "again").checkpoint)
    forgetful = build_model(whole("Default", read(result.checkpoint), branches))
    held = read_replay(keeping.section.replay)["Default"].held_out
    without = errors(held, evaluate(forgetful, [record.frame for record in held]))
    assert before["rmse_f"] < 0.03 and curve[-1]["rmse_f_trn"] < 0.4  # it was learned, and so is what is new
    assert without["rmse_f"] > 3 * before["rmse_f"] and without["rmse_e"] > 10 * before["rmse_e"]
    assert after["rmse_f"] < without["rmse_f"] / 2 and after["rmse_e"] < without["rmse_e"] / 5


def test_the_model_of_a_replay_is_the_materials_alone_and_later_rounds_go_on(modes, pretrained, base, tmp_path):
    """Its file is a single-task checkpoint to deepmd; the frozen one predicts as it; a later round moves both heads."""
    from deepmd.infer import DeepPot

    result = modes["replay"][0]
    trainer = make_trainer(pretrained, "b", replay={"a": {"data": [base / "a.xyz"]}})
    frame = DATA[0].frame
    expected = trainer.predict(result.checkpoint, [frame])[0]
    energy = DeepPot(str(result.checkpoint)).eval(frame.positions.reshape(1, -1), frame.cell.reshape(1, 9), [0, 1])[0]
    assert energy.item() == pytest.approx(expected.energy, abs=1e-8)
    assert Predictor(result.frozen)([frame])[0].energy == pytest.approx(expected.energy, abs=1e-8)
    task = TrainTask(1, result.checkpoint, False, DATA, make_records(2, 6), (), 8, 7, tmp_path)
    later = trainer.train(task)
    before, after = read_branches(result.checkpoint)["a"], read_branches(later.checkpoint)["a"]
    heads = [key for key in before if key.startswith("model.Default.atomic_model.fitting_net.filter")]
    assert heads and not any((before[key] == after[key]).all() for key in heads)
    assert (before[BIAS] == after[BIAS]).all()
    assert (weights(result.checkpoint)[BIAS] == weights(later.checkpoint)[BIAS]).all()
    assert any("fitting_net" in key for key in changed(result.checkpoint, later.checkpoint))


def test_a_single_task_parent_can_be_replayed(single, base, tmp_path):
    trainer = make_trainer(single, replay={"Default": {"data": [base / "a.xyz"]}})
    result = first_round(trainer, tmp_path)
    own, other = read(result.checkpoint), read_branches(result.checkpoint)["Default"]
    assert not (own[BIAS] == other[BIAS]).all() and (other[BIAS] == read(single)[BIAS]).all()
    assert {"rmse_e_Default", "rmse_f_Default"} < set(result.curve[-1])


def test_new_elements_are_learned_with_statistics_of_the_data(single, tmp_path):
    """At a learning rate of nothing: what was known stays, what is new comes from the data."""
    germanium = make_records(4, 7, "SiGe")
    kind = make_trainer(single, type_map=["Ge", "Si"], start_lr=1e-30, stop_lr=1e-31)
    result = first_round(kind, tmp_path, new=germanium)
    state, parent = read(result.checkpoint), read(single)
    assert state["_extra_state"]["model_params"]["type_map"] == ["Ge", "Si"]
    for part in ("mean", "stddev"):
        name = f"model.Default.atomic_model.descriptor.se_atten.{part}"
        assert np.allclose(state[name][1], parent[name][0]) and not np.allclose(state[name][0], parent[name][0])
        assert not np.allclose(state[name][0], part == "stddev")
    predicted = kind.predict(result.checkpoint, [record.frame for record in germanium])
    off = [p.energy - r.label.energy for p, r in zip(predicted, germanium, strict=True)]
    assert np.mean(off) == pytest.approx(0, abs=1e-6)
    later = kind.train(TrainTask(1, result.checkpoint, False, germanium, DATA[:0], (), 2, 7, tmp_path / "later"))
    assert read(later.checkpoint)["_extra_state"]["model_params"]["type_map"] == ["Ge", "Si"]


def test_the_imported_model_has_the_elements_asked_for(single, tmp_path):
    """Before any training: the explorer's file, and what predicts the test frames."""
    plain, other = make_trainer(single), make_trainer(single, type_map=["C", "Ge", "Si"])
    frames = [record.frame for record in DATA]
    expected = plain.predict(plain.import_parent(tmp_path / "1").checkpoint, frames)
    imported = other.import_parent(tmp_path / "2")
    for found in (other.predict(imported.checkpoint, frames), Predictor(imported.frozen)(frames)):
        assert [label.energy for label in found] == pytest.approx([label.energy for label in expected], abs=1e-8)
    assert Predictor(imported.frozen)([make_records(1, 1, "SiGe")[0].frame])
    assert model_facts(other.model) == ([], ("C", "Ge", "Si"))


TWO = {"stages": ["direct", "conservative"], "direct_share": 0.5}


def test_a_direct_step_takes_no_gradient_by_the_positions(single, monkeypatch):
    import torch

    from pfdhpc.engines.train.deepmd.two_stage_loss import TwoStageLoss

    model, record = build_model(read(single)).train(), DATA[0]
    positions, cell = (torch.tensor(item)[None] for item in (record.frame.positions, record.frame.cell.ravel()))
    inputs = {"coord": positions, "atype": torch.tensor([[0, 1]]), "box": cell}
    label = {"energy": torch.tensor([[record.label.energy]]), "force": torch.tensor(record.label.forces)[None]}
    label |= {"find_energy": 1.0, "find_force": 1.0}
    calls, gradient = [], torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *args, **kwargs: calls.append(1) or gradient(*args, **kwargs))
    descriptor = model.get_descriptor()
    shape = descriptor.get_dim_out(), descriptor.get_dim_emb()
    wanted = dict.fromkeys(("start_pref_e", "limit_pref_e", "start_pref_f", "limit_pref_f"), 1.0)
    loss = TwoStageLoss(1, 0.1, shape, 1, starter_learning_rate=1.0, **wanted)
    for n_calls in (0, 1):
        predicted, value, errors = loss(inputs, model, label, 2, 1.0)
        value.backward()
        assert len(calls) == n_calls and (n_calls == 0) == bool(errors["rmse_f"].isnan()) and errors["rmse_d"] > 0
        assert loss.head.inner.grad is not None and any(w.grad is not None for w in descriptor.parameters())
        energy = evaluate(model, [record.frame])[0].energy
        assert predicted["energy"].item() == pytest.approx(energy, abs=1e-9)
        calls.clear()


def test_direct_forces_come_first_and_once(single, tmp_path):
    """Each stage has the whole decay of the learning rate; the head is in no file; a later round has one stage."""
    trainer = make_trainer(single, **TWO)
    result = first_round(trainer, tmp_path, steps=20)
    rows = {row["step"]: row for row in result.curve}
    assert "rmse_f_trn" not in rows[10] and {"rmse_e_trn", "rmse_d_trn"} < set(rows[10])
    assert {"rmse_f_trn", "rmse_d_trn"} < set(rows[11])
    assert rows[1]["lr"] == rows[11]["lr"] == pytest.approx(1e-3) and rows[10]["lr"] == rows[20]["lr"] < 2e-5
    assert weights(result.checkpoint).keys() == weights(single).keys()
    later = trainer.train(TrainTask(1, result.checkpoint, False, DATA, (), (), 4, 5, tmp_path / "later"))
    assert "rmse_f_trn" in later.curve[0] and "rmse_d_trn" not in later.curve[0]


def test_the_direct_stage_teaches_the_descriptor(tmp_path):
    """From scratch: its forces find their labels, and are kept in the conservative stage."""
    nobody = make_trainer(tiny_checkpoint(tmp_path, ELEMENTS), batch_size=2, start_lr=5e-3, **TWO)
    result = nobody.train(round_of(tiny("dpa1"), tmp_path / "student", labelled(12, 1), steps=160))
    rows = {row["step"]: row for row in result.curve}
    assert rows[80]["rmse_d_trn"] < rows[1]["rmse_d_trn"] / 2
    assert rows[160]["rmse_d_trn"] < rows[1]["rmse_d_trn"] / 2 and rows[160]["rmse_f_trn"] < rows[88]["rmse_f_trn"]


@pytest.mark.parametrize(
    ("entries", "moves"),
    [
        (["descriptor", "fitting_net.layers.0-1"], {"2"}),
        (["descriptor", "fitting_net.layers.1"], {"0", "2"}),
        (["fitting_net"], set()),
    ],
)
def test_frozen_layers_stay(single, tmp_path, entries, moves):
    trainer = make_trainer(single, freeze=entries)
    result = first_round(trainer, tmp_path, steps=3)
    moved = {key for key in changed(single, result.checkpoint) if key.endswith(("matrix", "bias", "idt"))}
    layers = {key.split(".layers.")[1][0] for key in moved if key.startswith("fitting_net.")}
    assert layers == moves and any(key.startswith("descriptor.") for key in moved) == ("descriptor" not in entries)


def test_bias_modes_on_shifted_energies(single, tmp_path):
    """The labels lie 50 eV per cell above the model. `change` hits them; `set` forgets what the network says."""
    shifted, frames = make_records(4, 1, shift=50.0), [record.frame for record in DATA]
    model = open_parent(ModelSection.model_validate({"checkpoint": single}))
    means = {}
    for bias in ("change", "set", "none"):
        trainer = make_trainer(single, bias=bias)
        aligned = first_round(trainer, tmp_path / bias, new=shifted, steps=0)
        trained = first_round(trainer, tmp_path / f"{bias}-1", new=shifted, steps=1)
        assert np.allclose(weights(aligned.checkpoint)[BIAS], weights(trained.checkpoint)[BIAS])
        predicted = trainer.predict(aligned.checkpoint, frames)
        means[bias] = np.mean([label.energy for label in predicted])
    given = model[BIAS].ravel()[:2].sum().item()
    network = np.mean([label.energy for label in evaluate(build_model(model), frames)]) - given
    level = np.mean([record.label.energy for record in shifted])
    assert means["change"] == pytest.approx(level, abs=0.5)
    assert means["set"] == pytest.approx(level + network, abs=0.5) and abs(network) > 0.01
    assert means["none"] == pytest.approx(network + given, abs=1e-8)


def test_a_frozen_model_trains_as_the_checkpoint_it_was_made_of(single, frozen, tmp_path):
    one = first_round(make_trainer(single), tmp_path / "pt")
    two = first_round(make_trainer(frozen), tmp_path / "pth")
    one, two = weights(one.checkpoint), weights(two.checkpoint)
    assert one.keys() == two.keys() and all((one[key] == two[key]).all() for key in one)


def test_seeds_make_a_committee(pretrained, tmp_path):
    """Four trainings by one engine, of one round: models that agree where they must and differ elsewhere."""
    trainer = make_trainer(pretrained, "RANDOM")
    members = [first_round(trainer, tmp_path / str(seed), seed=seed, steps=2).checkpoint for seed in (1, 2)]
    again = first_round(trainer, tmp_path / "again", seed=1, steps=2).checkpoint
    assert members[0].read_bytes() == again.read_bytes() != members[1].read_bytes()
    assert any(key.startswith("fitting_net") for key in changed(*members))


def test_a_model_of_another_backend_is_converted(single, tmp_path):
    from deepmd.entrypoints.convert_backend import convert_backend

    convert_backend(INPUT=str(freeze(single, tmp_path / "x.pth")), OUTPUT=str(tmp_path / "x.dp"))
    native, original = make_trainer(tmp_path / "x.dp"), make_trainer(single)
    frames = [record.frame for record in DATA]
    found = native.predict(native.import_parent(tmp_path / "1").checkpoint, frames)
    expected = original.predict(original.import_parent(tmp_path / "2").checkpoint, frames)
    assert [label.energy for label in found] == pytest.approx([label.energy for label in expected], abs=1e-8)


def test_a_conversion_that_hangs_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr("pfdhpc.engines.train.deepmd.checkpoint_formats.PATIENCE", 0.05)
    (tmp_path / "x.dp").write_bytes(b"model")
    problems, _ = model_facts(ModelSection.model_validate({"checkpoint": tmp_path / "x.dp"}))
    assert len(problems) == 1 and "`dp convert-backend x.dp x.pth` was not done in 0.05 s" in problems[0]


def test_a_tensorflow_model_without_tensorflow_is_refused_with_the_remedy(tmp_path):
    (tmp_path / "graph.pb").write_bytes(b"graph")
    problems, _ = model_facts(ModelSection.model_validate({"checkpoint": tmp_path / "graph.pb"}))
    assert len(problems) == 1 and "tensorflow" in problems[0] and "dp convert-backend graph.pb graph.pth" in problems[0]


@pytest.mark.parametrize(
    ("model", "train", "words"),
    [
        ({}, {"freeze": ["embedding"]}, '"embedding": begin with descriptor'),
        ({}, {"freeze": ["descriptor"], "deepmd": {"model": {"descriptor": {"trainable": True}}}}, "remove one"),
        ({}, {"deepmd": {"model": {"fitting_net": {"trainable": [False, True]}}}}, "freezes the whole net.*freeze"),
        ({}, {"deepmd": {"model": {"lora": {"rank": 4}}}}, "use train.lora"),
        ({}, {"deepmd": {"model": {"type_map": ["H"]}}}, "model.type_map"),
        ({}, {"use_pretrain_script": False}, "needs descriptor and fitting_net"),
        ({}, {"deepmd": {"model": {"fitting_net": {"neuron": [4]}}}}, "use_pretrain_script = false"),
        ({"branch": "RANDOM"}, {"deepmd": {"model": {"fitting_net": {"seed": 4}}}}, "use the input's seed"),
        ({"branch": "RANDOM"}, {"deepmd": {"model": {"fitting_net": {"neurons": [4]}}}}, "neurons"),
    ],
)
def test_what_contradicts_itself_is_refused(single, model, train, words):
    section = ModelSection.model_validate({"checkpoint": single, **model})
    with pytest.raises(InputError, match=words):
        raise InputError(check_deepmd_input(TrainSection.model_validate(train), section) or ["nothing"])


@pytest.mark.parametrize(
    ("model", "train", "words"),
    [
        ({"branch": "b"}, {"freeze": ["fitting_net.layers.3"]}, "no such weights.*layers.0-2"),
        ({"branch": "b"}, {"freeze": ["descriptor", "fitting_net"]}, "nothing is left"),
        ({"branch": "RANDOM"}, {"freeze": ["fitting_net"]}, "is random"),
        ({"branch": "b"}, {"replay": {"c": {"data": ["a.xyz"]}}}, 'replay.c: the checkpoint has no "c"'),
        ({"branch": "b"}, {"replay": {"a": {"data": ["no.xyz"]}}}, "replay.a.data: .*no.xyz: no such file"),
        ({"branch": "b", "type_map": ["Si"]}, {"replay": {"a": {"data": ["a.xyz"]}}}, "no type for C"),
        ({"branch": "b", "type_map": ["Si", "C", "Ge"]}, {"first_steps": 0}, "Ge: new to the model"),
        ({"branch": "b"}, {"use_pretrain_script": False, "deepmd": {"model": {}}}, "weights do not fit it"),
    ],
)
def test_what_does_not_fit_the_model_is_refused(pretrained, base, model, train, words):
    if train.get("use_pretrain_script") is False:
        descriptor = read(pretrained)["_extra_state"]["model_params"]["model_dict"]["b"]["descriptor"]
        train = {**train, "deepmd": {"model": {"descriptor": {**descriptor, "neuron": [4, 16]}, "fitting_net": HEAD}}}
    section = ModelSection.model_validate({"checkpoint": pretrained, **model})
    train = TrainSection.model_validate(train, context={"base": base})
    with pytest.raises(InputError, match=words):
        raise InputError(check_training(section, train, True) or ["nothing"])


def test_elements_of_a_model_with_networks_of_its_own_for_each_cannot_change(tmp_path):
    section = ModelSection.model_validate({"checkpoint": tiny_checkpoint(tmp_path), "type_map": ["Si"]})
    problems, type_map = model_facts(section)
    assert len(problems) == 1 and "cannot change the elements of a se_e2_a model" in problems[0] and type_map == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": {"branch": "RANDOM"}, "init": {"frames": 0}}, "model.branch.*must be trained before"),
        ({"train": {"bias": "shift"}}, "train.bias"),
        ({"train": {"replay": {"a": {"data": []}}}}, "train.replay.a.data"),
        ({"train": {"replay": {"a": {"data": ["x"], "weigth": 1}}}}, 'replay.a.weigth: unknown.*"weight"'),
        ({"train": {"replay": {"a": {"data": ["x"]}}, "use_pretrain_script": False}}, "train.*replay"),
        ({"model": {"type_map": ["Si", "Xx"]}}, "model.type_map: .*Xx"),
        ({"train": {"stages": ["direct"]}}, "train.*stages: .*not the gradient of an energy"),
        ({"train": {"direct_share": 0.3}}, "train.*direct_share: there is no direct stage"),
        ({"train": {**TWO, "replay": {"a": {"data": ["x"]}}}}, "train.*replay: not with a stage of direct forces"),
        ({"workflow": "distill", "student": {"preset": "dpa1"}, "train": {"freeze": ["descriptor"]}}, "train.freeze"),
    ],
)
def test_the_input_is_checked(pretrained, tmp_path, change, words):
    write(tmp_path / "sic.vasp", bulk("SiC", "zincblende", a=4.36))
    values = {
        "workflow": "finetune",
        "model": {"checkpoint": str(pretrained), **change.get("model", {})},
        "system": [{"name": "SiC", "structures": ["sic.vasp"]}],
        "explore": {},
        "label": {"type": "ase", "options": {"calculator": "ase.calculators.emt.EMT"}},
        "train": {},
        **{key: value for key, value in change.items() if key != "model"},
    }
    if "student" in change:
        values.pop("label")
    with pytest.raises(InputError, match=words):
        parse(values, tmp_path)


@pytest.mark.parametrize("types", [["C", "Si"], ["Si"]])
def test_replayed_branches_have_the_elements_of_the_material(pretrained, base, tmp_path, types):
    """Reordered or fewer: a round of no steps publishes what predicts as before and trains on."""
    records = OTHER if "C" in types else make_records(4, 3, "SiSi")
    write_xyz(tmp_path / "a.xyz", records)
    trainer = make_trainer(pretrained, "b", types, replay={"a": {"data": [tmp_path / "a.xyz"]}})
    frames = [record.frame for record in records]
    given = trainer.import_parent(tmp_path / "given").checkpoint
    expected = evaluate(build_model(whole("a", read(given), read_branches(given))), frames)
    still = first_round(trainer, tmp_path, new=records, steps=0).checkpoint
    branch = whole("a", read(still), read_branches(still))
    assert branch["_extra_state"]["model_params"]["type_map"] == types
    for one, other in zip(evaluate(build_model(branch), frames), expected, strict=True):
        assert one.energy == pytest.approx(other.energy, abs=1e-8)
    later = trainer.train(TrainTask(1, still, False, records, records[:1], (), 2, 7, tmp_path / "later"))
    assert len(later.curve) and read_branches(later.checkpoint)["a"]


@pytest.mark.parametrize(("steps", "share", "direct"), [(1, 0.9, 0), (3, 0.9, 2), (10, 0.6, 6)])
def test_the_last_step_of_two_stages_is_conservative(single, steps, share, direct):
    from pfdhpc.engines.train.deepmd.two_stage_loss import two_staged

    model = read(single)["_extra_state"]["model_params"]
    config = {"model": model, "loss": {}, "training": {"numb_steps": steps}}
    assert two_staged(config, share, 0.1, 1)["loss"]["direct_steps"] == direct
