"""A job shorter than the run: it stops by itself in time, and goes on when it is started again."""

import time

from e2e.jobs import Job, finish, results_of, write_copper

from pfdhpc.store.status import read_status
from pfdhpc.store.store import read_records


def test_a_run_stops_before_what_does_not_fit_and_completes_when_run_again(tmp_path):
    path, run = write_copper(tmp_path, rounds=1), tmp_path / "run"
    text = path.read_text().replace("[run]", "[run]\nmargin = 2.0")
    path.write_text(text.replace("\nsteps = 20", "\nsteps = 100000"))
    begun = time.monotonic()
    job = Job(path, options=("--time", "0:05:00"))
    assert job.wait() == 3, job.text()
    assert time.monotonic() - begun < 300
    assert "this job ends at" in job.text() and "(--time)" in job.text()
    status = read_status(run)
    assert status["state"] == "incomplete" and status["phase"] == "train" and status["ends_at"]
    assert status["reason"].startswith("the next training round needs about")
    held = {record.label_id for record in read_records(run / "frames")}
    assert len(held) == 8

    (run / "STOP").touch()
    job = Job(path)
    assert job.wait(60) == 3, job.text()
    assert "stopping before the start" in job.text() and not (run / "STOP").exists()
    assert read_status(run) == status

    path.write_text(text)
    assert "resumed" in finish(path)
    assert held <= {record.label_id for record in read_records(run / "frames")}
    assert results_of(run)["labels"] == 5 + 3
