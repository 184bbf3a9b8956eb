"""How a run that goes on is seen: in its own terminal, from another shell, and in its report."""

import io
import json
import shutil
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime

import pytest
import specimens
from rich.console import Console
from test_roles import config, started
from toys import ToyRun, make_config

from pfdhpc import messages as m
from pfdhpc.cli.main import main
from pfdhpc.errors import EXIT_COMPLETE, EXIT_INCOMPLETE
from pfdhpc.parallel.layout import plan_layout
from pfdhpc.parallel.ledger import Ledger
from pfdhpc.report.run_data import read_run
from pfdhpc.report.terminal import live_panel as panels
from pfdhpc.report.terminal.progress_table import board, lines
from pfdhpc.report.terminal.run_progress import read_progress
from pfdhpc.report.terminal.summary import show
from pfdhpc.report.time_and_cost import spent
from pfdhpc.roles import run_recorder
from pfdhpc.store.status import read_status
from pfdhpc.workflow.state import LABEL

OVERLAP = {"staleness": 1, "min_new": 2, "queue": 4}


def printed(renderable, width=100, **more):
    console = Console(file=io.StringIO(), width=width, **more)
    console.print(renderable)
    return console.file.getvalue()


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_panel_is_for_terminals_only(monkeypatch):
    assert isinstance(panels.panel(None), nullcontext)  # pytest captures the output
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setattr(panels, "console", Console(file=Terminal(), _environ={"TERM": "dumb"}))
    assert isinstance(panels.panel(None), nullcontext)


def test_a_panel_shows_the_run_and_leaves_lines_and_exit_code_alone(tmp_path, monkeypatch):
    """As a terminal gets it: lines scroll above, the cursor comes back, nothing of the panel is left."""
    output = Terminal()
    monkeypatch.setattr(sys, "stdout", output)
    monkeypatch.setattr(panels, "console", Console(file=output, width=100, force_terminal=True, _environ={}))
    run = ToyRun(make_config(tmp_path)).stop_after(12)
    say = panels.console.print
    run.context.listener.say = say
    with panels.panel(run.context.snapshot) as live:
        code = run.run()
        live.refresh()
    assert code == EXIT_INCOMPLETE
    text = output.getvalue()
    assert "frames wait for a label" in text and "stopping: the test wants it" in text
    assert text.rstrip().endswith("\x1b[2K") and text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


def test_what_goes_wrong_in_the_panel_does_not_reach_the_run(monkeypatch):
    told = []
    monkeypatch.setattr(panels._log, "exception", told.append)
    view = panels.View(snapshot=None)
    assert [str(view.drawn()), str(view.drawn())] == ["", ""]
    assert len(told) == 1  # in the log


def test_rows_fit_into_a_narrow_terminal(tmp_path):
    run = ToyRun(make_config(tmp_path))
    assert run.run() == EXIT_COMPLETE
    found = panels.progress_of(run.context.snapshot())
    rows = printed(lines(found), width=40).splitlines()
    assert max(map(len, rows)) <= 40 and len(rows) == len(printed(lines(found), width=200).splitlines())
    assert "▁" in printed(lines(found)) or "█" in printed(lines(found))


def test_the_share_at_work_follows_the_orders(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(run_recorder.time, "monotonic", lambda: now[0])
    load = run_recorder.Workload(plan_layout(config(ranks={"labeler": {"teams": 2}}).ranks, 5))
    state = started(phase=LABEL).issued(m.LabelFrames("label/a", ()), "labeler-0")
    for seconds, running in ((0.0, state), (10.0, state), (10.0, state.in_job(running={}))):
        now[0] += seconds
        load.note(running)
    assert load.busy() == {"trainer": 0.0, "explorer": 0.0, "labeler": 0.5}
    for _ in range(70):
        now[0] += 10.0
        load.note(state.in_job(running={}))
    assert load.busy()["labeler"] == 0.0  # only the last minutes count
    assert run_recorder.Workload(plan_layout(config().ranks, 1)).busy() == {}


def test_status_json_tells_the_queue_and_who_is_at_work(tmp_path):
    run = ToyRun(make_config(tmp_path)).stop_after(3)
    seen = []
    event = run.context.listener.event

    def look(before, after, message):
        event(before, after, message)
        seen.append(read_status(run.folder.directory))

    run.context.listener.event = look
    assert run.run() == EXIT_INCOMPLETE
    last = seen[-1]
    assert last["waiting"] + last["labelling"] == 4 - last["labels"] and last["labelling"] == 1
    assert last["at_work"] == {"trainer": 0, "explorer": 0, "labeler": 1}


def running(tmp_path, source, **changes):
    """A copy of a run, as it would look while it goes on, with ledgers."""
    run = tmp_path / "run"
    shutil.copytree(source, run)
    status = json.loads((run / "status.json").read_text())
    status |= {"state": "running", "updated": datetime.now().astimezone().isoformat(), **changes}
    (run / "status.json").write_text(json.dumps(status))
    for rank, role in enumerate(("coordinator", "trainer", "explorer", "labeler")):
        ledger = Ledger(run / "ledger" / f"rank-{rank:05d}.txt", role, f"{role}-0" if rank else role, "node1")
        ledger.switch("wait")
        with ledger.during({"explorer": "explore", "labeler": "label"}.get(role, "decide")):
            time.sleep(0.01)
        ledger.close()
    return run


@pytest.fixture(scope="module")
def overlapped(tmp_path_factory):
    folder = tmp_path_factory.mktemp("overlapped")
    setup = make_config(folder, overlap=OVERLAP, converge={"max_rounds": 5})
    run = specimens.listening(ToyRun(setup))
    assert run.run() == EXIT_COMPLETE
    return run


@pytest.mark.parametrize("phase, said", [("wait", "waits for a newer model"), ("drain", "exploration is over")])
def test_the_status_of_a_run_that_overlaps(overlapped, tmp_path, capsys, phase, said):
    work = {"labeler": 1, "explorer": 0, "trainer": 1}
    run = running(tmp_path, overlapped.folder.directory, phase=phase, reason=phase, waiting=3, labelling=1, dropped=7,
                  at_work=work, teams=dict.fromkeys(work, 1), busy={"labeler": 0.5})  # fmt: skip
    assert main(["status", str(run), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["queue"], found["under_way"], found["dropped"]) == (3, 1, 7)
    assert found["busy"] == {"labeler": 0.5} and 0 < found["utilization"]["labeler"]["busy"] <= 1
    text = printed(board(read_progress(run), "run"), width=120)
    for expected in (said, "3 frames wait for a label, 1 under way", "7 picks dropped", "50% of the last minutes",
                     "1 of 1 at work", "of the run"):  # fmt: skip
        assert expected in text


def test_the_report_of_a_run_that_goes_on_shows_where_the_time_went(overlapped, tmp_path):
    run = running(tmp_path, overlapped.folder.directory)
    path = tmp_path / "report.html"
    assert main(["report", str(run), "-o", str(path), "--png", str(tmp_path / "png")]) == 0
    assert (tmp_path / "png" / "timeline.png").stat().st_size > 5000
    text = path.read_text()
    assert "<th>dropped</th>" in text and "not on record yet" in text
    section = spent(read_run(run))
    assert [row[0] for row in section.tables[0].rows] == ["coordinator", "trainer", "explorer", "labeler"]
    rows = {row[0]: row[1] for row in section.tables[1].rows}
    assert rows["the whole run, by accepted frame"].endswith("core hours") and rows[""].endswith("node hours")
    assert any(key.startswith("from its order to the disk") for key in rows)


def test_the_table_of_rounds_shows_dropped_where_there_are(overlapped):
    state, console = overlapped.state, Console(file=io.StringIO(), width=140)
    show(overlapped.config, overlapped.folder, replace(state.note(dropped=3)), console)
    assert "dropped" in console.file.getvalue()
    console.file = io.StringIO()
    plain = replace(state, history=tuple(replace(item, dropped=0) for item in state.history))
    show(overlapped.config, overlapped.folder, plain, console)
    assert "dropped" not in console.file.getvalue()
