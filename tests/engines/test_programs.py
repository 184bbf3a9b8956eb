"""VASP, ABACUS and CP2K as labelers: stand-ins that read and write what the programs do, through the real launch."""

import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from programs import (
    CP2K_INPUT,
    PROGRAMS,
    after,
    check_called_off,
    check_judged,
    computed,
    ended_by_itself,
    frame,
    kept,
    moved,
    options,
    running,
    section,
)

from pfdhpc.cli.main import main
from pfdhpc.config.init import AimdSection
from pfdhpc.config.label import LabelSection
from pfdhpc.data import Frame
from pfdhpc.engines.isolated.spawner import Spawner
from pfdhpc.engines.label.aimd import at_rest, run_segment
from pfdhpc.engines.label.input_checks import check_labeler
from pfdhpc.engines.label.label_checks import check_label, label_with_ladder
from pfdhpc.engines.label.launch.exit_reason import never
from pfdhpc.engines.label.level_of_theory import level_hash
from pfdhpc.engines.label.programs import program_class
from pfdhpc.engines.registry import make_labeler
from pfdhpc.errors import InputError, LabelError
from pfdhpc.units import virial_from_stress

DATA = Path(__file__).parents[1] / "data" / "programs"
PICKY = {
    "vasp": {"incar": {"ALGO": "All"}},
    "abacus": {"input": {"mixing_beta": 0.1}},
    "cp2k": {"input": {"FORCE_EVAL/DFT/SCF/MAX_SCF": 200}},
}
"""What the picky stand-ins converge with."""
STAYS = {"incar": {"ISYM": 0}}
"""What a VASP that stays needs."""


@pytest.fixture(scope="module")
def spawner():
    with Spawner() as made:
        yield made


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    for kind in PROGRAMS:
        monkeypatch.setattr(program_class(kind), "patience", 2.0)


def labeler(spawner, folder, kind, *arguments, called_off=never, **more):
    given = section(kind, folder, *arguments, **more)
    return make_labeler(given, None, spawner, folder / "logs" / "rank.log", called_off)


@pytest.mark.parametrize(("kind", "version"), [(kind, version) for kind in PROGRAMS for version in ("old", "new")])
def test_labels_have_the_frames_order_and_the_units_and_the_virial_is_minus_the_slope_with_strain(
    kind, version, tmp_path, spawner
):
    energy, forces, stress = computed(frame())
    label = labeler(spawner, tmp_path, kind, version=version).label(frame(), {}, 60.0)
    virial = virial_from_stress(stress, frame().volume)
    # ABACUS has a bohr of its own, which moves the atoms of the stand-in by 1e-6 Å.
    np.testing.assert_allclose(label.energy, energy, atol=1e-4)
    np.testing.assert_allclose(label.forces, forces, atol=1e-4)
    np.testing.assert_allclose(label.virial, virial, atol=2e-4)
    step = 1e-5
    strain = step * np.array([[1, 0.5, 0], [0.5, 0, 0], [0, 0, 0]])
    slope = (computed(frame(strain))[0] - computed(frame(-strain))[0]) / (2 * step)
    assert -slope == pytest.approx(label.virial[0, 0] + label.virial[0, 1], abs=1e-3) and abs(slope) > 0.5


@pytest.mark.parametrize(("kind", "stays"), [*((kind, False) for kind in PROGRAMS), ("vasp", True)])
def test_a_left_handed_cell_is_labelled_as_the_same_lattice_in_right_handed_vectors(kind, stays, tmp_path, spawner):
    """VASP stops with "the triple product of the basis vectors is negative"."""
    left = replace(frame(), cell=frame().cell[[1, 0, 2]])
    made = labeler(spawner, tmp_path, kind, STAYS if stays else None, version="new", resident=stays)
    for _ in range(1 + stays):
        label = made.label(left, {}, 60.0)
        assert label.energy == pytest.approx(computed(frame())[0], abs=1e-4)
        np.testing.assert_allclose(label.forces, computed(frame())[1], atol=1e-4)
    if stays:
        made._dismiss(keep=True)
    assert kept(tmp_path).name.startswith(left.frame_id[:12])
    if kind == "vasp":
        assert np.linalg.det(ase.io.read(kept(tmp_path) / "POSCAR", format="vasp", parallel=False).cell.array) > 0


@pytest.mark.parametrize("kind", PROGRAMS)
def test_no_stress_is_asked_of_an_open_frame(kind, tmp_path, spawner):
    open_frame = replace(frame(), cell=frame().cell * [[1], [1], [6]], pbc=[True, True, False])  # with vacuum
    made = labeler(spawner, tmp_path, kind)
    label = made.label(open_frame, {}, 60.0)
    assert label.virial is None
    check_label(open_frame, label, made.section)


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [("vasp", "INCAR", "ISIF = {}"), ("abacus", "INPUT", "cal_stress {}"), ("cp2k", "cp2k.inp", "&STRESS_TENSOR ON")],
)
def test_the_stress_is_asked_for_only_where_a_virial_is_wanted(kind, name, words, tmp_path):
    for wanted in (True, False):
        folder = tmp_path / str(wanted)
        program = program_class(kind)(options(kind, folder / "files"), wanted)
        program.write(frame(), folder)
        on = {"vasp": 2, "abacus": 1}.get(kind, "")
        assert (words.format(on) in (folder / name).read_text()) is wanted


REASONS = {
    ("vasp", "unconverged"): "SCF not converged after 5 iterations",
    ("abacus", "unconverged"): "SCF not converged after 5 iterations",
    ("cp2k", "unconverged"): "SCF not converged after 10 iterations",
    ("vasp", "fail"): "VASP did not finish.*1 or 3 items on line 2 of POSCAR.*exit code 3",
    ("abacus", "fail"): "ABACUS did not finish.*Can not find the file.*exit code 3",
    ("cp2k", "fail"): "CP2K did not finish: Unknown subsection &XC found in section &DFT.*exit code 3",
    ("vasp", "truncated"): "VASP did not finish",
    ("abacus", "truncated"): "ABACUS did not finish",
    ("cp2k", "truncated"): "CP2K did not finish",
    ("vasp", "copies"): "2 copies of VASP ran in one folder",
    ("abacus", "copies"): "2 copies of ABACUS ran in one folder",
    ("cp2k", "copies"): "2 copies of CP2K ran in one folder",
    ("vasp", "moves"): "moved an atom by 0.01",
    ("vasp", "other"): "of other atoms than the frame",
    ("abacus", "fewer"): "3 forces for 4 atoms",
    ("cp2k", "fewer"): "3 forces for 4 atoms",
    ("vasp", "nan"): "not finite",
    ("abacus", "nan"): "not finite",
    ("cp2k", "nan"): "no energy in hartree",
}


@pytest.mark.parametrize(("kind", "behaviour"), REASONS)
def test_no_label_without_the_programs_own_word_that_it_converged_and_ended(kind, behaviour, tmp_path, spawner):
    with pytest.raises(LabelError, match=REASONS[kind, behaviour]) as found:
        label = labeler(spawner, tmp_path, kind, behaviour=behaviour).label(frame(), {}, 60.0)
        check_label(frame(), label, section(kind, tmp_path))
    assert f"see labels/{kept(tmp_path).name}" in str(found.value) or "not finite" in str(found.value)


@pytest.mark.parametrize("kind", PROGRAMS)
def test_a_program_that_takes_too_long_is_asked_to_end_by_itself(kind, tmp_path, spawner):
    with pytest.raises(LabelError, match="time-out: longer than 1 s"):
        labeler(spawner, tmp_path, kind, behaviour="hang").label(frame(), {}, 1.0)
    ended = {"vasp": "OUTCAR", "abacus": "OUT.ABACUS/running_scf.log", "cp2k": "standard.out"}[kind]
    assert (kept(tmp_path) / ended).read_text().strip().splitlines()[-1].strip() != "iterating"
    assert not running(tmp_path)


@pytest.mark.parametrize("kind", PROGRAMS)
def test_a_label_that_is_called_off_ends_its_program_by_its_own_way_and_is_no_verdict(kind, tmp_path, spawner):
    given = {"behaviour": "hang", "retries": [PICKY[kind]]}
    made = labeler(spawner, tmp_path, kind, called_off=after(1.0), **given)
    begin = time.monotonic()
    with pytest.raises(LabelError, match="^attempt 1: stopped: this job is about to end.*; see labels/") as found:
        label_with_ladder(made, frame(), section(kind, tmp_path, **given), None)
    assert found.value.killed == signal.SIGTERM and time.monotonic() - begin < 8.0
    assert ended_by_itself(tmp_path, kind) and not running(tmp_path)


def test_a_program_that_does_not_hear_is_killed(tmp_path, spawner, monkeypatch):
    monkeypatch.setattr(program_class("vasp"), "soft_stop", ("UNHEARD", ""))
    begin = time.monotonic()
    with pytest.raises(LabelError, match="time-out"):
        labeler(spawner, tmp_path, "vasp", behaviour="hang").label(frame(), {}, 1.0)
    assert not running(tmp_path) and time.monotonic() - begin < 10.0
    assert not (kept(tmp_path) / "OUTCAR").exists()


def vasp(spawner, folder, **more):
    return labeler(spawner, folder, "vasp", STAYS, resident=True, **more)


def test_a_vasp_that_stays_labels_as_one_started_for_each_frame(tmp_path, spawner):
    stays, cold = vasp(spawner, tmp_path, version="new"), labeler(spawner, tmp_path / "cold", "vasp", STAYS)
    pids = []
    for seed in (1, 2):
        label, expected = (made.label(moved(seed), {}, 60.0) for made in (stays, cold))
        assert label.energy == pytest.approx(expected.energy, abs=1e-7)
        np.testing.assert_allclose(label.forces, expected.forces, atol=2e-6)
        np.testing.assert_allclose(label.virial, expected.virial, atol=1e-4)
        pids.append(stays._running.pid)
    assert len(set(pids)) == 1
    stays.label(moved(1, 0.01 * np.eye(3)), {}, 60.0)
    assert stays._running.pid != pids[0], "VASP keeps the cell it began with"
    stays.label(Frame.from_atoms(bulk("Cu", cubic=True)), {}, 60.0)
    assert ended_by_itself_all(tmp_path) == 2
    stays._dismiss(keep=False)
    assert not running(tmp_path)


def ended_by_itself_all(folder):
    return sum("aborting job" in path.read_text() for path in (folder / "labels").glob("*/OUTCAR"))


@pytest.mark.parametrize(
    ("behaviour", "processes", "place", "said"),
    [
        ("unconverged", 1, 1, "SCF not converged after 5 iterations"),
        ("truncated", 1, 1, "before its OUTCAR is complete"),
        ("moves", 1, 1, "moved an atom by 0.01"),
        ("copies", 1, 1, "2 copies of VASP ran in one folder"),
        ("fail", 1, 1, "it ended without an answer; its output ends: ERROR: there must be.*exit code 3"),
        ("", 3, 1, "ran on 3 processes, and 1 were asked for"),
        ("dies", 1, 2, "it ended without an answer; its output ends:.*SIGSEGV.*exit code 174"),
        ("hang", 1, 2, "time-out: longer than 2 s"),
    ],
)
def test_a_vasp_that_stays_is_judged_in_every_step_and_started_anew_after_a_failure(
    behaviour, processes, place, said, tmp_path, spawner, monkeypatch
):
    monkeypatch.setattr("pfdhpc.engines.label.programs.vasp_interactive.COMPLETE", 0.3)
    made = vasp(spawner, tmp_path, behaviour=behaviour, processes=processes)
    check_judged(made, tmp_path, place, said, 2.0 if behaviour == "hang" else 60.0)
    if place == 2:
        made._dismiss(keep=False)


def test_a_vasp_that_stays_ends_tidily_when_its_label_is_called_off(tmp_path, spawner):
    check_called_off(lambda wish: vasp(spawner, tmp_path, behaviour="hang", called_off=wish), tmp_path, "vasp", 0.5)


def test_at_the_end_of_a_job_nothing_runs_and_nothing_is_left_but_what_was_kept(tmp_path):
    with Spawner() as own:
        for name, changes, resident in (("cold", {}, False), ("stays", STAYS, True)):
            given = section("vasp", tmp_path, changes, resident=resident)
            given = given.model_copy(update={"launch": given.launch.model_copy(update={"keep": False})})
            made = make_labeler(given, None, own, tmp_path / "logs" / f"{name}.log")
            assert made.label(moved(1), {}, 60.0).is_finite()
        stays = made._running
        assert running(tmp_path) and (stays.directory / "POTCAR").exists()
    assert not running(tmp_path) and not stays.line.stdin.exists()
    assert not list((tmp_path / "labels").iterdir())


def test_short_dynamics_keep_a_vasp_that_stays(tmp_path, spawner):
    made, wish = vasp(spawner, tmp_path, called_off=lambda: wish()), never
    rules = section("vasp", tmp_path, STAYS, resident=True)
    aimd = AimdSection(steps=3, interval=3, ensemble="nve")
    segment = run_segment(made, rules, aimd, None, at_rest(moved(1), 300.0, 1), 300.0, 1)
    assert segment.calculations == 4 and len(segment.kept) == 2 and made._running.labels == 4
    wish = lambda: 1.0  # noqa: E731
    broken = run_segment(made, rules, aimd, None, segment.kept[-1], 300.0, 2)
    assert broken.killed == signal.SIGTERM and not broken.kept, "to be made again as a whole"
    made._dismiss(keep=False)


def test_a_vasp_that_stays_needs_to_know_no_symmetry(tmp_path):
    given = section("vasp", tmp_path, {"kspacing": 0.3}, resident=True)
    assert "label.options.incar.ISYM: a VASP that stays" in "".join(check_labeler(given, 1))
    assert check_labeler(section("vasp", tmp_path, STAYS, resident=True), 1) == []
    retry = section("vasp", tmp_path, STAYS, resident=True, retries=[{"incar": {"ISYM": 2}}])
    assert "label.retries[0].incar.ISYM" in "".join(check_labeler(retry, 1))


@pytest.mark.parametrize("kind", PROGRAMS)
def test_a_program_on_another_number_of_processes_is_refused(kind, tmp_path, spawner):
    made = labeler(spawner, tmp_path, kind, processes=3)
    with pytest.raises(LabelError, match="ran on 3 processes, and 1 were asked for"):
        made.label(frame(), {}, 60.0)


@pytest.mark.parametrize("kind", PROGRAMS)
def test_what_a_retry_changes_reaches_the_input(kind, tmp_path, spawner):
    given = {"behaviour": "picky", "retries": [PICKY[kind]]}
    made, rules = labeler(spawner, tmp_path, kind, **given), section(kind, tmp_path, **given)
    label, attempts = label_with_ladder(made, frame(), rules, None)
    assert attempts == 2 and np.isfinite(label.energy)


def test_vasp_gets_sorted_atoms_and_what_depends_on_them(tmp_path):
    changes = {"incar": {"ENCUT": 400, "ISPIN": 2}, "magmoms": {"Cu": 1.5}, "charge": 1}
    vasp = program_class("vasp")(options("vasp", tmp_path / "files") | changes)
    vasp.write(frame(), tmp_path)
    incar = dict(line.split(" = ") for line in (tmp_path / "INCAR").read_text().splitlines())
    assert [line.split() for line in (tmp_path / "POSCAR").read_text().splitlines()[5:7]] == [["Al", "Cu"], ["2", "2"]]
    assert incar["MAGMOM"] == "2*0.0 2*1.5" and float(incar["NELECT"]) == 2 * 11 + 2 * 3 - 1
    assert incar["KSPACING"] == "0.3" and incar["ISIF"] == "2" and incar["LWAVE"] == ".FALSE."
    assert not (tmp_path / "KPOINTS").exists()
    assert [line.split()[1] for line in (tmp_path / "POTCAR").read_text().splitlines()[::4]] == ["Al", "Cu"]


def test_an_incar_is_read_as_vasp_reads_it_and_the_table_wins(tmp_path):
    (tmp_path / "INCAR").write_text(
        "# comment\n encut = 300 ; ISMEAR = 0 ! smearing\nLREAL = Auto\nMAGMOM_ = 1 \\\n 2\n"
    )
    given = options("vasp", tmp_path / "files") | {"template": str(tmp_path / "INCAR"), "incar": {"ENCUT": 450}}
    tags = program_class("vasp")(given).tags
    assert (tags["ENCUT"], tags["ISMEAR"], tags["LREAL"], tags["MAGMOM_"]) == ("450", "0", "Auto", "1 2")


def test_meshes_are_written_in_half_steps(tmp_path):
    given = options("vasp", tmp_path / "files") | {"kpts": [4, 4, 2], "koffset": [1, 1, 0]}
    del given["kspacing"]
    program_class("vasp")(given).write(frame(), tmp_path)
    assert (tmp_path / "KPOINTS").read_text() == "mesh\n0\nGamma\n4 4 2\n0.5 0.5 0.0\n"


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        ("vasp", {"incar": {"NSW": 10, "ENCUT": 400}}, "incar: NSW = 10, but a label is one calculation"),
        ("vasp", {"incar": {"MAGMOM": [1, 1], "ENCUT": 400}}, "MAGMOM = 1 1 is refused: atoms are sorted by element"),
        ("vasp", {"incar": {"ML_LMLFF": True, "ENCUT": 400}}, "VASP's own force field"),
        ("vasp", {"incar": {"EDIFF": 1e-6}}, "ENCUT is missing"),
        ("vasp", {"incar": {"KSPACING": 0.2, "ENCUT": 400}}, "label.options.kspacing: KSPACING of the INCAR says it"),
        ("vasp", {"kpts": [2, 2, 2]}, "label.options.kpts: label.options.kspacing says it too"),
        ("vasp", {"magmoms": {"Cu": 1}}, "has no effect without ISPIN = 2"),
        ("vasp", {"potcars": {"Cu": "Al/POTCAR"}}, "Al/POTCAR is a POTCAR of Al"),
        ("vasp", {"charge": "one"}, "label.options.charge: 'one'"),
        ("abacus", {"input": {"calculation": "md"}}, "calculation = md, but a label is one calculation"),
        ("abacus", {"input": {"nelec": 10}}, "nelec = 10 is refused: .* give nelec_delta"),
        ("abacus", {"input": {"esolver_type": "dp"}}, "esolver_type = dp is a force field"),
        ("abacus", {"kpts": [0, 2, 2]}, "three positive integers"),
        ("abacus", {"koffset": [0.5, 0, 0]}, "label.options.koffset"),
        ("abacus", {"input": {"basis_type": "lcao"}, "orbitals": {"Cu": "Cu/some.orb"}}, "orbitals.Al: missing"),
        ("cp2k", {"input": {"MAX_SCF": 3}}, "write SECTION/SUBSECTION/KEYWORD"),
        ("cp2k", {"input": {"FORCE_EVAL/SUBSYS/TOPOLOGY/COORD_FILE_NAME": "a.xyz"}}, None),
    ],
)
def test_options_that_cannot_be_meant_are_refused_with_the_reason(kind, changes, said, tmp_path):
    make = program_class(kind)
    given = options(kind, tmp_path) | changes
    if said is None:
        make(given)  # what the table adds is the user's own word
        return
    with pytest.raises(InputError, match=said):
        make(given)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (CP2K_INPUT + "&EXT_RESTART\n&END\n", "EXT_RESTART is refused: it would bring other atoms"),
        ("@SET X 1\n" + CP2K_INPUT, "directives or variables"),
        (CP2K_INPUT.replace("&END DFT", ""), r"begins 9 sections \(&NAME\) and ends 8"),
        (CP2K_INPUT.replace("&SUBSYS", "&TOPOLOGY\n&END\n&SUBSYS\n&TOPOLOGY\n&END"), "&TOPOLOGY is refused"),
        (CP2K_INPUT + "&FORCE_EVAL\n&END\n", "more than one &FORCE_EVAL"),
    ],
)
def test_a_cp2k_template_that_hides_something_is_refused(text, said, tmp_path):
    given = options("cp2k", tmp_path)
    Path(given["template"]).write_text(text)
    with pytest.raises(InputError, match=said):
        program_class("cp2k")(given)


def test_cp2k_finds_files_named_by_their_full_path_and_none_outside_of_its_folder(tmp_path):
    given, directory = options("cp2k", tmp_path / "files"), tmp_path / "label"
    directory.mkdir()
    template = Path(given["template"])
    template.write_text(CP2K_INPUT.replace("MY_BASIS", f"{tmp_path}/files/MY_BASIS"))
    program = program_class("cp2k")(given)
    program.write(frame(), directory)
    assert not any(path.is_symlink() for path in directory.iterdir()) and program.files()["data_dir"]
    template.write_text(CP2K_INPUT.replace("MY_BASIS", "../files/MY_BASIS"))
    with pytest.raises(InputError, match="names ../files/MY_BASIS, outside of it; write the file's full path"):
        program_class("cp2k")(given)


@pytest.mark.parametrize("kind", PROGRAMS)
def test_every_missing_file_is_named_at_once(kind, tmp_path):
    given = options(kind, tmp_path / "files") | {"template": str(tmp_path / "absent.inp")}
    shutil.rmtree(tmp_path / "files")
    names = {"vasp": ["Cu/POTCAR", "Al/POTCAR"], "abacus": ["Cu/some.upf", "Al/some.upf", "Cu/some.orb"], "cp2k": []}
    problems = "\n".join(check_labeler(LabelSection(type=kind, options=given, launch={"command": "true"}), 1))
    for name in ["absent.inp", *names[kind]]:
        assert f"no such file: {tmp_path}" in problems and name in problems


@pytest.mark.parametrize("kind", PROGRAMS)
def test_the_level_of_theory_is_what_is_in_the_files_and_not_where_they_are(kind, tmp_path):
    here = section(kind, tmp_path / "here")
    level = level_hash(here)
    there = section(kind, tmp_path / "there", behaviour="picky", retries=[PICKY[kind]], timeout=1.0)
    assert level_hash(there) == level
    assert level_hash(section(kind, tmp_path / "here", PICKY[kind])) != level
    assert level_hash(section(kind, tmp_path / "here", virial=False)) != level
    assert level_hash(here) == level
    with (tmp_path / "here" / "files" / {"cp2k": "MY_BASIS"}.get(kind, "Cu/POTCAR")).open("a") as file:
        file.write("another line\n")
    if kind == "abacus":
        (tmp_path / "here" / "files" / "Cu" / "some.orb").write_text("another")
    assert level_hash(here) != level


def test_an_incar_is_the_same_level_in_a_file_and_in_a_table_and_cores_are_not_part_of_it(tmp_path):
    given = options("vasp", tmp_path)
    (tmp_path / "INCAR").write_text("! the same\nNELM = 60\nENCUT = 400\nNCORE = 8\n")
    of_file = {**given, "template": str(tmp_path / "INCAR"), "incar": {}}
    levels = {level_hash(LabelSection(type="vasp", options=o, launch={"command": "vasp"})) for o in (given, of_file)}
    assert len(levels) == 1


@pytest.mark.parametrize("kind", PROGRAMS)
def test_a_frame_with_an_element_without_files_is_rejected(kind, tmp_path):
    atoms = bulk("Ni", cubic=True)
    with pytest.raises(LabelError, match="has nothing for Ni"):
        program_class(kind)(options(kind, tmp_path / "files")).write(Frame.from_atoms(atoms), tmp_path)


VASP = Path(ase.__file__).parent / "test" / "testdata" / "vasp"
"""Files that VASP 5 wrote, which ASE brings along."""


def of_vasp(name):
    """The frame of a real output, sorted as we would have asked for it, and its results as ASE reads them."""
    atoms = ase.io.read(VASP / name, parallel=False)
    order = np.argsort(atoms.numbers, kind="stable")
    assert (order == np.arange(len(atoms))).all()
    return Frame(atoms.numbers, atoms.cell.array, atoms.positions), atoms


def check_vasp(output, given, atoms):
    assert output.energy == atoms.get_potential_energy(force_consistent=True)
    np.testing.assert_array_equal(output.forces, atoms.get_forces(apply_constraint=False))
    virial = virial_from_stress(atoms.get_stress(voigt=False), given.volume)
    np.testing.assert_allclose(output.virial, virial, atol=1e-10)


def test_real_vasp_output_is_read(tmp_path):
    shutil.copy(VASP / "vasprun_dfpt.xml", tmp_path / "vasprun.xml")
    shutil.copy(VASP / "OUTCAR_example_1", tmp_path / "OUTCAR")
    (tmp_path / "standard.out").write_text(" running on  512 total cores\n")
    program = program_class("vasp")(options("vasp", tmp_path / "files"))
    given, atoms = of_vasp("vasprun_dfpt.xml")
    output = program.read(given, tmp_path, tmp_path / "standard.out")
    check_vasp(output, given, atoms)
    assert output.processes == 512
    for text in ((VASP / "convergence_OUTCAR_y_n").read_text(), (VASP / "OUTCAR_example_1").read_text()[:-4000]):
        (tmp_path / "OUTCAR").write_text(text)
        with pytest.raises(LabelError, match="not finish|not converged"):
            program.read(given, tmp_path, tmp_path / "standard.out")


def test_a_step_of_a_real_outcar_is_read_and_no_part_of_one(tmp_path, monkeypatch):
    monkeypatch.setattr("pfdhpc.engines.label.programs.vasp_interactive.COMPLETE", 0.1)
    program = program_class("vasp")(options("vasp", tmp_path / "files"))
    given, atoms = of_vasp("OUTCAR_example_1")
    whole = (VASP / "OUTCAR_example_1").read_text()
    cut = whole.index("energy  without entropy")
    texts = {"complete": whole[: cut + 200], "": whole[:cut], "converged": whole.replace("because EDIFF is", "...")}
    for n, (said, text) in enumerate(texts.items()):
        folder = tmp_path / str(n)
        folder.mkdir()
        (folder / "INCAR").write_text("NSW = 0\n")
        (folder / "standard.out").write_text("POSITIONS: reading from stdin\n")
        (folder / "OUTCAR").write_text(text)
        line = program.line(folder, folder / "standard.out", True)
        line.ask(given)
        assert line.wait(0.1)
        if said == "complete":
            output = line.answer()
            check_vasp(output, given, atoms)
            assert output.processes == 512
        else:
            with pytest.raises(LabelError, match="before its OUTCAR is complete" if not said else "not converged"):
                line.answer()
        line.close()


CHECKED = """
workflow = "finetune"
[model]
checkpoint = "{model}"
[[system]]
name = "s"
structures = ["s.vasp"]
[explore]
[train]
[label]
type = "vasp"
launch = {{ command = "vasp_std" }}
[label.options]
template = "INCAR.absent"
potcar_dir = "nowhere"
potcars = {{ Cu = "Cu/POTCAR", Al = "Al/POTCAR" }}
"""


def test_check_names_every_missing_file(tmp_path, capsys):
    (tmp_path / "model.pt").write_bytes(b"")
    frame().to_atoms().write(tmp_path / "s.vasp")
    (tmp_path / "input.toml").write_text(CHECKED.format(model=tmp_path / "model.pt"))
    assert main(["check", str(tmp_path / "input.toml")]) == 2
    said = capsys.readouterr()
    said = "".join((said.out + said.err).split())
    for words in (
        "label.options.template:nosuchfile",
        "INCAR.absent",
        "Cu/POTCAR",
        "Al/POTCAR",
        "label.launch.command",
    ):
        assert words in said
