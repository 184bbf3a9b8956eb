"""The report of a run: one HTML file with everything in it, readable on paper."""

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .run_data import RunData


@dataclass(frozen=True, eq=False)
class Figure:
    """A picture; ``name`` is its file name without the ending."""

    name: str
    png: bytes
    caption: str
    narrow: bool = False

    @property
    def source(self) -> str:
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


@dataclass(frozen=True, eq=False)
class Table:
    """Cells as text; columns after the first are figures, unless they are ``words``."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    words: bool = False


@dataclass(frozen=True)
class Entry:
    """A line of a list, with an address where there is one."""

    text: str
    link: str = ""


@dataclass
class Section:
    title: str
    text: list[str] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    details: list[tuple[str, str]] = field(default_factory=list)  # summary, and what unfolds

    @property
    def anchor(self) -> str:
        return "-".join(self.title.lower().split())


@dataclass(frozen=True)
class Tile:
    """A figure that is seen first."""

    value: str
    label: str


def page(run: RunData, verdict: str, tiles: Sequence[Tile], sections: Sequence[Section]) -> str:
    """The report as HTML. ``verdict``: where the run stands, in a sentence."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("pfdhpc.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    template = environment.get_template("report.html")
    good = run.complete and run.state["ended"] in ("converged", "saturated")
    return template.render(run=run, verdict=verdict, good=good, tiles=tiles, sections=sections)


def write_pictures(folder: Path, sections: Iterable[Section]) -> list[Path]:
    """The pictures as files of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for figure in (figure for section in sections for figure in section.figures):
        paths.append(folder / f"{figure.name}.png")
        paths[-1].write_bytes(figure.png)
    return paths


def number(value: Any, digits: int = 3, scale: float = 1.0) -> str:
    """So many significant digits; a dash for what is not known."""
    if value is None or value != value:
        return "–"
    return f"{scale * value:.{digits}g}" if isinstance(value, float) else f"{value}"


NOT_LABELLED = "not labelled"
NOT_DETERMINED = "not determined"
"""In the place of an error that cannot be, as no label has the quantity (a virial)."""


def error(value: float | None, scale: float = 1.0, digits: int | None = None, what: str = "") -> str:
    """An error to three significant digits, or so many decimals; what no label has or determines is said to be that."""
    if value is None or value != value:
        return NOT_DETERMINED if what == "energy" else NOT_LABELLED
    return number(scale * value) if digits is None else f"{scale * value:.{digits}f}"
