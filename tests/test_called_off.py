"""The end of a job while programs label: those not in time end by their own way, the next job labels their frames."""

import math
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from toys import ToyRun, make_config

from pfdhpc import messages as m
from pfdhpc.config.schema import RunSection
from pfdhpc.engines.isolated.spawner import Spawner
from pfdhpc.errors import EXIT_COMPLETE, EXIT_INCOMPLETE
from pfdhpc.parallel.channel import local_channels
from pfdhpc.roles.cancellable_channel import CancellableChannel
from pfdhpc.roles.stopping import Stopping

STANDIN = Path(__file__).parent / "standins" / "vasp.py"
POTCAR = "PAW_PBE Cu\n VRHFIN =Cu: d10\n   POMASS =   1.000; ZVAL   =   11.000    mass and valenz\n"


@pytest.fixture(scope="module")
def spawner():
    with Spawner() as made:
        yield made


@pytest.fixture
def job(tmp_path, spawner):
    """``job(behaviour, **more)``: a toy run whose labels are made by a stand-in for VASP."""
    (tmp_path / "POTCAR").write_text(POTCAR)

    def made(behaviour="", grace=20.0, **more):
        launch = {"command": f"{sys.executable} {STANDIN}", "env": {"STANDIN": behaviour}}
        options = {"incar": {"ENCUT": 9}, "kspacing": 0.3, "potcar_dir": str(tmp_path), "potcars": {"Cu": "POTCAR"}}
        label = {"type": "vasp", "options": options, "launch": launch}
        run = {"grace": grace, "margin": 1.0}
        changes = {"label": label, "run": run, "init": {"frames": 2}, "converge": {"max_rounds": 1}}
        return ToyRun(make_config(tmp_path / "run", **changes), spawner=spawner, **more)

    return made


def outputs(run):
    return [path.read_text() for path in run.folder.directory.glob("labels/*/OUTCAR")]


def stop_soon(run, seconds):
    """As a signal does that comes while labels are made."""
    moment = time.monotonic() + seconds
    asked = run.stopping.reason
    run.stopping.reason = lambda: asked() or ("the test wants it" if time.monotonic() > moment else "")


@pytest.mark.parametrize("threads", [True, False], ids=["team", "alone"])
def test_programs_that_will_not_be_done_end_tidily_and_their_frames_are_labelled_by_the_next_job(job, threads):
    run = job("hang", grace=1.0, threads=threads)
    stop_soon(run, 2.0)
    begin = time.monotonic()
    assert run.run() == EXIT_INCOMPLETE
    assert time.monotonic() - begin < 15
    assert not run.state.job.running, "nobody is inside a task: the job ends as it should, not by an abort"
    assert len(run.store) == 0 and not run.store.rejected() and len(run.state.pending) == 2
    assert outputs(run) and all("aborting job" in text for text in outputs(run))
    assert run.coordinator.dismiss(0) or not threads

    again = job(threads=threads)
    assert again.run() == EXIT_COMPLETE
    assert len(again.store) == 2 + 3 and not again.store.rejected()


def test_a_label_whose_forecast_does_not_fit_is_called_off_at_once(job):
    run = job("hang", threads=True)
    run.stopping.limit(1000.0)
    stop_soon(run, 2.0)
    apply = run.coordinator._shutdown._drain
    slow = {"label.4": (5000.0,)}

    def drain(reason):
        run.context.state = replace(run.state, durations=slow)
        apply(reason)

    run.coordinator._shutdown._drain = drain
    begin = time.monotonic()
    assert run.run() == EXIT_INCOMPLETE
    assert time.monotonic() - begin < 12, "neither the grace nor the end of the job is waited for"
    assert any("called off: their programs have 20 s to end" in line for line in run.lines)
    assert outputs(run) and not run.state.job.running


def test_a_leader_hears_of_the_order_under_way_alone():
    here, there = local_channels(2)
    ear = CancellableChannel(there)
    here.send(1, m.Order("label/a"))
    assert ear.called_off() is None and ear.receive()[1].order_id == "label/a"
    here.send(1, m.CallOff("label/a", 7.0))
    here.send(1, m.Shutdown("shutdown", 3))
    assert ear.called_off() == ear.called_off() == 7.0
    assert ear.receive()[1] == m.Shutdown("shutdown", 3), "nothing that came meanwhile is lost"
    assert ear.called_off() is None and ear.poll() is None


def test_a_program_has_the_grace_to_end_but_a_third_of_what_is_left_at_most(tmp_path):
    stopping = Stopping()
    stopping.obey(RunSection(directory=tmp_path))
    assert stopping.farewell(20.0) == 20.0 and stopping.farewell(math.inf) == math.inf
    assert stopping.called_off(20.0) is None
    stopping.limit(35.0, "--time")
    assert stopping.called_off(20.0) is None, "5 s are left to work in"
    stopping.asked = "received SIGUSR1"
    assert stopping.called_off(20.0) is None, "so they are after a notice"
    stopping._note(signal.SIGTERM, None)
    assert stopping.called_off(20.0) is None and stopping.called_off(0.0) == 0.0, "a kill may follow soon"
    stopping.limit(29.0, "--time")
    assert stopping.called_off(20.0) == pytest.approx(29 / 3, abs=0.5)
