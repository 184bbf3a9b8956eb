"""``pfdhpc docs``: the manual. Its pages are Markdown files of the package; the input reference is made on the spot."""

import argparse
import difflib
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown

from ..errors import EXIT_COMPLETE, InputError, StoreError
from ..log import console
from .schema import heading
from .schema_keys import Part, parts

REFERENCE = "input"
"""The page that is made from the models of the input."""
STYLE = (
    "body{max-width:50em;margin:2em auto;padding:0 1em;font:16px/1.5 sans-serif}"
    "table{border-collapse:collapse}td,th{border:1px solid #bbb;padding:.2em .5em;text-align:left;vertical-align:top}"
    "pre{background:#f4f4f4;padding:.6em;overflow:auto}code{background:#f4f4f4}"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("page", nargs="?", metavar="PAGE", help="a page; without it, the list of them")
    text = "write PAGE there as HTML instead, without PAGE all of them"
    parser.add_argument("--html", type=Path, metavar="DIR", help=text)


def docs(options: argparse.Namespace) -> int:
    """Show a page, the list, or write all; raises InputError for a page that does not exist."""
    if options.html:
        _write_html(options.html, [options.page] if options.page else pages())
        return EXIT_COMPLETE
    if options.page is None:
        for name in pages():
            console.print(f"  [bold]{name:<18}[/]{_title(name)}")
        console.print("\npfdhpc docs PAGE shows one (begin with concepts); pfdhpc docs --html DIR writes all as HTML")
        return EXIT_COMPLETE
    _show(source(options.page))
    return EXIT_COMPLETE


def pages() -> list[str]:
    """Names of all pages, by title."""
    found = [path.name.removesuffix(".md") for path in files("pfdhpc").joinpath("docs").iterdir()]
    return sorted([*(name for name in found if not name.startswith((".", "_"))), REFERENCE])


def source(name: str) -> str:
    """A page as Markdown; raises InputError, with the nearest names, when there is none."""
    known = pages()
    if name not in known:
        near = difflib.get_close_matches(name, known, 1, 0.5)
        raise InputError(
            f"docs: there is no page {name!r}; "
            + (f"did you mean {near[0]}?" if near else f"pages: {', '.join(known)}")
        )
    if name == REFERENCE:
        return reference(parts())
    return files("pfdhpc").joinpath("docs", f"{name}.md").read_text(encoding="utf-8")


def reference(found: Iterable[Part]) -> str:
    """Every key of the input, as Markdown."""
    lines = ["# Input reference", "", "Made from the program itself; `pfdhpc schema` shows the same as tables."]
    for part in found:
        if part.keys:
            lines += ["", f"## `{heading(part.name)}`", "", part.about, ""]
            lines += ["| key | type | unit | default | meaning |", "|---|---|---|---|---|"]
            for key in part.keys:
                cells = f"`{key.name.rpartition('.')[2]}`", key.type, key.unit, f"`{key.default}`", key.meaning
                lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _title(name: str) -> str:
    return source(name).splitlines()[0].lstrip("# ")


def _show(text: str) -> None:
    """On a terminal in its pager, else plainly."""
    page = Markdown(text)
    if console.is_terminal:
        with console.pager(styles=True):
            console.print(page)
    else:
        Console(width=110).print(page)


def _write_html(folder: Path, names: Sequence[str]) -> None:
    """Pages, each with links to the others that are written; raises InputError, StoreError."""
    from markdown_it import MarkdownIt

    render = MarkdownIt("commonmark", {"html": False}).enable("table").render
    texts = {name: source(name) for name in names}
    links = " · ".join(f'<a href="{name}.html">{name}</a>' for name in names if len(names) > 1)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            head = f'<!doctype html><meta charset="utf-8"><title>pfdhpc: {_title(name)}</title><style>{STYLE}</style>'
            target = folder / f"{name}.html"
            target.write_text(f"{head}<nav>{links}</nav>\n{render(text)}", encoding="utf-8")
    except OSError as error:
        raise StoreError(f"docs --html: {folder} cannot be written: {error.strerror}") from None
    console.print(", ".join(str(folder / f"{name}.html") for name in names), markup=False, soft_wrap=True)
