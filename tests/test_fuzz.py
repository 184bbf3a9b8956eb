"""Whatever is in an input file, the answer is an input that holds or clear lines, never a traceback."""

import copy
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfdhpc.cli.main import main
from pfdhpc.config import load, parse
from pfdhpc.config.schema import Config
from pfdhpc.errors import EXIT_BAD_INPUT, InputError
from pfdhpc.start.fresh_state import begin

INPUTS = sorted(path for path in (Path(__file__).parents[1] / "inputs").glob("*/input.toml"))
VALUES = {path: tomllib.loads(path.read_text()) for path in INPUTS}

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8),
    st.sampled_from(["", "nowhere", "/", "rest", "auto", "adaptive", "inf", -1, 0, 1e308, 10**30, "\0", "[bold]"]),
)  # fmt: skip
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def places(values, path=()):
    """All keys and list items of a tree, as paths."""
    items = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


@st.composite
def mutated(draw):
    """An input of the repository with a few things changed, removed, renamed or added."""
    source = draw(st.sampled_from(INPUTS))
    values = copy.deepcopy(VALUES[source])
    for _ in range(draw(st.integers(1, 4))):
        everything = list(places(values))
        if not everything:
            break
        *parents, key = draw(st.sampled_from(everything))
        holder = values
        for parent in parents:
            holder = holder[parent]
        change = draw(st.sampled_from(["change", "remove", "rename", "add"]))
        if change == "change":
            holder[key] = draw(anything)
        elif isinstance(holder, list):
            holder.append(draw(anything)) if change == "add" else holder.pop(key)
        elif change == "add":
            holder[draw(st.text(max_size=6))] = draw(anything)
        else:
            value = holder.pop(key)
            if change == "rename":
                holder[f"{key}s"] = value
    return source.parent, values


@settings(max_examples=400)
@given(mutated())
def test_mutated_inputs_are_accepted_or_explained(case):
    base, values = case
    try:
        config = parse(values, base)
    except InputError as error:
        assert error.problems and all(line.strip() and "\n" not in line for line in error.problems)
        return
    assert isinstance(config, Config)


@settings(max_examples=100)
@given(st.binary(max_size=200))
def test_any_bytes_as_an_input_file_are_explained(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("fuzz") / "input.toml"
    path.write_bytes(content)
    with pytest.raises(InputError):
        load(path)


@settings(max_examples=60)
@given(content=st.binary(max_size=300), suffix=st.sampled_from([".vasp", ".extxyz", ".cif", ".xyz", ".json", ""]))
def test_any_bytes_as_a_structure_are_explained(tmp_path_factory, content, suffix):
    base = tmp_path_factory.mktemp("fuzz")
    (base / f"start{suffix}").write_bytes(content)
    (base / "model.pt").write_bytes(b"no model")
    values = copy.deepcopy(VALUES[INPUTS[-1]])
    values["model"] = {"checkpoint": "model.pt"}
    values["system"] = [{"name": "any", "structures": [f"start{suffix}"]}]
    try:
        begin(parse(values, base), ())
    except InputError as error:
        assert all("\n" not in line for line in error.problems)


@pytest.mark.parametrize("command", [["check"], ["plan", "-n", "4"], ["where"], ["status"], ["export"]])
def test_commands_on_what_is_not_there_say_so(command, tmp_path, capsys):
    name, *options = command
    extra = [str(tmp_path / "out")] if name == "export" else []
    assert main([name, str(tmp_path / "nowhere"), *extra, *options]) == EXIT_BAD_INPUT
    said = capsys.readouterr()
    assert "nowhere" in said.err + said.out and "Traceback" not in said.err


def test_a_model_that_is_none_is_explained(tmp_path):
    from pfdhpc.start.input_checks import model_facts

    path = tmp_path / "model.pt"
    for content in (b"", b"PK\x03\x04 torn", bytes(range(256)) * 10):
        path.write_bytes(content)
        section = parse({**VALUES[INPUTS[-1]], "model": {"checkpoint": str(path)}}, INPUTS[-1].parent).model
        problems, type_map = model_facts(section)
        assert problems and type_map == () and all("\n" not in line for line in problems)
