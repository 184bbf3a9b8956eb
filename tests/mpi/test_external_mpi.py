"""Quantum ESPRESSO started by teams of an MPI job: alone, nested over two ranks, side by side, and when it fails."""

import os
import time

import pytest
from espresso import NESTED, ROOT, needs_openmpi, needs_qe, section, silicon, stand_in
from mpi4py import MPI

from pfdhpc.config.label import LabelSection
from pfdhpc.engines.isolated.spawner import Spawner
from pfdhpc.engines.label.launch import one_shot
from pfdhpc.engines.label.launch.one_shot import ExternalLabeler
from pfdhpc.engines.label.launch.resident import ResidentLabeler
from pfdhpc.engines.label.programs.qe import QuantumEspresso
from pfdhpc.engines.registry import make_labeler
from pfdhpc.errors import LabelError

ENERGY = -212.24091927
"""Of ``silicon()`` by a run by hand, eV."""


@pytest.fixture
def world():
    return MPI.COMM_WORLD


@pytest.fixture
def folder(world, tmp_path):
    """One folder for all ranks."""
    return world.bcast(tmp_path)


@pytest.fixture
def spawner():
    # Made here, after MPI has started: good enough for a test on one machine. A job makes it before.
    with Spawner() as made:
        yield made


@needs_qe
@needs_openmpi
@pytest.mark.parametrize("kind", [ExternalLabeler, ResidentLabeler], ids=["cold", "resident"])
def test_teams_label_at_once_on_all_their_ranks(world, folder, spawner, kind):
    """Teams of two ranks: on four ranks there are two teams, whose nested launches share the cores."""
    if world.size == 1:
        pytest.skip("needs two ranks")
    team = world.Split(world.rank // 2, world.rank)
    name = f"labeler-{world.rank // 2}"
    launch = {"command": NESTED, "env": ROOT, "resident": kind is ResidentLabeler}
    labeler = kind(section(launch), team, spawner, folder / "labels", name)
    used = time.process_time()
    labels = [labeler.label(silicon(), {}, 100.0) for _ in range(1 + launch["resident"])]
    assert time.process_time() - used < 2.0, "ranks that wait sleep"
    for label in labels:
        assert label.energy == pytest.approx(ENERGY, abs=2e-6)
    assert len(set(team.allgather(labels[0].energy))) == 1
    with pytest.raises(LabelError, match="SCF not converged after 2 iterations.*; see labels/"):
        labeler.label(silicon(), {"input": {"electrons": {"electron_maxstep": 2}}}, 100.0)  # which ends a resident one
    team.Free()


def test_a_program_that_hangs_costs_its_team_one_label(world, folder, spawner, monkeypatch):
    monkeypatch.setattr(QuantumEspresso, "patience", 0.2)
    monkeypatch.setattr(one_shot, "FAREWELL", 0.2)
    if world.rank == 0:
        stand_in(folder)
    world.Barrier()
    options = {"pseudo_dir": str(folder), "pseudopotentials": {"Si": "Si.upf"}, "kpts": "gamma"}
    options["input"] = {"system": {"ecutwfc": 12}}
    env = {"WAY": "hang", "PIDS": str(folder / f"told-{world.rank}")}
    given = section({"command": str(folder / "pw.x"), "processes": 1, "env": env}, options)
    labeler = ExternalLabeler(given, world, spawner, folder / "labels", "labeler-0")
    begin = time.monotonic()
    with pytest.raises(LabelError, match="time-out: longer than 0.5 s"):
        labeler.label(silicon(), {}, 0.5)
    assert time.monotonic() - begin < 10
    world.Barrier()


def test_a_program_has_the_gpus_and_cores_of_all_ranks_of_its_team_and_their_places(
    world, folder, spawner, monkeypatch
):
    """Each rank has a card of its own, and is bound to a core of its own as far as there are enough."""
    if world.rank == 0:
        stand_in(folder)
    world.Barrier()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", f"GPU-{world.rank}")
    mine = sorted(os.sched_getaffinity(0))
    own = mine[world.rank % len(mine)]
    options = {"pseudo_dir": str(folder), "pseudopotentials": {"Si": "Si.upf"}, "kpts": "gamma"}
    options["input"] = {"system": {"ecutwfc": 12}}
    env = {"WAY": "environment", "PIDS": str(folder / f"told-{world.rank}")}
    launch = {"command": f"{folder}/pw.x -w {{nodes}} {{hosts}} {{n_nodes}}", "processes": 1, "env": env, "keep": True}
    try:
        os.sched_setaffinity(0, {own})
        labeler = ExternalLabeler(section(launch, options), world, spawner, folder / "labels", "labeler-0")
    finally:
        os.sched_setaffinity(0, mine)
    assert labeler.label(silicon(), {}, 20.0).is_finite()
    world.Barrier()
    told = dict(pair.split("=", 1) for pair in (folder / "told-0").read_text().split("\0"))
    assert told["CUDA_VISIBLE_DEVICES"] == ",".join(f"GPU-{rank}" for rank in range(world.size))
    (words,) = folder.glob("labels/[!.]*/words")
    host = MPI.Get_processor_name().split(".")[0]
    cores = mine[: world.size]
    assert words.read_text() == f"-w {host} {host}:{world.size} 1 -in pw.in {cores}"
    world.Barrier()


def test_lammps_labels_on_its_own_rank_while_others_do_something_else(world):
    options = {"calculator": "ase.calculators.lammpslib.LAMMPSlib"}
    options["arguments"] = {"lmpcmds": ["pair_style lj/cut 6.0", "pair_coeff * * 0.4 2.3"], "atom_types": {"Si": 1}}
    if world.rank == world.size - 1:
        labeler = make_labeler(LabelSection(type="ase", options=options), MPI.COMM_SELF)
        assert labeler.label(silicon(), {}, 20.0).is_finite()
    waits = world.Ibarrier()
    while not waits.Test():
        time.sleep(0.01)


def test_what_only_the_leader_finds_wrong_is_wrong_for_all(world, folder, spawner):
    if world.rank == 0:
        stand_in(folder)
    world.Barrier()
    options = {"pseudo_dir": str(folder), "pseudopotentials": {"Si": "Si.upf"}, "kpts": "gamma"}
    options["input"] = {"system": {"ecutwfc": 12}}
    given = section({"command": str(folder / "pw.x"), "processes": world.size + 1}, options)
    labeler = ExternalLabeler(given, world, spawner, folder / "labels", "labeler-0")
    with pytest.raises(LabelError, match=f"ran on 1 processes, and {world.size + 1} were asked for"):
        labeler.label(silicon(), {}, 20.0)
