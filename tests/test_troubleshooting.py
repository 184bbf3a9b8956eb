"""The page of troubleshooting is complete: a message says itself what to do, or the page does.

Messages about the input (InputError) always do: ``section.key: what is wrong; what to do``. Those of tasks, labels
and files are raised deep inside and may only say what happened; then the page has them.
"""

import ast
import re
from pathlib import Path

from pfdhpc.cli.docs import source

PACKAGE = Path(__file__).parents[1] / "pfdhpc"
KINDS = {"TaskError", "LabelError", "StoreError", "NoCrystal"}
INNER = {
    "no model is loaded; load_models comes first",
    "only labelled frames can train",
    "must be compared with the plain one",
}
"""What only a mistake in pfdhpc itself can bring about."""


def constant(node):
    """The text of a message, with … for what differs."""
    match node:
        case ast.Constant(value=str()):
            return node.value
        case ast.JoinedStr():
            return "".join(constant(value) for value in node.values)
        case ast.BinOp():
            return constant(node.left) + constant(node.right)
    return "…"


def messages():
    """``(file, text)`` of all that are raised as one of :data:`KINDS`, or are reasons of rejected frames."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Raise(exc=ast.Call(func=ast.Name(id=name), args=[first, *_])) if name in KINDS:
                    yield path.relative_to(PACKAGE), constant(first)


def explained():
    """The messages of the page, as patterns."""
    rows = re.findall(r"^\| `([^`]+)` ", source("troubleshooting"), re.MULTILINE)
    return [re.compile(".*".join(map(re.escape, map(str.strip, row.split("…"))))) for row in rows]


def test_every_message_says_what_to_do_or_is_in_the_page():
    known = explained()
    found = list(messages())
    assert len(found) > 80
    missing = []
    for path, text in found:
        passed_on = not any(map(str.isalpha, text.replace("at step", "")))  # a reason that somebody else gave
        if passed_on or any(inner in text for inner in INNER):
            continue
        says_what_to_do = re.search(r"; (?!see …)\w+", text) or text.rstrip("…").endswith("?")
        if not says_what_to_do and not any(pattern.search(text) for pattern in known):
            missing.append(f"{path}: {text}")
    assert not missing, "give these a remedy, or a row in docs/troubleshooting.md:\n" + "\n".join(missing)


def test_the_page_has_a_cause_for_each():
    rows = [line.split(" | ") for line in source("troubleshooting").splitlines() if line.startswith("| `")]
    assert len(rows) > 60 and all(len(cells) == 2 and len(cells[1]) > 5 for cells in rows)
