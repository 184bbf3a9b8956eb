"""An input of another program on its way to one of pfdhpc; what is called mapped there has been read."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MAPPED, IGNORED, LACKING = "mapped", "ignored", "no equivalent"
EDIT = "EDIT-ME"
UNNAMED = {"level": EDIT}
"""Options of an offline labeler, whose level of theory `pfdhpc check` asks for."""
Aliases = Mapping[str, Mapping[str, tuple[str, ...]]]
"""By table (``[]`` for any place in a list) and key: the other names the program knows it by, the first one first."""


@dataclass
class Translation:
    """An input on its way: ``source`` as it was read, ``values`` as pfdhpc has them, by key what became of it.

    A key is addressed by its path, as in ``exploration.stages[0][1].dt``. :meth:`read` alone makes it "mapped".
    """

    source: dict[str, Any]
    folder: Path  # of the source, from which its paths start
    target: Path  # folder of the result, from which its paths start
    values: dict[str, Any] = field(default_factory=dict)
    fates: dict[str, tuple[str, str]] = field(default_factory=dict)
    edits: dict[str, str] = field(default_factory=dict)  # by key of the result: what is left to settle there
    names: dict[str, str] = field(default_factory=dict)  # by path: the alias it was given by
    program: str = ""

    def get(self, key: str, default: Any = None) -> Any:
        """Look at a value without translating it."""
        found: Any = self.source
        for part in _parts(key):
            if isinstance(found, Mapping) and part in found:
                found = found[part]
            elif isinstance(found, list) and part.startswith("[") and int(part[1:-1]) < len(found):
                found = found[int(part[1:-1])]
            else:
                return default
        return default if found is None else found

    def read(self, key: str, text: str, default: Any = None) -> Any:
        """Take a value, and all below it, for what ``text`` says it becomes."""
        value = self.get(key)
        if value is None:
            return default
        self.fates[key] = MAPPED, text
        return value

    def put(self, key: str, value: Any, edit: str = "") -> None:
        """Set a key of the result; ``edit``: what the user must look at."""
        *sections, name = key.split(".")
        table = self.values
        for section in sections:
            table = table.setdefault(section, {})
        table[name] = value
        if edit:
            self.edits[key] = edit

    def move(self, key: str, target: str, change: Callable[[Any], Any] = lambda value: value, why: str = "") -> None:
        """Map a key, if it is there; where ``change`` returns None it has no equivalent, for the reason ``why``."""
        value = self.get(key)
        if value is None:
            return
        changed = change(value)
        if changed is None:
            self.lack(key, why)
        else:
            self.put(target, changed)
            self.read(key, target)

    def ignore(self, key: str, why: str) -> None:
        self.fates.setdefault(key, (IGNORED, why))

    def lack(self, key: str, remedy: str) -> None:
        self.fates.setdefault(key, (LACKING, remedy))

    def path(self, text: str, prefix: str | None = None) -> str:
        """A path of the source as one of the result."""
        path = Path(prefix or "") / text
        if path.is_absolute() or self.folder == self.target:
            return str(path)
        return str(self.folder / path)

    def paths(self, value: Any, prefix: str | None = None) -> list[str]:
        """A path or a list of them."""
        return [self.path(item, prefix) for item in ([value] if isinstance(value, str) else value)]

    def rename(self, aliases: Aliases) -> None:
        """Give every key its main name. Where several are given, the one the program takes stays: dargs' first."""
        for place, table in _tables(self.source):  # the inner ones are found by their new names
            for name, others in aliases.get(re.sub(r"\[\d+\]", "[]", place), {}).items():
                given = [other for other in others if other in table]
                if name in table or not given:
                    continue
                items = [(name if key == given[0] else key, value) for key, value in table.items()]
                table.clear()
                table.update(items)
                self.names[_join(place, name)] = self.names.pop(_join(place, given[0]), given[0])

    def hoist(self, place: str, key: str) -> None:
        """Move what is in the table ``key`` of the one at ``place`` up into that one."""
        table = self.get(place)
        inner = table.get(key)
        if isinstance(inner, dict):
            del table[key]
            self.names |= {_join(place, name): _join(key, name) for name in inner.keys() - table.keys()}
            table.update({name: value for name, value in inner.items() if name not in table})

    def told(self) -> list[tuple[str, str, str]]:
        """A row for each key of the source: itself as it was given, what became of it, and where or why."""
        return [(self._given(key), *self._fate(key, value)) for key, value in leaves(self.source)]

    def _fate(self, key: str, value: Any) -> tuple[str, str]:
        parts = _parts(key)
        if any(part.startswith("_") or part == "comment" for part in parts):
            return IGNORED, "a comment"
        if value is None or value == [] or value == {}:
            return IGNORED, "empty"
        found = (self.fates.get(_path(parts[:n])) for n in range(len(parts), 0, -1))
        unknown = f"unknown: not a key of {self.program} that is read anywhere; misspelt?"
        return next((fate for fate in found if fate), (LACKING, unknown))

    def _given(self, key: str) -> str:
        parts = _parts(key)
        return _path([self.names.get(_path(parts[: n + 1]), part) for n, part in enumerate(parts)])


def leaves(values: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every value below with its path; a list is one value unless there is a table somewhere in it."""
    if isinstance(values, dict) and values:
        items = [(_join(key, name), value) for name, value in values.items()]
    elif isinstance(values, list) and _holds_table(values):
        items = [(f"{key}[{place}]", value) for place, value in enumerate(values)]
    else:
        yield key, values
        return
    for path, value in items:
        yield from leaves(value, path)


def _holds_table(value: Any) -> bool:
    return isinstance(value, dict) or isinstance(value, list) and any(_holds_table(item) for item in value)


def _tables(value: Any, place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every table with its path, the outer ones first, so that their keys may be renamed meanwhile."""
    if isinstance(value, dict):
        yield place, value
        for key, inner in value.items():
            yield from _tables(inner, _join(place, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _tables(inner, f"{place}[{number}]")


def _join(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key


def _parts(key: str) -> list[str]:
    return key.replace("[", ".[").split(".")


def _path(parts: list[str]) -> str:
    return ".".join(parts).replace(".[", "[")
