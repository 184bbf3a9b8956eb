"""``pfdhpc schema``: every key of the input, from the models themselves."""

import argparse
import difflib
import json
from typing import Any

from rich.markup import escape
from rich.table import Table

from ..errors import EXIT_COMPLETE, InputError
from ..log import console
from .schema_keys import Part, parts


def add_arguments(parser: argparse.ArgumentParser) -> None:
    where = "only this section or key, e.g. explore, select.filter, explore.timestep"
    parser.add_argument("section", nargs="?", metavar="SECTION", help=where)
    parser.add_argument("--json", action="store_true", help="the whole input as JSON schema, for editors")


def schema(options: argparse.Namespace) -> int:
    """Print it; raises InputError for a section that does not exist."""
    if options.json:
        if options.section:
            raise InputError("schema --json: the schema is one of a whole input; leave out the section")
        print(json.dumps(json_schema(), indent=1, ensure_ascii=False))
        return EXIT_COMPLETE
    for part in chosen(options.section):
        if part.keys:
            console.print(_table(part))
    return EXIT_COMPLETE


def json_schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of an input; a label section may be missing, a distillation has its own."""
    from ..config import Config

    found = Config.model_json_schema()
    found["required"] = [name for name in found["required"] if name != "label"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}


def chosen(name: str | None) -> list[Part]:
    """The sections, or the key, of a name with everything below it; raises InputError when there is none."""
    everything = list(parts())
    if name is None:
        return everything
    name = name.strip("[]")
    found = [part for part in everything if part.name and f"{_bare(part.name)}.".startswith(f"{name}.")]
    if found:
        return found
    for part in everything:
        if keys := tuple(key for key in part.keys if _bare(key.name) == name):
            return [Part(part.name, part.about, keys)]
    names = [_bare(part.name) for part in everything if part.name]
    names += [_bare(key.name) for part in everything for key in part.keys]
    near = difflib.get_close_matches(name, names, 3, 0.5) or [known for known in names if known.endswith(f".{name}")]
    sections = ", ".join(other for other in names if "." not in other)
    raise InputError(
        f"schema: there is no section or key {name!r}; "
        + (f"did you mean {' or '.join(near)}?" if near else f"sections: {sections}")
    )


def heading(name: str) -> str:
    """How a section begins in the file: ``[run]``, ``[[system]]``."""
    if not name:
        return "outside of any section"
    return f"[[{_bare(name)}]]" if name.endswith("[]") else f"[{_bare(name)}]"


def _bare(name: str) -> str:
    return name.replace("[]", "")


def _table(part: Part) -> Table:
    title = f"[bold]{escape(heading(part.name))}[/]  {escape(part.about)}"
    table = Table(title=title, title_justify="left", title_style="", show_lines=False, expand=True)
    for name, ratio in (("key", None), ("type", 3), ("unit", None), ("default", 2), ("meaning", 6)):
        table.add_column(name, ratio=ratio, overflow="fold", no_wrap=ratio is None)
    for key in part.keys:
        short = key.name.rpartition(".")[2]
        default = "[yellow]required[/]" if key.required else escape(key.default)
        table.add_row(f"[bold]{short}[/]", escape(key.type), key.unit, default, escape(key.meaning))
    return table
