"""The level of theory: what changes the numbers of a label, as one hash, and the options of an attempt."""

import json
from dataclasses import dataclass, field
from hashlib import blake2b, file_digest
from pathlib import Path

from ...config.label import EXTERNAL, PATHS, LabelSection, merged
from .programs import program_class


@dataclass(frozen=True)
class Levels:
    """The levels of theory of a run: one for all systems, but for those with options of their own."""

    common: str
    own: dict[str, str] = field(default_factory=dict)  # by system

    def of(self, system: str) -> str:
        return self.own.get(system, self.common)

    def __iter__(self):
        return iter({self.common, *self.own.values()})


def levels_of(section: LabelSection) -> Levels:
    """The hashes of the levels of theory; raises InputError if a program refuses its options."""
    return Levels(level_hash(section), {system: level_hash(section, system) for system in section.systems})


def level_hash(section: LabelSection, system: str = "") -> str:
    """16 hex digits over the type, the options and whether there is a virial.

    Not in it: the time-out, how a program is launched, and the ladder of retries, which must hold numerical
    aids only (a mixer, more iterations), never other physics: a label found on the third attempt has the same
    level as one found on the first. Files enter with their content, folders not at all: moving a run changes
    nothing. Raises InputError if a program refuses its options.
    """
    options = merged(section.options, section.systems.get(system, {}))
    if section.type in EXTERNAL:
        files = program_class(section.type)(options, section.virial).files()
        options = {key: value for key, value in options.items() if key not in PATHS[section.type]} | files
    for key in ("path", "reuse") if section.type == "ase" else ():
        options.pop(key, None)
    if section.type == "offline":
        options.pop("wait", None)
    if section.type == "deepmd":
        with Path(options["model"]).open("rb") as file:
            options["model"] = file_digest(file, "sha256").hexdigest()
    text = json.dumps([section.type, options, section.virial], sort_keys=True, default=str)
    return blake2b(text.encode(), digest_size=8).hexdigest()


OWN = "[label]"
"""How :func:`in_words` begins for levels that the run's own labels are of."""


def in_words(level: str) -> str:
    """A level of theory as its user knows it: where its labels came from."""
    kind, _, name = level.partition("-")
    places = {"given": "init.data", "test": "test.data", "imported": "the imported data"}
    if kind in places:
        return f"{places[kind]} ({name})"
    return "the teacher" if kind == "teacher" else f"{OWN} (level {level[:8]})"
