"""What a user is told about an input file."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pfdhpc.config import dump, load, parse
from pfdhpc.config.load import _explain
from pfdhpc.config.restart_changes import differences, refusals
from pfdhpc.errors import InputError

QUICKSTART = Path(__file__).parents[1] / "inputs" / "quickstart" / "input.toml"


@pytest.fixture
def values(tmp_path):
    for name in ("parent.pt", "si.vasp"):
        (tmp_path / name).touch()
    return {
        "workflow": "finetune",
        "model": {"checkpoint": "parent.pt"},
        "system": [{"name": "Si", "structures": ["si.vasp"]}],
        "explore": {"steps": 100},
        "label": {"type": "ase", "options": {"calculator": "ase.calculators.emt.EMT"}},
        "train": {},
    }


def problems(values, base):
    with pytest.raises(InputError) as caught:
        parse(values, base)
    return caught.value.problems


def test_minimal_input_has_sensible_defaults(values, tmp_path):
    config = parse(values, tmp_path)
    assert config.run.directory == tmp_path / "run"
    assert config.model.checkpoint == tmp_path / "parent.pt"
    assert config.train.start_from == "previous"


def test_quickstart_input_is_valid():
    assert load(QUICKSTART).workflow == "finetune"


def test_all_problems_are_reported_at_once_with_key_and_suggestion(values, tmp_path):
    values["explore"] |= {"stepz": 3, "temperatures": [-5.0]}
    values["label"]["type"] = "castep"
    values["model"]["checkpoint"] = "nowhere.pt"
    values["train"]["steps"] = "many"
    found = problems(values, tmp_path)
    text = "\n".join(found)
    assert 'explore.stepz: unknown key; did you mean "steps"?' in found
    assert "explore.temperatures[0]" in text and "-5.0" in text
    assert "label.type" in text and "'gpaw', 'ase', 'deepmd', 'teacher', 'qe'" in text
    assert f"model.checkpoint: no such file: {tmp_path / 'nowhere.pt'}" in text
    assert "train.steps" in text and "'many'" in text


def test_keys_that_need_quotes_are_named_as_written(values, tmp_path):
    values["explore"] |= {"max-steps": 3, "a b": 4}
    values["\n"] = 5
    found = problems(values, tmp_path)
    assert [line.split(": unknown key")[0] for line in found] == ["explore.max-steps", 'explore."a b"', r'"\n"']


def test_missing_section_is_named(values, tmp_path):
    del values["explore"]
    assert problems(values, tmp_path)[0].startswith("explore: missing")


@pytest.mark.parametrize(
    "section, change, said",
    [
        ("explore", {"interval": 500}, "interval 500 exceeds steps 100"),
        ("explore", {"pressures": [1000.0]}, "use npt-iso"),
        ("explore", {"engine": "ase"}, "options.calculator"),
        ("train", {"stop_lr": 0.1}, "exceeds start_lr"),
        ("label", {"options": {}}, "options.calculator"),
        ("test", {"holdout": 0.6, "validation": 0.5}, "nothing is left to train on"),
    ],
)
def test_contradictions_are_explained(values, tmp_path, section, change, said):
    values.setdefault(section, {}).update(change)
    assert said in "\n".join(problems(values, tmp_path))


@pytest.mark.parametrize(
    "select, key",
    [
        ({"method": "random", "min_gain": 0.1}, "select.min_gain"),
        ({"method": "random", "score": "sum"}, "select.score"),
        ({"method": "random", "bandwidth": 0.02}, "select.bandwidth"),
        ({"method": "random", "descriptor": {"cutoff": 4.0}}, "select.descriptor"),
        ({"method": "pfd", "min_gain": 0.1}, "select.min_gain"),
        ({"descriptor": {"type": "model", "cutoff": 4.0}}, "select.descriptor.cutoff"),
        ({"method": "pfd", "descriptor": {"type": "model", "smoothing": 0.0}}, "select.descriptor.smoothing"),
        ({"descriptor": {"type": "quests", "species_weight": 0.2}}, "select.descriptor.species_weight"),
    ],
)
def test_keys_of_a_selection_that_nothing_would_read_are_refused(values, tmp_path, select, key):
    (problem,) = problems({**values, "select": select}, tmp_path)
    assert f"{key}: " in problem


def test_keys_of_a_selection_that_follow_from_others_are_not_refused(values, tmp_path):
    for select in ({"method": "random"}, {"method": "pfd"}, {"method": "pfd", "descriptor": {"type": "model"}}):
        assert parse({**values, "select": select}, tmp_path).select.method == select["method"]


def test_systems_need_names_of_their_own(values, tmp_path):
    values["system"] *= 2
    assert "system.name" in problems(values, tmp_path)[0]


def test_broken_toml_and_missing_file(tmp_path):
    broken = tmp_path / "input.toml"
    broken.write_text("workflow = ")
    with pytest.raises(InputError, match="not valid TOML"):
        load(broken)
    with pytest.raises(InputError, match="no such input file"):
        load(tmp_path / "other.toml")


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    section=st.sampled_from(["run", "ranks", "model", "system", "explore", "select", "label", "train", "x", "test"]),
    junk=JUNK,
)
def test_junk_is_always_a_clear_error_or_accepted(section, junk):
    base = Path(__file__).parent
    try:
        parse({"workflow": "finetune", section: junk}, base)
    except InputError as error:
        assert all(":" in problem for problem in error.problems)


def test_what_may_change_between_restarts(values, tmp_path):
    import json

    before = json.loads(dump(parse(values, tmp_path)))
    values["converge"] = {"max_rounds": 99}
    values["explore"]["temperatures"] = [500.0]
    values["label"]["options"]["calculator"] = "ase.calculators.lj.LennardJones"
    changes = differences(before, json.loads(dump(parse(values, tmp_path))))
    assert {key for key, _, _ in changes} == {
        "converge.max_rounds",
        "explore.temperatures",
        "label.options.calculator",
    }
    refused = refusals(changes, "run")
    assert len(refused) == 1 and refused[0].startswith("label.options.calculator")
    assert "another run.directory" in refused[0]


def test_a_run_may_move_but_its_files_may_not_change(values, tmp_path):
    import json
    import shutil

    def resolved(folder):
        return json.loads(dump(parse(values, folder)))

    (tmp_path / "old").mkdir()
    for name in ("parent.pt", "si.vasp"):
        (tmp_path / name).rename(tmp_path / "old" / name)
    (tmp_path / "old" / "labels" / "set.000").mkdir(parents=True)
    (tmp_path / "old" / "labels" / "set.000" / "energy.npy").write_text("1")
    (tmp_path / "old" / "train.json").write_text("{}")
    (tmp_path / "old" / "teacher.pth").write_text("teacher")
    values["init"] = {"data": ["labels"]}
    values["train"] = {"deepmd": "train.json"}
    values["label"] = {"type": "deepmd", "options": {"model": "teacher.pth"}}
    before = resolved(tmp_path / "old")
    shutil.copytree(tmp_path / "old", tmp_path / "new")
    moved = differences(before, resolved(tmp_path / "new"))
    assert [key for key, _, _ in moved] == ["run.directory"] and refusals(moved, "run") == []
    named = {
        "init.data": "labels/set.000/energy.npy",
        "label.options.model": "teacher.pth",
        "model.checkpoint": "parent.pt",
        "system[0].structures": "si.vasp",
        "train.deepmd": "train.json",
    }
    for name in named.values():
        (tmp_path / "old" / name).write_text("something else")
    refused = refusals(differences(before, resolved(tmp_path / "old")), "run")
    assert [line.split(":")[0] for line in refused] == sorted(named)
    assert all("content" in line for line in refused)


def test_an_explorer_team_is_one_rank(values, tmp_path):
    values["ranks"] = {"explorer": {"teams": 2, "ranks": 2}}
    assert problems(values, tmp_path) == [
        "ranks.explorer.ranks: unknown key; an explorer is one rank; remove the key and ask for more"
        " ranks.explorer.teams"
    ]


@pytest.mark.parametrize("model, said", [("nowhere.pth", "no such file"), (3, "must be a path"), (None, "is missing")])
def test_a_teacher_that_is_not_there_is_found_at_once(values, tmp_path, model, said):
    values["label"] = {"type": "deepmd", "options": {} if model is None else {"model": model}}
    found = problems(values, tmp_path)
    assert len(found) == 1 and found[0].startswith("label") and said in found[0]


def test_a_section_with_several_contradictions_names_them_all():
    item = {"type": "value_error", "loc": ("explore",), "input": {}, "msg": "Value error, one\ntwo"}
    assert _explain(item) == ["explore: one", "explore: two"]


@pytest.mark.parametrize(
    "section, key, value, words",
    [
        ("label", "isolation", "process", "label.isolation: a teacher has none"),
        ("label", "retries", [{"a": 1}], "label.retries: a teacher has none"),
        ("train", "start_from", "parent", "train.start_from: student.warm_start"),
        ("train", "first_steps", 0, "train.first_steps: 0"),
        ("explore", "engine", "ase", "explore.engine"),
    ],
)
def test_what_a_distillation_would_not_read_is_refused(values, tmp_path, section, key, value, words):
    del values["label"]
    values |= {"workflow": "distill", "student": {"preset": "se_e2_a"}}
    values["explore"].pop("engine", None)
    values["explore"].pop("options", None)
    assert parse(values, tmp_path).label.type == "teacher"
    if value == "ase":
        values["explore"]["options"] = {"calculator": "ase.calculators.emt.EMT"}
    values.setdefault(section, {})[key] = value
    assert words in "\n".join(problems(values, tmp_path))


TEACHER = {"calculator": "ase.calculators.emt.EMT"}


def distillation(values, tmp_path, model, **sections):
    values |= {"workflow": "distill", "student": {"preset": "se_e2_a"}, "model": model, **sections}
    values.pop("label", None)
    values["explore"] = {"steps": 40, **sections.get("explore", {})}
    return parse(values, tmp_path)


def test_any_ase_calculator_is_a_teacher_that_explores_and_labels(values, tmp_path):
    from pfdhpc.config.teacher import calculator_identity, labeling

    (tmp_path / "mine").mkdir()
    config = distillation(values, tmp_path, {**TEACHER, "arguments": {"asap_cutoff": True}, "path": "mine"})
    assert config.explore.engine == "ase" and config.label.type == "teacher" and config.label.batch == 1
    assert config.explore.options["arguments"] == {"asap_cutoff": True} and config.explore.options["reuse"]
    assert config.explore.options["path"] == labeling(config).options["path"] == str(tmp_path / "mine")
    identity = calculator_identity(config.model)
    moved = config.model.model_copy(update={"path": tmp_path / "elsewhere"})
    assert calculator_identity(moved) == identity
    assert calculator_identity(config.model.model_copy(update={"arguments": {}})) != identity


def test_a_calculators_model_file_counts_by_its_content(values, tmp_path):
    from pfdhpc.config.teacher import calculator_identity, labeling

    model = {"calculator": "mace.calculators.MACECalculator", "model_argument": "model_paths", "checkpoint": "a.model"}
    identities = []
    for content in ("one", "two"):
        (tmp_path / "a.model").write_text(content)
        config = distillation(dict(values), tmp_path, model)
        identities.append(calculator_identity(config.model))
    assert identities[0] != identities[1]
    assert labeling(config).options["arguments"] == {"model_paths": str(tmp_path / "a.model")}


@pytest.mark.parametrize(
    "model, sections, problem",
    [
        ({**TEACHER, "branch": "a"}, {}, "model.branch: of a deepmd model, a calculator has none"),
        ({**TEACHER, "checkpoint": "parent.pt"}, {}, "model.model_argument: the keyword"),
        ({"checkpoint": "parent.pt", "arguments": {}}, {}, "model.arguments: only read with model.calculator"),
        ({"checkpoint": "parent.pt", "branch": "RANDOM"}, {}, "model.branch: a teacher stays as it is"),
        ({"checkpoint": "parent.pt", "type_map": ["Cu"]}, {}, "model.type_map: a teacher stays as it is"),
        (TEACHER, {"explore": {"engine": "lammps", "options": {}}}, "explore.engine: .*an ASE calculator"),
        (TEACHER, {"explore": {"options": {"calculator": "x.Y"}}}, "explore.options: the calculator is that of"),
        (TEACHER, {"init": {"frames": 9}, "select": {"descriptor": {"type": "model"}}}, "needs a deepmd model"),
    ],
)
def test_what_does_not_go_with_a_teacher_is_refused_when_it_is_read(values, tmp_path, model, sections, problem):
    with pytest.raises(InputError, match=problem):
        distillation(values, tmp_path, model, **sections)


def test_a_calculator_is_for_a_distillation_only(values, tmp_path):
    with pytest.raises(InputError, match="model.calculator: a calculator cannot be trained"):
        parse({**values, "model": TEACHER}, tmp_path)
