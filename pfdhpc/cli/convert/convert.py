"""``pfdhpc convert``: an input of DP-GEN simplify or PFD-kit as one of pfdhpc, and what became of each of its keys."""

import argparse
import json
import math
import sys
from copy import deepcopy
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from ...errors import EXIT_COMPLETE, InputError, StoreError
from ...log import console
from .translation import IGNORED, LACKING, MAPPED, Translation

EXPLORATION = ("exploration", "explore")
CONFIGURATIONS = ("conf_generation", "configurations", "configuration")
"""Names that PFD-kit has had for these sections."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="simplify.json of DP-GEN, or PFD-kit's input")
    parser.add_argument("-o", "--output", type=Path, metavar="INPUT", help="file to write; default: to the terminal")
    parser.add_argument("--force", action="store_true", help="replace a file that is there")


def convert(options: argparse.Namespace) -> int:
    """Write the input and say what became of each key; raises InputError."""
    if options.output and options.output.exists() and not options.force:
        raise InputError(f"convert: {options.output} is there already; give --force, or another file by -o")
    target = options.output.parent if options.output else Path(".")
    done = translated(read_source(options.file), options.file.parent.resolve(), target.resolve())
    text = input_text(done, options.file.name)
    if options.output is None:
        sys.stdout.write(text)
        return EXIT_COMPLETE
    try:
        options.output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StoreError(f"convert: {options.output} cannot be written: {error.strerror}") from None
    _show(done, options.output)
    return EXIT_COMPLETE


def read_source(path: Path) -> dict[str, Any]:
    """A JSON file, in which lines that begin with # are left out; raises InputError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        values = json.loads("\n".join("" if line.lstrip().startswith("#") else line for line in lines))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"convert: {path}: cannot be read as JSON: {error}") from None
    if not isinstance(values, dict):
        raise InputError(f"convert: {path}: not a table of keys")
    return values


def translated(source: dict[str, Any], folder: Path, target: Path) -> Translation:
    """The translation by the program the keys are those of; raises InputError for any other."""
    done = Translation(deepcopy(source), folder, target)
    if "pick_data" in source:
        work = "dpgen:simplify"
    elif "task" in source and any(name in source for name in CONFIGURATIONS):
        work = "pfd_kit:older"
    elif "task" in source and any(name in source for name in EXPLORATION):
        work = "pfd_kit:newer"
    else:
        raise InputError(
            "convert: neither an input of DP-GEN simplify (it has pick_data) nor of PFD-kit (task and exploration);"
            f" keys here: {', '.join(sorted(source)[:12])}"
        )
    module, name = work.split(":")
    try:
        getattr(import_module(f".{module}", __package__), name)(done)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"convert: a value is not of the kind its program expects: {error}") from error
    return done


def input_text(done: Translation, name: str) -> str:
    """The result as TOML: single values first, then the sections."""
    lines = [f"# Made by pfdhpc convert from {name}. Units: Å, eV, eV/Å, fs, K, bar, seconds."]
    if done.edits:
        lines.append("# Lines with EDIT are yours to settle; then: pfdhpc check")
    values = done.values
    lines += [f"{key} = {toml(item)}" for key, item in values.items() if not isinstance(item, dict | list | None)]
    for key, item in values.items():
        for place, table in _tables(key, item):
            given = [(inner, value) for inner, value in table.items() if value is not None]
            lines += ["", f"[[{key}]]" if isinstance(item, list) else f"[{key}]"]
            lines += [_line(done, f"{place}.{inner}", inner, value) for inner, value in given]
    lacking = [(key, text) for key, fate, text in done.told() if fate == LACKING]
    lines += ["", "# Keys without an equivalent here:"] if lacking else []
    lines += [f"# {' '.join(key.split())}: {' '.join(text.split())}" for key, text in lacking]
    return "\n".join(lines) + "\n"


def _tables(key: str, item: Any) -> list[tuple[str, dict[str, Any]]]:
    """The tables a section of the result is written as, with their paths."""
    if isinstance(item, list):
        return [(f"{key}[{place}]", table) for place, table in enumerate(item)]
    return [(key, item)] if isinstance(item, dict) else []


def _line(done: Translation, key: str, name: str, value: Any) -> str:
    edits = [text for place, text in done.edits.items() if place == key or place.startswith(f"{key}.")]
    return f"{_bare(name)} = {toml(value)}" + (f"  # EDIT: {'; '.join(edits)}" if edits else "")


def toml(value: Any) -> str:
    """A value, exactly; tables in one line. What is null has no place in TOML and is left out."""
    if isinstance(value, dict):
        items = [f"{_bare(key)} = {toml(item)}" for key, item in value.items() if item is not None]
        return f"{{ {', '.join(items)} }}" if items else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(toml(item) for item in value if item is not None)}]"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # nan, inf, -inf
    return json.dumps(value, ensure_ascii=False)


def _bare(key: str) -> str:
    return key if key.isascii() and key.replace("-", "_").isidentifier() else json.dumps(key, ensure_ascii=False)


def _show(done: Translation, output: Path) -> None:
    rows = done.told()
    table = Table("key", "", "to, or why", title=f"{len(rows)} keys", title_justify="left")
    for key, fate, text in sorted(rows, key=lambda row: (MAPPED, IGNORED, LACKING).index(row[1])):
        table.add_row(Text(key), fate, Text(text), style="yellow" if fate == LACKING else "")
    console.print(table)
    for key, text in done.edits.items():
        console.print(f"EDIT {key}: {text}", markup=False)
    console.print(f"wrote {output}; next: pfdhpc check {output}", markup=False)
