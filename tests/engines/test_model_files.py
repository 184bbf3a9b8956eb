"""Models are what they seem: every way into the program opens a file whole, or says in a line what is wrong with it."""

import shutil

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.io import write
from fresh import run_fresh
from models import frozen, tiny_checkpoint

from pfdhpc import messages as m
from pfdhpc import select_frames
from pfdhpc.cli.main import main
from pfdhpc.cli.test import predicted
from pfdhpc.config import parse
from pfdhpc.config.explore import ExploreSection
from pfdhpc.config.label import LabelSection
from pfdhpc.config.train import ModelSection, TrainSection
from pfdhpc.data import Frame, Label, Record
from pfdhpc.data.io import labelled_atoms
from pfdhpc.engines.base import TrainTask
from pfdhpc.engines.calculators import Maker
from pfdhpc.engines.deepmd_inference import Predictor
from pfdhpc.engines.explore.ase import AseExplorer
from pfdhpc.engines.explore.committee import Committee
from pfdhpc.engines.explore.committee_checks import committee_problems
from pfdhpc.engines.explore.lammps import LammpsExplorer
from pfdhpc.engines.models import open_calculator
from pfdhpc.engines.registry import make_labeler
from pfdhpc.engines.train.deepmd.checkpoint import branch_name, read
from pfdhpc.engines.train.deepmd.checkpoint_formats import read_model
from pfdhpc.engines.train.deepmd.trainer import DeepmdTrainer
from pfdhpc.errors import InputError
from pfdhpc.parallel.node import NodeCopies
from pfdhpc.report.novelty import Coverage, save_coverage
from pfdhpc.roles.published_model import near_copy
from pfdhpc.selection.standalone import load_model, standalone_section
from pfdhpc.start.input_checks import problems
from pfdhpc.store.run_directory import RunFolder

INPUT = """workflow = "{workflow}"
[model]
checkpoint = "{model}"
{branch}
[[system]]
name = "SiC"
structures = ["sic.vasp"]
[explore]
committee = [{committee}]
[train]
{rest}
"""
LABEL = '[label]\ntype = "ase"\noptions = { calculator = "ase.calculators.emt.EMT" }'
STUDENT = '[student]\npreset = "se_e2_a"'


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Structures, and a model in every form: one, of two branches, frozen, compressed, with other elements."""
    from deepmd.pt.entrypoints.compress import enable_compression

    folder = tmp_path_factory.mktemp("models")
    write(folder / "sic.vasp", bulk("SiC", "zincblende", a=4.36, cubic=True))
    frames = []
    for seed in range(3):
        atoms = bulk("SiC", "zincblende", a=4.36)
        atoms.rattle(0.05, seed=seed)
        frames.append(labelled_atoms(Frame.from_atoms(atoms), Label(-14.0, np.zeros((2, 3)))))
    write(folder / "data.xyz", frames, format="extxyz", parallel=False)
    single = tiny_checkpoint(folder / "1", descriptor="dpa1").rename(folder / "single.pt")
    content = torch.load(tiny_checkpoint(folder / "2", branches=("MPtrj_A", "B"), descriptor="dpa1"), weights_only=True)
    content["model"]["_extra_state"]["model_params"]["model_dict"]["B"]["model_branch_alias"] = ["Bee"]
    torch.save(content, folder / "multi.pt")
    frozen(single, folder)
    shutil.copy(tiny_checkpoint(folder / "3", ("Si",), descriptor="dpa1"), folder / "other.pt")
    frozen(folder / "other.pt", folder)
    content = torch.load(single, weights_only=True)
    content["model"]["model.Default.min_nbor_dist"] = torch.tensor(1.0, dtype=torch.float64)
    torch.save(content, folder / "measured.pt")
    frozen(folder / "measured.pt", folder)
    (folder / "final").mkdir()
    enable_compression(str(folder / "measured.pth"), str(folder / "final" / "model.pth"))
    shutil.copy(folder / "measured.pt", folder / "final" / "model.pt")
    return folder


def written(base, name, model, workflow="finetune", branch="", committee="", rest=LABEL):
    text = INPUT.format(workflow=workflow, model=model, branch=branch, committee=committee, rest=rest)
    (base / f"{name}.toml").write_text(text + f'[run]\ndirectory = "run-{name}"\n')
    return base / f"{name}.toml"


LABELER = """
from pfdhpc.config.label import LabelSection
from pfdhpc.engines.registry import make_labeler
make_labeler(LabelSection(type="deepmd", options={{"model": "{0}/single.pth"}}), None)"""
EXPLORER = """
from pathlib import Path
from pfdhpc.config.explore import ExploreSection
from pfdhpc.engines.registry import make_explorer
models = [Path("{0}/single.pth"), Path("{0}/final/model.pth")]
make_explorer(ExploreSection(committee=models[1:])).load_models(models, ("Si", "C"))"""
VALIDATE = """
from pathlib import Path
from pfdhpc.engines.models import open_calculator
open_calculator(Path("{0}/final/model.pth"))"""


def test_every_entry_point_opens_models_in_a_process_of_its_own(base):
    """That is: where nothing before it has loaded deepmd and registered its operators."""
    data, select = base / "data.xyz", ["--descriptor", "model", "--max-sel", "1", "-o", base / "picked.xyz"]
    found = run_fresh(
        {
            "parent, frozen": ["check", written(base, "a", "single.pth")],
            "parent, compressed": ["check", written(base, "b", "final/model.pth")],
            "teacher, frozen": ["check", written(base, "c", "single.pth", "distill", rest=STUDENT)],
            "test, branch": ["test", base / "multi.pt", data, "--branch", "BEE"],
            "test, compressed": ["test", base / "final" / "model.pth", data],
            "select, branch": ["select", data, *select, "--model", base / "multi.pt", "--branch", "B"],
            "a labeler": ["-c", LABELER.format(base)],
            "an explorer and its committee": ["-c", EXPLORER.format(base)],
            "validate": ["-c", VALIDATE.format(base)],
        },
        base,
    )
    code, text = found.pop("parent, compressed")
    assert code == 2 and "is compressed" in text and "final/model.pt" in text, text
    assert {code for code, _ in found.values()} == {0}, found
    assert (base / "picked.xyz").is_file()


def test_a_frozen_model_is_the_checkpoint_it_was_made_of(base):
    one, two = read(base / "single.pt"), read_model(base / "single.pth")
    assert one.keys() == two.keys() and all((one[key] == two[key]).all() for key in one if key != "_extra_state")


def changed(base, name, change):
    """single.pt with other weights."""
    content = torch.load(base / "single.pt", weights_only=True)
    change(content["model"])
    torch.save(content, base / name)
    return base / name


def weight(state):
    return next(key for key in state if key.endswith("matrix"))


DOORS = {
    "parent": lambda path: DeepmdTrainer(model(path), TrainSection(), None).import_parent(path.parent / "parent"),
    "test": lambda path: predicted(path, [Record(Frame.from_atoms(bulk("Si")))]),
    "labels": lambda path: make_labeler(LabelSection(type="deepmd", options={"model": str(path)}), None),
    "select": lambda path: load_model(standalone_section({"descriptor": {"type": "model"}}), path),
    "select in Python": lambda path: select_frames([], model=path, descriptor={"type": "model"}),
    "simplify": lambda path: Committee([path]),
    "validate": open_calculator,
    "calculator": lambda path: Maker("k", {"calculator": "deepmd.calculator.DP"})({"model": str(path)}),
    "committee": lambda path: refuse(committee_problems([path], ("Si", "C"), 4.5)),
}


def model(path, **keys):
    return ModelSection.model_validate({"checkpoint": path, **keys})


def refuse(lines):
    if lines:
        raise InputError(lines)


@pytest.mark.parametrize("door", DOORS)
def test_a_checkpoint_that_is_not_whole_is_refused_at_every_door(base, door):
    """deepmd would predict with random weights in the place of those that lack, and log a line."""
    changes = {
        "missing.pt": lambda state: state.pop(weight(state)),
        "beyond.pt": lambda state: state.update({"model.Default.extra.matrix": torch.zeros(2)}),
        "shape.pt": lambda state: state.update({weight(state): torch.zeros(2, 2)}),
    }
    for name in changes if door in ("parent", "test") else ("missing.pt",):
        with pytest.raises(InputError) as caught:
            DOORS[door](changed(base, name, changes[name]))
        (line,) = caught.value.problems
        assert name in line and ".matrix" in line, line


def test_branches_are_named_alike_everywhere(base):
    """By name or alias, in capitals or not; what the file does not have is refused, and a number, too."""
    multi, frame = base / "multi.pt", Frame.from_atoms(bulk("SiC", "zincblende", a=4.36))
    energies = {name: Predictor(multi, name)([frame])[0].energy for name in ("MPtrj_A", "mptrj_a", "B", "BEE")}
    assert energies["MPtrj_A"] == energies["mptrj_a"] != energies["B"] == energies["BEE"]
    doors = {
        "model.branch": lambda path, name: problems(parse(values(base, path, branch=name), base)),
        "label.options.branch": lambda path, name: make_labeler(labeled_by(path, branch=name), None),
        "--branch": lambda path, name: predicted(path, [Record(frame)], name),
        "branch": lambda path, name: load_model(standalone_section({"descriptor": {"type": "model"}}), path, name),
        "k": lambda path, name: Maker("k", {"calculator": "deepmd.calculator.DP"})({"model": str(path), "head": name}),
    }
    for key, door in doors.items():
        for path, name, words in (
            (multi, "Nonsense", 'no "Nonsense"; choose "MPtrj_A" or "B"'),
            (multi, None, "multi-task, choose"),
            (base / "single.pt", "B", "single-task, remove it"),
            (base / "single.pth", "B", "single-task"),
        ):
            with pytest.raises(InputError) as caught:
                refuse(door(path, name) if key == "model.branch" else [door(path, name)][1:])
            (line,) = caught.value.problems
            assert words in line and line.startswith("model.branch" if key == "k" else key), line
    with pytest.raises(InputError, match="1 is no name of a branch"):
        Predictor(multi, 1)
    with pytest.raises(ValueError, match="1 is no name of a branch"):
        labeled_by(multi, branch=1)


def test_the_novelty_by_the_descriptors_of_a_branch(base, capsys):
    frame = Frame.from_atoms(bulk("SiC", "zincblende", a=4.36))
    save_coverage(base / "novelty.npz", Coverage({"type": "model"}, (6, 14), 0.5, (frame,)))
    words = ["test", str(base / "multi.pt"), str(base / "data.xyz"), "--branch", "bee", "--novelty"]
    assert main([*words, "--reference", str(base / "novelty.npz")]) == 0
    assert "novelty against 1 training frames" in capsys.readouterr().out


def test_a_name_that_could_be_two_branches_is_refused(base):
    state = {"_extra_state": {"model_params": {"model_dict": {"pbe": {}, "PBE": {}}}}}
    assert branch_name(state, "pbe") == "pbe" and branch_name(state, "PBE") == "PBE"
    with pytest.raises(InputError, match='no "Pbe"'):
        branch_name(state, "Pbe")


def labeled_by(path, **options):
    given = {"model": str(path), **{key: value for key, value in options.items() if value is not None}}
    return LabelSection.model_validate({"type": "deepmd", "options": given})


def values(base, path, branch=None, committee=(), **sections):
    return {
        "workflow": "finetune",
        "model": {"checkpoint": str(path), **({"branch": branch} if branch else {})},
        "system": [{"name": "SiC", "structures": [str(base / "sic.vasp")]}],
        "explore": {"committee": [str(base / name) for name in committee]},
        "label": {"type": "ase", "options": {"calculator": "ase.calculators.emt.EMT"}},
        "train": {},
        **sections,
    }


def test_a_committee_that_does_not_fit_is_found_before_anything_is_labelled(base):
    (base / "junk.pth").write_bytes(b"junk")
    found = "\n".join(problems(parse(values(base, base / "single.pt", committee=("junk.pth", "other.pth")), base)))
    assert "junk.pth cannot be used as a model" in found and "other.pth has the type map Si " in found
    only = values(base, base / "single.pt", committee=("single.pth",))
    assert problems(parse(only, base)) == []
    only["model"]["type_map"] = ["C", "Si"]
    (line,) = problems(parse(only, base))
    assert "single.pth has the type map Si C" in line and "the current model C Si" in line
    ase = {"engine": "ase", "options": {"calculator": "deepmd.calculator.DP", "model_argument": "model"}}
    ase["committee"] = [str(base / "other.pth")]
    (line,) = problems(parse(values(base, base / "single.pt", explore=ase), base))
    assert "other.pth does not know C" in line


def test_a_labeling_model_must_know_the_elements(base):
    label = {"type": "deepmd", "options": {"model": str(base / "other.pt")}}
    (line,) = problems(parse(values(base, base / "single.pt", label=label), base))
    assert line == "label.options.model: it does not know C, which the systems hold"


def test_elements_that_are_new_to_the_model_are_told_with_the_remedy(base):
    (line,) = problems(parse(values(base, base / "other.pt"), base))
    assert "system SiC: C not in the type map of model.checkpoint (Si)" in line and "model.type_map" in line
    given = values(base, base / "other.pt")
    given["model"]["type_map"] = ["Si", "Ge"]
    (line,) = problems(parse(given, base))
    assert "C not in the type map of model.type_map (Si Ge); add them there" in line


def flipped(path):
    """One bit of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.fixture
def run(base, tmp_path):
    """A run directory with a published model."""
    folder = RunFolder(tmp_path / "run")
    digest = folder.publish(base / "single.pt", base / "single.pth")
    folder.keep_product(digest, base / "single.pth")
    return folder, digest


def test_a_published_model_that_was_damaged_is_never_used(base, run):
    """A flipped bit changes weights, and nothing below looks for it."""
    folder, digest = run
    plain, torchscript, product = folder.checkpoint(digest), folder.frozen(digest), folder.product(digest)
    section = ExploreSection(engine="ase", options={"calculator": "deepmd.calculator.DP", "model_argument": "model"})
    trainer = DeepmdTrainer(model(base / "single.pt"), TrainSection(), None)
    frame, lammps = Frame.from_atoms(bulk("Si")), LammpsExplorer(ExploreSection())
    task = TrainTask(1, plain, False, (), (), (), 1, 1, folder.scratch("train"))
    doors = {
        "trainer": (plain, lambda: trainer.train(task)),
        "evaluator": (plain, lambda: trainer.predict(plain, [frame])),
        "test": (torchscript, lambda: predicted(torchscript, [Record(frame)])),
        "parent of another run": (torchscript, lambda: read_model(torchscript)),
        "teacher": (torchscript, lambda: make_labeler(labeled_by(torchscript), None)),
        "validate": (torchscript, lambda: open_calculator(torchscript)),
        "LAMMPS": (torchscript, lambda: lammps.load_models([torchscript], ("Si", "C"))),
        "ASE": (torchscript, lambda: AseExplorer(section).load_models([torchscript], ("Si", "C"))),
        "product": (product, lambda: lammps.load_models([product], ("Si", "C"))),
        "final": (product, lambda: folder.conclude(digest)),
    }
    for name, (path, door) in doors.items():
        sound = path.read_bytes()
        flipped(path)
        with pytest.raises(InputError, match=rf"{path.name}: damaged: .*put a sound copy.*init.data") as caught:
            door()
        assert len(caught.value.problems) == 1, name
        path.write_bytes(sound)
    flipped(torchscript)
    with pytest.raises(InputError, match=f"{torchscript.name}: damaged"):
        folder.check_models([digest, "a" * 32])
    flipped(torchscript)
    folder.check_models([digest, "a" * 32])
    assert main(["test", str(torchscript), str(base / "data.xyz")]) == 0
    folder.conclude(digest)
    lammps.close()


def test_a_nodes_copy_that_was_damaged_is_made_again(run, tmp_path, caplog, monkeypatch):
    folder, digest = run
    monkeypatch.setattr("pfdhpc.parallel.node._device", lambda path: path.is_relative_to(folder.directory))
    (tmp_path / "memory").mkdir()
    copies = NodeCopies([tmp_path / "memory"])
    monkeypatch.setattr("pfdhpc.parallel.node._here", copies)
    copy = near_copy(folder, digest, "explore")
    assert copy != folder.frozen(digest)
    flipped(copy)
    again = near_copy(folder, digest, "explore")
    assert again.read_bytes() == folder.frozen(digest).read_bytes() and "damaged" in caplog.text
    copies.clear()


def test_what_is_damaged_ends_a_run_with_its_line_and_no_replica(run):
    """No restart of a replica, and no traceback of a bug: nothing could be explored with it."""
    from pfdhpc.parallel.layout import Team
    from pfdhpc.roles.worker import work
    from pfdhpc.workflow.apply import apply
    from pfdhpc.workflow.state import EXPLORE
    from tests.test_roles import config, started

    class Program:
        def handle(self, order):
            raise InputError("x.pth: damaged")

    order = m.Shutdown("explore/0/Cu-0", 0)
    answer = work(Team("explorer-0", "explorer", (1,)), Program(), order)
    assert isinstance(answer, m.Failed) and answer.fatal
    state = apply(config(), started(phase=EXPLORE).issued(order, "explorer-0"), answer, None)
    assert state.job.failure == "explore/0/Cu-0: x.pth: damaged"


def test_a_parent_whose_file_has_changed_is_noticed_on_a_restart(base, tmp_path):
    from pfdhpc.config import dump
    from pfdhpc.job.setup import JobSetup

    shutil.copy(base / "single.pt", tmp_path / "single.pt")
    path = written(tmp_path, "input", "single.pt")
    shutil.copy(base / "sic.vasp", tmp_path)
    first = JobSetup(path, 1)
    plan = first.next()
    RunFolder(plan.config.run.directory).keep_input(dump(plan.config))
    first.release()
    flipped(tmp_path / "single.pt")
    again = JobSetup(path, 1)
    assert again.next() is None
    again.release()
