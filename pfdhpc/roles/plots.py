"""The picture a finished run leaves: errors on held-out frames before and after, and the way there."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..data import Label, Record
from .state import RunState

BEFORE, AFTER = ("#9aa3ad", "pre-trained"), ("#c2410c", "fine-tuned")


def draw(
    path: Path, state: RunState, records: Sequence[Record], parent: Sequence[Label], final: Sequence[Label]
) -> None:
    """Parity of forces, energies and virials of the held-out ``records``, and the learning curve, as PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 4, figsize=(15, 3.9), layout="constrained")
    truth = [record.label for record in records]
    sizes = np.array([len(record.frame) for record in records])
    styles = (BEFORE, AFTER) if parent else (BEFORE, (AFTER[0], "student"))
    for predictions, style in zip((parent, final), styles, strict=True):
        if not predictions:
            continue
        _cloud(axes[0], _forces(truth), _forces(predictions), style)
        _cloud(axes[1], _energies(truth, sizes, truth), _energies(predictions, sizes, truth), style)
        _cloud(axes[2], _virials(truth, sizes, truth), _virials(predictions, sizes, truth), style)
    for axis, what in zip(axes, ("force, eV/Å", "energy, meV/atom from the mean", "virial, meV/atom"), strict=False):
        axis.axline((0, 0), slope=1, color="black", linewidth=0.6, zorder=0)
        axis.set(xlabel=f"label: {what}", ylabel="model")
    axes[0].legend(frameon=False)
    _learning_curve(axes[3], state)
    figure.suptitle(f"{len(records)} held-out frames, which no training saw", fontsize=11)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _cloud(axis, truth: np.ndarray, predicted: np.ndarray, style: tuple[str, str]) -> None:
    color, name = style
    axis.plot(truth, predicted, ".", color=color, markersize=4, alpha=0.8, label=name)


def _forces(labels: Sequence[Label]) -> np.ndarray:
    return np.concatenate([label.forces.ravel() for label in labels])


def _energies(labels: Sequence[Label], sizes: np.ndarray, truth: Sequence[Label]) -> np.ndarray:
    energies = np.array([label.energy for label in labels]) / sizes
    return 1000 * (energies - np.mean([label.energy for label in truth] / sizes))


def _virials(labels: Sequence[Label], sizes: np.ndarray, truth: Sequence[Label]) -> np.ndarray:
    rows = [
        1000 * label.virial.ravel() / size
        for label, size, known in zip(labels, sizes, truth, strict=True)
        if known.virial is not None and label.virial is not None
    ]
    return np.concatenate(rows) if rows else np.zeros(0)


def _learning_curve(axis, state: RunState) -> None:
    """Force RMSE of each round's exploring model on its new labels, against the labels it had seen."""
    labels, errors, total = [], [], 0
    for item in state.history:
        if item.errors is not None:
            labels.append(total)
            errors.append(item.errors.total.force)
        total += item.labelled
    axis.plot(labels, errors, "o-", color=AFTER[0])
    if state.pretrained is not None:
        axis.axhline(state.pretrained.total.force, color=BEFORE[0], linestyle="--", label="pre-trained, held-out")
        axis.legend(frameon=False)
    axis.set(xlabel="labels before the round", ylabel="force RMSE on new labels, eV/Å")
    axis.set_ylim(bottom=0)
