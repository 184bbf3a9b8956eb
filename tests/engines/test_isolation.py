"""Engines in child processes: the same answers as in the process itself, and what dies is the child alone."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ase.build import bulk
from models import frozen, tiny_checkpoint

from pfdhpc import messages as m
from pfdhpc.cli.main import main
from pfdhpc.config.explore import ExploreSection
from pfdhpc.config.label import LabelSection
from pfdhpc.config.restart_changes import refusals
from pfdhpc.data import Frame, Record
from pfdhpc.engines.base import SegmentTask
from pfdhpc.engines.isolated import child_engine
from pfdhpc.engines.isolated.spawner import Spawner, clean_environment
from pfdhpc.engines.label.input_checks import check_labeler
from pfdhpc.engines.label.label_checks import label_all, label_with_ladder
from pfdhpc.engines.label.level_of_theory import levels_of
from pfdhpc.engines.registry import make_explorer, make_labeler
from pfdhpc.errors import EngineLost, InputError, LabelError, TaskError
from pfdhpc.roles import worker
from pfdhpc.roles.labeler import LabelerProgram

CALCULATORS = '''
import ctypes, os, signal, sys, time
from ase.calculators.emt import EMT

def hang():
    """As compiled code does: no signal is heard."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    time.sleep(1000)

DEATHS = {
    "segfault": lambda: ctypes.string_at(0),
    "abort": os.abort,
    "exit": lambda: (print("giving up", flush=True), os._exit(3)),
    "hang": hang,
    "sleep": lambda: time.sleep(1000),
}

class Mortal(EMT):
    """Dies in the way it is told."""
    def __init__(self, way=None):
        super().__init__()
        self.way = way
    def calculate(self, *args):
        if self.way:
            DEATHS[self.way]()
        super().calculate(*args)

class Pid(EMT):
    """The energy is the process id."""
    def calculate(self, *args):
        super().calculate(*args)
        self.results["energy"] = self.results["free_energy"] = float(os.getpid())

class Stillborn(EMT):
    def __init__(self):
        os.abort()

class Broken(EMT):
    def __init__(self):
        raise RuntimeError("licence server not found")
'''

# A rank that is killed: prints its child's id, then keeps it busy or idle.
RANK = """
import sys
from pathlib import Path
from pfdhpc.config.label import LabelSection
from pfdhpc.data import Frame
from pfdhpc.engines.isolated.spawner import Spawner
from pfdhpc.engines.registry import make_labeler
from ase.build import bulk
folder, way = sys.argv[1:]
spawner = Spawner()
options = {"calculator": "mortals.Mortal", "path": folder, "arguments": {"way": way} if way else {}}
section = LabelSection(type="ase", options=options, isolation="process")
labeler = make_labeler(section, None, spawner, Path(folder) / "log")
print(spawner.pid, labeler._resident._program.pid, flush=True)
frame = Frame.from_atoms(bulk("Cu"))
if way:
    labeler.label(frame, {}, 1000.0)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def spawner():
    with Spawner() as made:
        yield made


@pytest.fixture
def log(tmp_path):
    return tmp_path / "logs" / "labeler-0.engine.log"


@pytest.fixture
def labeler(spawner, log, tmp_path):
    """``labeler(calculator, **arguments)`` in a child process."""
    (tmp_path / "mortals.py").write_text(CALCULATORS)

    def make(name, **arguments):
        return make_labeler(given(tmp_path, name, **arguments), None, spawner, log)

    return make


@pytest.fixture
def quick(monkeypatch):
    """No grace beyond the time-out."""
    monkeypatch.setattr(child_engine, "GRACE", 0.3)


def given(folder, name, **arguments):
    options = {"calculator": f"mortals.{name}", "arguments": arguments, "path": str(folder)}
    return LabelSection(type="ase", options=options, isolation="process")


def copper(repeat=1, seed=3):
    atoms = bulk("Cu", cubic=True) * (repeat, 1, 1)
    atoms.rattle(0.1, seed=seed)
    return Frame.from_atoms(atoms)


def gone(pid, seconds=15.0):
    """Whether a process ends in that time (one that only waits to be collected has ended)."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.05)
    return False


def equal(one, other):
    return (
        one.energy == other.energy
        and np.array_equal(one.forces, other.forces)
        and np.array_equal(one.virial, other.virial)
    )


def test_labels_are_those_of_the_process_itself_to_the_last_bit(spawner, log):
    frames = [copper(repeat, seed) for repeat, seed in ((1, 1), (4, 2), (8, 3))]
    for values in ({"calculator": "ase.calculators.emt.EMT"}, {"calculator": "ase.calculators.lj.LennardJones"}):
        sections = [LabelSection(type="ase", options=values, isolation=way) for way in ("none", "process")]
        here, there = (make_labeler(section, None, spawner, log) for section in sections)
        assert here.level == there.level
        for frame in frames:
            assert equal(here.label(frame, {}, 10.0), there.label(frame, {}, 10.0))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    checkpoint = tiny_checkpoint(folder, ("Si", "C"), branches=("a", "b"))
    return frozen(checkpoint, folder / "a", "a"), frozen(checkpoint, folder / "b", "b")


def test_segments_and_teacher_labels_are_the_same_to_the_last_bit(spawner, log, models):
    """LAMMPS with a committee, its restart bytes, another model later; and a batch of labels."""
    start = Frame.from_atoms(bulk("SiC", "zincblende", a=4.36, cubic=True))
    results, labels = [], []
    for way in ("none", "process"):
        section = ExploreSection(ensemble="npt-iso", steps=10, interval=5, isolation=way)
        explorer = make_explorer(section, spawner, log)
        explorer.load_models(models, ("Si", "C"))
        first = explorer.run(SegmentTask("r", "s", start, None, 0, (300.0, 400.0), (0.0, 0.0), 5))
        explorer.load_models(models[1:], ("Si", "C"))
        second = explorer.run(SegmentTask("r", "s", start, first.state, 1, (400.0, 400.0), (0.0, 0.0), 6))
        results.append((first, second))
        teacher = LabelSection(type="deepmd", options={"model": str(models[0])}, isolation=way)
        frames = [record.frame for record in first.records + second.records]
        answers = label_all(make_labeler(teacher, None, spawner, log), frames, teacher, None)
        labels += [[label for label, _ in answers]]
    for one, other in zip(*results, strict=True):
        assert one.state == other.state and not one.stopped and one.steps == other.steps == 10
        for a, b in zip(one.records, other.records, strict=True):
            assert a.frame_id == b.frame_id and equal(a.prediction, b.prediction)
            assert repr(a.origin) == repr(b.origin)
    assert results[0][0].records[0].origin.deviation > 0
    assert all(equal(a, b) for a, b in zip(*labels, strict=True))


@pytest.mark.parametrize(
    "way, said",
    [
        ("segfault", "killed by SIGSEGV"),
        ("abort", "killed by SIGABRT"),
        ("exit", "ended with exit code 3 after saying: giving up"),
        ("hang", "no answer in 0.3 s: killed"),
        ("sleep", "longer than 0.3 s"),
    ],
)
def test_a_death_is_a_failed_label_and_the_next_one_works(labeler, log, quick, way, said):
    mortal, frame = labeler("Mortal"), copper()
    good = mortal.label(frame, {}, 10.0)
    with pytest.raises(LabelError, match=said) as failure:
        mortal.label(frame, {"arguments": {"way": way}}, 0.3)
    assert "\n" not in str(failure.value)
    assert equal(mortal.label(frame, {}, 10.0), good)
    if way == "segfault":
        assert "in calculate" in log.read_text(), "where it was"


def test_a_death_is_an_attempt_of_the_ladder(labeler, tmp_path):
    section = given(tmp_path, "Mortal", way="abort").model_copy(
        update={"retries": [{"arguments": {"way": "segfault"}}, {"arguments": {"way": None}}]}
    )
    label, attempts = label_with_ladder(labeler("Mortal", way="abort"), copper(), section, None)
    assert attempts == 3 and label.is_finite()
    hopeless = section.model_copy(update={"retries": section.retries[:1]})
    with pytest.raises(LabelError, match="attempt 1: .*SIGABRT.*attempt 2: .*SIGSEGV"):
        label_with_ladder(labeler("Mortal", way="abort"), copper(), hopeless, None)


def test_one_child_serves_until_it_dies(labeler):
    pids, frame = labeler("Pid"), copper()
    first, second = (int(pids.label(frame, {}, 10.0).energy) for _ in range(2))
    assert first == second != os.getpid()
    os.kill(first, signal.SIGKILL)
    with pytest.raises(LabelError, match="killed by SIGKILL"):
        pids.label(frame, {}, 10.0)
    assert int(pids.label(frame, {}, 10.0).energy) != first


def test_signals_of_the_launcher_leave_a_child_alone(labeler):
    pids, frame = labeler("Pid"), copper()
    pid = int(pids.label(frame, {}, 10.0).energy)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        os.kill(pid, number)
    assert int(pids.label(frame, {}, 10.0).energy) == pid


def test_a_segment_that_dies_costs_one_task_and_the_models_come_again(spawner, log, tmp_path, quick, monkeypatch):
    """The calculator dies of one model file and lives with another."""
    (tmp_path / "mortals.py").write_text(CALCULATORS)
    (tmp_path / "modelled.py").write_text(
        "from mortals import Mortal\ndef make(model):\n    return Mortal(open(model).read() or None)\n"
    )
    for way in ("good", "segfault", "hang"):
        (tmp_path / way).write_text("" if way == "good" else way)
    options = {"calculator": "modelled.make", "model_argument": "model"}
    section = ExploreSection(
        engine="ase", options=options, ensemble="nve", steps=4, interval=2, isolation="process", timeout=1.0
    )
    monkeypatch.syspath_prepend(tmp_path)
    explorer = make_explorer(section, spawner, log)
    task = SegmentTask("r", "s", copper(), None, 0, (300.0, 300.0), (0.0, 0.0), 5)
    explorer.load_models([tmp_path / "good"], ("Cu",))
    before = explorer.run(task)
    for way, said in (("segfault", "SIGSEGV"), ("hang", "no answer in 1 s: killed")):
        explorer.load_models([tmp_path / way], ("Cu",))
        with pytest.raises(TaskError, match=said):
            explorer.run(task)
        with pytest.raises(TaskError, match=said):
            explorer.run(task)  # a fresh child has the same model
        explorer.load_models([tmp_path / "good"], ("Cu",))
        after = explorer.run(task)
        assert [record.frame_id for record in after.records] == [record.frame_id for record in before.records]


def test_private_folders_of_killed_children_are_removed(spawner, log, models):
    explorer = make_explorer(ExploreSection(steps=4, interval=2, isolation="process"), spawner, log)
    inner = explorer._resident
    folder = inner._scratch
    assert folder.is_dir()
    os.kill(inner._program.pid, signal.SIGKILL)
    with pytest.raises(TaskError, match="SIGKILL"):
        explorer.load_models(models[:1], ("Si", "C"))
    assert not folder.exists()


def test_what_does_not_start_is_bad_input(labeler, spawner, log, tmp_path):
    with pytest.raises(InputError, match="no module nowhere"):
        options = {"calculator": "nowhere.Nothing"}
        make_labeler(LabelSection(type="ase", options=options, isolation="process"), None, spawner, log)
    (tmp_path / "mortals.py").write_text(CALCULATORS + "\nos.abort()\n")
    with pytest.raises(InputError, match="label.isolation: .* does not start: .*SIGABRT"):
        make_labeler(given(tmp_path, "Mortal"), None, spawner, log)


@pytest.fixture
def dying(labeler, tmp_path, monkeypatch):
    """A labeler's program whose child has died, after which its calculator aborts any other as it is imported."""
    monkeypatch.setattr(child_engine, "PAUSES", (0.0, 0.1))
    engine = labeler("Pid")
    pid = int(engine.label(copper(), {}, 10.0).energy)
    (tmp_path / "mortals.py").write_text(CALCULATORS + "\nos.abort()\n")
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(LabelError, match="SIGKILL"):
        engine.label(copper(), {}, 10.0)
    program = LabelerProgram.__new__(LabelerProgram)
    section = given(tmp_path, "Pid")
    program._engine, program._comm, program._config = engine, None, SimpleNamespace(label=section)
    program._levels = levels_of(section)
    return engine, program


ORDER = m.LabelFrames("label/x", (Record(copper()),))


def test_a_team_whose_child_cannot_be_started_again_resigns(dying, tmp_path):
    engine, program = dying
    answer = worker.work(None, program, ORDER)
    assert isinstance(answer, m.Resigned) and answer.order_id == "label/x"
    assert re.match("its engine could not be started again, 3 times; .*does not start: .*SIGABRT", answer.reason)
    assert engine._resident._program is None


def test_what_keeps_a_child_from_starting_may_pass(dying, tmp_path, monkeypatch):
    def pause(_):
        (tmp_path / "mortals.py").write_text(CALCULATORS)

    monkeypatch.setattr(child_engine.time, "sleep", pause)
    assert worker.work(None, dying[1], ORDER).outcomes[0].accepted


def test_without_its_spawner_a_team_resigns(log, tmp_path):
    (tmp_path / "mortals.py").write_text(CALCULATORS)
    spawner = Spawner()
    engine = make_labeler(given(tmp_path, "Pid"), None, spawner, log)
    child = int(engine.label(copper(), {}, 10.0).energy)
    os.kill(spawner.pid, signal.SIGKILL)
    os.waitpid(spawner.pid, 0)
    assert gone(child)
    for _ in range(2):
        with pytest.raises(EngineLost, match="which starts others for this one, is gone"):
            engine.label(copper(), {}, 10.0)


def test_errors_of_the_engine_cross_as_they_are(labeler):
    with pytest.raises(LabelError, match="licence server not found"):
        labeler("Broken").label(copper(), {}, 10.0)
    with pytest.raises(LabelError, match="SIGABRT"):
        labeler("Stillborn").label(copper(), {}, 10.0)


def test_teams_of_several_ranks_are_refused_before_anything_starts():
    section = LabelSection(type="gpaw", options={"mode": {"name": "pw", "ecut": 200}}, isolation="process")
    assert not any("isolation" in problem for problem in check_labeler(section, 1))
    assert any("label.isolation" in problem and "ranks = 1" in problem for problem in check_labeler(section, 2))

    class Two:
        def Get_size(self):
            return 2

    with pytest.raises(InputError, match="label.isolation"):
        make_labeler(section, Two(), None, None)


@pytest.mark.parametrize("way", ["", "hang"])
@pytest.mark.parametrize("victim", ["rank", "spawner"])
def test_no_child_outlives_its_rank_or_spawner(tmp_path, way, victim):
    (tmp_path / "mortals.py").write_text(CALCULATORS)
    rank = subprocess.Popen(
        [sys.executable, "-c", RANK, str(tmp_path), way], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    spawner, child = map(int, rank.stdout.readline().split())
    time.sleep(0.3)  # into the calculation
    os.kill(rank.pid if victim == "rank" else spawner, signal.SIGKILL)
    assert gone(child), "the child lives on"
    assert gone(spawner)
    rank.kill()
    rank.communicate()


def test_grandchildren_go_with_their_child(spawner, tmp_path):
    """A program an engine has started must not live on when the engine is killed."""
    command = [sys.executable, "-c", "import subprocess, sys; print(subprocess.Popen(['sleep', '1000']).pid)"]
    program = spawner.start(command, dict(os.environ), tmp_path / "log")
    assert spawner.end(program, 10.0) == 0
    assert gone(int((tmp_path / "log").read_text()))


def test_a_program_that_cannot_be_started_is_an_error_here(spawner, tmp_path):
    with pytest.raises(FileNotFoundError):
        spawner.start(["/no/such/program"], {}, tmp_path / "log")
    with pytest.raises(OSError):
        spawner.start([sys.executable], {}, tmp_path / "no folder" / "log")
    assert spawner.end(spawner.start([sys.executable, "-c", "raise SystemExit(7)"], {}, tmp_path / "log"), 10.0) == 7


def test_the_environment_of_a_child_is_the_ranks_own_without_the_launcher(monkeypatch):
    launcher = {"PMI_RANK": "1", "PMIX_NAMESPACE": "x", "OMPI_COMM_WORLD_SIZE": "4", "MPI_LOCALRANKID": "0"}
    launcher |= {"HYDI_CONTROL_FD": "7", "SLURM_PROCID": "3", "SLURM_STEP_ID": "0", "PRTE_X": "1"}
    kept = {"CUDA_VISIBLE_DEVICES": "2", "OMP_NUM_THREADS": "3", "SLURM_JOB_ID": "11", "OPAL_PREFIX": "/opt"}
    kept["OMPI_ALLOW_RUN_AS_ROOT"] = "1"  # a user's word
    for name, value in (launcher | kept).items():
        monkeypatch.setenv(name, value)
    environment = clean_environment()
    assert not launcher.keys() & environment.keys() and kept.items() <= environment.items()


def test_gpaw_on_one_rank_is_the_same_in_a_child(spawner, log):
    pytest.importorskip("gpaw")
    options = {"mode": {"name": "pw", "ecut": 150}, "occupations": {"name": "fermi-dirac", "width": 0.05}}
    frame = Frame.from_atoms(bulk("Si"))
    sections = [LabelSection(type="gpaw", options=options, isolation=way) for way in ("none", "process")]
    here, there = (make_labeler(section, None, spawner, log).label(frame, {}, 100.0) for section in sections)
    assert equal(here, there)


def test_a_restart_may_change_the_isolation(tmp_path):
    changes = [("label.isolation", "none", "process"), ("explore.isolation", "process", "none")]
    assert refusals(changes, tmp_path) == []


def test_a_time_limit_that_nothing_would_keep_is_refused(tmp_path, capsys):
    from e2e.jobs import write_copper

    path = write_copper(tmp_path)
    text = path.read_text()
    path.write_text(text.replace("[explore]", "[explore]\ntimeout = 60.0"))
    assert main(["check", str(path)]) == 2
    assert "explore: timeout is given, but" in " ".join(capsys.readouterr().err.split())
    assert ExploreSection(isolation="process", timeout=60.0).timeout == 60.0


def test_check_takes_the_key_and_refuses_a_wrong_value(tmp_path, capsys):
    from e2e.jobs import write_copper

    path = write_copper(tmp_path)
    text = path.read_text()
    path.write_text(text.replace('type = "ase"', 'type = "ase"\nisolation = "container"'))
    assert main(["check", str(path)]) == 2
    assert "label.isolation" in capsys.readouterr().err
