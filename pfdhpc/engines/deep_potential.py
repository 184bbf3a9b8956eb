"""The door for deepmd models that predict: a file is opened whole, or refused by a line that says what is wrong.

deepmd itself fills weights that a checkpoint lacks with random numbers, and takes any branch of a model that has none.
Lines begin with ``model.checkpoint`` or ``model.branch``, for :meth:`InputError.about` to name the caller's own keys.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..data.geometry import right_handed_cell
from ..errors import InputError, reason
from ..published_models import check_published
from .train.deepmd.checkpoint import State, branch_name, one_branch, read

NAMED = 3
"""Weights that a line names."""


def open_potential(path: Path, branch: str | None = None) -> Any:
    """deepmd's evaluator (``DeepPot``) of a .pth, or of a .pt or one branch of it; raises InputError."""
    from deepmd.infer import DeepPot

    return _opened(path, branch, lambda head: DeepPot(str(path), auto_batch_size=False, head=head), lambda made: made)


def open_dp_calculator(model: str | Path, head: str | None = None, **keywords: Any) -> Any:
    """``deepmd.calculator.DP``, likewise; its model is given right-handed cells (:func:`right_handed_cell`)."""
    from ase.calculators.calculator import all_changes
    from deepmd.calculator import DP

    class RightHandedDP(DP):
        def calculate(self, atoms=None, properties=("energy", "forces", "virial"), system_changes=all_changes):
            asked = self.atoms if atoms is None else atoms
            turned = asked.copy()
            turned.set_cell(right_handed_cell(asked.cell.array))
            super().calculate(turned, properties, system_changes)
            self.atoms = asked.copy()  # what the next question is compared with

    return _opened(
        Path(model), head, lambda name: RightHandedDP(str(model), head=name, **keywords), lambda made: made.dp
    )


def _opened(path: Path, branch: str | None, make: Callable[[str | None], Any], inner: Callable[[Any], Any]) -> Any:
    """What ``make`` makes of the file and the name of the branch in it; ``inner``: the ``DeepPot`` in that."""
    import deepmd

    state, head = _looked_at(path, branch)
    try:
        made = make(head)
    except Exception as error:  # deepmd and torch raise many kinds
        raise InputError(
            f"model.checkpoint: {path} cannot be used as a model by deepmd-kit {deepmd.__version__} ({reason(error)})"
        ) from error
    if state is not None:
        _check_whole(inner(made), one_branch(state, head), path)
    return made


def _looked_at(path: Path, branch: str | None) -> tuple[State | None, str | None]:
    """The state in a checkpoint and the name of the branch in it; nothing of a model in another form."""
    if path.suffix == ".pt":
        state = read(path)
        return state, branch_name(state, branch)
    check_published(path)
    if branch is not None:
        raise InputError(
            f'model.branch: "{branch}" is given but {path.name} is single-task, as frozen models are: remove it'
        )
    return None, None


def _check_whole(potential: Any, state: State, path: Path) -> None:
    """Raise InputError naming the weights of the model in memory that ``state`` lacks, and those it has beyond."""
    missing, unexpected = potential.deep_eval.dp.load_state_dict(state, strict=False)
    found = [f"lacks {_some(missing)}"] * bool(missing) + [f"has {_some(unexpected)} beyond"] * bool(unexpected)
    if found:
        raise InputError(
            f"model.checkpoint: {path} {' and '.join(found)}: its weights are not those of the model it describes, and"
            " deepmd would make random ones up; give the checkpoint as it was trained"
        )


def _some(names: list[str]) -> str:
    rest = len(names) - NAMED
    return ", ".join(names[:NAMED]) + f" and {rest} more" * (rest > 0)
