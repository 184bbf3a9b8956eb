"""The report, the status and the comparison of runs, as their reader meets them."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pytest
import specimens
from toys import ToyRun, make_config

from pfdhpc.cli.main import main
from pfdhpc.config.label import EXTERNAL
from pfdhpc.data import Frame, Label, Labelling, Origin, Record
from pfdhpc.report import environment_plots, error_plots
from pfdhpc.report.citations import citations
from pfdhpc.report.report_data import HeldOut, keep_held_out, read_chosen, read_held_out
from pfdhpc.report.report_sections import production, refusals, tiles
from pfdhpc.report.run_data import read_run
from pfdhpc.report.terminal.run_progress import read_progress
from pfdhpc.store.status import write_status

TITLES = ("What was done", "Learning curve", "Errors on held-out frames", "What was selected", "Rejected and failed",
          "Where the time went", "How to cite", "Provenance")  # fmt: skip


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    assert main(["report", str(specimens.finished()), "-o", str(path), "--png", str(path.parent / "png")]) == 0
    return path


def test_the_report_has_everything_and_loads_nothing(page):
    text = page.read_text()
    for title in TITLES:
        assert f"<h2>{title}</h2>" in text
    assert "0.2 → 0.05" in text  # force RMSE before and after, as the toy trainer makes them
    assert text.count("data:image/png;base64,") == len(list((page.parent / "png").glob("*.png"))) >= 5
    assert not re.search(r"""(src|href)=["'](?!data:|#|https://(doi|arxiv)\.org)""", text)
    assert "<script" not in text and "@media print" in text


def test_text_from_a_run_is_not_taken_for_html(tmp_path):
    run = read_run(specimens.finished())
    from pfdhpc.report.html_document import Section, page

    strange = Section("<b>", ["<script>alert(1)</script>"])
    text = page(run, "a & b", [], [strange])
    assert "<script>" not in text and "&lt;script&gt;" in text and "a &amp; b" in text


def test_a_run_that_was_stopped_is_reported_too(tmp_path, capsys):
    path = tmp_path / "report.html"
    assert main(["report", str(specimens.stopped()), "-o", str(path)]) == 0
    text = path.read_text()
    assert "incomplete" in text and "Errors on held-out frames" not in text and "What was selected" in text


def test_reasons_of_rejections_are_counted():
    run = read_run(specimens.finished())
    record = run.labelled[0]
    chosen = [replace(item, filtered={"close pair": 2}) for item in run.chosen]
    told = replace(run, rejected=[(record, "SCF did not converge"), (record, "SCF did not converge")], chosen=chosen)
    rows = refusals(told).tables[0].rows
    assert ["frame without a label", "SCF did not converge", "2"] in rows
    assert ["candidate filtered out", "close pair", str(2 * len(chosen))] in rows


def test_a_distillation_shows_the_speed_of_its_student():
    run = read_run(specimens.finished())
    found = {"product": "compressed", "atoms": 64, "teacher_speed": 10.0, "student_speed": 120.0, "stable": False,
             "reason": "it exploded", "drift": float("nan")}  # fmt: skip
    run = replace(run, config={**run.config, "workflow": "distill"}, state={**run.state, "production": found})
    assert "12.0 ×" in [tile.value for tile in tiles(run)]
    section = production(run)
    assert section.tables[0].rows[1] == ["student", "120", "12"] and "it exploded" in " ".join(section.text)


def test_clouds_are_per_atom_and_against_the_mean():
    frames = [Frame(np.full(n, 29), 5 * np.eye(3), np.arange(3.0 * n).reshape(n, 3), [True] * 3) for n in (1, 2)]
    labels = [Label(-3.0 * n, np.ones((n, 3)), n * np.eye(3)) for n in (1, 2)]
    records = [Record(f, Origin("Cu"), None, one, Labelling("x")) for f, one in zip(frames, labels, strict=True)]
    guesses = [Label(one.energy + 0.01 * len(one.forces), one.forces + 0.1, 1.1 * one.virial) for one in labels]
    force, energy, virial = error_plots.clouds(records, guesses)
    assert force.rmse == pytest.approx(0.1) and force.mae == pytest.approx(0.1)
    assert energy.rmse == pytest.approx(10.0) and energy.truth.mean() == pytest.approx(0.0)
    assert virial.rmse == pytest.approx(np.sqrt(3 / 9) * 100)


def test_the_learning_curve_counts_the_labels_a_model_had_seen():
    run = read_run(specimens.finished())
    assert [n for n, _ in error_plots.curve(run, "force")] == [4, 7]


def test_principal_axes_are_those_of_most_variance():
    random = np.random.default_rng(0)
    points = random.normal(size=(400, 5)) * [3.0, 0.1, 7.0, 0.1, 0.1] + 5
    centre, axes, shares = environment_plots.principal(points)
    assert abs(axes[2, 0]) > 0.99 and abs(axes[0, 1]) > 0.99 and shares[0] > shares[1] > 0.1
    assert environment_plots.principal(np.ones((1, 3)))[2].tolist() == [0.0, 0.0]


def test_what_a_selection_saw_is_kept():
    chosen = read_chosen(specimens.finished())
    assert [item.round for item in chosen] == [1, 2]
    for item in chosen:
        assert len(item.frame_ids) == len(item.novelty) == len(item.points) == item.n_candidates == 12
        picked = np.isin(item.frame_ids, item.picked)
        assert picked.sum() == 3 and item.novelty[picked].max() == item.novelty.max()
        assert item.gains[0] == pytest.approx(item.novelty.max())


def test_held_out_predictions_come_back_as_they_were(tmp_path):
    labels = (Label(-1.0, np.ones((2, 3)), np.eye(3)), Label(-2.0, np.zeros((1, 3))))
    keep_held_out(tmp_path, HeldOut(("a", "b"), (), labels))
    found = read_held_out(tmp_path)
    assert found.label_ids == ("a", "b") and found.before == ()
    assert found.after[1].virial is None and np.array_equal(found.after[0].forces, labels[0].forces)
    keep_held_out(tmp_path, HeldOut((), (), ()))
    assert read_held_out(tmp_path).after == ()


@pytest.mark.parametrize("command", ["report", "status", "validate"])
def test_what_is_no_run_is_one_clear_line(tmp_path, capsys, command):
    (tmp_path / "frames" / "labelled").mkdir(parents=True)
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "input.json").write_text("{}")
    cases = {
        tmp_path / "nowhere": "no such folder",
        tmp_path: "did you mean",
        tmp_path / "frames": f"give {tmp_path}",
        tmp_path / "begun": "first checkpoint",
    }
    for path, said in cases.items():
        assert main([command, str(path)]) == 2
        told = capsys.readouterr().err
        assert said in told and len(told.splitlines()) == 1


def test_a_damaged_piece_of_evidence_is_named(tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(specimens.finished(), run)
    (run / "report-data" / "selection-0001.npz").write_bytes(b"nothing")
    assert main(["report", str(run)]) == 2
    assert "selection-0001.npz" in capsys.readouterr().err


def test_status_tells_where_a_run_stands(capsys):
    assert main(["status", str(specimens.stopped()), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["state"] == "incomplete" and found["labels"] >= 4 and found["max_rounds"] == 2
    assert main(["status", str(specimens.finished()), "-f"]) == 0  # it is over: nothing to follow
    shown = capsys.readouterr().out
    assert "complete" in shown and "10, " in shown and "force RMSE" in shown


def test_status_counts_the_queue_and_forecasts(tmp_path):
    run = tmp_path / "run"
    shutil.copytree(specimens.stopped(), run)
    status = json.loads((run / "status.json").read_text())
    now = datetime.now().astimezone()
    status |= {"state": "running", "updated": (now - timedelta(seconds=60)).isoformat(), "measured_seconds": {}}
    (run / "status.json").write_text(json.dumps(status))
    found = read_progress(run, now)
    assert found.silent == pytest.approx(60, abs=1) and not found.over
    state = read_run(run, frames=False).state
    assert found.queue == (len(state["pending"]) if state["phase"] == "label" else None)
    assert found.eta is not None and found.eta > 0 and found.elapsed > 60


def test_a_run_that_says_nothing_any_more_may_be_gone(tmp_path, capsys):
    """Its node failed: from another one its lock tells nothing."""
    run = tmp_path / "run"
    shutil.copytree(specimens.stopped(), run)
    (run / "run.lock").write_text('{"host": "node17", "pid": 1, "since": ""}')
    status = json.loads((run / "status.json").read_text())
    for minutes, told in ((5, False), (45, True)):
        then = datetime.now().astimezone() - timedelta(minutes=minutes)
        status |= {"state": "running", "updated": then.isoformat()}
        (run / "status.json").write_text(json.dumps(status))
        assert main(["status", str(run)]) == 0
        shown = " ".join(capsys.readouterr().out.split())
        assert ("no sign of life for 45 min: if its job on node17 is gone" in shown) == told
    assert read_progress(run).host == "node17"


def test_a_job_with_nothing_new_says_so_now_and_again(tmp_path, monkeypatch):
    """Its status is then as young as the job is alive, however long a label takes."""
    counts = []
    monkeypatch.setattr("pfdhpc.roles.answer_inbox.TELL", 0.0)  # of labels it tells at once, in both
    for pulse in (1e9, 0.0):
        told = []
        tell = lambda *given, told=told, **more: told.append(1) or write_status(*given, **more)  # noqa: E731
        monkeypatch.setattr("pfdhpc.roles.run_recorder.write_status", tell)
        monkeypatch.setattr("pfdhpc.roles.answer_inbox.PULSE", pulse)
        assert ToyRun(make_config(tmp_path / f"{pulse:g}")).run() == 0
        counts.append(len(told))
    assert counts[1] > counts[0]


def test_status_follows_until_the_end(tmp_path, capsys, monkeypatch):
    from pfdhpc.cli import status

    run = tmp_path / "run"
    shutil.copytree(specimens.finished(), run)
    path = run / "status.json"
    done = path.read_text()
    path.write_text(done.replace('"complete"', '"running"'))
    monkeypatch.setattr(status.time, "sleep", lambda seconds: path.write_text(done))
    assert main(["status", str(run), "-f", "--json"]) == 0
    states = [json.loads(line)["state"] for line in capsys.readouterr().out.splitlines()]
    assert states == ["running", "complete"]


@pytest.mark.parametrize("kind", EXTERNAL)
def test_the_program_that_labelled_is_cited(kind):
    run = read_run(specimens.finished(), frames=False)
    run = replace(run, config={**run.config, "label": {**run.config["label"], "type": kind}})
    found = [paper for paper in citations(run) if paper.why == "labels"]
    assert len(found) == 2 and found[0].link.startswith("https://doi.org/") and not found[1].link


def test_runs_are_compared(tmp_path, capsys):
    picture = tmp_path / "curves.png"
    runs = [str(specimens.finished()), str(specimens.stopped())]
    assert main(["compare", *runs, "--plot", str(picture)]) == 0
    shown = capsys.readouterr().out
    for expected in ("labels", "core hours", "max_rounds", "0.05"):
        assert expected in shown
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert main(["compare", runs[0]]) == 2 and "two or more" in capsys.readouterr().err
    assert main(["compare", runs[0], str(tmp_path), str(tmp_path / "none")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_what_was_not_labelled_is_said_to_be(missing, capsys):
    """A calculator without stress leaves no virial: no report, card, comparison or summary speaks of nan."""
    from pfdhpc.report.compare_runs import comparison
    from pfdhpc.report.model_card import model_card
    from pfdhpc.report.report_sections import held_out

    run = read_run(specimens.finished())
    state = json.loads(json.dumps(run.state, default=str))
    for key in ("pretrained", "finetuned"):
        state[key]["total"]["virial"] = missing
    run = replace(run, state=state)
    assert ["virial, meV/atom", "not labelled", "not labelled", "–"] in held_out(run).tables[0].rows
    card = model_card(run, {}, {}, "converged")
    assert "| virial, meV/atom | not labelled | not labelled |" in card and not re.search(r"\bnan\b", card)
    assert ("virial, meV/atom, held out", ["not labelled"]) in comparison([run])


def test_a_browser_shows_the_report(page, tmp_path):
    """The page is laid out: as tall as its content, and not blank."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium here: apt-get install chromium to see the report rendered")
    picture = tmp_path / "page.png"
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1200,1600", f"--screenshot={picture}"]
    subprocess.run([browser, *options, page.as_uri()], capture_output=True, timeout=120, check=True)
    from matplotlib.image import imread

    pixels = imread(picture)[..., :3]
    assert pixels.shape[:2] == (1600, 1200)
    assert (pixels.min(axis=2) < 0.5).mean() > 0.01 and pixels.std() > 0.05


def test_on_paper_the_report_fills_pages_and_cuts_nothing(page, tmp_path):
    """Names in tables stay on their lines, and every section is there."""
    browser, reader = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("pdftotext")
    if browser is None or reader is None:
        pytest.skip("needs chromium and pdftotext (poppler-utils) to print the report and read it")
    paper = tmp_path / "report.pdf"
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer", f"--print-to-pdf={paper}"]
    subprocess.run([browser, *options, page.as_uri()], capture_output=True, timeout=120, check=True)
    text = subprocess.run([reader, "-layout", paper, "-"], capture_output=True, text=True, check=True).stdout
    pages = text.split("\f")[:-1]
    assert 3 <= len(pages) <= 8 and all(one.strip() for one in pages)
    for title in TITLES:
        assert title in text
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert any(line.startswith("explorer 1 ") for line in lines)
    assert any(line.startswith("round model MD steps candidates") for line in lines)
    assert "https://doi.org" in text and "The resolved input" not in text
