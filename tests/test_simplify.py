"""The workflow simplify: a committee scans a pool; everything real but the models, which are toys."""

import json
import time
from functools import partial

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import read, write
from toys import ToyRun
from toys import make_config as copper

from pfdhpc import messages as m
from pfdhpc.cli.main import main
from pfdhpc.config import parse
from pfdhpc.data import Frame, Label
from pfdhpc.data.io import read_frames
from pfdhpc.data.known_frames import KnownFrames
from pfdhpc.engines.explore import committee as scanning
from pfdhpc.engines.explore.committee import ACCURATE, CANDIDATE, FAILED, Judgement, judged
from pfdhpc.errors import EXIT_COMPLETE, EXIT_INCOMPLETE, InputError
from pfdhpc.messages import ModelRef
from pfdhpc.report.terminal.summary import collect, verdict
from pfdhpc.start.fresh_state import begin
from pfdhpc.store.checkpoint import load_checkpoint, save_checkpoint
from pfdhpc.store.status import read_status
from pfdhpc.workflow.pool_rules import done_with
from pfdhpc.workflow.state import RunState
from pfdhpc.workflow.state_codec import from_tree, to_tree

N_POOL = 30


def write_pool(folder, labelled=False):
    """Copper, the more distorted the later."""
    rng = np.random.default_rng(1)
    frames = []
    for index in range(N_POOL):
        atoms = bulk("Cu", cubic=True)
        atoms.positions += rng.normal(scale=0.005 * (1 + index), size=atoms.positions.shape)
        if labelled:
            atoms.calc = EMT()
            atoms.get_stress()
        frames.append(atoms)
    write(folder / "cu.extxyz", frames)


def simplify(folder, labeled=False, **changes):
    folder.mkdir(parents=True, exist_ok=True)
    write_pool(folder, labeled)
    (folder / "parent.pt").write_text("parent")
    values = {
        "workflow": "simplify",
        "model": {"checkpoint": "parent.pt"},
        "pool": {"data": ["cu.extxyz"], "models": 3, "init_pick": 5, "chunk": 8, "labeled": labeled},
        "select": {"method": "random", "max_sel": 6, "trust_lo": 0.2, "trust_hi": 50.0},
        "train": {},
        "test": {"holdout": 0.2, "validation": 0.0},
        "converge": {"max_rounds": 6},
    }
    if not labeled:
        values["label"] = {"type": "ase", "options": {"calculator": "ase.calculators.emt.EMT"}}
    for key, value in changes.items():
        values[key] = {**values.get(key, {}), **value} if isinstance(value, dict) else value
    return parse(values, folder)


class ToyPredictor:
    """EMT with forces off by a random amount, the smaller the more frames the model was trained on."""

    def __init__(self, path, scale=8.0):
        history = path.read_text()
        n_known = 0.3 if history == "parent" else len(json.loads(history)[1])
        self.size = scale / n_known**1.5
        self.seed = int.from_bytes(history.encode()[-6:])

    def __call__(self, frames):
        found = []
        for frame in frames:
            energy, forces = emt(frame)
            rng = np.random.default_rng([self.seed, int(frame.frame_id[:8], 16)])
            push = rng.normal(size=3) * self.size * np.abs(forces).max()
            found.append(Label(energy, forces + push))
        return found


def emt(frame, known={}):  # noqa: B006
    """Energy and forces, computed once a frame."""
    if frame.frame_id not in known:
        atoms = frame.to_atoms()
        atoms.calc = EMT()
        known[frame.frame_id] = atoms.get_potential_energy(), atoms.get_forces()
    return known[frame.frame_id]


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    """In place of deepmd's models."""
    pretend(monkeypatch, ToyPredictor)


def pretend(monkeypatch, predictor):
    import sys
    from types import ModuleType

    module = ModuleType("pfdhpc.engines.deepmd_inference")
    module.Predictor = predictor
    monkeypatch.setitem(sys.modules, "pfdhpc.engines.deepmd_inference", module)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        pretend(monkeypatch, ToyPredictor)
        run = ToyRun(simplify(tmp_path_factory.mktemp("whole")))
        assert run.run() == EXIT_COMPLETE
    return run


def fingerprint(run):
    frames = sorted((r.label_id, r.origin.round, r.origin.replica) for r in run.store.records())
    return frames, [model.digest for model in run.state.models], [model.digest for model in run.state.committee]


def test_the_run_ends_when_all_of_the_pool_is_labelled_or_within_the_band(finished):
    state = finished.state
    assert state.ended == "accurate" and verdict(finished.config, state).startswith("accurate")
    first, *others, last = state.history
    assert first.labelled == 5 and all(0 < item.labelled <= 6 for item in others)
    assert last.candidates == last.failed == 0 and last.scanned
    assert sum(item.labelled for item in state.history) == len(finished.store) < N_POOL
    assert others[0].candidates >= others[-1].candidates > 0


def test_the_sets_of_every_round_are_all_frames_without_a_label(finished):
    labels = 0
    for item in finished.state.history:
        if item.round:
            assert item.accurate + item.candidates + item.failed == N_POOL - labels
        labels += item.labelled
    rounds = collect(finished.config, finished.state, finished.store)["rounds"]
    assert rounds[1]["accurate"] == finished.state.history[1].accurate


def test_every_round_trains_a_committee_whose_first_member_is_the_model(finished):
    trained = [order for order in finished.trainer.orders if order.order_id.startswith("train/")]
    assert [order.order_id for order in trained[:4]] == ["train/0/0", "train/0/1", "train/0/2", "train/1/0"]
    assert len({order.seed for order in trained}) == len(trained)
    assert {order.parent for order in trained[:3]} == {finished.state.models[0]}
    assert len({order.parent for order in trained[3:6]}) == 3  # each goes on from its own
    assert len(finished.state.committee) == 3 and finished.state.committee[0] == finished.state.model


def test_picked_frames_carry_their_deviation_and_the_models_are_tested_on_their_labels(finished):
    for record in finished.store.records():
        if record.origin.round:
            assert 0.2 <= record.origin.deviation < 50.0 and record.origin.replica.startswith("pool-")
            assert record.prediction is not None and record.origin.model_version == record.origin.round
    assert all(item.errors is not None for item in finished.state.history[1:-1])


@pytest.mark.parametrize("after", [1, 2, 3, 4, 5, 6, 8, 11, 14])
def test_stopped_anywhere_and_run_again_it_ends_in_the_same_place(finished, tmp_path, after):
    config = simplify(tmp_path)
    first = ToyRun(config).stop_after(after)
    assert first.run() == EXIT_INCOMPLETE
    second = ToyRun(config)
    assert second.run() == EXIT_COMPLETE
    assert fingerprint(second) == fingerprint(finished)
    assert (first.events + second.events).count("Trained") == finished.events.count("Trained")
    assert [item.candidates for item in second.state.history] == [item.candidates for item in finished.state.history]


def test_more_explorers_give_the_same_run(finished, tmp_path):
    run = ToyRun(simplify(tmp_path, ranks={"explorer": {"teams": 3}}), size=6, threads=True)
    assert run.run() == EXIT_COMPLETE
    assert fingerprint(run) == fingerprint(finished)


def at_once(run):
    """How many members were in training together, at most."""
    counts, tell = [], run.context.listener.event

    def event(before, after, message):
        counts.append(sum(isinstance(item.order, m.Train) for item in before.job.running.values()))
        tell(before, after, message)

    run.context.listener.event = event
    return counts


@pytest.mark.parametrize("teams", [2, 3])
def test_several_trainer_teams_train_the_committee_side_by_side_to_the_same_models(finished, tmp_path, teams):
    run = ToyRun(simplify(tmp_path, ranks={"trainer": {"teams": teams}}), size=3 + teams, threads=True)
    counts = at_once(run)
    assert run.run() == EXIT_COMPLETE
    assert max(counts) == teams
    assert fingerprint(run) == fingerprint(finished)


def test_a_committee_with_a_gap_survives_the_checkpoint(tmp_path):
    state = RunState(members=RunState().with_member(1, ModelRef(1, "abc")))
    save_checkpoint(tmp_path, {"state": to_tree(state)})
    kept = from_tree(load_checkpoint(tmp_path)["state"])
    assert kept.members == (None, ModelRef(1, "abc")) and kept.untrained(3) == [0, 2]


@pytest.mark.parametrize("after", [2, 3, 4, 9])
def test_members_that_came_out_of_turn_before_a_stop_are_not_trained_again(finished, tmp_path, after):
    config = simplify(tmp_path, ranks={"trainer": {"teams": 2}})
    first = ToyRun(config, size=5, threads=True).stop_after(after)
    slow_down(first, member=0)
    assert first.run() == EXIT_INCOMPLETE
    second = ToyRun(config, size=5, threads=True)
    assert second.run() == EXIT_COMPLETE
    assert fingerprint(second) == fingerprint(finished)


def slow_down(run, member):
    """One member takes longer than the others."""
    for trainer in run.trainers:
        handle = trainer.handle

        def late(order, handle=handle):
            if getattr(order, "member", None) == member:
                time.sleep(0.3)
            return handle(order)

        trainer.handle = late


def test_a_finished_run_does_nothing_until_its_band_is_tightened(finished, tmp_path):
    config = simplify(tmp_path)
    assert ToyRun(config).run() == EXIT_COMPLETE
    again = ToyRun(config)
    assert again.run() == EXIT_COMPLETE and again.events == []
    tight = ToyRun(simplify(tmp_path, select={"trust_lo": 1e-3}), changed=["select.trust_lo"])
    assert tight.run() == EXIT_COMPLETE
    assert len(tight.store) > len(finished.store)


def test_frames_beyond_the_band_only_end_the_run_with_what_to_do(tmp_path, monkeypatch):
    pretend(monkeypatch, partial(ToyPredictor, scale=1e6))
    run = ToyRun(simplify(tmp_path))
    assert run.run() == EXIT_COMPLETE
    assert run.state.ended == "all_failed" and len(run.store) == 5
    assert "NOT converged" in verdict(run.config, run.state) and "select.trust_hi" in verdict(run.config, run.state)
    assert read_status(run.folder.directory)["state"] == "complete"
    wider = {"trust_hi": 1e9, "filter": {"max_force": 1e9}}
    wide = ToyRun(simplify(tmp_path, select=wider), changed=["select.trust_hi"])
    assert wide.run() == EXIT_COMPLETE and len(wide.store) > 5


def test_labels_of_the_pool_are_taken_once_each(tmp_path):
    config = simplify(tmp_path, labeled=True, pool={"true_error": True, "models": 1})
    run = ToyRun(config)
    assert run.run() == EXIT_COMPLETE
    given = {frame.frame_id: label.energy for frame, label in read_frames(tmp_path / "cu.extxyz")}
    records = run.store.records()
    assert len(records) == len({record.frame_id for record in records}) > 5
    assert all(record.label.energy == given[record.frame_id] for record in records)
    assert {record.labelling.labeler for record in records} == {"pool"}


def test_without_first_labels_the_first_round_picks_from_everything(tmp_path):
    entropy = {"method": "greedy", "filter": {"max_force": 1e9}}
    run = ToyRun(simplify(tmp_path, pool={"init_pick": 0}, select=entropy, converge={"max_rounds": 1}))
    assert run.run() == EXIT_COMPLETE
    first = run.state.history[1]
    assert (first.candidates, first.selected, first.model_version) == (N_POOL, 6, 0)
    assert first.errors is not None


def test_the_budget_holds_and_frames_brought_along_are_out_of_the_pool(tmp_path):
    config = simplify(tmp_path, converge={"max_labels": 8})
    run = ToyRun(config)
    assert run.run() == EXIT_COMPLETE and (run.state.ended, len(run.store)) == ("max_labels", 8)
    (tmp_path / "known").mkdir()
    write_pool(tmp_path / "known", labelled=True)
    given = ToyRun(simplify(tmp_path, init={"data": ["known/cu.extxyz"]}, run={"directory": "other"}))
    assert given.run() == EXIT_COMPLETE
    assert (given.state.ended, len(given.store), given.events.count("Labelled")) == ("accurate", N_POOL, 0)


def test_frames_of_the_pool_that_are_brought_along_in_another_setting_are_out_of_it(tmp_path):
    """Some of them to train on, some to test on, some imported after a stop; others are in the pool twice."""
    write_pool(tmp_path, labelled=True)
    atoms = read(tmp_path / "cu.extxyz", ":")
    for name, some in (("given", atoms[:4]), ("tested", atoms[4:7]), ("imported", atoms[7:12])):
        write(tmp_path / f"{name}.extxyz", [set_anew(item) for item in some])
    write(tmp_path / "again.extxyz", [set_anew(item) for item in atoms[10:15]])
    config = simplify(
        tmp_path,
        pool={"data": ["cu.extxyz", "again.extxyz"], "init_pick": 2},
        init={"data": ["given.extxyz"]},
        test={"data": ["tested.extxyz"], "holdout": 0.0, "validation": 0.0},
    )
    start = begin(config, ("Cu",))
    assert start.told == ("pool.data: 5 of 35 frames are there more than once; each is taken once",)
    pool = [Frame.from_atoms(item) for item in atoms]
    assert start.state.elsewhere == tuple(sorted(frame.frame_id for frame in pool[:7]))
    first = ToyRun(config).stop_after(3)
    assert first.run() == EXIT_INCOMPLETE
    command = ["import", str(tmp_path / "imported.extxyz"), "--into", str(config.run.directory)]
    assert main(command) == 0
    second = ToyRun(config).stop_after(4)
    assert second.run() == EXIT_INCOMPLETE
    assert {frame.frame_id for frame in pool[:12]} <= {*done_with(second.state)}
    labelled = KnownFrames(record.frame for record in second.store.records())
    assert len(second.store) > 12 and all(len([*labelled.all_same(frame)]) == 1 for frame in pool[:12])


def set_anew(atoms):
    """The same frame, turned, in another order and rounded."""
    matrix = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    order = np.random.default_rng(4).permutation(len(atoms))
    new = atoms[order]
    new.set_cell(atoms.cell[[2, 1, 0]] @ matrix)
    new.positions = np.float32(atoms.positions[order] @ matrix)
    new.calc = EMT()
    new.get_stress()
    return new


def test_a_frame_without_the_label_it_should_have_is_refused(tmp_path):
    config = simplify(tmp_path, labeled=True)
    write_pool(tmp_path)
    with pytest.raises(InputError, match="pool.data: .*30 of 30 frames have no label"):
        ToyRun(config).run()
    assert not (config.run.directory / "frames").exists()


@pytest.mark.parametrize(
    "changes, problem",
    [
        ({"explore": {"steps": 50}}, "explore: no molecular dynamics"),
        ({"overlap": {"staleness": 1}}, "overlap: rounds are in lock-step"),
        ({"system": [{"name": "Cu", "structures": ["cu.extxyz"]}]}, "system: the structures are those of"),
        ({"init": {"frames": 3}}, "init.frames: 3; here pool.init_pick"),
        ({"pool": {"models": 1}}, "pool.models: one model has no deviation"),
        ({"pool": {"true_error": True}}, "pool.true_error: needs labels"),
        ({"pool": {"trust_energy_lo": 2.0, "trust_energy_hi": 1.0}}, "is not below trust_energy_hi"),
        ({"select": {"trust_lo": None}}, "select.trust_lo: missing"),
        ({"label": {"type": "teacher", "options": {}}}, "label"),
        ({"pool": {"labeled": True}}, "label.type: the labels of the pool are taken"),
        ({"select": {"filter": {"max_volume_ratio": 3.0}}}, "select.filter.max_volume_ratio: frames of a pool"),
        ({"pool": {"init_pick": 0}, "select": {"method": "greedy", "bandwidth": "spread"}}, r"some \(pool.init_pick\)"),
        ({"pool": {"init_pick": 0}, "select": {"method": "greedy", "descriptor": {"type": "model"}}}, "pool.init_pick"),
        ({"model": {"branch": "RANDOM"}, "pool": {"init_pick": 0}}, "ask for labels .pool.init_pick"),
        ({"ranks": {"trainer": {"teams": 4}}}, "ranks.trainer.teams: 4, but the committee has 3 models"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path, changes, problem):
    with pytest.raises(InputError, match=problem):
        simplify(tmp_path, **changes)


def test_a_bad_number_of_first_frames_is_told_once_where_it_was_given(tmp_path):
    for given in (-1, "many"):
        with pytest.raises(InputError) as caught:
            simplify(tmp_path, pool={"init_pick": given})
        assert [line.split(":")[0] for line in caught.value.problems] == ["pool.init_pick"]


def test_labels_of_the_pool_need_no_type_and_cost_nothing(tmp_path):
    config = simplify(tmp_path, labeled=True, label={"max_force": 20.0})
    assert (config.label.type, config.label.max_force) == ("pool", 20.0)
    with pytest.raises(InputError, match="run.confirm_core_hours: labels cost nothing"):
        simplify(tmp_path, labeled=True, run={"confirm_core_hours": 1.0})


def test_other_workflows_need_their_systems_and_have_no_pool(tmp_path):
    with pytest.raises(InputError, match="pool: only used in"):
        copper(tmp_path, pool={"data": ["cu.vasp"]})
    with pytest.raises(InputError, match="system: empty"):
        copper(tmp_path, system=[])
    with pytest.raises(InputError, match="ranks.trainer.teams: 2, but there is one model to train"):
        copper(tmp_path, ranks={"trainer": {"teams": 2}})


def test_deviations_are_those_of_deepmd():
    rng = np.random.default_rng(3)
    some = [Label(rng.normal(), rng.normal(size=(5, 3))) for _ in range(4)]
    forces = np.array([item.forces for item in some])
    found = judged(some)
    assert found.force == pytest.approx(np.sqrt(forces.var(axis=0).sum(axis=1)).max())
    assert found.energy == pytest.approx(np.std([item.energy / 5 for item in some]))
    truth = Label(10.0, forces[0] + 3.0)
    assert judged(some[:1], truth).force == pytest.approx(3.0 * np.sqrt(3))
    assert judged(some[:1], truth).energy == pytest.approx(abs(some[0].energy - 10.0) / 5)


@pytest.mark.parametrize(
    "force, energy, kind",
    [(0.1, 0.0, ACCURATE), (0.3, 0.0, CANDIDATE), (0.1, 0.3, CANDIDATE), (5.0, 0.3, FAILED), (0.3, 9.0, FAILED),
     (float("nan"), 0.0, FAILED)],
)  # fmt: skip
def test_a_frame_is_sorted_as_dpgen_does(force, energy, kind):
    judgement = Judgement(Label(0.0, np.zeros((1, 3))), force, energy)
    assert judgement.kind((0.2, 5.0), (0.2, 5.0)) == kind


def test_models_are_loaded_where_they_are_used():
    assert "Predictor" not in vars(scanning)
