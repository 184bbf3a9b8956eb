"""``pfdhpc select`` over real ranks: the same file for any number of them, problems told on all."""

import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
from mpi4py import MPI

sys.path.insert(0, str(Path(__file__).parents[1]))
from selections import make_records  # noqa: E402

import pfdhpc  # noqa: E402
from pfdhpc.cli import main as cli  # noqa: E402
from pfdhpc.cli.select import select  # noqa: E402
from pfdhpc.data.io import read_atoms, read_labelled  # noqa: E402
from pfdhpc.errors import InputError  # noqa: E402
from pfdhpc.messages import PeerMessage  # noqa: E402
from pfdhpc.parallel.channel import MpiChannel  # noqa: E402
from pfdhpc.selection.distributed import Offer  # noqa: E402

COMM = MPI.COMM_WORLD


@pytest.fixture
def folder(tmp_path):
    found = COMM.bcast(tmp_path)
    if COMM.rank == 0:
        candidates = [record.frame.to_atoms() for record in make_records(11)]
        candidates.insert(4, candidates[2].copy())
        for index, atoms in enumerate(candidates):
            atoms.info["place"] = index
        ase.io.write(found / "candidates.extxyz", candidates, parallel=False)
        reference = [record.frame.to_atoms() for record in make_records(4, seed=1)]
        ase.io.write(found / "reference.extxyz", reference, parallel=False)
    COMM.barrier()
    return found


def command(*arguments):
    return select(cli._parser().parse_args(["select", *map(str, arguments)]), COMM)


METHODS = [[], ["--method", "pfd", "--chunk", "3"], ["--method", "random", "--no-entropy"], ["--no-entropy"]]


@pytest.mark.parametrize("options", METHODS, ids=" ".join)
@pytest.mark.parametrize("with_reference", [True, False])
def test_picks_are_those_of_one_rank(options, with_reference, folder):
    check_picks(folder, options, with_reference)


def test_a_selection_hears_nothing_that_came_before_it(folder):
    """What ranks say by the world communicator, as in the words of a selection that was decided without them."""
    world = MpiChannel(COMM)
    if COMM.rank > 0:
        world.send(0, PeerMessage("select", "offer", Offer(0, ())))
    check_picks(folder, [], with_reference=True)
    for _ in range(COMM.size - 1 if COMM.rank == 0 else 0):
        assert world.receive(20) is not None
    assert world.flush(20)


def check_picks(folder, options, with_reference):
    files = [folder / "candidates.extxyz"] + ["--reference", folder / "reference.extxyz"] * with_reference
    assert command(*files, "-o", folder / "picked.extxyz", "--max-sel", 5, *options) == 0
    if COMM.rank == 0:
        settings = {name[2:]: value for name, value in zip(options, options[1:], strict=False) if name[:2] == "--"}
        settings = {name: int(value) if name == "chunk" else value for name, value in settings.items()}
        settings.pop("no-entropy", None)
        candidates = ase.io.read(files[0], ":", parallel=False)
        reference = ase.io.read(files[-1], ":", parallel=False) if with_reference else []
        expected = pfdhpc.select_frames(candidates, reference, 5, **settings)
        picked = ase.io.read(folder / "picked.extxyz", ":", parallel=False)
        assert tuple(atoms.info["place"] for atoms in picked) == expected.indices
        assert len(np.unique(expected.indices)) == len(expected.indices) == (6 if "pfd" in options else 5)


def test_a_problem_on_one_rank_is_told_on_all(folder):
    if COMM.rank == 0:
        (folder / "picked.extxyz").write_text("there already")
    with pytest.raises(InputError, match="is there already"):
        command(folder / "candidates.extxyz", "-o", folder / "picked.extxyz")
    with pytest.raises(InputError, match="no such file"):
        command(folder / "candidates.extxyz", "-o", folder / "other.extxyz", "--reference", folder / "nothing.xyz")
    COMM.barrier()


def test_reading_on_one_rank_concerns_no_other(folder):
    """ASE takes reading for a collective call unless it is told otherwise."""
    if COMM.rank == 0:
        assert len(list(read_atoms(folder / "candidates.extxyz"))) == 12
        with pytest.raises(InputError, match="none with an energy and forces"):
            read_labelled(folder / "candidates.extxyz")
    assert COMM.bcast("word" if COMM.rank == 0 else None) == "word"
