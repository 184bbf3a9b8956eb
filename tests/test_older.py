"""A run that an older pfdhpc began goes on: keys that did not exist then stand for what was done."""

import json

from toys import make_config

from pfdhpc.config import dump
from pfdhpc.config.older_inputs import completed
from pfdhpc.config.restart_changes import differences, refusals


def without(values, path):
    """A copy less one key."""
    values = json.loads(json.dumps(values))
    *sections, key = path.split(".")
    inner = values
    for name in sections:
        inner = inner[0] if isinstance(inner, list) else inner[name]
    del (inner[0] if isinstance(inner, list) else inner)[key]
    return values


def test_keys_and_sections_that_were_unknown_then_are_no_change(tmp_path):
    now = json.loads(dump(make_config(tmp_path)))
    assert completed(now) == now
    for path in ("train.bias", "label.virial", "overlap", "run.overdue", "explore.guard", "student"):
        old = without(now, path)
        assert differences(completed(old), now) == [], path


def test_what_differs_is_still_refused(tmp_path):
    now = json.loads(dump(make_config(tmp_path)))
    old = without(now, "train.bias")
    changed = {**now, "train": {**now["train"], "bias": "none" if now["train"]["bias"] != "none" else "align"}}
    assert "train.bias" in refusals(differences(completed(old), changed), "run")[0]
