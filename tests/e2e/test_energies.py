"""Labels whose energies lie keV apart by element, which come in any order: whole runs, for real."""

import json
import shutil
from dataclasses import dataclass

import pytest
from ase.build import bulk
from ase.io import write
from e2e.jobs import PRETRAINED, Job, finish, results_of
from e2e.test_distill import STUDENT

from pfdhpc.store.store import read_records

OFFSETS = {"Al": -500.0, "Cu": -1000.0, "Ag": -1500.0, "Au": -2000.0}
SHIFTED = f"""
from ase.calculators.calculator import all_changes
from ase.calculators.emt import EMT


class Shifted(EMT):
    def __init__(self, constant=0.0, scale=1.0, **rest):
        super().__init__(**rest)
        self.constant, self.scale = constant, scale

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        for key in {{"energy", "free_energy"}} & self.results.keys():
            more = sum(self.constant + self.scale * {OFFSETS}[name] for name in self.atoms.get_chemical_symbols())
            self.results[key] += more
"""
INPUT = """
workflow = "{workflow}"
seed = {seed}
run.directory = "run"
model = {{ checkpoint = "{model}", branch = "MPtrj_PBE" }}
explore = {{ ensemble = "nvt", steps = 20, interval = 10, temperatures = [300.0], temperature_damping = 50.0 }}
select = {{ max_sel = 4, min_gain = -5.0 }}
train = {{ first_steps = 20, steps = 20, batch_size = 2, start_lr = 2e-3, stop_lr = 1e-5 }}
test = {{ holdout = 0.2, validation = 0.1 }}
"""


@dataclass
class Case:
    systems: tuple[str, ...]
    frames: int = 0
    data: str = ""  # labelled frames of this material are brought along
    rounds: int = 2
    criterion: float = 0.001
    seed: int = 1
    scale: float = 1.0  # of the offsets
    constant: float = 0.0  # eV/atom between the labeler and the frames brought along
    overlap: str = ""
    workflow: str = "finetune"


CELLS = {name: bulk(name, cubic=True) for name in OFFSETS}
CELLS["Cu3Au"] = bulk("Cu", cubic=True, a=3.75)
CELLS["Cu3Au"].numbers[0] = 79
CELLS["CuAu3"] = bulk("Au", cubic=True, a=3.95)
CELLS["CuAu3"].numbers[0] = 29


def labelled(name, scale):
    """Eight rattled frames, labelled by EMT with the constants of their atoms."""
    namespace = {}
    exec(SHIFTED, namespace)
    for seed in range(8):
        atoms = CELLS[name].copy()
        atoms.rattle(0.08, seed=seed)
        atoms.calc = namespace["Shifted"](scale=scale)
        atoms.get_stress(), atoms.get_forces()
        yield atoms


def write_case(folder, case):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "shifted.py").write_text(SHIFTED)
    text = INPUT.format(workflow=case.workflow, seed=case.seed, model=PRETRAINED)
    text += f"init = {{ frames = {case.frames}"
    if case.data:
        write(folder / "data.extxyz", list(labelled(case.data, case.scale)))
        text += ', data = ["data.extxyz"]'
    text += f" }}\nconverge = {{ force_rmse = {case.criterion}, max_rounds = {case.rounds} }}\n{case.overlap}"
    if case.workflow == "finetune":
        arguments = f"{{ constant = {case.constant}, scale = {case.scale} }}"
        options = f'{{ calculator = "shifted.Shifted", arguments = {arguments}, path = "." }}'
        text += f'label = {{ type = "ase", options = {options} }}\n'
    for name in case.systems:
        write(folder / f"{name}.vasp", CELLS[name], format="vasp", sort=True)
        perturb = "perturb = { count = 2, strain = 0.04, displacement = 0.1 }"
        text += f'[[system]]\nname = "{name}"\nstructures = ["{name}.vasp"]\n{perturb}\n'
    path = folder / "input.toml"
    path.write_text(text + (STUDENT if case.workflow == "distill" else ""))
    return path


ALLOY = Case(("Cu3Au",), data="Cu", criterion=0.4)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    done = {}

    def run(case):
        if repr(case) not in done:
            folder = tmp_path_factory.mktemp("case")
            done[repr(case)] = folder / "run", finish(write_case(folder, case), n_ranks=1)
        return done[repr(case)]

    return run


@pytest.mark.parametrize(
    "case",
    [
        Case(("Al", "Cu", "Ag", "Au"), frames=8, seed=6, rounds=1),
        ALLOY,
        Case(("CuAu3",), data="Cu3Au"),
        Case(("Cu3Au",), data="Cu", overlap="overlap = { staleness = 1, min_new = 2, queue = 4 }\n"),
    ],
    ids=["four elements", "an element comes later", "a ratio comes later", "overlapped"],
)
def test_energies_are_right_whenever_what_determines_them_comes(run, case):
    found = results_of(run(case)[0])
    assert found["finetuned"]["total"]["energy"] < 0.15 and found["pretrained"]["total"]["energy"] < 0.15
    assert found["warnings"] == [] and not found["finetuned"]["undetermined"]
    for item in found["rounds"]:
        if item["errors"] is not None and item["errors"]["total"]["energy"] is not None:
            assert item["errors"]["total"]["energy"] < 0.3, "energies of no label the model was told are left out"


def test_a_first_label_of_an_element_is_told_and_counts_for_the_forces_alone(run):
    folder, output = run(ALLOY)
    assert "no energy (Cu3Au first seen: not aligned yet)" in output
    assert "energies aligned to the first labels of Cu3Au" in output
    first = results_of(folder)["rounds"][1]["errors"]
    assert first["total"]["energy"] is None and first["undetermined"] == ["Cu3Au"] and first["offsets"] == {}


def test_constants_change_neither_picks_nor_errors(run):
    (with_them, _), (without, _) = run(ALLOY), run(Case(("Cu3Au",), data="Cu", criterion=0.4, scale=0.0))
    picks = [{r.frame_id: r.origin.step for r in read_records(f / "frames")} for f in (with_them, without)]
    assert len(picks[0]) == len(picks[1])
    one, two = (results_of(folder)["finetuned"] for folder in (with_them, without))
    for name in ("energy", "force", "virial"):
        assert one["total"][name] == pytest.approx(two["total"][name], rel=1e-3)


def test_killed_after_the_first_labels_of_an_element_it_goes_on_to_the_same_bits(run, tmp_path):
    path = write_case(tmp_path, ALLOY)
    job = Job(path, n_ranks=1)
    job.wait_for("round 1 +test")
    job.kill()
    finish(path, n_ranks=1)
    assert results_of(tmp_path / "run")["model"] == results_of(run(ALLOY)[0])["model"]


def test_labels_of_two_levels_of_theory_are_named_and_never_called_converged(run):
    folder, output = run(Case(("Cu",), data="Cu", criterion=10.0, constant=3.0))
    found = results_of(folder)
    assert found["ended"] == "max_rounds" and found["verdict"].startswith("NOT converged")
    first, second = found["warnings"]
    assert "the energies of model 1 are off by up to -3" in first and "init.data (data)" in first
    assert "labels of two levels of theory" in second and "init.data (data)" in second and "meV/atom (Cu)" in second
    assert output.count("labels of two levels of theory") == 2, "once when it is seen, once at the end"
    status = json.loads((folder / "status.json").read_text())
    assert status["state"] == "complete"


def test_a_distillation_from_one_first_frame_knows_the_energies_of_all_its_systems(run):
    folder, output = run(Case(("Cu", "Cu3Au"), frames=1, workflow="distill", rounds=1))
    assert "no label before the first training determines the energies of" in " ".join(output.split())
    assert results_of(folder)["finetuned"]["total"]["energy"] < 3.0  # what 20 steps leave of a random network's


def test_a_run_goes_on_from_a_checkpoint_that_knows_nothing_of_compositions(run, tmp_path):
    from pfdhpc.store.checkpoint import load_checkpoint, save_checkpoint

    shutil.copytree(run(ALLOY)[0].parent, tmp_path / "old")
    folder = tmp_path / "old"
    path = write_case(folder, Case(("Cu3Au",), data="Cu", rounds=2))
    tree = load_checkpoint(folder / "run" / "checkpoints")
    for name in ("compositions", "shares", "determining", "warnings"):
        tree["state"].pop(name)
    save_checkpoint(folder / "run" / "checkpoints", tree)
    finish(path, n_ranks=1)
    assert results_of(folder / "run")["finetuned"]["total"]["energy"] < 0.15
