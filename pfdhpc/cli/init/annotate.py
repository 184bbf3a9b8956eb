"""Comments for an input file, taken from the models that read it."""

import re
import textwrap
from collections.abc import Iterator

from ..schema_keys import all_keys, parts

WIDTH = 118
HEADER = re.compile(r"^(\[\[?)([\w.]+)\]\]?\s*$")
ENTRY = re.compile(r"^([\w.]+)\s*=")


def annotated(text: str) -> str:
    """``text`` (TOML) with what every section and key mean; a line with a comment of its own keeps that one."""
    about = {part.name: part.about.splitlines()[0] for part in parts() if part.about}
    meanings = {name: key.meaning for name, key in all_keys().items()}
    section, lines, seen = "", [], set()
    for line in text.splitlines():
        if header := HEADER.match(line):
            section = header[2].removeprefix("distill.") + ("[]" if header[1] == "[[" else "")
            if section in about and section not in seen:
                lines += _above(about[section])
            seen.add(section)
        if entry := ENTRY.match(line):
            name = f"{section}.{entry[1]}" if section else entry[1]
            lines += _commented(line, "" if name in seen else meanings.get(name, ""))
            seen.add(name)  # of several [[system]], the first one explains
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"


def _commented(line: str, meaning: str) -> Iterator[str]:
    if not meaning or "  # " in line:
        yield line
    elif len(line) + len(meaning) + 4 <= WIDTH:
        yield f"{line}  # {meaning}"
    else:
        yield from _above(meaning)
        yield line


def _above(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text.replace("`", ""), WIDTH - 2)]
