"""Losses and learning rates: what deepmd would leave out, change or refuse is told before anything runs."""

import itertools

import numpy as np
import pytest

from pfdhpc.config.train import ModelSection, TrainSection
from pfdhpc.engines.train.deepmd.input_checks import notes
from pfdhpc.engines.train.deepmd.train_input import check_deepmd_input, toy_input
from pfdhpc.engines.train.metatrain.train_input import check_options

ANY = ModelSection.model_construct(branch=None)


def told(loss=None, rates=None, **train):
    """Problems and, if there are none, notes."""
    given = {key: value for key, value in (("loss", loss), ("learning_rate", rates)) if value is not None}
    section = TrainSection(deepmd={**given, **train.pop("deepmd", {})}, **train)
    problems = check_deepmd_input(section)
    return problems, [] if problems else notes(ANY, section, True)


def contribution(loss, term, rate):
    """How much deepmd's loss changes when labels of one kind do, at ``rate`` times the first learning rate."""
    import torch
    from deepmd.pt.loss import EnergyStdLoss

    shapes = {"energy": (1, 1), "force": (1, 2, 3), "virial": (1, 9)}
    made = EnergyStdLoss(**{"starter_learning_rate": 1.0, **loss})
    found = []
    for shift in (0.0, 1.0):
        label = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in shapes.items()}
        label |= {f"find_{name}": 1.0 for name in shapes}
        label[term] += shift
        predicted = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in shapes.items()}
        found.append(float(made({}, lambda predicted=predicted: dict(predicted), label, 2, rate)[1]))
    return found[1] - found[0]


def test_a_ramp_is_refused_exactly_where_deepmd_leaves_the_term_out():
    """From or to zero; the remedy that is told trains it."""
    letters = {"energy": "e", "force": "f", "virial": "v"}
    for (term, letter), (start, limit) in itertools.product(
        letters.items(), itertools.product((0, 1e-6, 2.0), repeat=2)
    ):
        loss = {f"{end}_pref_{key}": 1.0 for end in ("start", "limit") for key in "efv"}
        loss |= {f"start_pref_{letter}": start, f"limit_pref_{letter}": limit}
        trained = contribution(loss, term, 0.5) > 0
        assert trained == bool(start and limit)
        problems, _ = told(loss)
        assert bool(problems) == (not trained and bool(start or limit)), (letter, start, limit)
        if problems:
            end = "start" if start == 0 else "limit"
            key = f"{end}_pref_{letter}"
            assert problems[0].startswith(f"train.deepmd.loss.{key}: 0") and len(problems) == 1
            value = float(problems[0].split(f"{key} = ")[1].split(",")[0])
            assert not told({**loss, key: value})[0] and contribution({**loss, key: value}, term, 0.5) > 0


@pytest.mark.parametrize(
    "loss, words",
    [
        ({"limit_pref_v": 1}, "start_pref_v: 0 while"),  # deepmd's default of the other end is 0
        ({"start_pref_v": 1}, "limit_pref_v: 0 while"),
        ({"start_pref_f": -1, "limit_pref_f": 1}, "start_pref_f: -1; it must be 0 or more"),
        ({"start_pref_e": 0, "limit_pref_e": 0, "start_pref_f": 0, "limit_pref_f": 0}, "nothing would be trained"),
        ({"start_pref_ae": 1, "limit_pref_ae": 1}, "no atomic energies"),
        ({"start_pref_pf": 1, "limit_pref_pf": 1}, "no atomic prefactors"),
        ({"start_pref_gf": 1, "limit_pref_gf": 1, "numb_generalized_coord": 2}, "no generalised forces"),
        ({"limit_pref_h": 1}, "no Hessians"),
        ({"enable_atom_ener_coeff": True}, "no coefficients"),
        ({"use_huber": True, "relative_f": 0.1}, "Huber loss is not implemented"),
        ({"f_use_norm": True}, "f_use_norm can only be True"),
    ],
)
def test_a_loss_that_would_train_something_else_is_refused(loss, words):
    problems, _ = told(loss)
    assert len(problems) == 1 and words in problems[0] and problems[0].startswith("train.deepmd.loss")


@pytest.mark.parametrize(
    "loss",
    [None, {"start_pref_v": 0, "limit_pref_v": 0}, {"start_pref_pf": 1, "limit_pref_pf": 1, "use_default_pf": True}],
)
def test_a_loss_that_trains_what_it_says_passes(loss):
    assert told(loss) == ([], [])


def test_direct_forces_need_forces_in_the_loss():
    stages, loss = ["direct", "conservative"], {"start_pref_f": 0, "limit_pref_f": 0}
    assert told(loss) == ([], [])
    assert "train.stages" in told(loss, stages=stages)[0][0] and not told(stages=stages)[0]


@pytest.mark.parametrize(
    "rates, train, words",
    [
        ({"warmup_steps": 300}, {"first_steps": 200}, "200 steps (train.first_steps): warmup_steps must be smaller"),
        ({"warmup_steps": 400}, {}, "400 steps (train.first_steps, train.steps): warmup_steps"),
        ({"warmup_ratio": 1.0}, {"first_steps": 0}, "400 steps (train.steps): warmup_steps"),
        ({"stop_lr": 0.01}, {}, "ends at 0.01; that must be 0 or more and at most start_lr, 0.001"),
        ({"stop_lr_ratio": 2.0}, {}, "ends at 0.002"),
        ({"type": "cosine", "stop_lr": -1e-3}, {}, "ends at -0.001"),
        ({"scale_by_worker": "none"}, {}, "scale_by_worker: deepmd does not read it in PyTorch"),
        ({}, {"deepmd": {"training": {"acc_freq": 2}}}, "acc_freq: deepmd does not read it in PyTorch"),
        ({}, {"deepmd": {"training": {"warmup_steps": 500}}}, "warmup_steps must be smaller"),
    ],
)
def test_a_learning_rate_that_deepmd_refuses_in_some_round_is_refused(rates, train, words):
    problems, _ = told(None, rates, **train)
    assert len(problems) == 1 and words in problems[0]


@pytest.mark.parametrize(
    "rates, words",
    [
        ({"decay_steps": 5000}, ["decay_steps: deepmd makes 5 of 5000, in a training of 400 steps"]),
        ({"decay_steps": 400}, ["deepmd makes 5 of 400"]),
        ({"decay_steps": 399}, []),
        (
            {"decay_steps": 5000, "decay_rate": 0.9},
            ["the rate never decays", "ends at 1 of start_lr: at 0.2 (e), 100 (f)"],
        ),
        ({"stop_lr_ratio": 0.5}, ["ends at 0.5 of start_lr: at 10.1 (e), 80 (f)"]),
        ({"warmup_steps": 50}, ["50 steps of warm-up they go from their limits to their starts"]),
        ({"type": "wsd"}, []),
        ({"type": "cosine"}, []),
    ],
)
def test_what_deepmd_makes_of_a_learning_rate_is_told(rates, words):
    problems, lines = told(None, rates)
    assert not problems and len(lines) == len(words)
    assert all(word in line for word, line in zip(words, lines, strict=True))


def test_the_notes_are_what_deepmd_does():
    """Its schedule, step by step, against what is told of it."""
    from deepmd.dpmodel.utils.learning_rate import make_learning_rate_schedule

    for steps in (7, 150, 400, 2000):
        rates = toy_input(TrainSection(deepmd={"learning_rate": {"decay_steps": 10**6}}, steps=steps))["learning_rate"]
        values = make_learning_rate_schedule(rates, steps).value(np.arange(steps))
        period = np.flatnonzero(values < values[0])[0] if values[-1] < values[0] else steps
        line = told(None, {"decay_steps": 10**6}, steps=steps, first_steps=0)[1][0]
        assert f"deepmd makes {period} of 1000000" in line


def test_virials_that_no_label_has_are_told():
    section = TrainSection(deepmd={"loss": {"start_pref_v": 1, "limit_pref_v": 1}})
    assert "label.virial is false" in notes(ANY, section, False)[0] and not notes(ANY, section, True)
    assert not notes(ANY, TrainSection(), False)  # not asked for


def test_options_of_metatrain_that_train_nothing_are_refused():
    pytest.importorskip("metatrain")

    def problems(**training):
        return check_options(
            ANY.model_copy(update={"checkpoint": None}),
            TrainSection(type="metatrain", metatrain={"training": training}),
        )

    none = {"energy": {"weight": 0.0, "forces": {"weight": 0.0}}}
    assert "neither would be trained" in problems(loss=none)[0]
    assert problems(loss={"energy": {"weight": 0.0}}) == problems(warmup_fraction=0.5) == []
    assert "loss.energy.weight: -1.0; it must be 0 or more" in problems(loss={"energy": {"weight": -1.0}})[0]
    assert "warmup_fraction: 1.0" in problems(warmup_fraction=1.0)[0]
