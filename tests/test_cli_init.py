"""``pfdhpc init``: what it writes is what ``pfdhpc check`` accepts, and what is missing is named."""

import os
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from ase.build import bulk, molecule
from ase.io import write
from models import frozen, tiny_checkpoint

from pfdhpc.cli.init import init, user_files
from pfdhpc.cli.main import main
from pfdhpc.config import load
from pfdhpc.engines.label.input_checks import check_labeler

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "inputs" / "pretrained" / "dpa3_small.pt"
SI2 = ROOT / "inputs" / "quickstart" / "si2.vasp"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where a user is: a POSCAR, and no batch system."""
    shutil.copy(SI2, tmp_path / "POSCAR")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(init, "_scheduler", lambda: "none")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return tmp_path


@pytest.fixture
def parent(monkeypatch):
    """A model as init sees it, without loading torch."""

    def read(path):
        branches = ("OC20", "MPtrj_PBE", "Alex_PBEsol")
        return user_files.Parent(path, "dpa3", ("H", "O", "Mg", "Si", "C"), branches, 6.0)

    monkeypatch.setattr(init, "read_parent", read)


def test_check_accepts_what_was_written_and_plan_finds_no_waste(folder, capsys):
    pytest.importorskip("gpaw")
    assert main(["init", "finetune", "--from", "POSCAR", "--model", str(MODEL), "-o", "si"]) == 0
    told = capsys.readouterr().out
    assert "branch" in told and "pfdhpc plan si/input.toml -n 4" in told
    text = (folder / "si" / "input.toml").read_text()
    assert "dpa3, cutoff 5.5 Å, knows 16 elements" in text and "MatPES_r2SCAN, MPtrj_PBE" in text
    assert main(["check", "si/input.toml"]) == 0
    assert main(["plan", "si/input.toml", "-n", "4"]) == 0
    assert "warning" not in capsys.readouterr().out


@pytest.mark.parametrize("workflow", list(init.WORKFLOWS))
@pytest.mark.parametrize("n_gpus", [0, 1, 4, 8])
def test_every_workflow_fits_its_job_script(folder, parent, workflow, n_gpus, capsys):
    write("pool.extxyz", [bulk("Si", a=5.3 + 0.001 * place) for place in range(300)])
    given = "pool.extxyz" if workflow == "simplify" else "POSCAR"
    words = ["--from", given, "--model", "POSCAR", "--gpu", str(n_gpus), "--scheduler", "slurm"]
    assert main(["init", workflow, *words]) == 0
    config = load("input.toml")
    assert config.workflow == workflow and config.model.branch
    assert [system.name for system in config.system] == (["Si"] if workflow != "simplify" else [])
    assert config.pool is None or config.pool.names == ["pool"]
    script = (folder / "job.sbatch").read_text()
    tasks = script.partition("--ntasks-per-node=")[2].split()[0]
    assert (f"--gpus-per-node={n_gpus}\n" in script) == bool(n_gpus)
    capsys.readouterr()
    assert main(["plan", "input.toml", "-n", tasks, "--gpus-per-node", str(n_gpus)]) == 0
    warned = capsys.readouterr().out.count("warning")
    assert warned <= (n_gpus == 1)  # on one GPU trainer and explorer cannot but share


@pytest.mark.parametrize("labeler", init.labelers())
def test_every_labeler_template_is_of_the_schema(folder, parent, labeler, capsys):
    words = ["--from", "POSCAR", "--model", "POSCAR", "--labeler", labeler, "--scheduler", "slurm"]
    assert main(["init", "finetune", *words]) == 0
    values = tomllib.loads((folder / "input.toml").read_text())
    assert values["label"]["type"] == labeler
    if labeler == "deepmd":  # the one file that is looked for when an input is read
        assert main(["where", "input.toml"]) == 2 and "EDIT-ME/reference.pth" in capsys.readouterr().err
    else:
        label = load("input.toml").label
        assert label.type == labeler
        assert all("EDIT-ME" in line for line in check_labeler(label, load("input.toml").ranks.labeler.ranks))


def test_placeholders_are_marked_and_named_by_check(folder, capsys):
    assert main(["init", "finetune", "--labeler", "vasp"]) == 0
    told = capsys.readouterr().out
    assert told.count("EDIT-ME") >= 3
    assert main(["check", "input.toml"]) == 2
    told = capsys.readouterr().err
    assert "model.checkpoint: no such file" in told and "system[0].structures" in told
    assert "EDIT-ME/pretrained.pt" in told and "EDIT-ME/POSCAR" in told


def test_every_line_has_its_meaning(folder, parent):
    main(["init", "finetune", "--from", "POSCAR", "--model", "POSCAR"])
    lines = (folder / "input.toml").read_text().splitlines()
    section = ""
    for before, line in zip(lines, lines[1:], strict=False):
        section = line.strip("[]") if line.startswith("[") else section
        if "=" in line and not line.startswith("#") and section != "label.options":
            assert "  # " in line or before.startswith("#"), line
    assert max(map(len, lines)) <= 130


def test_what_is_in_the_files_is_filled_in(folder, parent):
    write("water.xyz", molecule("H2O", vacuum=4.0, pbc=True), format="extxyz")
    write("CONTCAR", bulk("MgO", "rocksalt", a=4.2), format="vasp")
    main(["init", "finetune", "--from", "POSCAR", "water.xyz", "CONTCAR", "POSCAR", "--model", "POSCAR"])
    config = load("input.toml")
    assert [system.name for system in config.system] == ["Si", "water", "MgO", "Si-2"]
    assert config.explore.timestep == 0.5  # hydrogen
    assert config.label.options["mode"]["ecut"] == 800  # oxygen
    assert config.model.branch == "MPtrj_PBE"
    text = (folder / "input.toml").read_text()
    assert "OC20, MPtrj_PBE, Alex_PBEsol" in text and "1 structure, 2 atoms (MgO)" in text
    main(["init", "finetune", "--model", "POSCAR", "--branch", "OC20", "--force"])
    assert 'branch = "OC20"' in (folder / "input.toml").read_text()


def test_bad_input_is_told_and_nothing_is_written(folder, parent, capsys):
    (folder / "junk").write_text("no structure")
    write("gold.vasp", bulk("Au"), format="vasp")
    for words, told in (
        (["--from", "nowhere", "junk"], ["nowhere: no such file", "junk: cannot be read"]),
        (["--from", str(folder)], ["is a folder"]),
        (["--from", "gold.vasp", "--model", "POSCAR"], ["does not know Au"]),
        (["--model", "POSCAR", "--branch", "PBE0"], ['has no "PBE0"', "MPtrj_PBE"]),
        (["--branch", "OC20"], ["of which model"]),
        (["--gpu", "-1"], ["--gpu -1"]),
    ):
        assert main(["init", "finetune", *words]) == 2, words
        shown = capsys.readouterr().err
        assert all(piece in shown for piece in told) and "Traceback" not in shown
    assert main(["init", "distill", "--labeler", "gpaw"]) == 2
    assert not (folder / "input.toml").exists()


def test_files_that_are_there_stay(folder, capsys):
    (folder / "input.toml").write_text("mine")
    assert main(["init", "finetune"]) == 2
    assert "input.toml is there already" in capsys.readouterr().err
    assert (folder / "input.toml").read_text() == "mine" and not (folder / "job.sh").exists()
    assert main(["init", "finetune", "--force"]) == 0


def test_a_model_that_is_none(folder, capsys):
    assert main(["init", "finetune", "--model", "nowhere.pt"]) == 2
    assert "no such file" in capsys.readouterr().err
    assert main(["init", "finetune", "--model", "POSCAR"]) == 2
    assert "is no checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize("system", list(init.SCHEDULERS))
def test_job_scripts_are_shell(folder, parent, system):
    main(["init", "finetune", "--from", "POSCAR", "--scheduler", system, "--gpu", "2"])
    script = folder / init.SCHEDULERS[system]
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    text = script.read_text()
    assert "@" not in text.replace("USR1@20", "") and "EDIT" in text
    checker = shutil.which("shellcheck")
    assert checker is None or subprocess.run([checker, "-x", "-e", "SC1091", script], cwd=ROOT).returncode == 0
    sourced = [line.split('"')[1] for line in text.splitlines() if line.startswith("source")]
    assert sourced and all(os.path.isfile(path) for path in sourced)


def test_meshes_of_all_templates_are_as_dense_by_one_definition():
    """All programs take the spacing with the 2 pi here."""
    lines = {}
    for labeler in init.labelers():
        text = (init.templates() / f"label-{labeler}.toml").read_text()
        lines[labeler] = [line for line in text.splitlines() if line.startswith("kspacing")]
    assert {name for name, found in lines.items() if found} == {"abacus", "qe", "vasp"}
    assert {line for found in lines.values() for line in found} == {"kspacing = 0.2  # 1/Å, with 2 pi"}


def test_names_with_quotes_and_backslashes_are_written_as_toml(folder, monkeypatch):
    name, odd = 'a "b" \\c.vasp', 'PBE "\\hard"'
    shutil.copy(SI2, folder / name)
    read = lambda path: user_files.Parent(path, "dpa3", ("Si",), (odd, "other"), 6.0)  # noqa: E731
    monkeypatch.setattr(init, "read_parent", read)
    assert main(["init", "finetune", "--from", name, "--model", name, "--branch", odd]) == 0
    config = load("input.toml")
    assert config.model.branch == odd and config.model.checkpoint.name == name
    assert config.system[0].structures[0].name == name


def test_branches_by_alias_and_at_random_and_a_frozen_model(folder, capsys):
    import torch

    path = tiny_checkpoint(folder / "two", ("Si", "C"), branches=("a", "b"))
    content = torch.load(path, weights_only=True)
    state = content.get("model", content)
    state["_extra_state"]["model_params"]["model_dict"]["b"]["model_branch_alias"] = ["short"]
    torch.save(content, path)
    for branch in ("short", "RANDOM"):
        assert main(["init", "finetune", "--from", "POSCAR", "--model", str(path), "--branch", branch, "--force"]) == 0
        assert load("input.toml").model.branch == branch
    path = frozen(tiny_checkpoint(folder, ("Si", "C")), folder)
    assert main(["init", "finetune", "--model", str(path), "--branch", "RANDOM", "--force"]) == 0
    assert 'branch = "RANDOM"' in (folder / "input.toml").read_text()
