"""Whole runs through the in-process channel: everything real but the trainer."""

import json
import shutil

import numpy as np
import pytest
from toys import ToyRun, make_config

from pfdhpc.errors import EXIT_BUG, EXIT_COMPLETE, EXIT_INCOMPLETE, InputError
from pfdhpc.report.terminal.summary import collect, verdict
from pfdhpc.store.status import read_status


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run = ToyRun(make_config(tmp_path_factory.mktemp("whole")))
    assert run.run() == EXIT_COMPLETE
    return run


def fingerprint(run):
    """What a run made: labelled frames, who picked them when, and the models."""
    frames = sorted((r.label_id, r.origin.round, r.origin.replica, r.origin.step) for r in run.store.records())
    return frames, [model.digest for model in run.state.models]


def test_a_run_labels_trains_explores_and_ends(finished):
    state = finished.state
    assert state.ended == "max_rounds" and state.round == 2
    assert [model.version for model in state.models] == [0, 1, 2, 3]
    assert [item.labelled for item in state.history] == [4, 3, 3]
    assert len(finished.store) == 10
    assert state.finetuned.total.force == pytest.approx(0.05)
    assert read_status(finished.folder.directory)["state"] == "complete"


def test_no_frame_is_both_trained_on_and_held_out(finished):
    state = finished.state
    assert len(state.test_ids) == 2
    for order in finished.trainer.orders:
        used = {*getattr(order, "old_ids", ()), *getattr(order, "new_ids", ()), *getattr(order, "validation_ids", ())}
        assert not used & set(state.test_ids)


def test_the_exploring_model_is_tested_on_labels_before_it_trains_on_them(finished):
    for item in finished.state.history[1:]:
        records = [r for r in finished.store.records() if r.origin.round == item.round]
        errors = np.concatenate([r.prediction.forces - r.label.forces for r in records])
        assert item.errors.total.force == pytest.approx(np.sqrt(np.mean(errors**2)))
        assert {r.origin.model_version for r in records} == {item.model_version}


def test_frames_carry_their_provenance(finished):
    for record in finished.store.records():
        assert record.origin.system == "Cu" and record.labelling.labeler == "ase"
        if record.origin.round > 0:
            assert record.origin.replica.startswith("Cu-") and record.origin.step > 0
            assert np.isfinite(record.origin.novelty) and record.origin.model_hash


def test_trajectories_go_on_from_round_to_round(finished):
    assert all(replica.segment == 2 and replica.state for replica in finished.state.replicas)


def test_results_are_plain_json_and_the_verdict_is_honest(finished):
    results = collect(finished.config, finished.state, finished.store)
    assert json.loads(json.dumps(results))["labels"] == 10
    assert "no criterion" in verdict(finished.config, finished.state)


def test_a_finished_run_started_again_does_nothing(finished):
    again = ToyRun(finished.config)
    assert again.run() == EXIT_COMPLETE
    assert again.events == []


def test_a_raised_limit_lets_a_finished_run_go_on(finished, tmp_path):
    config = make_config(tmp_path, converge={"max_rounds": 3})
    shutil.copytree(finished.folder.directory, config.run.directory)
    more = ToyRun(config)
    assert more.run() == EXIT_COMPLETE
    assert more.state.round == 3 and len(more.store) == 13


@pytest.mark.parametrize("after", [1, 3, 5, 6, 8, 9, 11, 14])
def test_stopped_anywhere_and_run_again_it_ends_in_the_same_place(finished, tmp_path, after):
    config = make_config(tmp_path)
    first = ToyRun(config).stop_after(after)
    assert first.run() == EXIT_INCOMPLETE
    assert read_status(config.run.directory)["state"] == "incomplete"
    second = ToyRun(config)
    assert second.run() == EXIT_COMPLETE
    assert fingerprint(second) == fingerprint(finished)
    made = [event for event in first.events + second.events if event == "Labelled"]
    assert len(made) <= 10 + 2  # labels that were in the store are taken from there, not made again


def test_more_teams_in_threads_give_the_same_run(finished, tmp_path):
    config = make_config(tmp_path, ranks={"explorer": {"teams": 3}, "labeler": {"teams": 2}})
    run = ToyRun(config, size=7, threads=True)
    assert run.run() == EXIT_COMPLETE
    assert fingerprint(run) == fingerprint(finished)


def test_labels_that_fail_are_kept_apart_and_a_run_without_any_fails_with_the_reason(tmp_path):
    run = ToyRun(make_config(tmp_path, label={"max_force": 1e-6}, converge={"max_rounds": 1}))
    assert run.run() == EXIT_BUG
    assert len(run.store) == 0
    assert run.state.history[0].rejected == 4
    assert all("force" in reason for _, reason in run.store.rejected())
    assert "no label was accepted" in run.state.job.failure
    assert read_status(run.folder.directory)["state"] == "failed"


def test_a_run_whose_replicas_all_died_goes_on_with_wider_guards(tmp_path):
    tight = make_config(tmp_path, explore={"max_restarts": 0, "guard": {"max_temperature": 1.0}}, init={"frames": 2})
    run = ToyRun(tight)
    assert run.run() == EXIT_BUG
    assert "retired" in run.state.job.failure
    again = ToyRun(tight)
    assert again.run() == EXIT_BUG and "retired" in again.state.job.failure
    wide = ToyRun(make_config(tmp_path, init={"frames": 2}), changed=["explore.guard.max_temperature"])
    assert wide.run() == EXIT_COMPLETE
    assert wide.state.round == 2 and len(wide.store) == 8


NEAR = {"options": {"calculator": "ase.calculators.emt.EMT", "arguments": {"asap_cutoff": True}}}
"""Labels whose energies count from where those of the exploring model do."""


def test_tightened_criteria_let_a_converged_run_go_on(tmp_path):
    loose = ToyRun(make_config(tmp_path, label=NEAR, converge={"force_rmse": 1e3}))
    assert loose.run() == EXIT_COMPLETE
    assert (loose.state.ended, loose.state.round) == ("converged", 1) and not loose.state.warnings
    tight = ToyRun(make_config(tmp_path, label=NEAR, converge={"force_rmse": 1e-9}))
    assert tight.run() == EXIT_COMPLETE
    assert (tight.state.ended, tight.state.round) == ("max_rounds", 2)


def test_energies_off_by_electronvolts_are_no_convergence_whatever_the_forces(tmp_path):
    run = ToyRun(make_config(tmp_path, converge={"force_rmse": 1e3}))
    assert run.run() == EXIT_COMPLETE
    assert run.state.ended == "max_rounds" and verdict(run.config, run.state).startswith("NOT converged")
    (text,) = run.state.warnings.values()
    assert text.startswith("round 1: the energies of model 1 are off by up to +2.") and "eV/atom (Cu)" in text
    assert collect(run.config, run.state, run.store)["warnings"] == [text]
    assert run.state.history[1].errors.offsets["Cu"] == pytest.approx(run.state.history[1].errors.total.energy, rel=0.1)


def test_a_saturated_run_searches_again_when_the_search_was_changed(tmp_path):
    blunt = ToyRun(make_config(tmp_path, select={"min_gain": 1e9}))
    assert blunt.run() == EXIT_COMPLETE
    assert (blunt.state.ended, len(blunt.store)) == ("saturated", 4)
    assert ToyRun(make_config(tmp_path, select={"min_gain": 1e9})).run() == EXIT_COMPLETE
    sharp = ToyRun(make_config(tmp_path), changed=["select.min_gain"])
    assert sharp.run() == EXIT_COMPLETE
    assert len(sharp.store) > 4


def test_new_temperatures_join_a_resumed_run(tmp_path):
    first = ToyRun(make_config(tmp_path)).stop_after(8)
    assert first.run() == EXIT_INCOMPLETE
    config = make_config(tmp_path, explore={"temperatures": [600.0, 900.0]})
    second = ToyRun(config, changed=["explore.temperatures"])
    assert second.run() == EXIT_COMPLETE
    assert {replica.temperature[0] for replica in second.state.replicas} == {600.0, 900.0}


def test_the_label_budget_is_kept_to_and_given_labels_are_free(tmp_path):
    from pfdhpc.store.export import export

    budget = ToyRun(make_config(tmp_path / "a", converge={"max_labels": 6, "max_rounds": 9}))
    assert budget.run() == EXIT_COMPLETE
    assert budget.state.ended == "max_labels" and len(budget.store) == 6
    export(budget.store.records(), tmp_path / "given.extxyz", "extxyz")
    init = {"frames": 1, "data": [str(tmp_path / "given.extxyz")]}
    given = ToyRun(make_config(tmp_path / "b", init=init, converge={"max_labels": 3, "max_rounds": 9}))
    assert given.run() == EXIT_COMPLETE
    assert given.state.given == 6 and len(given.store) == 6 + 3


def test_a_bug_in_a_team_ends_the_job_and_the_status_says_so(tmp_path):
    run = ToyRun(make_config(tmp_path))
    run.trainer.handle = lambda order: 1 / 0
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        run.run()
    assert read_status(run.folder.directory)["state"] == "failed"


def test_a_late_team_is_left_out_of_the_selection(tmp_path):
    config = make_config(tmp_path, ranks={"explorer": {"teams": 2}}, select={"patience": 0.5})
    run = ToyRun(config, size=5, threads=True, deaf="explorer-1")
    assert run.run() == EXIT_COMPLETE
    assert [item.labelled for item in run.state.history] == [4, 3, 3]


def test_elements_the_model_does_not_know_are_refused_before_anything_is_written(tmp_path):
    from ase.build import bulk
    from ase.io import write

    config = make_config(tmp_path)
    write(tmp_path / "cu.vasp", bulk("Al", cubic=True), format="vasp")
    with pytest.raises(InputError, match="Al not in the type map of model.checkpoint"):
        ToyRun(config).run()
    assert not (config.run.directory / "frames").exists()
