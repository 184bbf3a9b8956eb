"""Programs of their own: started clean, watched, judged; what fails is a reason with a folder to look into."""

import errno
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import numpy as np
import pytest
from ase import units
from ase.build import bulk
from espresso import (
    NESTED,
    OPTIONS,
    PRINTED,
    PSEUDO,
    ROOT,
    needs_openmpi,
    needs_qe,
    section,
    silicon,
    stand_in,
)

from pfdhpc import messages as m
from pfdhpc.config.label import LabelSection, merged
from pfdhpc.data import Frame, Label, Origin, Record
from pfdhpc.engines.isolated.spawner import Spawner
from pfdhpc.engines.label.input_checks import check_labeler
from pfdhpc.engines.label.label_checks import check_energy, label_all, label_with_ladder
from pfdhpc.engines.label.launch import one_shot
from pfdhpc.engines.label.launch.cores_and_hosts import places_of
from pfdhpc.engines.label.launch.exit_reason import killed_by
from pfdhpc.engines.label.level_of_theory import level_hash, levels_of
from pfdhpc.engines.label.programs.qe import QuantumEspresso
from pfdhpc.engines.registry import make_labeler
from pfdhpc.errors import InputError, LabelError
from pfdhpc.roles.labeler import LabelerProgram


@pytest.fixture(scope="module")
def spawner():
    with Spawner() as made:
        yield made


@pytest.fixture
def make(spawner, tmp_path):
    """``make(section)`` gives a labeler whose run directory is ``tmp_path``; ``make(section, called_off)`` too."""
    log = tmp_path / "logs" / "labeler-0.engine.log"
    return lambda given, *more: make_labeler(given, None, spawner, log, *more)


@pytest.fixture
def fake(tmp_path):
    """``fake(launch..., WAY=...)``: a section whose pw.x prints what the real one once printed."""
    folder = tmp_path / "program"
    folder.mkdir()
    stand_in(folder)
    options = OPTIONS | {"pseudo_dir": str(folder), "pseudopotentials": {"Si": "Si.upf"}}

    def given(launch=None, options=options, more=None, **env):
        launch = {"command": str(folder / "pw.x"), "env": {"PIDS": str(tmp_path / "told"), **env}} | (launch or {})
        return section(launch, options, **(more or {}))

    return given


def wait_until_gone(pid):
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return
        except OSError:
            return
        time.sleep(0.02)
    raise AssertionError(f"process {pid} is still there")


def test_the_output_is_read_in_units_and_signs_of_the_house(make, fake):
    label = make(fake()).label(silicon(), {}, 20.0)
    rows = [
        line.split("=")[1].split()
        for line in PRINTED.read_text().splitlines()
        if " type " in line and "force =" in line
    ]
    lines = PRINTED.read_text().splitlines()
    energy = next(float(line.split()[4]) for line in lines if line.startswith("!"))
    place = next(n for n, line in enumerate(lines) if "total   stress" in line)
    stress = np.array([line.split()[:3] for line in lines[place + 1 : place + 4]], float)
    assert label.energy == pytest.approx(energy * units.Ry, abs=1e-9)
    assert np.allclose(label.forces, np.array(rows, float) * units.Ry / units.Bohr, atol=1e-9)
    # pw.x prints the pressure tensor's sign: positive is compressed, as is deepmd's virial.
    assert np.allclose(label.virial, stress * units.Ry / units.Bohr**3 * silicon().volume, atol=1e-9)


@pytest.mark.parametrize(
    "env, words",
    [
        ({"LENGTH": "3000"}, "no end of the calculation; its output ends:"),
        ({"LENGTH": "0", "CODE": "3"}, r"it wrote nothing \(exit code 3\)"),
        ({"CHANGES": "[('has been achieved in', 'NOT achieved after ')]"}, "not converged after"),
        ({"CHANGES": "[('on     1 proc', 'on     3 proc')]"}, r"ran on 3 processes, and 1 were asked for.*command"),
        ({"CHANGES": "[('0.0216714', '0.0316714')]"}, "moved an atom by 0.0"),
        ({"CHANGES": "[('!    total energy', '     total energy')]"}, "not understood"),
    ],
)
def test_what_is_wrong_with_an_output_is_a_reason_with_its_folder(make, fake, tmp_path, env, words):
    with pytest.raises(LabelError, match=words) as caught:
        make(fake(**env)).label(silicon(), {}, 20.0)
    folder = tmp_path / str(caught.value).rsplit("; see ", 1)[1]
    assert {path.name for path in folder.iterdir()} == {"pw.in", "standard.out", "standard.err"}


def test_another_frame_than_the_one_asked_for_is_refused(make, fake):
    with pytest.raises(LabelError, match="changed the cell"):
        make(fake()).label(silicon(a=5.4), {}, 20.0)
    with pytest.raises(LabelError, match="nothing for Ge|none for Ge"):
        make(fake()).label(Frame.from_atoms(bulk("Ge")), {}, 20.0)


def test_folders_of_good_labels_go_unless_they_are_to_be_kept(make, fake, tmp_path):
    (tmp_path / "labels" / ".labeler-0" / "left-by-a-killed-job").mkdir(parents=True)
    make(fake()).label(silicon(), {}, 20.0)
    assert [path.name for path in (tmp_path / "labels").rglob("*")] == [".labeler-0"]
    disk = tmp_path / "disk"
    make(fake({"keep": True, "scratch": disk})).label(silicon(), {}, 20.0)
    (kept,) = (path for path in (tmp_path / "labels").iterdir() if path.name != ".labeler-0")
    assert kept.name.startswith(silicon().frame_id[:12]) and (kept / "standard.out").exists()
    assert not (kept / "pwscf.save").exists(), "wave functions are not kept"
    (own,) = disk.iterdir()
    assert own.name.endswith("labeler-0") and not list(own.iterdir())


def test_a_hanging_program_is_killed_with_all_it_started(make, fake, tmp_path, monkeypatch):
    monkeypatch.setattr(QuantumEspresso, "patience", 0.3)
    monkeypatch.setattr(one_shot, "FAREWELL", 0.3)
    begin = time.monotonic()
    with pytest.raises(LabelError, match="time-out: longer than 1 s .*; see labels/"):
        make(fake(WAY="hang")).label(silicon(), {}, 1.0)
    assert time.monotonic() - begin < 6
    for pid in (tmp_path / "told").read_text().split():
        wait_until_gone(int(pid))


@pytest.mark.parametrize("number, tried", [(signal.SIGTERM, 1), (signal.SIGKILL, 2)])
def test_a_program_ended_from_outside_is_told_from_one_that_failed(make, fake, tmp_path, number, tried):
    """After a wish to stop the ladder goes no further; memory may be enough for the next rung."""
    given = fake(more={"retries": [{}]}, WAY="killed", SIGNAL=str(int(number)))
    with pytest.raises(LabelError, match=f"it wrote nothing .killed by {number.name}.; see labels/") as caught:
        label_with_ladder(make(given), silicon(), given, None)
    assert caught.value.killed == number and len((tmp_path / "told").read_text().split()) == tried
    assert pickle.loads(pickle.dumps(caught.value)).killed == number, "all ranks of the team are told"
    with pytest.raises(LabelError) as caught:
        make(fake(CODE="1", LENGTH="0")).label(silicon(), {}, 20.0)
    assert caught.value.killed == 0
    with pytest.raises(LabelError) as caught:
        make(fake(LENGTH="3000")).label(silicon(), {}, 20.0)
    assert caught.value.killed is None
    timed = fake(WAY="soft")
    with pytest.raises(LabelError, match="time-out") as caught:
        make(timed).label(silicon(), {}, 0.3)
    assert caught.value.killed is None


@pytest.mark.parametrize(
    "code, text, number",
    [
        (-15, "", 15),
        (-11, "", 0),
        (143, "", 15),  # Open MPI, srun
        (137, "", 9),
        (15, "YOUR APPLICATION TERMINATED WITH THE EXIT STRING: Terminated (signal 15)\n", 15),  # MPICH
        (9, "=   EXIT CODE: 9\nYOUR APPLICATION TERMINATED WITH THE EXIT STRING: Killed (signal 9)\n", 9),
        (139, "YOUR APPLICATION TERMINATED WITH THE EXIT STRING: Segmentation fault (signal 11)\n", 0),
        (9, "=   KILLED BY SIGNAL: 9 (Killed)\n", 9),  # Intel MPI
        (1, "mpiexec noticed that process rank 0 with PID 0 on node n1 exited on signal 9 (Killed).\n", 9),
        (78, "forrtl: error (78): process killed (SIGTERM)\n", 15),
        (1, "srun: error: n1: tasks 0-3: Terminated\n", 15),
        (1, "srun: error: n1: task 2: Killed\nsrun: Job step aborted\n", 9),
        (1, "slurmstepd: error: *** STEP 7.1 ON n1 CANCELLED AT 2026-02-01T10:00:00 ***\n", 15),
        (1, "%%%% Error in routine c_bands (1): too many bands are not converged\n", 0),
        (2, "", 0),
        (0, "Terminated (signal 15)", 0),
    ],
)
def test_what_launchers_say_of_a_signal(tmp_path, code, text, number):
    (tmp_path / "standard.err").write_text("x" * 9000 + "\n" + text)
    assert killed_by(code, tmp_path / "standard.err", tmp_path / "not-there") == number


# A rank that is killed while its program runs.
RANK = """
import sys
from pathlib import Path
from pfdhpc.engines.isolated.spawner import Spawner
from pfdhpc.engines.registry import make_labeler
from pfdhpc.config.label import LabelSection
from pfdhpc.data import Frame
from ase.build import bulk
spawner = Spawner()
section = LabelSection.model_validate_json(Path(sys.argv[1]).read_text())
log = Path(sys.argv[1]).parent / "logs" / "labeler-0.engine.log"
make_labeler(section, None, spawner, log).label(Frame.from_atoms(bulk("Si")), {}, 1000.0)
"""


def test_no_program_outlives_its_rank(fake, tmp_path):
    (tmp_path / "section.json").write_text(fake(WAY="hang").model_dump_json(exclude_defaults=True))
    rank = subprocess.Popen([sys.executable, "-c", RANK, str(tmp_path / "section.json")])
    told, deadline = tmp_path / "told", time.monotonic() + 60
    while not (told.exists() and len(told.read_text().split()) == 2) and time.monotonic() < deadline:
        time.sleep(0.05)
    rank.kill()
    rank.wait()
    for pid in told.read_text().split():
        wait_until_gone(int(pid))


def test_what_left_a_program_before_it_was_asked_to_end_is_ended_too(tmp_path, monkeypatch):
    """A launcher's helper in a session of its own is nobody's child once the launcher has obeyed."""
    monkeypatch.setattr("pfdhpc.engines.isolated.spawner.FAREWELL", 0.5)
    spawner = Spawner()
    deaf = ["sh", "-c", "trap '' TERM; sleep 1000; true"]  # it takes all of the time there is
    spawner.launch(deaf, dict(os.environ), tmp_path, None, tmp_path / "deaf")
    script = f"trap 'exit 0' TERM; setsid sleep 1000 & echo $! > {tmp_path}/told; wait"
    spawner.launch(
        ["env", "--default-signal=TERM", "sh", "-c", script], dict(os.environ), tmp_path, None, tmp_path / "out"
    )
    deadline = time.monotonic() + 10
    while not (tmp_path / "told").exists() or not (tmp_path / "told").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.1)  # for its session
    spawner.close()
    wait_until_gone(int((tmp_path / "told").read_text()))


def test_trouble_with_files_costs_one_label_and_a_program_that_is_not_there_the_job(make, fake, monkeypatch):
    labeler = make(fake())
    full = OSError(28, "No space left on device", "/disk/pw.in")
    with monkeypatch.context() as patch:
        patch.setattr(QuantumEspresso, "write", lambda *given: (_ for _ in ()).throw(full))
        with pytest.raises(LabelError, match="^/disk/pw.in: No space left on device; see labels/"):
            labeler.label(silicon(), {}, 20.0)
    for number, kind in ((errno.EAGAIN, LabelError), (errno.ENOENT, InputError)):
        with monkeypatch.context() as patch:
            error = OSError(number, os.strerror(number))
            patch.setattr(labeler._spawner, "launch", lambda *given, error=error: (_ for _ in ()).throw(error))
            with pytest.raises(kind, match="cannot be started"):
                labeler.label(silicon(), {}, 20.0)
    assert labeler.label(silicon(), {}, 20.0).is_finite()


def test_a_program_is_asked_to_end_before_it_is_killed(make, fake, tmp_path):
    with pytest.raises(LabelError, match="time-out"):
        make(fake(WAY="soft")).label(silicon(), {}, 0.3)
    assert (tmp_path / "told").read_text() == "ended by itself"


def after(seconds, patience):
    """A wish to stop that comes so many seconds from now; a program then has ``patience`` to end by itself."""
    moment = time.monotonic() + seconds
    return lambda: patience if time.monotonic() > moment else None


@pytest.mark.parametrize("way, patience", [("soft", 20.0), ("hang", 0.3)])
def test_a_label_that_is_called_off_ends_its_program_and_is_no_verdict(
    make, fake, tmp_path, monkeypatch, way, patience
):
    monkeypatch.setattr(one_shot, "FAREWELL", 0.3)
    given = fake(more={"retries": [{}]}, WAY=way)
    begin = time.monotonic()
    with pytest.raises(LabelError, match="^attempt 1: stopped: this job is about to end.*; see labels/") as caught:
        label_with_ladder(make(given, after(0.5, patience)), silicon(), given, None)
    assert caught.value.killed == signal.SIGTERM and time.monotonic() - begin < 6
    told = (tmp_path / "told").read_text()
    if way == "soft":
        assert told == "ended by itself"
    else:
        for pid in told.split():
            wait_until_gone(int(pid))


def test_nothing_is_begun_for_an_order_that_is_called_off(make, fake, tmp_path):
    given = fake()
    answers = label_all(make(given, lambda: 5.0), [silicon(1), silicon(2)], given, None)
    assert [answer.killed for answer in answers] == [signal.SIGTERM] * 2
    assert [path.name for path in (tmp_path / "labels").rglob("*")] == [".labeler-0"]


def test_the_environment_is_the_users_not_the_launchers(make, fake, tmp_path, monkeypatch):
    for name in ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK", "HYDI_CONTROL_FD", "MPI_LOCALNRANKS"):
        monkeypatch.setenv(name, "1")
    for name in ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_CPU_BIND_TYPE", "SLURM_GPUS_PER_TASK", "SLURM_NNODES"):
        monkeypatch.setenv(name, "1")
    monkeypatch.delenv("SLURM_CONF", raising=False)
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    script = tmp_path / "modules.sh"
    script.write_text('echo loading\nexport LOADED="two\nlines"\nexport MINE=script\n')
    env = {"WAY": "environment", "MINE": "$(touch /nowhere)"}
    make(fake({"env_script": script}, **env)).label(silicon(), {}, 20.0)
    found = dict(pair.split("=", 1) for pair in (tmp_path / "told").read_text().split("\0"))
    assert not [name for name in found if name.startswith(("PMI", "OMPI_", "HYD", "MPI_LOCAL"))]
    assert {name for name in found if name.startswith("SLURM_")} == {"SLURM_JOB_ID", "SLURM_OVERLAP"}
    assert (found["LOADED"], found["MINE"], found["CUDA_VISIBLE_DEVICES"]) == ("two\nlines", "$(touch /nowhere)", "2")

    script.write_text("module load qe/7.4\necho no such module >&2\nexit 4\n")
    with pytest.raises(InputError, match="label.launch.env_script: .*exit code 4: .*no such module"):
        make(fake({"env_script": script}))


def test_the_number_of_processes_goes_into_the_command(make, fake, tmp_path):
    launcher = tmp_path / "launch"
    launcher.write_text(f'#!/bin/sh\nprintf "%s " "$@" > {tmp_path}/words\nshift 2\nexec "$@"\n')
    launcher.chmod(0o755)
    program = f"{tmp_path}/program/pw.x"
    command = f"{launcher} -n {{ranks}} {program} -nk '1'"
    given = fake({"command": command, "processes": 4}, CHANGES="[('on     1 proc', 'on     4 proc')]")
    assert make(given).label(silicon(), {}, 20.0).is_finite()
    assert (tmp_path / "words").read_text().split() == ["-n", "4", program, "-nk", "1", "-in", "pw.in"]


def test_a_container_may_stand_before_the_program(make, fake, tmp_path):
    """Its runtime takes the image and the program, and hands on neither the job's variables nor its standard input."""
    runtime = tmp_path / "apptainer"
    runtime.write_text('#!/bin/sh\n[ "$1 $2" = "exec qe.sif" ] || exit 9\nshift 2\nexec env -i "$@" </dev/null\n')
    runtime.chmod(0o755)
    given = fake({"command": f"{runtime} exec qe.sif {sys.executable} {tmp_path}/program/pw.x"})
    assert make(given).label(silicon(), {}, 20.0).is_finite()


@dataclass
class Team:
    """A communicator that knows what each rank would say."""

    said: list

    def Get_size(self):
        return len(self.said)

    def Get_rank(self):
        return 0

    def allgather(self, mine):
        return self.said


def test_a_program_is_told_where_its_team_is_and_gets_what_the_team_has(tmp_path, monkeypatch):
    team = Team([("n1", "0", {0, 1}), ("n1", "1", {2, 3}), ("n2", "0", {7}), ("n1", "", {1, 4})])
    places = places_of(team)
    assert places.hosts == ("n1", "n1", "n2", "n1")
    assert places.gpus == ("0", "1") and places.cores == {0, 1, 2, 3, 4}
    text = "srun -N {n_nodes} --nodelist={nodes} -n {ranks} --host {hosts} -f '{hostfile}' a.x"
    words = places.command(text, 4, tmp_path / "hosts")
    assert words == ["srun", "-N", "2", "--nodelist=n1,n2", "-n", "4", "--host", "n1:3,n2:1", "-f",
                     str(tmp_path / "hosts"), "a.x"]  # fmt: skip
    assert (tmp_path / "hosts").read_text() == "n1\nn1\nn2\nn1\n"
    assert places.command("a.x -n {ranks}", 4, tmp_path / "none") == ["a.x", "-n", "4"]
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("command, words", [
    ("srun -w {node} pw.x", ["{node} stands for nothing; did you mean {nodes}?", "{hosts} (the nodes with"]),
    ("{program}", ["{program} stands for nothing; known are {ranks} (processes to start)"]),
])  # fmt: skip
def test_a_placeholder_that_is_none_is_refused_with_those_there_are(command, words):
    with pytest.raises(ValueError) as caught:
        section({"command": command})
    for word in words:
        assert word in str(caught.value)
    assert section({"command": "bash ${HOME}"}).launch.command == "bash ${HOME}", "no placeholder, and no shell"


@needs_qe
@pytest.mark.parametrize("command", [
    "mpiexec -n {ranks} -hosts {hosts} pw.x", "mpiexec -n {ranks} -f {hostfile} pw.x",
    pytest.param("/usr/bin/mpiexec.openmpi -n {ranks} --host {hosts} pw.x", marks=needs_openmpi),
    pytest.param("/usr/bin/mpiexec.openmpi -n {ranks} --hostfile {hostfile} pw.x", marks=needs_openmpi),
])  # fmt: skip
def test_launchers_take_the_nodes_as_they_are_given(make, command):
    """On this machine's own name, with real launchers."""
    assert make(section({"command": command, "env": ROOT})).label(silicon(), {}, 60.0).is_finite()


AFFINITY = "import os; open(os.environ['PIDS'], 'w').write(repr(os.sched_getaffinity(0)))"


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_a_program_runs_on_all_cores_of_its_team_although_each_rank_is_bound_to_one(tmp_path):
    """As a launcher binds ranks: the spawner is born bound."""
    mine = os.sched_getaffinity(0)
    one, two = sorted(mine)[:2]
    try:
        os.sched_setaffinity(0, {one})
        with Spawner() as bound:
            environment = {**os.environ, "PIDS": str(tmp_path / "told")}
            for given, expected in (((), {one}), ({one, two}, {one, two}), ({100000}, {one})):
                command = [sys.executable, "-c", AFFINITY]
                pid = bound.launch(command, environment, tmp_path, None, tmp_path / "out", given)
                while not bound.ended(pid):
                    time.sleep(0.01)
                assert bound.stop(pid, 0.0) == 0
                assert eval((tmp_path / "told").read_text()) == expected
    finally:
        os.sched_setaffinity(0, mine)


@pytest.mark.parametrize(
    "launch, options, more, ranks, words",
    [
        ({"command": "pw.x"}, {}, {}, 2, ["label.launch.command", "{ranks}"]),
        ({"command": "no-such-program"}, {}, {}, 1, ["label.launch.command", "no program no-such-program"]),
        ({"command": "./pw.x"}, {}, {}, 1, ["label.launch.command", "full path, e.g. /"]),
        ({"command": "sh 'pw.x"}, {}, {}, 1, ["label.launch.command", "quotation"]),
        ({}, {"kpts": [2, 2]}, {}, 1, ["label.options.kpts", "[4, 4, 4]"]),
        ({}, {"kspacing": 0.2}, {}, 1, ["label.options.kpts", "kspacing"]),
        ({}, {"pseudopotentials": {"Si": "Si.pbe"}}, {}, 1, ["pseudopotentials.Si", "no such file"]),
        ({}, {"input": {"sistem": {}}}, {}, 1, ["label.options.input.sistem", "system"]),
        ({}, {"input": {"system": {"nat": 3, "ecutwfc": 9}}}, {}, 1, ["label.options.input.system.nat"]),
        ({}, {"input": {"system": {"hubbard_u(1)": 3, "ecutwfc": 9}}}, {}, 1, ["hubbard_u = {"]),
        ({}, {"input": {}}, {}, 1, ["ecutwfc: missing"]),
        ({}, {"pseudopotential": {}}, {}, 1, ['did you mean "pseudopotentials"']),
        ({}, {"template": "/nowhere/pw.in"}, {}, 1, ["label.options.template"]),
        ({}, {}, {"retries": [{"kpts": 3}]}, 1, ["label.retries[0].kpts"]),
        ({}, {}, {"systems": {"a": {"kpts": 3}}}, 1, ["label.systems.a.kpts"]),
    ],
)
def test_problems_are_found_beforehand(fake, launch, options, more, ranks, words):
    base = fake()
    given = section({"command": base.launch.command} | launch, base.options | options, **more)
    problems = "\n".join(check_labeler(given, ranks))
    for word in words:
        assert word in problems
    assert check_labeler(base, 1) == []


def test_launching_is_for_programs_alone():
    with pytest.raises(ValueError, match="launch: the ase labeler starts no program"):
        LabelSection(type="ase", options={"calculator": "a.B"}, launch={"command": "pw.x"})
    with pytest.raises(ValueError, match="launch.command: missing"):
        LabelSection(type="qe", options=OPTIONS)


def test_the_level_of_theory_is_what_changes_the_numbers(fake, tmp_path):
    given = fake()
    base = level_hash(given)
    assert base == level_hash(fake({"command": "srun pw.x", "processes": 7, "keep": True}, more={"timeout": 9.0}))
    other = tmp_path / "moved"
    shutil.copytree(tmp_path / "program", other)
    moved = given.options | {"pseudo_dir": str(other)}
    assert base == level_hash(fake(options=moved))
    (other / "Si.upf").write_text("<UPF> another")
    assert base != level_hash(fake(options=moved))
    assert base != level_hash(fake(options=merged(given.options, {"input": {"system": {"ecutwfc": 13}}})))
    charged = {"ion": {"input": {"system": {"tot_charge": 1}}}}
    levels = levels_of(fake(more={"systems": charged}))
    assert levels.of("bulk") == base != levels.of("ion") and set(levels) == {base, levels.of("ion")}


def test_a_template_says_the_same_as_options(tmp_path, fake):
    template = tmp_path / "pw.in"
    template.write_text(
        "&CONTROL\n calculation='relax', outdir='/elsewhere', max_seconds=100\n/\n"
        "&SYSTEM\n ibrav=2, celldm(1)=10.2, nat=8, ntyp=1, ecutwfc=12.0, occupations='smearing', smearing='mv',\n"
        " degauss=0.01 ! Ry\n/\n&ELECTRONS\n conv_thr=1.0d-10\n/\nATOMIC_SPECIES\n Si 28 other.UPF\n"
        "K_POINTS automatic\n 2 2 2 1 1 1\nHUBBARD (ortho-atomic)\n U Si-3p 1.0\nATOMIC_POSITIONS alat\n Si 0 0 0\n"
    )
    options = {key: fake().options[key] for key in ("pseudo_dir", "pseudopotentials")} | {"template": str(template)}
    options["input"] = {"system": {"ecutwfc": 14}, "electrons": {"mixing_beta": 0.3}}
    QuantumEspresso(options).write(silicon(), tmp_path)
    text = " ".join(template.read_text().split())
    for words in ("calculation = 'scf'", "outdir = '.'", "ibrav = 0", "nat = 2", "ecutwfc = 14", "conv_thr = 1e-10",
                  "mixing_beta = 0.3", "max_seconds = 100", "2 2 2 1 1 1", "Si 28.085 Si.upf",
                  "U Si-3p 1.0"):  # fmt: skip
        assert words in text, words
    assert "celldm" not in text and "other.UPF" not in text


def test_values_by_element_become_values_by_species(tmp_path, fake):
    folder = fake().options["pseudo_dir"]
    system = {"ecutwfc": 9, "nspin": 2, "starting_magnetization": {"Fe": 0.5}, "hubbard_u": {"O": 2.0, "Fe": 4.0}}
    options = {"pseudo_dir": folder, "pseudopotentials": {"Fe": "Si.upf", "O": "Si.upf"}, "kpts": "gamma"}
    oxide = bulk("FeO", "rocksalt", a=4.3)
    QuantumEspresso(options | {"input": {"system": system}}).write(Frame.from_atoms(oxide[[1, 0]]), tmp_path)
    text = " ".join((tmp_path / "pw.in").read_text().split())
    for words in ("starting_magnetization(1) = 0.0", "starting_magnetization(2) = 0.5", "hubbard_u(1) = 2.0",
                  "hubbard_u(2) = 4.0", "K_POINTS gamma"):  # fmt: skip
        assert words in text, words
    antiferro = {"input": {"system": system | {"starting_magnetization": [0.5, -0.5]}}}
    pair = oxide.copy()
    pair.symbols[:] = "Fe"
    QuantumEspresso(options | antiferro).write(Frame.from_atoms(pair), tmp_path)
    text = (tmp_path / "pw.in").read_text()
    assert "Fe1" in text and text.count("hubbard_u(") == 2, "a species for each magnetisation, with the same U"


def test_each_system_is_labelled_with_its_own_options(tmp_path):
    """Also by other labelers: here EMT is one of two systems' calculator, with its own level of theory."""
    (tmp_path / "own.py").write_text(
        "from ase.calculators.emt import EMT\nclass Shifted(EMT):\n    def __init__(self, shift=0.0):\n"
        "        super().__init__()\n        self.shift = shift\n    def calculate(self, *args):\n"
        "        super().calculate(*args)\n        self.results['energy'] += self.shift\n"
        "        self.results['free_energy'] = self.results['energy']\n"
    )
    options = {"calculator": "own.Shifted", "path": str(tmp_path)}
    given = LabelSection(type="ase", options=options, systems={"ion": {"arguments": {"shift": 5.0}}})
    config = SimpleNamespace(
        label=given, model=SimpleNamespace(calculator=None), run=SimpleNamespace(directory=tmp_path)
    )
    program = LabelerProgram(config, None)
    assert program.ready("labeler-0").problems == ()
    frame = Frame.from_atoms(bulk("Cu"))
    records = tuple(Record(frame, Origin(system=name)) for name in ("ion", "neutral", "ion"))
    outcomes = program.handle(m.LabelFrames("label/x", records)).outcomes
    energies = [outcome.record.label.energy for outcome in outcomes]
    assert energies[0] == energies[2] == pytest.approx(energies[1] + 5.0)
    levels = [outcome.record.labelling.level for outcome in outcomes]
    assert levels == [level_hash(given, "ion"), level_hash(given), level_hash(given, "ion")]


def test_an_energy_far_from_the_model_that_explored_is_rejected():
    given = LabelSection(type="ase", options={"calculator": "a.B"}, energy_outlier=0.5)
    label = Label(-10.0, np.zeros((2, 3)))
    near, far = (Record(silicon(), prediction=Label(energy, np.zeros((2, 3)))) for energy in (-9.1, -8.9))
    assert check_energy(near, (label, 1), given) == (label, 1)
    assert check_energy(Record(silicon()), (label, 1), given) == (label, 1), "there is no prediction of first frames"
    assert "0.55 eV/atom" in str(check_energy(far, (label, 1), given))


# The real pw.x


def by_hand(folder, frame):
    """Energy (eV), forces and virial of a pw.x started in a shell, read by eye from its output."""
    folder.mkdir()
    positions = "\n".join(f"Si {x:.12f} {y:.12f} {z:.12f}" for x, y, z in frame.positions)
    cell = "\n".join(" ".join(map(repr, map(float, row))) for row in frame.cell)
    (folder / "in").write_text(
        f"&control\n pseudo_dir='{PSEUDO}' tprnfor=.true. tstress=.true.\n/\n"
        "&system\n ibrav=0 nat=2 ntyp=1 ecutwfc=12 occupations='smearing' smearing='mv' degauss=0.01\n/\n"
        "&electrons\n conv_thr=1d-10\n/\nATOMIC_SPECIES\nSi 28.085 Si.pz-vbc.UPF\n"
        f"K_POINTS automatic\n2 2 2 0 0 0\nCELL_PARAMETERS angstrom\n{cell}\nATOMIC_POSITIONS angstrom\n{positions}\n"
    )
    with open(folder / "in") as file:
        text = subprocess.run(["pw.x"], stdin=file, cwd=folder, capture_output=True, text=True, check=True).stdout
    lines = text.splitlines()
    energy = next(float(line.split()[4]) for line in lines if line.startswith("!"))
    forces = np.array([line.split("=")[1].split() for line in lines if " type " in line and " force = " in line], float)
    place = next(n for n, line in enumerate(lines) if "total   stress" in line)
    stress = np.array([line.split()[:3] for line in lines[place + 1 : place + 4]], float)
    per_bohr = units.Ry / units.Bohr
    return energy * units.Ry, forces * per_bohr, stress * per_bohr / units.Bohr**2 * frame.volume


@needs_qe
def test_labels_are_those_of_a_run_by_hand_cold_and_resident(make, tmp_path):
    frames = [silicon(1), silicon(2), silicon(3, a=5.4)]
    expected = [by_hand(tmp_path / str(n), frame) for n, frame in enumerate(frames)]
    for resident, tolerance in ((False, 1e-6), (True, 2e-4)):
        labeler = make(section({"command": "pw.x", "resident": resident}))
        for frame, (energy, forces, virial) in zip(frames, expected, strict=True):
            label = labeler.label(frame, {}, 60.0)
            assert label.energy == pytest.approx(energy, abs=1e-6)
            assert np.allclose(label.forces, forces, rtol=0, atol=tolerance)
            assert np.allclose(label.virial, virial, rtol=0, atol=tolerance)


@needs_qe
def test_a_resident_program_is_used_again_as_long_as_it_fits(make, tmp_path):
    labeler = make(section({"command": "pw.x", "resident": True, "resident_labels": 3}))

    def label(frame, changes=None):
        labeler.label(frame, changes or {}, 60.0)
        return labeler._running and labeler._running.pid

    first = label(silicon(1))
    assert label(silicon(2)) == first
    assert label(silicon(3)) is None, "after as many labels as it may make"
    second = label(silicon(1))
    assert second != first and label(silicon(1, a=5.4)) not in (first, second), "another cell: other plane waves"
    wait_until_gone(second)
    with pytest.raises(LabelError, match=r"SCF not converged after 2 iterations.*; see labels/") as caught:
        label(silicon(1, a=5.4), {"input": {"electrons": {"electron_maxstep": 2}}})
    assert (tmp_path / str(caught.value).rsplit("; see ", 1)[1] / "standard.out").exists()
    third = label(silicon(1))
    os.kill(third, 9)
    with pytest.raises(LabelError, match="ended without an answer"):
        label(silicon(2))
    with pytest.raises(LabelError, match="time-out"):
        labeler.label(silicon(2), {}, 0.05)
    assert label(silicon(2)) is not None
    labeler._dismiss(keep=False)
    assert not list(Path("/tmp").glob(f"ipi_pfdhpc-{os.getpid()}-*"))


SLOW = {"kpts": [8, 8, 8], "input": {"system": {"ecutwfc": 40}, "electrons": {"mixing_beta": 0.05, "conv_thr": 1e-14}}}
"""An SCF that takes a minute."""


@needs_qe
@needs_openmpi
def test_a_pw_that_hangs_in_mid_scf_is_killed_with_all_its_processes(make, tmp_path):
    stopped = []

    def stop_one():
        while not any("iteration #" in path.read_text() for path in tmp_path.rglob("standard.out")):
            time.sleep(0.05)
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if (path / "comm").read_text() == "pw.x\n" and (path / "cwd").resolve().is_relative_to(tmp_path):
                    stopped.append(int(path.name))
        os.kill(stopped[0], signal.SIGSTOP)

    watch = Thread(target=stop_one, daemon=True)
    watch.start()
    nested = section({"command": NESTED, "processes": 2, "env": ROOT}, merged(OPTIONS, SLOW))
    with pytest.raises(LabelError, match="time-out"):
        make(nested).label(silicon(), {}, 6.0)
    watch.join(5.0)
    assert len(stopped) == 2
    for pid in stopped:
        wait_until_gone(pid)


@needs_qe
@pytest.mark.parametrize("resident", [False, True])
def test_pw_ends_by_its_own_way_when_its_label_is_called_off(make, tmp_path, resident):
    labeler = make(section({"command": "pw.x", "resident": resident}, merged(OPTIONS, SLOW)), after(2.0, 20.0))
    begin = time.monotonic()
    with pytest.raises(LabelError, match="stopped: this job is about to end") as caught:
        labeler.label(silicon(), {}, 100.0)
    assert caught.value.killed == signal.SIGTERM and time.monotonic() - begin < 20
    output = (tmp_path / str(caught.value).rsplit("; see ", 1)[1] / "standard.out").read_text()
    told = "Program stopped by user request" in output or "server: EXIT" in output  # it still got ready
    assert told and "JOB DONE." in output, "which so is no sign of success"


@needs_qe
def test_an_scf_that_fails_is_tried_again_as_the_ladder_says(make):
    short = {"input": {"electrons": {"electron_maxstep": 2}}}
    longer = {"input": {"electrons": {"electron_maxstep": 50}}}
    given = section({"command": "pw.x"}, merged(OPTIONS, short), retries=[longer])
    label, attempts = label_with_ladder(make(given), silicon(), given, None)
    assert attempts == 2 and label.is_finite()
    hopeless = given.model_copy(update={"retries": []})
    with pytest.raises(LabelError, match="SCF not converged after 2 iterations .estimated accuracy"):
        label_with_ladder(make(given), silicon(), hopeless, None)
    with pytest.raises(LabelError, match="read_namelists.*ecutwfcc"):
        make(given).label(silicon(), {"input": {"system": {"ecutwfcc": 3}}}, 60.0)


@needs_qe
@needs_openmpi
def test_a_launcher_of_another_mpi_is_found_out(make):
    alone = make(section({"command": "pw.x"})).label(silicon(), {}, 60.0)
    right = section({"command": NESTED, "processes": 2, "env": ROOT})
    assert make(right).label(silicon(), {}, 60.0).energy == pytest.approx(alone.energy, abs=1e-6)
    wrong = section({"command": "mpiexec -n {ranks} pw.x", "processes": 2})
    with pytest.raises(LabelError, match="2 copies ran in one folder, each by itself"):
        make(wrong).label(silicon(), {}, 60.0)
