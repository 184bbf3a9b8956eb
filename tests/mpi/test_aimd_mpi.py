"""Dynamics by a team of ranks: one trajectory, whatever each has for last digits; a failure is that of all ranks."""

from ase.build import bulk
from mpi4py import MPI

from pfdhpc.config.init import AimdSection
from pfdhpc.config.label import LabelSection
from pfdhpc.data import Frame, Label
from pfdhpc.engines.base import Labeler
from pfdhpc.engines.label.aimd import at_rest, run_segment
from pfdhpc.engines.registry import make_labeler
from pfdhpc.errors import LabelError

EMT = LabelSection(type="ase", options={"calculator": "ase.calculators.emt.EMT"})


class Noisy(Labeler):
    """EMT with other last digits on each rank; the last rank fails at the n-th label."""

    level = "emt"

    def __init__(self, comm, last=99):
        self.engine, self.comm, self.left = make_labeler(EMT, None), comm, last

    def label(self, frame, changes, timeout):
        self.left -= 1
        if self.left < 0 and self.comm.rank == self.comm.size - 1:
            raise LabelError("SCF not converged")
        label = self.engine.label(frame, changes, timeout)
        return Label(label.energy, label.forces * (1 + 1e-9 * self.comm.rank), label.virial)


def run(comm, last=99):
    aimd = AimdSection(steps=6, interval=6, timestep=2.0)
    start = at_rest(Frame.from_atoms(bulk("Cu", cubic=True)), 600.0, 3)
    return run_segment(Noisy(comm, last), EMT, aimd, comm, start, 600.0, 5)


def test_all_ranks_follow_the_first():
    comm = MPI.COMM_WORLD
    ends = comm.allgather(run(comm).kept[-1].frame.frame_id)
    assert set(ends) == {run(MPI.COMM_SELF).kept[-1].frame.frame_id}


def test_a_failure_on_one_rank_ends_the_segment_on_all():
    comm = MPI.COMM_WORLD
    result = run(comm, last=3)
    assert (result.reason, result.calculations, len(result.kept)) == ("SCF not converged", 4, 1)
    assert len(set(comm.allgather(result.failed.frame_id))) == 1
