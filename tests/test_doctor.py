"""``pfdhpc doctor``: what it says of a machine that is right, and of the ways in which one is not."""

import os
import subprocess
import sys
from types import SimpleNamespace

from pfdhpc.cli import cuda, doctor, findings, probes
from pfdhpc.cli.findings import FAIL, OK, WARN, Finding
from pfdhpc.cli.main import main
from pfdhpc.parallel.world import launched

SOUND = {
    "mpi": "MPICH 5.0.2",
    "libraries": "/env/lib/libmpi.so.12",
    "hdf5": "h5py 3.16.0, HDF5 2.0.0",
    "hdf5_mpi": "False",
    "lammps": "20250722",
    "deepmd": "True",
}


def states(told):
    return {finding.check: finding.state for finding in findings.stack(told)}


def test_a_sound_machine_passes_on_two_ranks(tmp_path):
    """The real thing: MPI, LAMMPS, deepmd, two ranks, two more inside, the disk; no launcher in between survives."""
    command = ["mpiexec", "-n", "2", sys.executable, "-m", "pfdhpc", "doctor", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("pfdhpc doctor") == 1 and FAIL not in done.stdout
    for check in ("MPI of mpi4py", "LAMMPS", "pair_style deepmd", "h5py", "two ranks", "a job inside a job", "disk"):
        assert check in done.stdout
    assert "ranks of this job" in done.stdout and "2 ranks x 1 threads" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_stack_that_agrees():
    assert set(states(SOUND).values()) == {OK}


def test_open_mpi_is_named_as_what_stands_in_the_way():
    told = {**SOUND, "mpi": "Open MPI 5.0.11", "error": "OSError: libmpi.so.12: cannot open shared object file"}
    del told["lammps"], told["deepmd"]
    found = {finding.check: finding for finding in findings.stack(told)}
    assert found["MPI of mpi4py"].state == FAIL and "mpich" in found["MPI of mpi4py"].remedy
    assert found["LAMMPS"].state == FAIL and "libmpi.so.12" in found["LAMMPS"].found
    assert found["pair_style deepmd"].remedy == "see above" and found["h5py"].state == OK
    assert findings.installation(told).startswith("pip wheels with Open MPI")


def test_two_mpi_libraries_in_one_process():
    told = {**SOUND, "libraries": "/env/lib/libmpi.so.12 /opt/intel/libmpi.so.12"}
    assert states(told)["MPI of mpi4py"] == FAIL


def test_what_each_missing_part_leads_to():
    assert states({"error": "ModuleNotFoundError: No module named 'mpi4py'"})["MPI of mpi4py"] == FAIL
    assert states({**SOUND, "deepmd": "False"})["pair_style deepmd"] == FAIL
    assert states({**SOUND, "hdf5_mpi": "True"})["h5py"] == WARN


def test_every_failure_has_a_remedy():
    for told in ({"error": "x"}, {**SOUND, "mpi": "Open MPI 4"}, {**SOUND, "deepmd": "False"}):
        assert all(finding.remedy for finding in findings.stack(told) if finding.state != OK)


def test_launchers(monkeypatch):
    monkeypatch.setattr(findings.shutil, "which", lambda name: "/bin/mpiexec")
    answers = {"size": "2", "nested": "2"}
    monkeypatch.setattr(findings, "ask", lambda *given: answers)
    assert [finding.state for finding in findings.launches(False)] == [OK, OK]
    answers = {"size": "2", "nested": "", "nested_error": "no answer in 20 s"}
    assert [finding.state for finding in findings.launches(False)] == [OK, WARN]
    answers = {"size": "1"}
    (found,) = findings.launches(False)
    assert found.state == FAIL and "two jobs of one rank each" in found.found
    monkeypatch.setenv("SLURM_JOB_ID", "7")  # inside of srun, whose step holds the cores
    assert findings.launches(True)[0].state == WARN
    monkeypatch.setattr(findings.shutil, "which", lambda name: None)
    assert findings.launches(False)[0].state == WARN


def test_a_probe_that_crashes_or_hangs_is_an_answer(monkeypatch):
    """The lines before the end count."""
    real = subprocess.run

    def program(code):
        return lambda command, **given: real([sys.executable, "-u", "-c", code], **given)

    monkeypatch.setattr(probes.subprocess, "run", program("import os; print('mpi\\tMPICH 5'); os.abort()"))
    found = probes.ask("stack", 20.0)
    assert found["mpi"] == "MPICH 5" and "code -6" in found["error"]
    monkeypatch.setattr(probes.subprocess, "run", program("import time; print('mpi\\tMPICH 5'); time.sleep(9)"))
    assert probes.ask("stack", 1.0) == {"mpi": "MPICH 5", "error": "no answer in 1 s"}
    monkeypatch.setattr(probes.subprocess, "run", real)
    assert "cannot be started" in probes.ask("stack", 1.0, ["/nowhere/mpiexec"])["error"]


def test_the_launcher_that_mpi_does_not_see():
    assert launched({"PMI_SIZE": "4"}) == 4 and launched({}) == 1
    assert findings.ranks(4, 4).state == OK
    found = findings.ranks(4, 1)
    assert found.state == FAIL and "the launcher started 4, MPI sees 1" in found.found


def rank(host="a", gpus=(), cores=(0, 1)):
    return {"host": host, "gpus": list(gpus), "cores": list(cores)}


def test_gpus_and_cores_by_node():
    assert findings.gpus([rank()]).state == OK
    assert findings.gpus([rank(gpus="0123")] * 5).state == OK
    found = findings.gpus([rank(gpus="01")] * 4 + [rank("b", gpus="01")])
    assert found.state == WARN and "a: 2 for 4 ranks" in found.found and "b: 2" in found.found
    assert findings.cores([rank()] * 2, 1).state == OK
    assert findings.cores([rank()] * 2, 2).state == WARN
    bound = [rank(cores=[index]) for index in range(4)]
    assert findings.cores(bound, 1).state == OK


def test_a_disk_that_takes_no_files(tmp_path):
    assert findings.disk(tmp_path).state == OK
    assert findings.disk(tmp_path / "nowhere").state == FAIL


def test_a_driver_older_than_the_wheels(monkeypatch):
    monkeypatch.setattr(findings, "visible_gpus", lambda: ["0"])
    monkeypatch.setattr(cuda, "output", lambda *command: "| Driver Version: 535.1   CUDA Version: 12.2 |")
    monkeypatch.setattr(findings, "cuda_of_torch", lambda: "13.0")
    found = findings.driver()
    assert found.state == FAIL and "is for CUDA 12.2, torch for 13.0" in found.found
    assert "driver older" in findings.installation(SOUND)
    monkeypatch.setattr(findings, "cuda_of_torch", lambda: "12.8")
    monkeypatch.setattr(findings, "ask", lambda *given: {"cuda": "12.8", "count": "1"})
    assert findings.driver().state == OK
    monkeypatch.setattr(findings, "ask", lambda *given: {"cuda": "12.8", "count": "0"})
    assert findings.driver().state == FAIL


def test_torch_tells_its_cuda_without_being_imported(tmp_path, monkeypatch):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise ImportError")
    for line, found in (("cuda: Optional[str] = '13.0'", "13.0"), ("cuda: Optional[str] = None", "")):
        (tmp_path / "torch" / "version.py").write_text(f"__version__ = '2.11.0'\n{line}\nhip = None\n")
        spec = SimpleNamespace(origin=str(tmp_path / "torch" / "__init__.py"))
        monkeypatch.setattr(cuda, "find_spec", lambda name, spec=spec: spec)
        assert cuda.cuda_of_torch() == found


def test_slurm_with_and_without_pmi2(monkeypatch):
    monkeypatch.setattr(findings.shutil, "which", lambda name: f"/bin/{name}" if name in ("sbatch", "srun") else None)
    monkeypatch.setattr(findings, "output", lambda *command: "MPI plugin types are...\n\tnone\n\tpmi2\n")
    assert findings.scheduler() == Finding("scheduler", "Slurm, srun --mpi=pmi2")
    monkeypatch.setattr(findings, "output", lambda *command: "\tnone\n")
    assert findings.scheduler().state == WARN


def test_a_check_that_fails_itself_is_a_finding():
    def broken():
        raise RuntimeError("no such luck")

    assert doctor.guarded("disk", broken) == Finding(
        "disk", "RuntimeError: no such luck", FAIL, "please report this: the check itself failed"
    )


def test_failures_are_the_exit_code(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(doctor, "ask", lambda *given: {**SOUND, "deepmd": "False"})
    monkeypatch.setattr(findings, "launches", lambda inside: [])
    assert main(["doctor", str(tmp_path)]) == 1
    shown = capsys.readouterr().out
    assert "LAMMPS has no pair_style deepmd" in shown and "1 checks failed" in shown
