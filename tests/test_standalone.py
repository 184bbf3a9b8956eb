"""Selecting from existing data: the command and the function."""

import subprocess
import sys

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from scipy.special import logsumexp

import pfdhpc
from pfdhpc.cli import main as cli
from pfdhpc.cli.select import select
from pfdhpc.data import Frame, Label, Labelling, Origin, Record
from pfdhpc.data.io import read_labelled
from pfdhpc.errors import InputError
from pfdhpc.selection.quests import descriptors
from pfdhpc.store.export import export
from pfdhpc.store.store import Store


class Alone:
    """The communicator of a single rank."""

    rank, size = 0, 1

    def allgather(self, item):
        return [item]

    def bcast(self, item):
        return item

    def gather(self, item):
        return [item]


def command(*arguments):
    return select(cli._parser().parse_args(["select", *map(str, arguments)]), Alone())


def silicon(n, seed, most=0.25):
    """Strained, rattled cells of 8 and 16 atoms with info, arrays and labels."""
    rng = np.random.default_rng(seed)
    found = []
    for index in range(n):
        atoms = bulk("Si", cubic=True).repeat((1 + index % 2, 1, 1))
        atoms.set_cell(atoms.cell * (1 + rng.uniform(-0.03, 0.03)), scale_atoms=True)
        atoms.rattle(rng.uniform(0.02, most), rng=rng)
        atoms.info |= {"name": f"frame {index}", "weight": float(index)}
        atoms.arrays["charge"] = rng.normal(size=len(atoms))
        forces = rng.normal(size=(len(atoms), 3))
        atoms.calc = SinglePointCalculator(atoms, energy=-float(index), forces=forces)
        found.append(atoms)
    return found


def records_of(frames):
    return [
        Record(
            Frame.from_atoms(atoms),
            Origin("Si", step=index),
            label=Label(atoms.calc.results["energy"], atoms.calc.results["forces"]),
            labelling=Labelling("pbe", "given"),
        )
        for index, atoms in enumerate(frames)
    ]


CANDIDATES, REFERENCE = silicon(14, 0), silicon(4, 1, 0.08)


@pytest.fixture
def files(tmp_path):
    ase.io.write(tmp_path / "candidates.extxyz", CANDIDATES)
    ase.io.write(tmp_path / "reference.extxyz", REFERENCE)
    return tmp_path


def test_picked_frames_keep_everything_in_the_order_of_the_picks(files, capsys):
    code = command(
        files / "candidates.extxyz", "--reference", files / "reference.extxyz", "--max-sel", 5, "-o", files / "p.extxyz"
    )
    told = capsys.readouterr().out
    assert code == 0 and "H before" in told and "not saturated" in told and "5 frames written" in told
    given, picked = ase.io.read(files / "candidates.extxyz", ":"), ase.io.read(files / "p.extxyz", ":")
    chosen = pfdhpc.select_frames(given, ase.io.read(files / "reference.extxyz", ":"), max_sel=5)
    assert len(picked) == 5
    for atoms, index in zip(picked, chosen.indices, strict=True):
        assert atoms == given[index] and atoms.info == given[index].info
        assert atoms.get_potential_energy() == -index
        for name, array in given[index].arrays.items():
            np.testing.assert_allclose(atoms.arrays[name], array, rtol=0, atol=1e-8)
        np.testing.assert_allclose(atoms.get_forces(), CANDIDATES[index].get_forces(), atol=1e-7)


def test_deepmd_folders_and_stores_and_run_directories_are_read(tmp_path, capsys):
    run = tmp_path / "run"
    Store(run / "frames", {}).commit(records_of(REFERENCE))
    (run / "input.json").write_text("{}")
    export(records_of(CANDIDATES), tmp_path / "npy", "deepmd/npy")
    export(records_of(CANDIDATES), tmp_path / "set.h5", "deepmd/hdf5")
    contents = {}
    for source in (tmp_path / "npy", tmp_path / "set.h5"):
        for reference in (run, run / "frames"):
            out = tmp_path / "picked.extxyz"
            command(source, "--reference", reference, "--max-sel", 4, "-o", out, "--force")
            picked = ase.io.read(out, ":")
            contents[source, reference] = [atoms.get_potential_energy() for atoms in picked]
            assert all(atoms.get_forces().any() for atoms in picked)
    expected = [-index for index in pfdhpc.select_frames(CANDIDATES, REFERENCE, 4).indices]
    assert all(np.allclose(energies, expected) for energies in contents.values())
    command(run, "-o", tmp_path / "from-run.extxyz", "--max-sel", 2)
    assert ase.io.read(tmp_path / "from-run.extxyz").info["level"] == "pbe"


@pytest.mark.parametrize("form", ["deepmd/npy", "deepmd/npy/mixed", "deepmd/hdf5"])
def test_deepmd_data_without_labels_are_candidates(form, tmp_path):
    import dpdata

    cell, positions = CANDIDATES[0].cell.array, CANDIDATES[0].positions
    types = {"atom_names": ["Si"], "atom_numbs": [8], "atom_types": np.zeros(8, int), "orig": np.zeros(3)}
    system = dpdata.System(data={**types, "cells": np.stack([cell, 1.1 * cell]), "coords": np.stack([positions] * 2)})
    system.to(form, str(tmp_path / "data"))
    assert command(tmp_path / "data", "-o", tmp_path / "out.traj", "--max-sel", 1) == 0
    assert len(ase.io.read(tmp_path / "out.traj", ":")) == 1
    with pytest.raises(InputError, match="none with an energy and forces"):
        read_labelled(tmp_path / "data")


def test_copies_and_known_frames_are_counted_and_not_picked(files, capsys):
    ase.io.write(files / "more.extxyz", [CANDIDATES[0], REFERENCE[0], CANDIDATES[0], REFERENCE[1]])
    arguments = [files / "candidates.extxyz", files / "more.extxyz", "--reference", files / "reference.extxyz"]
    command(*arguments, "-o", files / "p.extxyz", "--set", "min_gain=-1e9")
    told = capsys.readouterr().out.replace("│", " ").split()
    assert told[told.index("others") + 1] == "2" and told[told.index("already") + 1] == "2"
    names = [atoms.info["name"] for atoms in ase.io.read(files / "p.extxyz", ":")]
    assert sorted(names) == sorted(atoms.info["name"] for atoms in CANDIDATES)


def test_nothing_new_is_no_error_and_leaves_no_file(files, capsys):
    out = files / "p.extxyz"
    out.write_text("of a former selection")
    known = files / "reference.extxyz"
    assert command(known, "--reference", known, "-o", out, "--force", "--plot", files / "p.png") == 0
    assert "nothing was picked, no file was written" in capsys.readouterr().out
    assert not out.exists() and (files / "p.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--set", "filter.min_dist=1"], 'select.filter.min_dist: unknown key; did you mean "min_distance_ratio"?'),
        (["--set", "method=pfd"], "--set method=pfd: "),
        (["--set", 'method="pfd"', "--method", "pfd"], "select.method: given twice"),
        (["--chunk", "5"], "select.chunk: "),
        (["--bandwidth", "wide"], "select.bandwidth: "),
        (["--set", "trust_lo=0.1"], "select.trust_lo: there is no committee here"),
        (["--descriptor", "model"], "needs a model"),
        (["--reference", "nowhere.xyz"], "nowhere.xyz: no such file"),
        (["--reference", __file__], "cannot be read as structures"),
        (["--plot", "picture.txt"], "pictures end in"),
    ],
)
def test_bad_options_are_told_before_anything_is_written(arguments, told, files):
    with pytest.raises(InputError) as caught:
        command(files / "candidates.extxyz", "-o", files / "p.extxyz", *arguments)
    assert told in str(caught.value) and not (files / "p.extxyz").exists()


def test_outputs_are_not_overwritten_and_can_hold_many_frames(files):
    source = files / "candidates.extxyz"
    kept = source.read_bytes()
    for out, told in (
        (files / "reference.extxyz", "--force"),
        (source, "one of the inputs"),
        (files / "p.vasp", "series"),
        (files / "no" / "p.xyz", "no folder"),
    ):
        with pytest.raises(InputError, match=told):
            command(source, "-o", out)
    with pytest.raises(InputError, match="one of the inputs"):
        command(source, "-o", source, "--force")
    assert source.read_bytes() == kept


def test_the_command_ends_with_its_exit_code(files):
    def run(*arguments):
        line = [sys.executable, "-m", "pfdhpc", "select", *arguments]
        return subprocess.run(line, capture_output=True, text=True, cwd=files)

    done = run("candidates.extxyz", "-o", "p.extxyz", "--max-sel", "3", "--plot", "p.png")
    assert done.returncode == 0 and "3 frames written" in done.stdout, done.stderr
    assert (files / "p.png").read_bytes().startswith(b"\x89PNG")
    (files / "empty.extxyz").write_text("")
    done = run("empty.extxyz", "-o", "q.extxyz")
    assert done.returncode == 2 and done.stderr.startswith("pfdhpc: empty.extxyz: ") and "Traceback" not in done.stderr


def test_ranks_whose_offers_nobody_waited_for_end_well(files):
    ase.io.write(files / "candidates.extxyz", [atoms.repeat((3, 3, 1)) for atoms in CANDIDATES])  # slow to arrive
    drawn = ["--method", "random", "--no-entropy", "--max-sel", "3", "--force"]
    line = ["mpiexec", "-n", "4", sys.executable, "-m", "mpi4py", "-m", "pfdhpc", "select", "candidates.extxyz"]
    for _ in range(3):
        done = subprocess.run([*line, "-o", "p.extxyz", *drawn], capture_output=True, text=True, cwd=files)
        assert done.returncode == 0 and "3 frames written" in done.stdout, done.stdout + done.stderr


def pfd_kit(candidates, reference, max_sel, chunk, h=0.015):
    """PFD-kit's ``_h_filter``: everything is recomputed for every chunk, in float64 and without underflow."""
    known = np.concatenate([descriptors(Frame.from_atoms(atoms)) for atoms in reference])
    left = {index: descriptors(Frame.from_atoms(atoms)) for index, atoms in enumerate(candidates)}
    picked = []
    for _ in range(min(-(-max_sel // chunk), -(-len(candidates) // chunk))):
        scores = {}
        for index, some in left.items():
            squares = ((some[:, None] - known[None]) ** 2).sum(axis=2)
            scores[index] = -logsumexp(-squares / (2 * h**2), axis=1).sum()
        best = sorted(scores, key=lambda index: -scores[index])[:chunk]
        known = np.concatenate([known, *(left.pop(index) for index in best)])
        picked += best
    return tuple(picked)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("max_sel", "chunk"), [(6, 1), (7, 3), (50, 4)])
def test_method_pfd_picks_what_pfd_kit_picks(seed, max_sel, chunk):
    candidates, reference = silicon(11, 10 + seed), silicon(3, 20 + seed, 0.08)
    found = pfdhpc.select_frames(candidates, reference, max_sel, method="pfd", chunk=chunk)
    assert found.indices == pfd_kit(candidates, reference, max_sel, chunk)


def test_equal_scores_go_to_the_first_in_the_file_with_method_pfd():
    turned = [CANDIDATES[1].copy() for _ in range(5)]
    for index, atoms in enumerate(turned):
        atoms.positions += 0.25 * index * atoms.cell[0]  # the same environments in another frame
    found = pfdhpc.select_frames(turned, REFERENCE, 3, method="pfd", chunk=3)
    assert found.indices == (0, 1, 2)
    greedy = pfdhpc.select_frames(turned, REFERENCE, 3, min_gain=-1.0)
    assert len(greedy.indices) == 1 and greedy.saturated


def test_the_outcome_tells_of_every_candidate():
    close = CANDIDATES[2].copy()
    close.positions[1] = close.positions[0] + 0.3
    found = pfdhpc.select_frames([*CANDIDATES, close, CANDIDATES[3], REFERENCE[0]], REFERENCE, max_sel=4)
    assert found.filtered == {"close pair": 1} and (found.duplicates, found.known) == (1, 1)
    assert found.novelty.shape == (17,) and np.isnan(found.novelty[14:]).all()
    assert found.gains[0] == np.max(found.novelty[:14]) == found.novelty[found.indices[0]]
    assert found.entropy_after > found.entropy_before
    assert found.atoms_after - found.atoms_before == sum(len(CANDIDATES[index]) for index in found.indices)
    assert not found.saturated


def test_frames_and_atoms_and_settings_are_taken():
    frames = [Frame.from_atoms(atoms) for atoms in CANDIDATES]
    for settings in ({}, {"bandwidth": "density"}, {"bandwidth": "spread"}, {"descriptor": {"type": "quests"}}):
        found = pfdhpc.select_frames(frames, REFERENCE, 5, **settings)
        assert found.indices == pfdhpc.select_frames(CANDIDATES, REFERENCE, 5, **settings).indices
        assert len(pfdhpc.select_frames(frames, (), 3, **settings).indices) == 3
    drawn = {pfdhpc.select_frames(frames, (), 3, method="random", seed=seed).indices for seed in range(4)}
    assert len(drawn) > 1
    with pytest.raises(InputError, match="select.max_sel"):
        pfdhpc.select_frames(frames, max_sel=0)
    with pytest.raises(InputError, match="select.quotas"):
        pfdhpc.select_frames(frames, quotas={"Si": 1})


def test_edge_cases():
    assert pfdhpc.select_frames([], REFERENCE).indices == ()
    assert pfdhpc.select_frames([], []).indices == ()
    assert pfdhpc.select_frames([], bandwidth="spread").indices == ()
    atom = [Atoms("Ar", cell=[20] * 3, pbc=True), Atoms("Ar"), Atoms("Kr"), Atoms("ArKr", [[0, 0, 0], [0, 0, 4]])]
    found = pfdhpc.select_frames(atom, max_sel=9)
    assert set(found.indices) == {2, 3} | ({0, 1} & set(found.indices)) and len(found.indices) == 3 and found.saturated
    same = [CANDIDATES[0].copy() for _ in range(4)]
    for index, atoms in enumerate(same):
        atoms.positions += 0.01 * index
    found = pfdhpc.select_frames(same)
    assert len(found.indices) == 1 and found.saturated
    few = pfdhpc.select_frames(CANDIDATES, REFERENCE, 3, descriptor={"neighbours": 300, "cutoff": 4.0})
    assert len(few.indices) == 3
    with pytest.raises(InputError, match="select.bandwidth"):
        pfdhpc.select_frames(atom[1:3], bandwidth="density")


def test_frames_of_no_use_are_named():
    broken = CANDIDATES[0].copy()
    broken.positions[0] = np.nan
    assert pfdhpc.select_frames([broken], REFERENCE).filtered == {"not finite": 1}
    with pytest.raises(InputError, match=r"reference\[1\]: a position"):
        pfdhpc.select_frames([], [REFERENCE[0], broken])
    with pytest.raises(InputError, match=r"reference\[0\]: .*span no volume"):
        pfdhpc.select_frames([], [Atoms("Ar", pbc=True)])
    with pytest.raises(InputError, match=r"candidates\[0\]: a structure without atoms"):
        pfdhpc.select_frames([Atoms()])


def test_importing_the_package_stays_light():
    code = "import sys, pfdhpc; print('numpy' in sys.modules, callable(pfdhpc.select_frames))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["False", "True"], done.stderr
