"""The level of theory: what changes the numbers of a label, as one hash, and the options of an attempt."""

import json
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import Any

from ...config.label import LabelSection


def level_hash(section: LabelSection) -> str:
    """16 hex digits over the type, the options and whether there is a virial.

    Not in it: the time-out, and the ladder of retries, which must hold numerical aids only (a mixer,
    more iterations), never other physics: a label found on the third attempt has the same level as
    one found on the first. Files enter with their content, folders not at all: moving a run changes nothing.
    """
    options = {key: value for key, value in section.options.items() if key != "path"}
    if section.type == "deepmd":
        with Path(options["model"]).open("rb") as file:
            options["model"] = file_digest(file, "sha256").hexdigest()
    text = json.dumps([section.type, options, section.virial], sort_keys=True, default=str)
    return blake2b(text.encode(), digest_size=8).hexdigest()


def merged(options: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """``options`` with ``changes`` put in, table by table, e.g. only ``mode.ecut`` of a GPAW input."""
    result = dict(options)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result
