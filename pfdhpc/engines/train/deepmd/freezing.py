"""``train.freeze``: which weights of a model stay as they are."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

WHOLE = ("descriptor", "fitting_net")
"""What deepmd's own flag ``trainable`` freezes. In PyTorch it knows no layers: of a list, one false freezes all."""

_ENTRY = re.compile(r"(descriptor|fitting_net)(\.\w[\w-]*)*")
_RANGE = re.compile(r"(\d+)(?:-(\d+))?")


def check_freeze(entries: Sequence[str], flags: dict[str, Any]) -> list[str]:
    """What is wrong with ``train.freeze`` whatever the model; ``flags``: the nets ``train.deepmd.model`` names."""
    problems = [
        f'train.freeze: "{entry}": begin with descriptor or fitting_net, as in "fitting_net.layers.0-1"'
        for entry in entries
        if not _ENTRY.fullmatch(entry)
    ]
    if entries and any("trainable" in net for net in flags.values() if isinstance(net, dict)):
        problems.append("train.deepmd.model: trainable is set by train.freeze; remove one of them")
    return problems


def check_against(entries: Sequence[str], names: Sequence[str]) -> list[str]:
    """What is wrong with ``train.freeze`` for a model with weights of these names."""
    problems = [
        f'train.freeze: "{entry}": the model has no such weights; known are {_known(entry, names)}'
        for entry in entries
        if not any(frozen(name, [entry]) for name in names)
    ]
    if not problems and entries and all(frozen(name, entries) for name in names):
        problems.append("train.freeze: nothing is left to train; leave a part out")
    return problems


def frozen(name: str, entries: Iterable[str]) -> bool:
    """Whether a weight, e.g. ``fitting_net.filter_layers.networks.0.layers.1.matrix``, is one of the entries'.

    The words of an entry must occur in the name in their order, the first one first; numbers or ranges of
    numbers right after their word.
    """
    return any(_matches(name.split("."), entry.split(".")) for entry in entries)


def freeze_weights(model: Any, entries: Sequence[str]) -> None:
    """Exclude weights of a model from training."""
    for name, weight in weights(model):
        if frozen(name, entries):
            weight.requires_grad = False


def weights(model: Any) -> list[tuple[str, Any]]:
    """The weights of a deepmd model by name, which begins with descriptor or fitting_net."""
    return [(name.removeprefix("atomic_model."), weight) for name, weight in model.named_parameters()]


def _matches(parts: list[str], words: list[str]) -> bool:
    if parts[0] != words[0]:
        return False
    place = 0
    for word in words[1:]:
        number = _RANGE.fullmatch(word)
        if number:
            place += 1
            last = int(number[2] or number[1])
            if place >= len(parts) or not parts[place].isdigit() or not int(number[1]) <= int(parts[place]) <= last:
                return False
        else:
            rest = parts[place + 1 :]
            if word not in rest:
                return False
            place += 1 + rest.index(word)
    return True


def _known(entry: str, names: Sequence[str]) -> str:
    """The layers of the net that an entry is about, or the nets."""
    net = entry.split(".")[0]
    layers = sorted({int(found[1]) for name in names if (found := re.match(rf"{net}\..*\blayers\.(\d+)\.", name))})
    return f"{net} and {net}.layers.0-{layers[-1]}" if layers else " and ".join(WHOLE)
