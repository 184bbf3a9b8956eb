"""CP2K's input: sections in sections, with keywords, as ASE reads them."""

import re
from pathlib import Path
from typing import Any

from ....errors import InputError


def read_template(path: Path) -> Any:
    """The sections of an input. Raises InputError for what cannot be read or hides part of the input."""
    from ase.calculators.cp2k import parse_input

    lines = [re.split("[!#]", line)[0].strip() for line in path.read_text(errors="replace").splitlines()]
    if any(line.startswith("@") or "$" in line for line in lines):
        raise InputError(
            f"label.options.template: {path} has directives or variables (@SET, @INCLUDE, $NAME); write out what "
            "they stand for, so that the level of theory is in one file"
        )
    begun = sum(line.startswith("&") and not line.upper().startswith("&END") for line in lines)
    ended = sum(line.upper().startswith("&END") for line in lines)
    if begun != ended or not begun:
        raise InputError(f"label.options.template: {path} begins {begun} sections (&NAME) and ends {ended} (&END)")
    return parse_input("\n".join(lines))


def find(section: Any, path: str) -> list[Any]:
    """All sections of a path."""
    name, _, rest = path.partition("/")
    found = [one for one in section.subsections if one.name == name]
    return [inner for one in found for inner in find(one, rest)] if rest else found


def values(root: Any, path: str, keyword: str) -> list[str]:
    """What a keyword is set to, wherever it is given."""
    lines = [line.split(maxsplit=1) for section in find(root, path) for line in section.keywords]
    return [words[1].strip() for words in lines if words[0].upper() == keyword and len(words) > 1]


def set_keyword(root: Any, path: str, line: str) -> list[str]:
    """Set a keyword of a section, in place of what was there; the problem of doing so."""
    names = path.split("/")
    doubled = [name for n, name in enumerate(names, 1) if len(find(root, "/".join(names[:n]))) > 1]
    if doubled:
        return [f"label.options.template: {path}: there is more than one &{doubled[0]}"]
    section, keyword = root.get_subsection(path), line.split()[0]
    section.keywords = [old for old in section.keywords if old.split()[0].upper() != keyword] + [line]
    return []


def print_to_file(root: Any, name: str) -> list[str]:
    """Let a quantity be printed to a file of its name, whatever the template says of it."""
    problems = set_keyword(root, f"FORCE_EVAL/PRINT/{name}", f"FILENAME {name}")
    if not problems:
        section = root.get_subsection(f"FORCE_EVAL/PRINT/{name}")
        section.params, section.keywords = "ON", [f"FILENAME {name}"]
    return problems
