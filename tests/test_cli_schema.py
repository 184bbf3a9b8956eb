"""``pfdhpc schema`` and ``pfdhpc docs``: what they say is what the program reads."""

import json
import re
from pathlib import Path

import pytest

from pfdhpc.cli.docs import pages, source
from pfdhpc.cli.main import NAMES, main
from pfdhpc.cli.schema_keys import all_keys, parts, toml
from pfdhpc.config import Config

PACKAGE = Path(__file__).parents[1] / "pfdhpc"
EXAMPLES = sorted(PACKAGE.parent.glob("inputs/*/input.toml"))


def test_every_key_has_a_type_and_a_meaning():
    keys = all_keys()
    assert len(keys) > 80 and {"workflow", "explore.timestep", "system[].name", "select.filter.max_skew"} <= keys.keys()
    assert not [key.name for key in keys.values() if not key.meaning or not key.type]


@pytest.mark.parametrize(
    "name, kind, unit, default",
    [
        ("explore.timestep", "number > 0", "fs", "1.0"),
        ("explore.guard.min_distance", "number > 0", "Å", "0.6"),
        ("explore.ensemble", '"nve" or "nvt" or', "", '"nvt"'),
        ("explore.pressures", "list of number", "bar", "[0.0]"),
        ("select.min_gain", "number", "nats", "0.0"),
        ("converge.force_rmse", "number > 0", "eV/Å", "none"),
        ("run.time_limit", "number > 0", "seconds", "none"),
        ("train.start_lr", "number > 0", "", "0.001"),
        ("test.holdout", "number ≥ 0 and < 1", "", "0.15"),
        ("model.checkpoint", "path", "", "none"),
    ],
)
def test_type_unit_and_default_are_those_of_the_models(name, kind, unit, default):
    key = all_keys()[name]
    assert key.type.startswith(kind) and (key.unit, key.default) == (unit, default)


def test_values_are_written_as_in_an_input():
    import tomllib

    values = {"a": 1e-5, "b": True, "c": "x", "d": [1, 2.5], "e": {"f": False}, "g": {}, "h": 86400.0}
    text = "\n".join(f"{name} = {toml(value)}" for name, value in values.items())
    assert tomllib.loads(text) == values


def test_a_section_or_a_key_is_shown_alone(capsys):
    assert main(["schema", "explore.guard"]) == 0
    shown = capsys.readouterr().out
    assert "max_temperature" in shown and "timestep" not in shown
    assert main(["schema", "explore.timestep"]) == 0
    shown = capsys.readouterr().out
    assert "timestep" in shown and "ensemble" not in shown
    assert main(["schema", "system"]) == 0
    assert "[[system]]" in capsys.readouterr().out


@pytest.mark.parametrize(
    "wrong, near", [("explorer", "explore"), ("timestep", "explore.timestep"), ("xyz", "sections:")]
)
def test_an_unknown_section_brings_the_nearest(wrong, near, capsys):
    assert main(["schema", wrong]) == 2
    assert near in capsys.readouterr().err


def test_the_json_schema_is_of_the_whole_input(capsys):
    assert main(["schema", "--json"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert set(Config.model_fields) == set(schema["properties"]) and "label" not in schema["required"]
    assert main(["schema", "explore", "--json"]) == 2


def test_the_manual_lists_and_shows_its_pages(capsys):
    assert main(["docs"]) == 0
    listed = capsys.readouterr().out
    assert {"concepts", "finetune", "distill", "clusters", "troubleshooting", "plugins", "input"} <= set(pages())
    for name in pages():
        assert name in listed and main(["docs", name]) == 0
        assert len(capsys.readouterr().out) > 500
    assert main(["docs", "cluster"]) == 2
    assert "did you mean clusters?" in capsys.readouterr().err


def test_every_workflow_has_a_page():
    assert set(Config.model_fields["workflow"].annotation.__args__) <= set(pages())


def test_the_manual_as_html(tmp_path):
    assert main(["docs", "--html", str(tmp_path / "out")]) == 0
    for name in pages():
        text = (tmp_path / "out" / f"{name}.html").read_text()
        assert "<h1>" in text and 'href="concepts.html"' in text
    assert "<table>" in (tmp_path / "out" / "input.html").read_text()


def test_the_reference_has_every_key():
    text = source("input")
    assert not [name for name in all_keys() if f"| `{name.rpartition('.')[2]}` |" not in text]
    assert all(f"[{part.name.replace('[]', '')}]" in text for part in parts() if part.name and part.keys)


def test_keys_and_commands_that_pages_name_exist():
    known = {name.replace("[]", "") for name in all_keys()} | {part.name.replace("[]", "") for part in parts()}
    sections = {name.partition(".")[0] for name in known if "." in name}
    for page in pages():
        text = source(page)
        named = re.findall(r"`\[?([a-z_]+(?:\.[a-z_]+)+)\]?[`= ]", text)
        assert not [
            name
            for name in named
            if name.partition(".")[0] in sections
            and name not in known
            and not name.startswith(("label.options.", "explore.options."))
            and not name.endswith((".pt", ".pth", ".ckpt"))  # a file
        ], page
        assert not [name for name in re.findall(r"`pfdhpc ([a-z][a-z-]+)", text) if name not in NAMES], page


def test_messages_that_the_manual_explains_are_said_by_the_program():
    said = "\n".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    said += "\n".join(path.read_text() for path in (PACKAGE.parent / "jobscripts").glob("*.sh"))
    rows = re.findall(r"^\| `([^`]+)` \|", source("troubleshooting"), re.MULTILINE)
    pieces = {row: [piece.strip() for piece in row.split("…") if piece.strip()] for row in rows}
    assert len(rows) > 40
    assert not [row for row, parts_ in pieces.items() if not all(piece in said for piece in parts_)]
