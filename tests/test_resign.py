"""A team whose engine is gone for good: it is retired, and the others do its work; without any, the run fails."""

import threading

import pytest
from test_loop import fingerprint
from toys import ToyRun, make_config

from pfdhpc import messages as m
from pfdhpc.errors import EXIT_BUG, EXIT_COMPLETE, EngineLost
from pfdhpc.roles import worker
from pfdhpc.store.status import read_status

REASON = "its engine could not be started again, 4 times;\nout of memory"


class Leaving(ToyRun):
    """Teams ``leaving`` resign at the first order of some kind, instead of answering it."""

    def __init__(self, config, leaving, kind, **options):
        self.leaving, self.kind, self.left = leaving, kind, []
        super().__init__(config, **options)

    def _program(self, *given):
        team, program = given[0], super()._program(*given)
        handle = program.handle

        def resign(order):
            if team.name in self.leaving and type(order).__name__ == self.kind:
                self.left.append(team.name)
                raise EngineLost(REASON)
            return handle(order)

        program.handle = resign
        return program


def setup(folder):
    return make_config(folder, ranks={"explorer": {"teams": 2}, "labeler": {"teams": 2}}, converge={"max_rounds": 1})


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    run = ToyRun(setup(tmp_path_factory.mktemp("undisturbed")), size=6, threads=True)
    assert run.run() == EXIT_COMPLETE
    return run


@pytest.mark.parametrize("team, kind", [("labeler-0", "LabelFrames"), ("explorer-1", "Explore")])
def test_the_others_do_the_work_of_a_team_that_resigns(undisturbed, tmp_path, team, kind):
    run = Leaving(setup(tmp_path), {team}, kind, size=6, threads=True)
    assert run.run() == EXIT_COMPLETE
    assert run.left == [team], "it is asked for nothing any more"
    assert fingerprint(run) == fingerprint(undisturbed)
    assert [line for line in run.lines if team in line] == [f"{team} is retired: {' '.join(REASON.split())}"]
    assert run.coordinator.dismiss(0), "it hears that the job is over"


@pytest.mark.parametrize("role, kind", [("labeler", "LabelFrames"), ("explorer", "Explore")])
def test_without_any_team_of_a_role_the_run_fails_with_the_reason_and_goes_on_in_the_next_job(tmp_path, role, kind):
    run = Leaving(setup(tmp_path), {f"{role}-0", f"{role}-1"}, kind, size=6, threads=True)
    assert run.run() == EXIT_BUG
    status = read_status(run.folder.directory)
    assert status["state"] == "failed"
    assert status["reason"] == f"no {role} team is left: {' '.join(REASON.split())}"
    again = ToyRun(setup(tmp_path), size=6, threads=True)
    assert again.run() == EXIT_COMPLETE
    assert len(again.store) == 7


def test_labels_under_way_are_used_before_a_run_without_explorers_ends(tmp_path):
    config = make_config(tmp_path, overlap={"staleness": "inf"}, converge={"max_rounds": 9})
    run = Leaving(config, {"explorer-0"}, "Explore", threads=True)
    resign, started = run.leaving, threading.Event()
    run.leaving = set()  # not yet

    def slow(before, after, message):
        if type(message).__name__ == "Selected" and not started.is_set():
            started.set()
            run.leaving = resign

    run.context.listener.event = slow
    assert run.run() == EXIT_BUG
    reason = f"no explorer team is left: {' '.join(REASON.split())}"
    assert read_status(run.folder.directory)["reason"] == reason
    assert run.state.pending == () and run.state.fresh == () and len(run.store) > 4
    assert len(run.state.label_ids) == len(run.store), "all that was labelled has been trained on, or held out"


def test_a_resignation_is_an_answer_with_the_reason(tmp_path):
    run = ToyRun(setup(tmp_path), size=6)

    class Gone:
        def handle(self, order):
            raise EngineLost(REASON)

    order = m.LabelFrames("label/x", ())
    answer = worker.work(run.layout.teams[0], Gone(), order)
    assert (type(answer).__name__, answer.order_id, answer.reason) == ("Resigned", "label/x", REASON)
