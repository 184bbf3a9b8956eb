"""A frozen model made ready for many steps: only what LAMMPS calls of it, what is the same in each step folded.

Without it, TorchScript's interpreter looks up, compares and converts the same things in every step.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

GETTERS = ("get_", "has_", "is_")
"""How the names of the methods begin that tell what a model is."""
SOON, LATE = 200, 1000
"""Steps of a segment from which on it pays, for models with message passing and for others.

Measured on one core: 1.5 s once for a DPA-3 of two layers and 5 ms less in each step of 17; for a small se_e2_a 0.5 s
once, 0.1 s a segment and 0.2 ms less in a step of 2.
"""


def lowered(model: Path, steps: int, to: Path) -> Path:
    """The file for segments of so many steps: ``model`` itself, or ``to``, written here, where that pays.

    Only for TorchScript on CPUs. What is written follows from the model alone; its results differ from the model's in
    the last digits, as gradients are summed in another order.
    """
    import torch

    if model.suffix != ".pth" or steps < SOON or torch.cuda.is_available():
        return model
    import deepmd.pt.cxx_op  # noqa: F401  registers the operators models are made of

    extra = {"data_modifier.pth": ""}
    try:
        whole = torch.jit.load(str(model), map_location="cpu", _extra_files=extra).eval()
        if steps < LATE and not whole.has_message_passing():
            return model
        part = _folded(whole)
    except RuntimeError as error:
        log.warning("%s is explored as it is, slower: it cannot be folded: %s", model, str(error).strip())
        return model
    torch.jit.save(part, str(to), extra)
    return to


def _folded(whole: Any) -> Any:
    """``forward_lower`` and the getters of a model, with all constants folded."""
    import torch

    holder = torch.nn.Module()
    holder.model = whole
    part = torch.jit.script(holder).eval()
    names = list(_wanted(whole))
    for name in names:
        part.define(_passing_on(name, getattr(whole, name).schema))
    return torch.jit.freeze(part, preserved_attrs=names, optimize_numerics=False)


def _wanted(model: Any) -> Iterator[str]:
    """What LAMMPS calls; of the getters those that give plain values."""
    yield "forward_lower"
    for name in model._c._method_names():
        if name.startswith(GETTERS):
            schema = getattr(model, name).schema
            if len(schema.arguments) == 1 and "__torch__" not in schema.returns[0].type.annotation_str:
                yield name


def _passing_on(name: str, schema: Any) -> str:
    """The source of a method that calls that of the whole model."""
    taken = schema.arguments[1:]
    given = [f"{one.name}: {one.type.annotation_str}{_default(one)}" for one in taken]
    head = f"def {name}({', '.join(['self', *given])}) -> {schema.returns[0].type.annotation_str}:"
    return f"{head}\n    return self.model.{name}({', '.join(one.name for one in taken)})\n"


def _default(argument: Any) -> str:
    return f" = {argument.default_value!r}" if argument.has_default_value() else ""
