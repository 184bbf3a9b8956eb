"""GPAW on a team of ranks: the same numbers as on one rank, failures caught by all, nothing leaked."""

import pytest


def silicon():
    from ase.build import bulk

    from pfdhpc.data import Frame

    atoms = bulk("Si")
    atoms.rattle(0.08, seed=1)
    return Frame.from_atoms(atoms)


def section():
    from pfdhpc.config.label import LabelSection

    options = {
        "mode": {"name": "pw", "ecut": 150},
        "kpts": {"size": [2, 1, 1], "gamma": True},
        "occupations": {"name": "fermi-dirac", "width": 0.05},
        "symmetry": {"point_group": False},
    }
    return LabelSection(type="gpaw", options=options, retries=[{"maxiter": 100}])


def test_a_team_labels_as_one_rank_does():
    pytest.importorskip("gpaw")
    import numpy as np
    from mpi4py import MPI

    from pfdhpc.engines.label.label_checks import label_with_ladder
    from pfdhpc.engines.registry import make_labeler
    from pfdhpc.errors import LabelError

    world = MPI.COMM_WORLD
    team = world.Split(world.rank // 2, world.rank)
    frame, given = silicon(), section()
    alone = make_labeler(given, None).label(frame, {}, 100.0)
    labeler = make_labeler(given, team)
    together = labeler.label(frame, {}, 100.0)
    assert together.energy == pytest.approx(alone.energy, abs=1e-4)
    assert np.allclose(together.forces, alone.forces, atol=1e-4)
    assert np.allclose(together.virial, alone.virial, atol=1e-3)

    with pytest.raises(LabelError, match="not converged"):
        labeler.label(frame, {"maxiter": 2}, 100.0)
    with pytest.raises(LabelError, match="time-out"):
        # Only the first rank's clock counts.
        labeler.label(frame, {}, 0.0 if team.rank == 0 else 100.0)
    label, attempts = label_with_ladder(labeler, frame, given, team)
    assert (attempts, label.energy) == (1, pytest.approx(together.energy, abs=1e-9))
    team.Free()


def test_a_failure_on_one_rank_is_one_of_the_team():
    from mpi4py import MPI

    from pfdhpc.data import Label
    from pfdhpc.engines.base import Labeler
    from pfdhpc.engines.label.label_checks import label_with_ladder
    from pfdhpc.errors import LabelError

    world = MPI.COMM_WORLD
    last = world.size - 1

    class OneRankFails(Labeler):
        def label(self, frame, changes, timeout):
            if world.rank == last and not changes:
                raise LabelError(f"out of memory on rank {last}")
            return Label(0.0, [[0.0] * 3] * 2, [[0.0] * 3] * 3)

    given = section()
    assert label_with_ladder(OneRankFails(), silicon(), given, world)[1] == 2
    with pytest.raises(LabelError, match=f"out of memory on rank {last}"):
        label_with_ladder(OneRankFails(), silicon(), given.model_copy(update={"retries": []}), world)


def test_communicators_are_given_back():
    pytest.importorskip("gpaw")
    from mpi4py import MPI

    from pfdhpc.engines.label import gpaw

    world = MPI.COMM_WORLD
    if world.size == 1:
        pytest.skip("needs two ranks")
    gpaw._check_options(section())
    # MPICH has about 2000 communicators; each of these would keep one for good.
    for _ in range(3000):
        team = gpaw._team(world)
        team.new_communicator([0])
        team.new_communicator(list(range(world.size)))
        team.free()
