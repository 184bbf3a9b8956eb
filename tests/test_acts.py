"""The two runs of a pfd input: which one is on, what their directories show, and what is refused."""

import shutil

import pytest
from e2e.test_pfd import DISTILLATION, write_chain

from pfdhpc.config import dump, load
from pfdhpc.errors import InputError
from pfdhpc.job.setup import JobSetup
from pfdhpc.job.stages import config_of, enter
from pfdhpc.store.status import read_status, write_status


@pytest.fixture
def path(tmp_path):
    return write_chain(tmp_path)


def complete_first_act(path):
    """As if the fine-tuning had come to its end."""
    config = load(path)
    first = config_of(config, 0)
    folder = first.run.directory
    (folder / "final").mkdir(parents=True)
    shutil.copy(config.model.checkpoint, folder / "final" / "model.pt")
    (folder / "input.json").write_text(dump(first))
    write_status(folder, "complete", "converged", 7)
    return config.run.directory


def begin_second_act(path):
    run = complete_first_act(path)
    second = config_of(load(path), 1)
    (run / "distill").mkdir(exist_ok=True)
    (run / "distill" / "input.json").write_text(dump(second))
    return run


def prepared(path, capsys=None):
    preparation = JobSetup(path, 4)
    try:
        return preparation.next(), capsys and capsys.readouterr().out
    finally:
        preparation.release()


def test_the_first_run_comes_first_and_then_the_second(path):
    plan, _ = prepared(path)
    assert (plan.config.workflow, plan.number, plan.last) == ("finetune", 0, False)
    run = complete_first_act(path) if not (plan.directory / "finetune" / "final").exists() else plan.directory
    plan, _ = prepared(path)
    assert (plan.config.workflow, plan.number, plan.last) == ("distill", 1, True)
    assert plan.config.model.checkpoint == run / "finetune" / "final" / "model.pt"
    assert (run / "current").readlink().name == "distill"


def test_a_job_killed_at_the_seam_is_incomplete(path):
    run = complete_first_act(path)
    enter(run, 1)
    assert read_status(run)["state"] == "incomplete"


def test_one_job_at_a_time_in_the_whole_directory(path, capsys):
    complete_first_act(path)
    first = JobSetup(path, 4)
    assert first.next().number == 1
    path.write_text(path.read_text().replace("max_rounds = 1", "max_rounds = 2", 1))  # the fine-tuning would go on
    plan, text = prepared(path, capsys)
    assert plan is None and "in use by another run" in text
    first.release()


def test_a_fine_tuning_whose_model_is_being_distilled_does_not_go_on(path, capsys):
    run = begin_second_act(path)
    path.write_text(path.read_text().replace("max_rounds = 1", "max_rounds = 2", 1))
    plan, text = prepared(path, capsys)
    assert plan is None and "converge.max_rounds: changed" in text.replace("\n", " ") and "distill" in text
    shutil.rmtree(run / "distill")
    assert prepared(path)[0].number == 0


def test_a_directory_of_another_workflow_is_refused(path, capsys):
    run = load(path).run.directory
    run.mkdir()
    (run / "input.json").write_text("{}")
    plan, text = prepared(path, capsys)
    assert plan is None and "another workflow" in text
    (run / "input.json").unlink()
    enter(run, 0)
    simple = path.with_name("simple.toml")
    simple.write_text(path.read_text().replace('"pfd"', '"finetune"').split("[student]")[0])
    plan, text = prepared(simple, capsys)
    assert plan is None and "another workflow" in text


def test_paths_of_the_second_run_start_from_the_inputs_folder(path, tmp_path, monkeypatch):
    (tmp_path / "held.extxyz").write_text("")
    path.write_text(path.read_text() + '[distill.test]\ndata = ["held.extxyz"]\n')
    monkeypatch.chdir("/")
    config = load(path)
    complete_first_act(path)
    assert str(tmp_path / "held.extxyz") in dump(config_of(config, 1))


def test_an_input_edited_during_the_job_counts_in_the_next_one(path):
    complete_first_act(path)
    shutil.rmtree(load(path).run.directory)
    preparation = JobSetup(path, 4)
    assert preparation.next().number == 0
    complete_first_act(path)
    path.write_text(path.read_text().replace('"pfd"', '"finetune"').split("[student]")[0])
    assert preparation.next().config.workflow == "distill"
    preparation.release()


def test_the_second_run_inherits_what_it_shares_and_nothing_else(path):
    extra = DISTILLATION.replace("[distill.init]", "[distill.explore]\ntemperatures = [900.0]\n[distill.init]")
    config = load(write_chain(path.parent / "other", extra))
    complete_first_act(path.parent / "other" / path.name)
    second = config_of(config, 1)
    assert second.explore.temperatures == [900.0] and second.explore.steps == config.explore.steps
    assert second.label.type == "teacher" and second.select.max_sel == 4 and second.train.steps == 30
    with pytest.raises(InputError, match="distill.explore.temperatur"):
        load(write_chain(path.parent / "third", extra.replace("temperatures", "temperaturs")))
