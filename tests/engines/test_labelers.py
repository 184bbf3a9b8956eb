"""Every labeler answers in the units and signs of pfdhpc.units, and fails in the way the run expects."""

import importlib.util
import time
from contextlib import suppress
from functools import cache

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from espresso import OPTIONS, needs_qe
from models import frozen, tiny_checkpoint
from programs import PROGRAMS
from programs import section as program_section

from pfdhpc.config.label import LabelSection, merged
from pfdhpc.data import Frame, Label
from pfdhpc.engines.isolated.spawner import Spawner
from pfdhpc.engines.label.input_checks import check_labeler
from pfdhpc.engines.label.label_checks import check_label, label_all, label_with_ladder
from pfdhpc.engines.label.level_of_theory import level_hash
from pfdhpc.engines.registry import make_labeler
from pfdhpc.errors import InputError, LabelError

GPAW = {
    "mode": {"name": "pw", "ecut": 200},
    "xc": "PBE",
    "kpts": {"size": [2, 2, 2], "gamma": True},
    "occupations": {"name": "fermi-dirac", "width": 0.05},
    "symmetry": {"point_group": False},
}
# A basis of nearly constant resolution instead of a constant cutoff, so that the energy is smooth in the cell.
SMOOTH = {"ecutwfc": 24, "ecfixed": 16.0, "qcutz": 40.0, "q2sigma": 3.0}
STAYS = ", resident"
SHELL = ", in its shell"
LENNARD_JONES = {
    "calculator": "ase.calculators.lj.LennardJones",
    "arguments": {"sigma": 2.3, "epsilon": 0.2, "rc": 6.0, "smooth": True},
}
LAMMPS = {
    "calculator": "ase.calculators.lammpslib.LAMMPSlib",
    "arguments": {
        "lmpcmds": ["pair_style lj/smooth 5.0 6.0", "pair_coeff * * 0.4 2.3"], "atom_types": {"Al": 1, "Cu": 2},
    },
}  # fmt: skip
CALCULATORS = '''
import time
from ase.calculators.emt import EMT

class Slow(EMT):
    def calculate(self, *args):
        try:
            time.sleep(20)
        except Exception:
            pass

class Tracking(EMT):
    """Is interrupted where torch keeps no track of gradients."""
    def calculate(self, *args):
        import torch
        torch.set_grad_enabled(False)
        time.sleep(20)

class Picky(EMT):
    """Works with careful=True only, as an SCF with a better mixer does."""
    def __init__(self, careful=False, level=1):
        super().__init__()
        self.careful = careful
    def calculate(self, *args):
        if not self.careful:
            raise RuntimeError("no convergence")
        super().calculate(*args)

class Mover(EMT):
    def get_stress(self, atoms=None):
        atoms.positions += 0.1
        return super().get_stress(atoms)

class Forceful(EMT):
    implemented_properties = ["energy", "free_energy", "forces"]
'''


def section(kind, options, **more):
    return LabelSection(type=kind, options=options, **more)


def ase_section(calculator, **more):
    return section("ase", {"calculator": calculator}, **more)


def copper():
    atoms = bulk("Cu", cubic=True)
    atoms.symbols[[0, 2]] = "Al"
    atoms.rattle(0.1, seed=3)
    return Frame.from_atoms(atoms)


def silicon():
    atoms = bulk("Si", a=5.25)
    atoms.rattle(0.08, seed=1)
    return Frame.from_atoms(atoms)


def carbide(seed=2):
    atoms = bulk("SiC", "zincblende", a=4.3, cubic=True)[[0, 1, 3, 2, 4, 5, 7, 6]]
    atoms.rattle(0.1, seed=seed)
    return Frame.from_atoms(atoms)


@pytest.fixture(scope="session")
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    return frozen(tiny_checkpoint(folder), folder)


@pytest.fixture(scope="session")
def spawner():
    with Spawner() as made:
        yield made


@pytest.fixture(scope="session")
def make(teacher, spawner, tmp_path_factory):
    """``make(name)`` -> (labeler, section, frame, step of the finite differences in Å, tolerance).

    VASP, ABACUS and CP2K are stand-ins with a pair potential.
    """

    @cache
    def build(name):
        if name == "gpaw" and importlib.util.find_spec("gpaw") is None:
            pytest.skip("gpaw is not installed")
        kind, options, frame, step, tolerance = {
            "emt": ("ase", {"calculator": "ase.calculators.emt.EMT"}, copper(), 1e-3, 1e-3),
            "lennard-jones": ("ase", LENNARD_JONES, copper(), 1e-3, 1e-3),
            "lammps": ("ase", LAMMPS, copper(), 1e-3, 1e-3),
            "lammps, reused": ("ase", {**LAMMPS, "reuse": True}, copper(), 1e-3, 1e-3),
            # Plane waves enter and leave the basis as the cell changes: a coarse check at a low cutoff.
            "gpaw": ("gpaw", GPAW, silicon(), 2e-2, 0.03),
            "deepmd": ("deepmd", {"model": str(teacher)}, carbide(), 1e-3, 1e-3),
            "qe": ("qe", merged(OPTIONS, {"input": {"system": SMOOTH}}), silicon(), 2e-2, 0.03),
            **{kind: (kind, None, copper(), 2e-3, 3e-3) for kind in PROGRAMS},
        }[name.removesuffix(STAYS).removesuffix(SHELL)]
        folder, launch = tmp_path_factory.mktemp(kind), {"resident": name.endswith(STAYS)}
        launch = {"resident": "shell"} if name.endswith(SHELL) else launch
        if kind in PROGRAMS:
            changes = {"incar": {"ISYM": 0}} if kind == "vasp" else {}
            given = program_section(kind, folder, changes, resident=launch["resident"])
        else:
            given = section(kind, options, **({"launch": {"command": "pw.x", **launch}} if kind == "qe" else {}))
        return make_labeler(given, None, spawner, folder / "logs" / "x.log"), given, frame, step, tolerance

    return build


@pytest.fixture
def own_calculators(tmp_path):
    (tmp_path / "my_calculators.py").write_text(CALCULATORS)
    folder = str(tmp_path)
    return lambda name, **more: section("ase", {"calculator": f"my_calculators.{name}", "path": folder}, **more)


def strained(frame, strain):
    deformation = np.eye(3)
    deformation[0, 0] += strain
    return Frame(frame.numbers, frame.cell @ deformation, frame.positions @ deformation, frame.pbc)


def reordered(frame):
    return Frame(frame.numbers[::-1], frame.cell, frame.positions[::-1], frame.pbc)


def moved(frame, step):
    positions = frame.positions.copy()
    positions[1, 0] += step
    return Frame(frame.numbers, frame.cell, positions, frame.pbc)


IN_PROCESS = ("emt", "lennard-jones", "lammps", "lammps, reused", "gpaw", "deepmd")
STAYING = (f"vasp{STAYS}", f"cp2k{SHELL}", pytest.param(f"qe{STAYS}", marks=needs_qe))
EVERY = (*IN_PROCESS, *PROGRAMS, pytest.param("qe", marks=needs_qe), *STAYING)


@pytest.mark.parametrize("name", EVERY)
def test_contract(make, name):
    labeler, given, frame, step, tolerance = make(name)

    def energy(other):
        return labeler.label(other, {}, 100.0).energy

    label = labeler.label(frame, {}, 100.0)
    check_label(frame, label, given)
    slope = -(energy(moved(frame, step)) - energy(moved(frame, -step))) / (2 * step)
    assert label.forces[1, 0] == pytest.approx(slope, rel=tolerance, abs=1e-4), "force on the second atom"
    strain = step / 2
    slope = -(energy(strained(frame, strain)) - energy(strained(frame, -strain))) / (2 * strain)
    assert label.virial[0, 0] == pytest.approx(slope, rel=tolerance, abs=1e-3), "virial, xx"
    assert np.allclose(label.virial, label.virial.T, atol=1e-6)

    again = labeler.label(frame, {}, 100.0)
    memory = 1e-5 if name == f"qe{STAYS}" else 1e-12  # within the convergence
    assert again.energy == pytest.approx(label.energy, abs=memory), "no memory of the labels in between"
    assert np.allclose(again.forces, label.forces, rtol=0, atol=100 * memory)
    assert len(labeler.level) == 16 and labeler.level == level_hash(given)


@pytest.mark.parametrize("name", EVERY)
def test_a_failure_is_a_reason_and_the_next_label_is_as_good_as_ever(make, name):
    """Of an attempt that has no time, and of a frame that cannot be computed."""
    labeler, given, frame, _, _ = make(name)
    with pytest.raises(LabelError, match="time-out: longer than 0.001 s .label.timeout"):
        labeler.label(strained(reordered(frame), 0.01), {}, 1e-3)  # for which also those that stay start anew
    strange = Frame([2, 92], frame.cell, frame.positions[:2])
    if name != "lennard-jones":  # which has one potential for all
        with pytest.raises(LabelError):
            check_label(strange, labeler.label(strange, {}, 100.0), given)
    check_label(frame, labeler.label(frame, {}, 100.0), given)


@pytest.mark.parametrize("name", ["emt", "lammps", "deepmd", *PROGRAMS, pytest.param("qe", marks=needs_qe), *STAYING])
def test_forces_follow_the_order_of_the_atoms_also_in_a_left_handed_cell(make, name):
    labeler, _, frame, _, _ = make(name)
    order = np.random.default_rng(0).permutation(len(frame))
    shuffled = Frame(frame.numbers[order], frame.cell[[1, 0, 2]], frame.positions[order], frame.pbc)
    expected = labeler.label(frame, {}, 100.0).forces[order]
    tolerance = 1e-3 if name == f"qe{STAYS}" else 3e-6 if name.startswith(PROGRAMS) else 1e-9  # digits printed
    assert np.allclose(labeler.label(shuffled, {}, 100.0).forces, expected, atol=tolerance)


def test_gpaw_gets_moments_by_element_or_by_atom_and_no_question_for_the_stress_of_a_molecule():
    pytest.importorskip("gpaw")
    options = {**GPAW, "kpts": {"size": (1, 1, 1)}, "xc": "LDA"}
    atom = Frame([1], 4.0 * np.eye(3)[[1, 0, 2]], np.zeros((1, 3)))
    found = []
    for moments in ({"H": 1.0}, [1.0], None):
        labeler = make_labeler(section("gpaw", options if moments is None else {**options, "magmoms": moments}), None)
        found.append(labeler.label(atom, {}, 60.0).energy)
    assert found[0] == found[1] < found[2] - 0.1
    with pytest.raises(LabelError, match=r"label\.options\.magmoms: 2 values, but the frame has 1 atoms"):
        labeler.label(atom, {"magmoms": [1.0, 1.0]}, 60.0)
    molecule = Frame([1, 1], 7.0 * np.eye(3), np.array([[3.5, 3.5, 3.1], [3.5, 3.5, 3.9]]), [False] * 3)
    given = section("gpaw", {"mode": "lcao", "basis": "dzp", "h": 0.3})
    label, _ = label_with_ladder(make_labeler(given, None), molecule, given, None)
    assert label.virial is None and label.forces[0, 2] == pytest.approx(-label.forces[1, 2], abs=0.05)


def test_gpaw_failures_are_reasons_and_the_next_label_works(make):
    labeler, given, frame, _, _ = make("gpaw")
    with pytest.raises(LabelError, match="not converged after 2 iterations"):
        labeler.label(frame, {"maxiter": 2}, 100.0)
    with pytest.raises(LabelError, match="time-out"):
        labeler.label(frame, {}, 0.05)
    with pytest.raises(LabelError, match="gpaw:"):
        labeler.label(Frame([14, 14], frame.cell, np.zeros((2, 3))), {}, 100.0)
    ladder = section("gpaw", {**GPAW, "maxiter": 2}, retries=[{"maxiter": 3}, {"maxiter": 100}])
    label, attempts = label_with_ladder(make_labeler(ladder, None), frame, ladder, None)
    assert attempts == 3
    assert label.energy == pytest.approx(labeler.label(frame, {}, 100.0).energy, abs=1e-9)


def test_gpaw_options_are_read_before_the_first_frame():
    pytest.importorskip("gpaw")
    with pytest.raises(InputError, match="label.options: GPAW does not accept it"):
        make_labeler(section("gpaw", {**GPAW, "mode": {"name": "plane"}}), None)
    with pytest.raises(InputError, match=r"label.retries\[0\]"):
        make_labeler(section("gpaw", GPAW, retries=[{"eigensolver": {"name": "magic"}}]), None)


def test_a_calculator_is_kept_if_asked_and_labels_are_the_same():
    """EMT keeps neighbours from call to call, which a reset forgets."""
    from pfdhpc.engines.calculators import Maker

    options = {"calculator": "ase.calculators.emt.EMT"}
    frames = [Frame.from_atoms(bulk("Cu", cubic=True, a=a)) for a in (3.5, 3.6, 3.9)]
    fresh, kept = (make_labeler(section("ase", {**options, **more}), None) for more in ({}, {"reuse": True}))
    assert fresh.level == kept.level
    for one, two in zip(fresh.label_batch(frames, {}, 60.0), kept.label_batch(frames, {}, 60.0), strict=True):
        assert one.energy == two.energy and (one.forces == two.forces).all() and (one.virial == two.virial).all()
    makers = [Maker("label.options", {**options, **more}) for more in ({}, {"reuse": True})]
    assert makers[0]({}) is not makers[0]({}) and makers[1]({}) is makers[1]({})
    assert makers[1]({"asap_cutoff": True}) is not makers[1]({})
    assert check_labeler(section("ase", {**options, "reuse": "yes"}), 1) == [
        "label.options.reuse: must be true or false"
    ]


def test_time_out_interrupts_a_serial_calculator(own_calculators):
    given = own_calculators("Slow", timeout=0.3)
    begin = time.monotonic()
    with pytest.raises(LabelError, match="longer than 0.3 s"):
        label_with_ladder(make_labeler(given, None), copper(), given, None)
    assert time.monotonic() - begin < 5


def test_torch_keeps_track_of_gradients_after_a_time_out(own_calculators):
    import torch

    with pytest.raises(LabelError, match="longer than 0.1 s"):
        make_labeler(own_calculators("Tracking"), None).label(copper(), {}, 0.1)
    assert torch.is_grad_enabled()


def test_a_teacher_whose_time_is_up_at_any_instant_labels_as_before(make):
    labeler, given, frame, _, _ = make("deepmd")
    before = labeler.label(frame, {}, 100.0)
    for instant in range(1, 400):
        with suppress(LabelError):
            labeler.label(frame, {}, instant * 1e-5)
    again = labeler.label(frame, {}, 100.0)
    assert again.energy == before.energy and (again.forces == before.forces).all()


def test_ladder_goes_on_until_an_attempt_works_and_tells_all_reasons_if_none_does(own_calculators):
    careless, careful = {"arguments": {"level": 2}}, {"arguments": {"careful": True}}
    given = own_calculators("Picky", retries=[careless, careful])
    label, attempts = label_with_ladder(make_labeler(given, None), copper(), given, None)
    assert attempts == 3 and label.is_finite()

    given = own_calculators("Picky", retries=[careless])
    with pytest.raises(LabelError, match="attempt 1: .*no convergence; attempt 2: .*no convergence"):
        label_with_ladder(make_labeler(given, None), copper(), given, None)


def test_untrustworthy_labels_are_refused(own_calculators):
    frame = copper()
    given = ase_section("ase.calculators.emt.EMT")
    good = make_labeler(given, None).label(frame, {}, 10.0)
    nothing_known = Label(np.nan, good.forces, good.virial)
    with pytest.raises(LabelError, match="not finite"):
        check_label(frame, nothing_known, given)
    with pytest.raises(LabelError, match="shape"):
        check_label(frame, Label(good.energy, good.forces[1:], good.virial), given)
    with pytest.raises(LabelError, match="virial"):
        check_label(frame, Label(good.energy, good.forces), given)
    with pytest.raises(LabelError, match="label.max_force"):
        check_label(frame, good, ase_section("ase.calculators.emt.EMT", max_force=1e-3))
    with pytest.raises(LabelError, match="changed the geometry"):
        make_labeler(own_calculators("Mover"), None).label(frame, {}, 10.0)
    with pytest.raises(LabelError, match="label.virial = false"):
        make_labeler(own_calculators("Forceful"), None).label(frame, {}, 10.0)
    label = make_labeler(own_calculators("Forceful", virial=False), None).label(frame, {}, 10.0)
    assert label.virial is None and np.allclose(label.forces, good.forces)


def test_teacher_labels_in_batches(make):
    labeler, given, frame, _, _ = make("deepmd")
    other = Frame(frame.numbers[:4], frame.cell, frame.positions[:4])
    frames = [frame, other, carbide(5), frame]
    batch = labeler.label_batch(frames, {}, 100.0)
    for one, label in zip(frames, batch, strict=True):
        alone = labeler.label(one, {}, 100.0)
        assert label.energy == pytest.approx(alone.energy, abs=1e-9)
        assert np.allclose(label.forces, alone.forces, atol=1e-9)

    gold = Frame.from_atoms(bulk("Au"))
    answers = label_all(labeler, [frame, gold, other], given, None)
    assert answers[0][0].energy == pytest.approx(batch[0].energy) and answers[2][1] == 1
    assert isinstance(answers[1], LabelError) and "Au" in str(answers[1])


def test_teacher_branch_and_molecules(tmp_path):
    model = tiny_checkpoint(tmp_path, branches=("a", "b"))
    pair = Frame.from_atoms(Atoms("SiC", positions=[[0, 0, 0], [1.7, 0, 0]]))
    energies = []
    for branch in ("a", "b"):
        given = section("deepmd", {"model": str(model), "branch": branch}, virial=False)
        energies.append(make_labeler(given, None).label(pair, {}, 100.0).energy)
    assert abs(energies[0] - energies[1]) > 0.1
    with pytest.raises(InputError, match='label.options.branch: the checkpoint has no "none"'):
        make_labeler(section("deepmd", {"model": str(model), "branch": "none"}), None)


def test_level_is_the_physics_only(teacher, tmp_path):
    def teacher_level(path):
        return level_hash(section("deepmd", {"model": str(path)}))

    base = level_hash(section("gpaw", GPAW))
    assert base == "8d7fc70387250a17", "levels must not change between versions: labels are kept under them"
    backwards = dict(reversed(GPAW.items()))
    assert base == level_hash(section("gpaw", backwards, timeout=5, retries=[{"maxiter": 9}]))
    assert base != level_hash(section("gpaw", merged(GPAW, {"mode": {"ecut": 201}})))
    assert base != level_hash(section("gpaw", GPAW, virial=False))

    copy = tmp_path / "elsewhere.pth"
    copy.write_bytes(teacher.read_bytes())
    assert teacher_level(teacher) == teacher_level(copy)
    copy.write_bytes(b"another model")
    assert teacher_level(teacher) != teacher_level(copy)


def test_changes_go_into_nested_tables():
    changed = merged(GPAW, {"mode": {"ecut": 500}, "mixer": {"beta": 0.02}, "xc": "LDA"})
    assert changed["mode"] == {"name": "pw", "ecut": 500} and changed["xc"] == "LDA"
    assert changed["mixer"] == {"beta": 0.02} and GPAW["mode"]["ecut"] == 200


@pytest.mark.parametrize(
    ("given", "ranks", "words"),
    [
        (ase_section("ase.calculators.emt.EMt"), 1, ["label.options.calculator", "did you mean EMT?"]),
        (ase_section("ase.calculators.emp.EMT"), 1, ["no module ase.calculators.emp"]),
        (ase_section("no_such_package.sub.EMT"), 1, ["label.options.calculator", "no_such_package"]),
        (ase_section("EMT"), 1, ["not an import path"]),
        (ase_section("ase.calculators.emt.EMT"), 2, ["ranks.labeler.ranks", "= 1"]),
        (section("ase", {**LENNARD_JONES, "argument": 1}), 1, ["label.options.argument", '"arguments"']),
        (section("deepmd", {"model": "/nowhere/x.pth"}), 1, ["label.options.model", "no such file"]),
        (section("gpaw", {**GPAW, "kpoints": 1}), 2, ["label.options.kpoints", '"kpts"']),
        (section("gpaw", {"xc": "PBE"}), 1, ["label.options.mode", "missing"]),
        (section("gpaw", GPAW, retries=[{"mixxer": {}}]), 1, ["label.retries[0].mixxer", '"mixer"']),
    ],
)
def test_problems_are_found_beforehand(given, ranks, words):
    problems = "\n".join(check_labeler(given, ranks))
    for word in words:
        assert word in problems


def test_good_sections_have_no_problems(teacher, own_calculators):
    assert check_labeler(ase_section("ase.calculators.emt.EMT"), 1) == []
    assert check_labeler(own_calculators("Picky"), 1) == []
    assert check_labeler(section("deepmd", {"model": str(teacher)}), 1) == []
    if importlib.util.find_spec("gpaw"):
        assert check_labeler(section("gpaw", GPAW), 8) == []


def test_paths_among_the_options_start_from_the_input_file(tmp_path):
    for kind, options, key in (
        ("deepmd", {"model": "teacher.pth"}, "model"),
        ("ase", {"calculator": "mine.Calculator", "path": "teacher.pth"}, "path"),
    ):
        given = LabelSection.model_validate({"type": kind, "options": options}, context={"base": tmp_path})
        assert given.options[key] == str(tmp_path / "teacher.pth")
