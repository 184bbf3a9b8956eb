"""CP2K: its real output, its shell by a stand-in, and the real program where it is installed."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from espresso import ROOT, needs_openmpi
from programs import check_called_off, check_judged, computed, ended_by_itself, frame, moved, running, section

from pfdhpc.config.label import LabelSection
from pfdhpc.data import Frame
from pfdhpc.engines.isolated.spawner import Spawner
from pfdhpc.engines.label.input_checks import check_labeler
from pfdhpc.engines.label.launch.exit_reason import never
from pfdhpc.engines.label.programs import program_class
from pfdhpc.engines.label.programs.cp2k_shell import _numbers
from pfdhpc.engines.registry import make_labeler
from pfdhpc.errors import LabelError
from pfdhpc.units import virial_from_stress

DATA = Path(__file__).parents[1] / "data" / "programs" / "cp2k-2023.1"
ALONE = {"OMP_NUM_THREADS": "1", **ROOT}
NESTED = "/usr/bin/mpiexec.openmpi -n {ranks} --oversubscribe --bind-to none --mca mpi_yield_when_idle 1 cp2k"
needs_cp2k = pytest.mark.skipif(shutil.which("cp2k") is None, reason="CP2K is not installed (apt-get install cp2k)")


@pytest.fixture(scope="module")
def spawner():
    with Spawner() as made:
        yield made


@pytest.fixture
def shell(tmp_path, spawner, monkeypatch):
    """``shell(behaviour...)``: a labeler that keeps the stand-in's shell; it is tidied away."""
    monkeypatch.setattr(program_class("cp2k"), "patience", 2.0)
    made = []

    def make(called_off=never, **more):
        given = section("cp2k", tmp_path, resident="shell", **more)
        made.append(make_labeler(given, None, spawner, tmp_path / "logs" / "rank.log", called_off))
        return made[-1]

    yield make
    for one in made:
        one.close()


def check_computed(label, given):
    energy, forces, stress = computed(given)
    assert label.energy == pytest.approx(energy, abs=1e-9)
    np.testing.assert_allclose(label.forces, forces, atol=1e-9)
    assert (label.virial is not None) is given.has_virial
    if given.has_virial:
        np.testing.assert_allclose(label.virial, virial_from_stress(stress, given.volume), atol=1e-8)


@pytest.mark.parametrize("version", ["old", "new"])
def test_cp2ks_shell_takes_any_cell_until_the_atoms_are_others(version, shell, tmp_path):
    made, pids = shell(version=version), []
    for given in (moved(1), moved(2), moved(2, 0.02 * np.diag([1, 0, -1])), moved(1)):
        check_computed(made.label(given, {}, 60.0), given)
        pids.append(made._running.pid)
    assert len(set(pids)) == 1
    tall = frame().cell * [[1], [1], [4]]
    slab = Frame(frame().numbers, tall, frame().positions, np.array([True, True, False]))
    for other in (slab, Frame.from_atoms(bulk("Cu", cubic=True))):
        check_computed(made.label(other, {}, 60.0), other)
        pids.append(made._running.pid)
    assert len(set(pids)) == 3
    made.label(moved(1), {"input": {"FORCE_EVAL/DFT/SCF/MAX_SCF": 70}}, 60.0)
    assert made._running.pid not in pids
    made.close()
    assert not running(tmp_path)
    screens = [path.read_text() for path in (tmp_path / "labels").glob("*/standard.out")]
    assert len(screens) == 4 and all(text.endswith("* EXIT\n") for text in screens), "each ended by itself"


@pytest.mark.parametrize("virial", [True, False])
def test_cp2ks_shell_is_asked_for_the_stress_where_it_is_wanted(virial, shell):
    label = shell(virial=virial).label(frame(), {}, 60.0)
    assert (label.virial is not None) is virial and label.is_finite()


@pytest.mark.parametrize(
    ("behaviour", "version", "processes", "place", "said"),
    [
        ("unconverged", "old", 1, 1, "SCF not converged after 10 iterations"),
        ("unconverged", "new", 1, 1, "SCF not converged after 10 iterations.*exit code 1"),
        ("truncated", "old", 1, 1, "an answer that is none: could not convert string to float: 'no'"),
        ("fewer", "old", 1, 1, "an answer that is none: cannot reshape array of size 9"),
        ("moves", "old", 1, 1, "moved an atom by 0.01"),
        ("copies", "old", 1, 1, "2 copies of CP2K ran in one folder"),
        ("deaf", "old", 1, 1, "a copy of it ran without standard input: the launcher"),
        ("fail", "old", 1, 1, "CP2K did not finish: Unknown subsection &XC found in section &DFT.*exit code 3"),
        ("", "old", 3, 1, "ran on 3 processes, and 1 were asked for"),
        ("dies", "old", 1, 2, "it ended without an answer; its output ends:.*exit code 1"),
        ("hang", "old", 1, 2, "time-out: longer than 1 s"),
    ],
)
def test_every_answer_of_cp2ks_shell_is_judged_and_after_a_failure_it_is_started_anew(
    behaviour, version, processes, place, said, shell, tmp_path
):
    made = shell(behaviour=behaviour, version=version, processes=processes)
    check_judged(made, tmp_path, place, said, 1.0 if behaviour == "hang" else 60.0)


def test_cp2ks_shell_ends_tidily_when_its_label_is_called_off(shell, tmp_path):
    check_called_off(lambda called_off: shell(called_off, behaviour="hang"), tmp_path, "cp2k", 0.3)


def test_cp2ks_shell_is_killed_if_it_does_not_hear(shell, tmp_path, monkeypatch):
    made = shell(behaviour="hang")
    monkeypatch.setattr(program_class("cp2k"), "soft_stop", ("UNHEARD", ""))
    monkeypatch.setattr(program_class("cp2k"), "patience", 0.2)
    monkeypatch.setattr("pfdhpc.engines.label.launch.resident.FAREWELL", 0.2)
    assert made.label(moved(1), {}, 60.0).is_finite()
    with pytest.raises(LabelError, match="time-out: longer than 0.2 s"):
        made.label(moved(2), {}, 0.2)
    assert not running(tmp_path) and not ended_by_itself(tmp_path, "cp2k")


def test_numbers_as_fortran_prints_them():
    assert _numbers("  1.5000000000000-101 -2.0E+01\n", (2,)).tolist() == [1.5e-101, -20.0]
    assert _numbers("         3\n 1.0E+00 NaN -1.0+100\n* END\n", (1, 3))[0, 2] == -1e100


def test_only_cp2k_has_a_shell(tmp_path):
    assert check_labeler(section("cp2k", tmp_path, resident="shell"), 1) == []
    given = section("vasp", tmp_path, {"incar": {"ISYM": 0}}, resident="shell")
    assert check_labeler(given, 1) == ['label.launch.resident: "shell" is no way in which VASP stays; write true']


def hydrogen_and_helium():
    given = json.loads((DATA / "frame.json").read_text())
    return Frame(np.array(given["numbers"]), np.array(given["cell"]), np.array(given["positions"]))


def check_real(label, error):
    """Against central differences of CP2K 2023.1's own energies: steps of 0.01 Å, of 0.005 in strain; LDA, 600 Ry."""
    assert label.forces[0, 2] == pytest.approx(0.6944, abs=error)
    assert label.forces[3, 0] == pytest.approx(0.0254, abs=error)
    assert label.virial[0, 0] == pytest.approx(0.0625, abs=error)
    assert label.virial[2, 2] == pytest.approx(-0.5985, abs=error)


def real(launch, changes):
    options = {"template": str(DATA / "cp2k.inp"), "input": changes}
    return LabelSection(type="cp2k", options=options, launch={"command": "cp2k", "env": ALONE, **launch})


def test_real_cp2k_output_is_read():
    program = program_class("cp2k")({"template": str(DATA / "cp2k.inp")})
    output = program.read(hydrogen_and_helium(), DATA, DATA / "standard.out")
    assert output.energy == pytest.approx(-184.8471780, abs=1e-6) and output.processes == 1
    check_real(output, 0.004)


@needs_cp2k
@pytest.mark.parametrize("resident", [False, True, "shell"])
def test_real_cp2k_labels_and_says_why_not(resident, tmp_path, spawner):
    quick = {"FORCE_EVAL/DFT/MGRID/CUTOFF": 300, "FORCE_EVAL/DFT/SCF/EPS_SCF": 1e-6}
    made = make_labeler(real({"resident": resident}, quick), None, spawner, tmp_path / "logs" / "rank.log")
    label = made.label(hydrogen_and_helium(), {}, 120.0)
    assert label.energy == pytest.approx(-184.8471, abs=0.002)
    check_real(label, 0.02)
    with pytest.raises(LabelError, match=r"SCF not converged after 3 iterations \(MAX_SCF\)"):
        made.label(hydrogen_and_helium(), {"input": {"FORCE_EVAL/DFT/SCF/MAX_SCF": 3}}, 120.0)
    with pytest.raises(LabelError, match="CP2K did not finish: .*basis set"):
        made.label(hydrogen_and_helium(), {"input": {"FORCE_EVAL/DFT/BASIS_SET_FILE_NAME": "BASIS_MOLOPT"}}, 120.0)


@needs_cp2k
@needs_openmpi
def test_a_real_cp2k_that_stays_gives_for_another_cell_what_a_start_with_it_gives(tmp_path, spawner):
    """Its shell on two processes, and over the socket."""

    def make(name, **launch):
        given = real(launch, {"FORCE_EVAL/DFT/MGRID/CUTOFF": 100})
        return make_labeler(given, None, spawner, tmp_path / name / "logs" / "x.log")

    staying = (make("shell", command=NESTED, processes=2, resident="shell"), make("socket", resident=True))
    first, deformation = hydrogen_and_helium(), np.eye(3) + [[0.02, 0.03, 0], [0, -0.04, 0], [0.01, 0, 0.03]]
    displaced = first.positions + [[0.02, 0, 0], [0, 0.05, 0], [0, 0, 0.02], [0, 0, 0]]
    other = Frame(first.numbers, first.cell @ deformation, displaced @ deformation)
    expected = make("cold").label(other, {}, 120.0)
    for one in staying:
        assert one.label(first, {}, 120.0).is_finite()
        pid, label = one._running.pid, one.label(other, {}, 120.0)
        assert one._running.pid == pid
        assert label.energy == pytest.approx(expected.energy, abs=1e-6)
        np.testing.assert_allclose(label.forces, expected.forces, atol=1e-5)
        np.testing.assert_allclose(label.virial, expected.virial, atol=1e-5)
        one.close()
