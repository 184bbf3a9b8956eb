"""VASP, ABACUS and CP2K as labelers: stand-ins that read and write what the programs do, through the real launch."""

import json
import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from pfdhpc.cli.main import main
from pfdhpc.config.label import LabelSection
from pfdhpc.data import Frame
from pfdhpc.engines.isolated.spawner import Spawner
from pfdhpc.engines.label import external
from pfdhpc.engines.label.checks import label_with_ladder
from pfdhpc.engines.label.level import level_hash
from pfdhpc.engines.label.preflight import check_labeler
from pfdhpc.engines.label.programs import program_class
from pfdhpc.engines.registry import make_labeler
from pfdhpc.errors import InputError, LabelError
from pfdhpc.units import virial_from_stress

STANDINS = Path(__file__).parents[1] / "standins"
DATA = Path(__file__).parents[1] / "data" / "programs"
PROGRAMS = ("vasp", "abacus", "cp2k")
POTCAR = (
    "  PAW_PBE {0} 01Jan2000\n 11.0\n   VRHFIN ={0}: d10\n   POMASS =   1.000; ZVAL   =   {1:.3f}    mass and valenz\n"
)
CP2K_INPUT = """
&GLOBAL
  PROJECT something   ! replaced
  RUN_TYPE GEO_OPT
&END GLOBAL
&FORCE_EVAL
  METHOD QS
  &DFT
    BASIS_SET_FILE_NAME MY_BASIS
    &SCF
      MAX_SCF 50      # of each label
    &END SCF
  &END DFT
  &SUBSYS
    &CELL
      ABC 1 1 1
    &END CELL
    &COORD
      Cu 0 0 0
    &END COORD
    &KIND Cu
    &END KIND
    &KIND Al
    &END KIND
  &END SUBSYS
&END FORCE_EVAL
"""
PICKY = {
    "vasp": {"incar": {"ALGO": "All"}},
    "abacus": {"input": {"mixing_beta": 0.1}},
    "cp2k": {"input": {"FORCE_EVAL/DFT/SCF/MAX_SCF": 200}},
}
"""What the picky stand-ins converge with."""


@pytest.fixture(scope="module")
def spawner():
    with Spawner() as made:
        yield made


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    for kind in PROGRAMS:
        monkeypatch.setattr(program_class(kind), "patience", 2.0)


def frame(strain=None):
    """Two elements, atom by atom in turn, in a skew cell."""
    atoms = bulk("Cu", cubic=True, a=3.8)
    atoms.symbols[[1, 3]] = "Al"
    atoms.set_cell(atoms.cell.array + [[0, 0.1, 0], [0, 0, 0.2], [0.3, 0, 0]], scale_atoms=True)
    atoms.rattle(0.1, seed=3)
    if strain is not None:
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    return Frame.from_atoms(atoms)


def options(kind, folder):
    """The files of a program in ``folder``, and the options that name them."""
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "cp2k":
        (folder / "cp2k.inp").write_text(CP2K_INPUT)
        (folder / "MY_BASIS").write_text("Cu DZVP\n")
        return {"template": str(folder / "cp2k.inp"), "data_dir": str(folder)}
    for symbol, valence in (("Cu", 11), ("Al", 3)):
        (folder / symbol).mkdir(exist_ok=True)
        (folder / symbol / "POTCAR").write_text(POTCAR.format(symbol, valence))
        (folder / symbol / "some.upf").write_text(f"<UPF>{symbol}")
        (folder / symbol / "some.orb").write_text(symbol)
    if kind == "vasp":
        potcars = {"Cu": "Cu/POTCAR", "Al": "Al/POTCAR"}
        incar = {"ENCUT": 400, "NELM": 60}
        return {"incar": incar, "potcar_dir": str(folder), "potcars": potcars, "kspacing": 0.3}
    return {
        "input": {"basis_type": "lcao", "ecutwfc": 100},
        "pseudo_dir": str(folder),
        "pseudopotentials": {"Cu": "Cu/some.upf", "Al": "Al/some.upf"},
        "orbital_dir": str(folder),
        "orbitals": {"Cu": "Cu/some.orb", "Al": "Al/some.orb"},
        "kpts": [2, 2, 2],
    }


def section(kind, folder, changes=None, behaviour="", processes=1, version="old", **more):
    launch = {
        "command": f"{sys.executable} {STANDINS / kind}.py",
        "env": {"STANDIN": behaviour, "STANDIN_PROCESSES": str(processes), "STANDIN_VERSION": version},
        "keep": True,
    }
    given = external.merged(options(kind, folder / "files"), changes or {})
    return LabelSection(type=kind, options=given, launch=launch, **more)


def labeler(spawner, folder, kind, *arguments, **more):
    return make_labeler(section(kind, folder, *arguments, **more), None, spawner, folder / "logs" / "rank.log")


def kept(folder):
    """The folder of the only label that was kept."""
    (found,) = (path for path in (folder / "labels").iterdir() if not path.name.startswith("."))
    return found


@pytest.mark.parametrize(("kind", "version"), [(kind, version) for kind in PROGRAMS for version in ("old", "new")])
def test_labels_have_the_frames_order_and_the_units_and_the_virial_is_minus_the_slope_with_strain(
    kind, version, tmp_path, spawner
):
    atoms = frame().to_atoms()
    atoms.calc = EMT()
    label = labeler(spawner, tmp_path, kind, version=version).label(frame(), {}, 60.0)
    virial = virial_from_stress(atoms.get_stress(voigt=False), frame().volume)
    # ABACUS has a bohr of its own, which moves the atoms of the stand-in by 1e-6 Å.
    np.testing.assert_allclose(label.energy, atoms.get_potential_energy(), atol=1e-5)
    np.testing.assert_allclose(label.forces, atoms.get_forces(), atol=2e-5)
    np.testing.assert_allclose(label.virial, virial, atol=2e-4)
    step = 1e-5
    strain = step * np.array([[1, 0.5, 0], [0.5, 0, 0], [0, 0, 0]])
    slope = (energy_at(strain) - energy_at(-strain)) / (2 * step)
    assert -slope == pytest.approx(label.virial[0, 0] + label.virial[0, 1], abs=1e-3) and abs(slope) > 0.5


def energy_at(strain):
    atoms = frame(strain=strain).to_atoms()
    atoms.calc = EMT()
    return atoms.get_potential_energy()


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
}


@pytest.mark.parametrize(("kind", "behaviour"), REASONS)
def test_no_label_without_the_programs_own_word_that_it_converged_and_ended(kind, behaviour, tmp_path, spawner):
    with pytest.raises(LabelError, match=REASONS[kind, behaviour]) as found:
        labeler(spawner, tmp_path, kind, behaviour=behaviour).label(frame(), {}, 60.0)
    assert f"see labels/{kept(tmp_path).name}" in str(found.value)


@pytest.mark.parametrize("kind", PROGRAMS)
def test_a_program_that_takes_too_long_is_asked_to_end_by_itself(kind, tmp_path, spawner):
    with pytest.raises(LabelError, match="time-out: longer than 1 s"):
        labeler(spawner, tmp_path, kind, behaviour="hang").label(frame(), {}, 1.0)
    ended = {"vasp": "OUTCAR", "abacus": "OUT.ABACUS/running_scf.log", "cp2k": "standard.out"}[kind]
    assert (kept(tmp_path) / ended).read_text().strip().splitlines()[-1].strip() != "iterating"
    assert not _running(tmp_path)


def test_a_program_that_does_not_hear_is_killed(tmp_path, spawner, monkeypatch):
    monkeypatch.setattr(program_class("vasp"), "soft_stop", ("UNHEARD", ""))
    begin = time.monotonic()
    with pytest.raises(LabelError, match="time-out"):
        labeler(spawner, tmp_path, "vasp", behaviour="hang").label(frame(), {}, 1.0)
    assert not _running(tmp_path) and time.monotonic() - begin < 10.0
    assert not (kept(tmp_path) / "OUTCAR").exists()


def _running(folder):
    """The processes that work below a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            found += [process.name] if os.readlink(process / "cwd").startswith(str(folder)) else []
        except OSError:  # it ended, or is another user's
            continue
    return found


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


def hydrogen_and_helium():
    given = json.loads((DATA / "cp2k-2023.1" / "frame.json").read_text())
    return Frame(np.array(given["numbers"]), np.array(given["cell"]), np.array(given["positions"]))


def check_real(label, error):
    """Against central differences of CP2K 2023.1's own energies: steps of 0.01 Å, of 0.005 in strain; LDA, 600 Ry."""
    assert label.forces[0, 2] == pytest.approx(0.6944, abs=error)
    assert label.forces[3, 0] == pytest.approx(0.0254, abs=error)
    assert label.virial[0, 0] == pytest.approx(0.0625, abs=error)
    assert label.virial[2, 2] == pytest.approx(-0.5985, abs=error)


def test_real_cp2k_output_is_read():
    folder = DATA / "cp2k-2023.1"
    program = program_class("cp2k")({"template": str(folder / "cp2k.inp")})
    output = program.read(hydrogen_and_helium(), folder, folder / "standard.out")
    assert output.energy == pytest.approx(-184.8471780, abs=1e-6) and output.processes == 1
    check_real(output, 0.004)


@pytest.mark.skipif(shutil.which("cp2k") is None, reason="CP2K is not installed (apt-get install cp2k)")
@pytest.mark.parametrize("resident", [False, True])
def test_real_cp2k_labels_and_says_why_not(resident, tmp_path, spawner):
    template = str(DATA / "cp2k-2023.1" / "cp2k.inp")
    quick = {"FORCE_EVAL/DFT/MGRID/CUTOFF": 300, "FORCE_EVAL/DFT/SCF/EPS_SCF": 1e-6}
    launch = {"command": "cp2k", "env": {"OMP_NUM_THREADS": "1", "OMPI_ALLOW_RUN_AS_ROOT": "1"}, "resident": resident}
    rules = LabelSection(type="cp2k", options={"template": template, "input": quick}, launch=launch)
    made = make_labeler(rules, None, spawner, tmp_path / "logs" / "rank.log")
    label = made.label(hydrogen_and_helium(), {}, 120.0)
    assert label.energy == pytest.approx(-184.8471, abs=0.002)
    check_real(label, 0.02)
    with pytest.raises(LabelError, match=r"SCF not converged after 3 iterations \(MAX_SCF\)"):
        made.label(hydrogen_and_helium(), {"input": {"FORCE_EVAL/DFT/SCF/MAX_SCF": 3}}, 120.0)
    with pytest.raises(LabelError, match="CP2K did not finish: .*basis set"):
        made.label(hydrogen_and_helium(), {"input": {"FORCE_EVAL/DFT/BASIS_SET_FILE_NAME": "BASIS_MOLOPT"}}, 120.0)


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
