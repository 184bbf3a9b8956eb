"""Children of ranks are jobs of one rank by themselves, and what becomes of them does not touch the others."""

import pytest
from ase.build import bulk
from mpi4py import MPI

from pfdhpc.config.label import LabelSection
from pfdhpc.data import Frame
from pfdhpc.engines.isolated.spawner import Spawner
from pfdhpc.engines.registry import make_labeler
from pfdhpc.errors import InputError, LabelError

# Made here, after MPI has started: good enough for a test on one machine. A job makes it before.
CALCULATOR = '''
import os
from ase.calculators.emt import EMT
from mpi4py import MPI

class Counter(EMT):
    """The energy is the number of ranks this process sees."""
    def __init__(self, abort=False):
        super().__init__()
        self.abort = abort
    def calculate(self, *args):
        if self.abort:
            MPI.COMM_WORLD.Abort(9)
        super().calculate(*args)
        self.results["energy"] = self.results["free_energy"] = float(MPI.COMM_WORLD.allreduce(1))
'''


def test_a_child_is_an_mpi_job_of_its_own_and_may_abort(tmp_path):
    (tmp_path / "counter.py").write_text(CALCULATOR)
    world, frame = MPI.COMM_WORLD, Frame.from_atoms(bulk("Cu"))
    options = {"calculator": "counter.Counter", "path": str(tmp_path)}
    section = LabelSection(type="ase", options=options, isolation="process")
    with Spawner() as spawner:
        labeler = make_labeler(section, MPI.COMM_SELF, spawner, tmp_path / "log")
        assert labeler.label(frame, {}, 60.0).energy == 1.0
        if world.rank == world.size - 1:
            with pytest.raises(LabelError, match="exit code 9|killed by"):
                labeler.label(frame, {"arguments": {"abort": True}}, 60.0)
        assert labeler.label(frame, {}, 60.0).energy == 1.0
        assert world.allreduce(1) == world.size


def test_a_team_of_several_ranks_is_refused(tmp_path):
    if MPI.COMM_WORLD.size == 1:
        pytest.skip("needs two ranks")
    section = LabelSection(type="gpaw", options={"mode": {"name": "pw", "ecut": 200}}, isolation="process")
    with pytest.raises(InputError, match="label.isolation"):
        make_labeler(section, MPI.COMM_WORLD, None, tmp_path / "log")
