"""What a run says and does about energies that no label determined, or that are off as a whole."""

from dataclasses import replace
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.io import write
from rich.console import Console
from test_roles import config, started
from toys import make_config

from pfdhpc import messages as m
from pfdhpc.data import Frame, Label, Labelling, Origin, Record
from pfdhpc.data.compositions import formula_of
from pfdhpc.data.error_metrics import error_table, exploring_errors
from pfdhpc.parallel.layout import plan_layout
from pfdhpc.report.terminal.summary import fixed_table, show
from pfdhpc.start.fresh_state import begin
from pfdhpc.start.pool import Pool
from pfdhpc.workflow.apply import apply
from pfdhpc.workflow.energy_check import doubted
from pfdhpc.workflow.plan import plan
from pfdhpc.workflow.resume import resume
from pfdhpc.workflow.state import DONE, EVALUATE, EXPLORE, RoundRecord

COPPER, GOLD, ALLOY = (29,) * 4, (79,) * 4, (29, 29, 29, 79)


def judged(numbers, seed, off=0.01, version=1, level="pbe"):
    """A labelled frame whose energy the exploring model predicted with an error of ``off`` eV/atom."""
    rng = np.random.default_rng(seed)
    frame = Frame(numbers, np.eye(3) * 4, rng.uniform(0, 4, (len(numbers), 3)))
    label = Label(-7.0, rng.normal(size=(len(numbers), 3)))
    guess = replace(label, energy=label.energy + off * len(numbers), forces=label.forces + 0.05)
    return Record(frame, Origin("s", model_version=version, round=1), guess, label, Labelling(level, "ase"))


def test_energies_the_model_was_never_told_are_left_out_and_named():
    records = [*(judged(COPPER, seed) for seed in range(3)), judged(ALLOY, 9, off=499.0)]
    table = exploring_errors(records, {"Cu": 1})
    assert table.total.energy == pytest.approx(0.01) and table.undetermined == ("Cu3Au",) and table.offsets == {}
    assert table.total.n_frames == 4 and table.total.force == pytest.approx(0.05)
    nothing = exploring_errors(records[3:], {"Cu": 1})
    assert nothing.total.energy != nothing.total.energy  # nan: no figure is better than one of nothing
    later = exploring_errors(records, {"Cu": 1, "Cu3Au": 2})
    assert later.undetermined == ("Cu3Au",) and later.offsets == {}  # only a model after the first saw gold
    seen = exploring_errors([item.with_origin(model_version=2) for item in records], {"Cu": 1, "Cu3Au": 2})
    assert seen.offsets == {"Cu3Au": pytest.approx(499.0)} and seen.total.energy > 100


def test_a_model_that_was_never_aligned_has_its_constants_taken_out_as_before():
    table = exploring_errors([judged(COPPER, seed, off=300.0, version=0) for seed in range(4)], {"Cu": 1})
    assert table.total.energy == pytest.approx(0, abs=1e-9) and table.offsets == {} and table.undetermined == ()


def evaluated(setup, state, *off):
    """The state after a last evaluation on copper in which the final model's energies are off, eV/atom, in turn."""
    records = {item.label_id: item for item in (judged(COPPER, seed) for seed in range(6))}
    ids = tuple(sorted(records))
    state = replace(
        state, phase=EVALUATE, train_ids=ids[:2], test_ids=ids[2:], ended="converged", determining={"Cu": 1}
    )
    (_, order), *_ = plan(setup, state.settled(""), plan_layout(setup.ranks, 4))
    labels = [records[key].label for key in order.test_ids]

    def by(*some):
        return tuple(replace(item, energy=item.energy + 4 * energy) for item, energy in zip(labels, cycle(some)))

    energies = tuple(records[key].label.energy for key in order.train_ids)
    answer = m.Evaluated(order.order_id, 1.0, order.test_ids, by(0.01), by(*off), energies=energies)
    return apply(setup, state.issued(order, "trainer-0"), answer, lambda keys: [records[key] for key in keys])


@pytest.mark.parametrize("overlap", [{}, {"overlap": {"staleness": 1}}], ids=["lock-step", "overlapped"])
def test_a_final_model_off_by_electronvolts_is_no_end_by_convergence(overlap):
    setup = config(converge={"force_rmse": 0.1, "max_rounds": 3}, **overlap)
    good = error_table([judged(COPPER, 1)], [judged(COPPER, 1).prediction])
    found = RoundRecord(1, model_version=1, errors=good, labelled=1)
    state = started(history=(RoundRecord(0), found))
    fine = evaluated(setup, state, 0.02)
    assert (fine.phase, fine.ended, dict(fine.warnings)) == (DONE, "converged", {})
    for off, words in (((-2.0,), "by up to -2 eV/atom (Cu)"), ((0.9, -0.9), "0.9 eV/atom, against 0.01")):
        state_after = evaluated(setup, state, *off)
        assert (state_after.phase, state_after.round, state_after.ended) == (EXPLORE, 2, "")
        (text,) = state_after.warnings.values()
        assert words in text
        again = evaluated(setup, replace(state_after, phase=EVALUATE, history=state.history, round=1), 0.02)
        assert (again.phase, dict(again.warnings)) == (DONE, {}), "what was mended is not warned of"
    limited = config(converge={"force_rmse": 0.1, "max_rounds": 1}, **overlap)
    last = evaluated(limited, state, -2.0)
    assert (last.phase, last.ended) == (DONE, "max_rounds")
    assert resume(limited, last, last).ended == "max_rounds"  # nor when it is started again


def test_levels_of_the_input_itself_are_not_blamed_for_a_model_that_is_off():
    """Options by system ([label.systems.NAME]) make a level of each."""
    state = started(train_ids=("a:one", "b:two"), history=(RoundRecord(0), RoundRecord(1, model_version=1)))
    off = exploring_errors([judged(COPPER, seed, off=-2.0) for seed in range(4)], {"Cu": 1})
    (text,) = doubted(config(), state.note(errors=off), 1).warnings.values()
    assert "Train longer" in text and "several levels" not in text
    apart = doubted(config(), state.warned("levels one two", "they are apart").note(errors=off), 1)
    assert "several levels" in apart.warnings["energies"]
    brought = replace(state, train_ids=("a:given-data", "b:two")).note(errors=off)
    assert "init.data (data)" in doubted(config(), brought, 1).warnings["energies"]


def test_the_models_a_resumed_run_may_load_hold_the_one_that_explores():
    """Overlapped, a newer one may be there already."""
    models = tuple(m.ModelRef(version, f"digest-{version}") for version in range(5))
    state = started(models=models, history=(RoundRecord(0), RoundRecord(1, model_version=3)))
    assert state.models_in_use == {"digest-0", "digest-3", "digest-4"}


def test_tables_say_what_is_not_determined(capsys):
    records = [judged(ALLOY, seed, off=400.0) for seed in range(3)]
    predictions = [item.prediction for item in records]
    table = error_table(records, predictions, known=("Cu",))
    state = started(
        fixed_ids=("a:b",) * 3, fixed={"pretrained": table, "final": table}, finetuned=table, pretrained=table
    )
    console = Console(width=160)
    console.print(fixed_table(state))
    show(config(), _Folder(), replace(state, phase=DONE, ended="max_rounds", warnings={"x": "look at this"}), console)
    said = capsys.readouterr().out
    assert said.count("not determined") == 6 and "400" not in said.replace("400 s", "")
    assert "energies of Cu3Au left out: no label in training determines them" in said
    assert "WARNING: look at this" in said


class _Folder:
    """Places of a run directory that is not there."""

    def __getattr__(self, name):
        return Path("nowhere")


def several(folder, frames, structures):
    folder.mkdir()
    for name, atoms in structures.items():
        write(folder / f"{name}.vasp", atoms, format="vasp", sort=True)
    systems = [{"name": name, "structures": [f"{name}.vasp"], "perturb": {"count": 2}} for name in structures]
    return make_config(folder, system=systems, init={"frames": frames})


def test_the_first_frames_hold_every_element_there_is_room_for(tmp_path):
    gold, alloy = bulk("Au", cubic=True), bulk("Cu", cubic=True)
    alloy.numbers[0] = 79
    cells = {"a": bulk("Cu", cubic=True), "b": bulk("Cu", cubic=True, a=3.7), "c": alloy, "d": gold}
    elements = ("Cu", "Au")
    enough = begin(several(tmp_path / "2", 2, cells), elements)
    assert {formula_of(item) for item in enough.state.pending} == {"Cu", "Cu3Au"} and not enough.told
    one = begin(several(tmp_path / "1", 1, cells), elements)
    assert len(one.state.pending) == len(one.told) == 1
    assert "determines the energies of Au" in one.told[0] and "init.frames = 2" in one.told[0]
    all_of_them = begin(several(tmp_path / "8", 8, cells), elements).state.pending
    assert [item.origin.system for item in sorted(all_of_them, key=lambda r: r.origin.step)] == list("abcdabcd")
    assert begin(several(tmp_path / "0", 0, cells), elements).told == ()  # all are aligned together, later


def test_a_system_of_many_structures_begins_with_those_that_have_its_elements(tmp_path):
    for index in range(5):
        write(tmp_path / f"{index}.vasp", bulk("Au" if index == 4 else "Cu", cubic=True), format="vasp")
    system = {"name": "x", "structures": [f"{index}.vasp" for index in range(5)], "perturb": {"count": 5}}
    setup = make_config(tmp_path, system=[system], init={"frames": 3})
    pending = begin(setup, ("Cu", "Au")).state.pending
    assert sorted(formula_of(item) for item in pending) == ["Au", "Cu", "Cu"]


def test_the_first_lot_of_a_pool_has_every_element():
    frames = [judged(COPPER, seed) for seed in range(60)] + [judged(GOLD, 99)]
    setup = type(
        "Setup", (), {"pool": type("P", (), {"init_pick": 3}), "converge": type("C", (), {"max_labels": None})}
    )
    for seed in range(10):
        drawn = Pool(tuple(frames), 10).first(setup, seed, ())
        assert len(drawn) == 3 and {formula_of(item) for item in drawn} == {"Cu", "Au"}


def test_labels_bring_their_compositions_in_any_order():
    setup = config()
    records = [judged(COPPER, 1), judged(ALLOY, 2), judged(GOLD, 3)]
    pending = tuple(replace(item, label=None, labelling=None) for item in records)

    def after(order):
        state = started(phase="label", pending=pending)
        for place in order:
            order_id = f"label/{records[place].frame_id}"
            answer = m.Labelled(order_id, 1.0, (m.LabelOutcome(records[place]),))
            order = m.LabelFrames(order_id, (records[place],))
            state = apply(setup, state.issued(order, "labeler-0"), answer, lambda keys: [])
        return state

    assert after((0, 1, 2)).compositions == after((2, 0, 1)).compositions
    assert sorted(after((0, 1, 2)).compositions.values()) == ["Au", "Cu", "Cu3Au"]
