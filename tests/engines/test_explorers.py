"""What every explorer owes the workflow, whichever engine it is, and the start structures."""

import pickle
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.build import bulk, molecule
from hypothesis import given, settings
from hypothesis import strategies as st
from models import frozen, tiny_checkpoint

from pfdhpc.config.explore import ExploreSection, SystemSection, ends
from pfdhpc.data import Frame, Label
from pfdhpc.engines.base import SegmentTask
from pfdhpc.engines.calculators import check_calculator
from pfdhpc.engines.explore import check_explore, check_starts, perturb, starts
from pfdhpc.engines.explore.guards import Guards
from pfdhpc.engines.explore.md_segment import stops, thermal_velocities
from pfdhpc.engines.registry import make_explorer
from pfdhpc.errors import InputError, TaskError

EMT = {"calculator": "ase.calculators.emt.EMT"}

# Runs pickled (section, type map, models, tasks) in a fresh process and pickles the results.
ELSEWHERE = """
import pickle, sys
from pathlib import Path
from pfdhpc.engines.registry import make_explorer
work = pickle.loads(Path(sys.argv[1]).read_bytes())
results = []
for section, type_map, models, task in work:
    explorer = make_explorer(section)
    explorer.load_models(models, type_map)
    results.append(explorer.run(task))
Path(sys.argv[1]).with_suffix(".out").write_bytes(pickle.dumps(results))
"""


@dataclass(frozen=True)
class Case:
    """One engine with a potential and a structure for it."""

    engine: str
    options: dict
    type_map: tuple[str, ...]
    models: tuple[Path, ...]
    start: Frame
    ensembles: tuple[str, ...]

    def section(self, **changes) -> ExploreSection:
        values = {"engine": self.engine, "options": self.options, "steps": 20, "interval": 5}
        return ExploreSection(**{**values, **changes})

    def explorer(self, **changes):
        explorer = make_explorer(self.section(**changes))
        explorer.load_models(self.models, self.type_map)
        return explorer

    def task(self, **changes) -> SegmentTask:
        task = SegmentTask("sic-0", "sic", self.start, None, 0, (300.0, 300.0), (0.0, 0.0), 11)
        return replace(task, **changes)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> tuple[Path, Path]:
    """Two frozen models that share nothing but their species."""
    folder = tmp_path_factory.mktemp("models")
    checkpoint = tiny_checkpoint(folder, ("Si", "C"), branches=("a", "b"))
    return frozen(checkpoint, folder / "a", "a"), frozen(checkpoint, folder / "b", "b")


@pytest.fixture(scope="module", params=["ase", "lammps"])
def case(request, models) -> Case:
    if request.param == "ase":
        copper = bulk("Cu", cubic=True) * (2, 1, 1)
        ensembles = ("nve", "nvt", "langevin", "npt-iso", "npt-tri")
        return Case("ase", EMT, ("Cu",), (), Frame.from_atoms(copper), ensembles)
    carbide = bulk("SiC", "zincblende", a=4.36) * (2, 1, 1)
    ensembles = ("nve", "nvt", "langevin", "npt-iso", "npt-aniso", "npt-tri")
    return Case("lammps", {}, ("Si", "C"), models[:1], Frame.from_atoms(carbide), ensembles)


def same(one, other) -> bool:
    """Equal to the last bit: frames, predictions and the state at the end."""
    pairs = list(zip(one.records, other.records, strict=True))
    return all(
        a.frame_id == b.frame_id
        and a.prediction.energy == b.prediction.energy
        and np.array_equal(a.prediction.forces, b.prediction.forces)
        for a, b in pairs
    )


def test_frames_come_at_the_interval_with_prediction_and_origin(case):
    task = case.task(segment=3, temperature=(300, 400), pressure=(-8.0, 8.0))
    result = case.explorer(ensemble="npt-iso").run(task)
    assert (result.steps, result.stopped, result.replica) == (20, "", "sic-0")
    assert result.state and result.seconds > 0
    origins = [record.origin for record in result.records]
    assert [origin.step for origin in origins] == [5, 10, 15, 20]
    assert [origin.temperature for origin in origins] == [325, 350, 375, 400]
    assert [origin.pressure for origin in origins] == [-4, 0, 4, 8]
    assert {(o.system, o.replica, o.segment) for o in origins} == {("sic", "sic-0", 3)}
    assert len({record.frame_id for record in result.records}) == 4
    for record in result.records:
        assert record.prediction.is_finite() and record.prediction.virial is not None
        assert record.prediction.forces.shape == record.frame.positions.shape
        assert np.isnan(record.origin.deviation)
        assert np.array_equal(record.frame.numbers, case.start.numbers)


def test_a_run_continued_in_another_process_is_the_same_to_the_last_bit(case, tmp_path):
    work, here = [], []
    for ensemble in case.ensembles:
        explorer = case.explorer(ensemble=ensemble)
        first = explorer.run(case.task(temperature=(300, 500)))
        second = case.task(state=first.state, segment=1, seed=12, temperature=(500, 400), pressure=(0, 900))
        explorer.run(case.task(seed=99, replica="another"))  # what came between must not matter
        here.append(explorer.run(second))
        work.append((case.section(ensemble=ensemble), case.type_map, case.models, second))
    (tmp_path / "work.pickle").write_bytes(pickle.dumps(work))
    subprocess.run([sys.executable, "-c", ELSEWHERE, str(tmp_path / "work.pickle")], check=True)
    there = pickle.loads((tmp_path / "work.out").read_bytes())
    for ensemble, one, other in zip(case.ensembles, here, there, strict=True):
        assert not one.stopped and len(one.records) == 4
        assert same(one, other), ensemble
        assert one.state == other.state, ensemble


def test_a_task_is_a_pure_function_of_its_content(case):
    explorer = case.explorer(ensemble="langevin")
    first = explorer.run(case.task())
    other_seed = explorer.run(case.task(seed=12))
    assert same(first, explorer.run(case.task()))
    assert not same(first, other_seed)


def test_the_second_segment_goes_on_where_the_first_ended(case):
    explorer = case.explorer(ensemble="nve", interval=20)
    first = explorer.run(case.task())
    last = first.records[-1].frame
    second = case.explorer(ensemble="nve", steps=1, interval=1).run(case.task(state=first.state, segment=1))
    moved = np.linalg.solve(case.start.cell.T, (second.records[0].frame.positions - last.positions).T)
    assert 0 < np.abs(moved - np.round(moved)).max() < 0.01


def test_a_guard_keeps_the_healthy_head_and_sends_the_replica_back(case):
    explorer = case.explorer(
        ensemble="langevin", steps=400, interval=4, temperature_damping=10, guard={"max_temperature": 1500}
    )
    result = explorer.run(case.task(temperature=(300, 6000)))
    assert "guard.max_temperature 1500 K" in result.stopped
    assert result.state is None
    assert 0 < result.steps < 400
    assert [record.origin.step for record in result.records] == list(range(4, result.steps + 1, 4))
    assert explorer.run(case.task(temperature=(300, 300))).stopped == ""


def test_a_start_no_trajectory_can_leave_is_a_task_error(case):
    with pytest.raises(TaskError, match="guard.min_distance 5 Å"):
        case.explorer(guard={"min_distance": 5}).run(case.task())


def test_damaged_restart_bytes_stop_the_segment_only(case):
    explorer = case.explorer()
    result = explorer.run(case.task(state=b"not a state", segment=1))
    assert result.stopped and result.state is None and result.steps == 0
    assert explorer.run(case.task()).stopped == ""


def test_pressure_compresses(case):
    changes = {"ensemble": "npt-iso", "steps": 30, "interval": 30, "pressure_damping": 100.0}
    explorer = case.explorer(**changes)
    free, ramped, pressed = (
        explorer.run(case.task(pressure=p)).records[0].frame.volume for p in ((0, 0), (0, 5e3), (5e3, 5e3))
    )
    assert pressed < ramped < free


def test_the_ase_engine_takes_a_committee_and_agrees_with_lammps(models):
    options = {"calculator": "deepmd.calculator.DP", "model_argument": "model"}
    start = Frame.from_atoms(bulk("SiC", "zincblende", a=4.36, cubic=True))
    shared = {"ensemble": "nve", "steps": 10, "interval": 5}
    results = []
    for engine in ({"engine": "ase", "options": options}, {"engine": "lammps"}):
        explorer = make_explorer(ExploreSection(**shared, **engine))
        explorer.load_models(models, ("Si", "C"))
        results.append(explorer.run(SegmentTask("r", "s", start, None, 0, (300.0, 300.0), (0.0, 0.0), 5)))
    for ase_record, lammps_record in zip(*(result.records for result in results), strict=True):
        moved = ase_record.frame.positions - lammps_record.frame.positions
        moved = np.linalg.solve(start.cell.T, moved.T)
        assert np.abs(moved - np.round(moved)).max() < 1e-6  # their units differ in the eighth digit
        assert ase_record.origin.deviation == pytest.approx(lammps_record.origin.deviation, rel=1e-5)
        assert ase_record.origin.deviation > 0
        assert ase_record.prediction.energy == pytest.approx(lammps_record.prediction.energy, abs=1e-6)
        np.testing.assert_allclose(ase_record.prediction.virial, lammps_record.prediction.virial, atol=1e-6)


def test_a_calculator_that_fails_leaves_a_reason():
    section = ExploreSection(engine="ase", options=EMT, steps=5, interval=5)
    explorer = make_explorer(section)
    task = SegmentTask("r", "s", Frame.from_atoms(bulk("Si")), None, 0, (300.0, 300.0), (0.0, 0.0), 5)
    with pytest.raises(TaskError, match="replica r cannot begin at its start structure: NotImplementedError"):
        explorer.run(task)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"options": {"calculator": "EMT"}}, "explore.options.calculator: EMT: not an import path"),
        ({"options": {"calculator": "no.such.EMT"}}, "options.calculator: no.such.EMT: no.such cannot be imported"),
        ({"options": {"calculator": "ase.calculators.emt.EMU"}}, "ase.calculators.emt has no EMU; did you mean EMT?"),
        ({"options": {"calculator": "ase.calculators.emp.EMT"}}, "no module ase.calculators.emp"),
        ({"options": {**EMT, "argument": {}}}, "explore.options.argument: unknown key"),
        ({"options": {**EMT, "arguments": 3}}, "explore.options.arguments: must be a table"),
        ({"options": EMT, "ensemble": "npt-aniso"}, "explore.ensemble: the engine ase cannot do npt-aniso"),
        ({"options": EMT, "committee": [__file__]}, "explore.committee: the engine ase loads models only with"),
        ({"engine": "lammps", "committee": [__file__]}, "explore.committee: test_explorers.py is not a frozen model"),
    ],
)
def test_mistakes_in_the_input_are_found_before_anything_runs(changes, problem):
    section = ExploreSection(**{"engine": "ase", **changes})
    assert [line for line in check_explore(section) if problem in line]
    with pytest.raises(InputError, match="explore"):
        make_explorer(section)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"calculator": "broken_calculator.Broken"}, r"explore.options.calculator: .* no luck"),
        ({"calculator": "whole_calculator.Needy"}, r"explore.options.arguments: whole_calculator.Needy .* 'given'"),
    ],
)
def test_a_program_that_does_not_start_is_bad_input(options, problem, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_calculator.py").write_text("Broken: type = object\nraise OSError('no luck')\n")
    (tmp_path / "whole_calculator.py").write_text("def Needy(given):\n    return given\n")
    section = ExploreSection(engine="ase", options=options)
    assert check_explore(section) == []  # only running it tells
    with pytest.raises(InputError, match=problem):
        make_explorer(section)


def test_a_calculator_is_found_in_a_folder_and_under_any_kind_of_definition(tmp_path):
    source = "A: type = 1\nB = 2\nfrom os import path as C\nclass D: pass\ndef E(): pass\n"
    (tmp_path / "own_kinds.py").write_text(source)
    for name in "ABCDE":
        assert check_calculator("key", f"own_kinds.{name}", str(tmp_path)) == []
    assert "own_kinds has no F" in check_calculator("key", "own_kinds.F", str(tmp_path))[0]
    assert check_calculator("key", "own_kinds.A", remedy="buy it") == [
        "key: own_kinds.A: no module own_kinds; buy it, or correct the path"
    ]
    assert "own_kinds" not in sys.modules and str(tmp_path) not in sys.path


@pytest.mark.parametrize("growth", [np.identity(3), np.diag([1.0, -0.5, 0.2]), np.ones((3, 3)) - np.identity(3)])
def test_a_free_cell_keeps_its_enthalpy_better_the_shorter_the_step(growth):
    """Without a bath; ASE's own drag loses 10 meV of a cell that grows in volume, at any step."""
    from ase import units
    from ase.calculators.emt import EMT

    from pfdhpc.engines.explore.ase import FlexibleBarostat

    def lost(timestep: float) -> float:
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.1, seed=1)
        atoms.calc = EMT()
        atoms.set_velocities(0.02 * np.random.default_rng(0).normal(size=(4, 3)))
        dynamics = FlexibleBarostat(atoms, timestep * units.fs, externalstress=0.0, P_tau=1.0, P_mass=500.0)
        dynamics.p_eps = 3.0 * growth
        enthalpies = []
        for _ in range(round(40 / timestep) + 1):
            barostat = (dynamics.p_eps**2).sum() / (2 * dynamics.barostat_mass)
            enthalpies.append(atoms.get_total_energy() + barostat)
            dynamics.step()
        return np.ptp(enthalpies)

    coarse, fine = lost(1.0), lost(0.25)
    assert fine < 0.45 * coarse < 1e-3


def test_the_barostat_drags_its_trace_on_the_diagonal_only(case):
    """Eq. 5b of Quigley & Probert, J. Chem. Phys. 120 (2004) 11432, in the dynamics that the engine makes."""
    if case.engine != "ase":
        return
    motion = case.explorer(ensemble="npt-tri").begin(case.task())
    dynamics, momentum = motion.dynamics, np.array([[3.0, 0.2, 0.0], [0.2, -1.0, 0.5], [0.0, 0.5, 4.0]])
    dynamics.p_eps = momentum.copy()
    expected = (momentum + 6.0 / dynamics.Ndof * np.identity(3)) / dynamics.barostat_mass
    np.testing.assert_allclose(dynamics._barostat_BAOAB_OU_gamma_mod(), expected, rtol=1e-14)
    motion.advance(1)
    np.testing.assert_allclose(dynamics.gamma_mod, dynamics.gamma_mod.T, atol=1e-12)


def test_starts_an_engine_cannot_explore_are_named_with_a_remedy():
    starts_given = [Frame.from_atoms(bulk("Cu")), Frame.from_atoms(molecule("CO"))]
    (line,) = check_starts(ExploreSection(), "co", starts_given)
    assert line.startswith("system co: the engine lammps") and "1 of the 2" in line and "vacuum" in line
    assert check_starts(ExploreSection(), "cu", starts_given[:1]) == []
    assert check_starts(ExploreSection(engine="ase", options=EMT), "co", starts_given) == []
    partly = [Frame(frame.numbers, frame.cell, frame.positions, (True, True, False)) for frame in starts_given[:1]]
    (line,) = check_starts(ExploreSection(engine="ase", options=EMT), "slab", partly)
    assert "periodic in some directions only" in line
    (line,) = check_starts(ExploreSection(engine="ase", options=EMT, ensemble="npt-iso"), "co", starts_given)
    assert 'explore.ensemble = "npt-iso"' in line


@pytest.mark.parametrize("key", ["temperatures", "pressures"])
@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([300, 300.0], "300 is given twice"),
        ([300, 300.0000001], "300 is given twice"),
        ([300, [300, 300]], "300 is given twice"),
        ([[100, 200], 300, [100, 200]], "100 to 200 is given twice"),
    ],
)
def test_two_replicas_of_one_name_are_refused(key, values, text):
    with pytest.raises(ValueError, match=text):
        ExploreSection(ensemble="npt-iso", **{key: values})


def test_temperatures_and_pressures_are_lists_of_values_and_ramps():
    section = ExploreSection(ensemble="npt-iso", temperatures=[300, [300, 900]], pressures=[-500, [0, 1e4], [1e4, 0]])
    assert [ends(ramp) for ramp in section.temperatures] == [(300, 300), (300, 900)]
    assert [ends(ramp) for ramp in section.pressures] == [(-500, -500), (0, 1e4), (1e4, 0)]
    with pytest.raises(ValueError, match="temperatures"):
        ExploreSection(temperatures=[[0, 300]])


def test_sound_input_passes_the_check():
    deepmd = {"calculator": "deepmd.calculator.DP", "model_argument": "model"}
    for section in (ExploreSection(), *(ExploreSection(engine="ase", options=o) for o in (EMT, deepmd))):
        assert check_explore(section) == []


@given(steps=st.integers(1, 300), interval=st.integers(1, 300))
def test_a_segment_pauses_for_frames_guards_and_its_end(steps, interval):
    section = ExploreSection(steps=max(steps, interval), interval=interval)
    pauses = stops(section)
    assert pauses == sorted(set(pauses)) and pauses[-1] == section.steps
    assert set(range(interval, section.steps + 1, interval)) <= set(pauses)
    assert max(np.diff([0, *pauses])) <= 10


def test_velocities_have_the_temperature_and_no_drift():
    for numbers in (np.array([6]), np.array([14, 6, 1, 8])):
        masses = np.array([28.085, 12.011, 1.008, 15.999])
        velocities = thermal_velocities(numbers, 600.0, 3)
        atoms = Frame(numbers, np.eye(3) * 10, np.zeros((len(numbers), 3))).to_atoms()
        atoms.set_velocities(velocities / 0.09822694788464063)  # Å/fs to ASE's unit of time
        free = 3 * len(numbers) - (3 if len(numbers) > 1 else 0)
        assert atoms.get_temperature() * 3 * len(numbers) / free == pytest.approx(600.0, rel=1e-6)
        if len(numbers) > 1:
            np.testing.assert_allclose(masses @ velocities, 0, atol=1e-3)


def test_the_guard_sees_images_in_small_cells_and_values_that_are_not_finite():
    guard = ExploreSection(guard={"min_distance": 1.0, "max_volume_ratio": 1.5}).guard
    cell = Frame(np.array([6]), np.diag([0.9, 3.0, 3.0]), np.zeros((1, 3)))
    fine = Label(0.0, np.zeros((1, 3)))
    assert "closest pair 0.900 Å" in Guards(guard, cell).violation(cell, fine, 300.0)
    wide = Frame(cell.numbers, np.eye(3) * 3, cell.positions)
    twice = Frame(cell.numbers, np.diag([3, 3, 6]), cell.positions)
    assert Guards(guard, wide).violation(wide, fine, 300.0) == ""
    assert "volume ratio 0.5" in Guards(guard, twice).violation(wide, fine, 300.0)
    assert "not finite" in Guards(guard, wide).violation(wide, fine, float("nan"))
    assert "not finite" in Guards(guard, wide).violation(wide, Label(0.0, np.full((1, 3), np.inf)), 300.0)


STEPS = st.tuples(st.sampled_from([-0.3, 0.0, 0.05, 0.3]), st.sampled_from([0.9, 1.0, 1.1]), st.integers(-1, 1))


@settings(max_examples=200)
@given(
    steps=st.lists(STEPS, min_size=4, max_size=8),
    distance=st.floats(1.2, 2.0),
    pbc=st.sampled_from([0, 2, 3]),
    strained=st.booleans(),
)
def test_what_the_guard_remembers_changes_nothing(steps, distance, pbc, strained):
    guard = ExploreSection(guard={"min_distance": 1.2, "max_volume_ratio": 100}).guard
    cell, positions = np.array([[9, 0, 0], [4, 8, 0], [0, 1, 9]]) * 1.0, np.array([[0, 0, 0], [distance, 0, 0]])
    cell[pbc:] = 0
    frame, label = Frame(np.full(2, 6), cell, positions, np.arange(3) < pbc), Label(0.0, np.zeros((2, 3)))
    keeping = Guards(guard, frame)
    for towards, scale, image in steps:
        assert keeping.violation(frame, label, 300.0) == Guards(guard, frame).violation(frame, label, 300.0)
        change = np.diag([scale, 1, 1]) if strained else np.eye(3)
        moved = frame.positions + [[towards, 0, 0], image * frame.cell[0] - [towards, 0, 0]]
        frame = Frame(frame.numbers, frame.cell @ change, moved @ change, frame.pbc)


@settings(max_examples=30)
@given(strain=st.floats(0, 0.4), displacement=st.floats(0, 0.5), seed=st.integers(0, 2**32))
def test_perturbing_stays_within_its_bounds(strain, displacement, seed):
    start = Frame.from_atoms(bulk("SiC", "zincblende", a=4.36, cubic=True))
    made = perturb(start, strain, displacement, np.random.default_rng(seed))
    matrix = np.linalg.solve(start.cell, made.cell)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-12)
    assert np.abs(np.diag(matrix) - 1).max() <= strain + 1e-12
    assert np.abs(matrix - np.diag(np.diag(matrix))).max() <= strain / 2 + 1e-12
    moves = made.positions - start.positions @ matrix
    assert np.sqrt((moves**2).sum(axis=1).mean()) <= 3 * displacement + 1e-9


def test_a_molecule_is_displaced_but_not_strained():
    water = Frame.from_atoms(molecule("H2O"))
    made = perturb(water, 0.3, 0.0, np.random.default_rng(1))
    assert np.array_equal(made.positions, water.positions)


def test_starts_follow_from_the_seed_and_the_structure_alone(tmp_path):
    files = [tmp_path / "two.extxyz", tmp_path / "one.vasp"]
    ase.io.write(files[0], [bulk("Si"), bulk("Si", a=5.5)])
    ase.io.write(files[1], bulk("SiC", "zincblende", a=4.36))

    def made(structures, seed=1, **changes):
        return starts(SystemSection(name="s", structures=structures, **changes), seed)

    assert [len(frame) for frame in made(files, supercell=(2, 1, 1))] == [4, 4, 4]
    perturbed = made(files, perturb={"count": 3})
    ids = [frame.frame_id for frame in perturbed]
    assert len(set(ids)) == 9
    assert ids == [frame.frame_id for frame in made(files, perturb={"count": 3})]
    assert set(ids) == {frame.frame_id for frame in made(files[::-1], perturb={"count": 3})}
    assert not set(ids) & {frame.frame_id for frame in made(files, seed=2, perturb={"count": 3})}


def test_unreadable_structures_are_named_all_at_once(tmp_path):
    files = [tmp_path / "a.cif", tmp_path / "b.unknown"]
    for file in files:
        file.write_text("nonsense")
    with pytest.raises(InputError) as caught:
        starts(SystemSection(name="s", structures=files), 0)
    named = [line.split(" (")[0] for line in caught.value.problems]
    assert named == [f"system.structures: {file}" for file in files]
