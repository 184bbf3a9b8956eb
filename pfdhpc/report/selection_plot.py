"""The picture of a selection: what each pick added, and where the picks lie among all candidates."""

from pathlib import Path

import numpy as np

from ..selection.standalone import Selection

PICKED, OTHERS = "#D55E00", "#7f8c99"
"""Vermilion of the Okabe-Ito palette and a grey: told apart without colour vision, and in print."""


def draw(path: Path, selection: Selection) -> None:
    """Gain of every pick, and the novelty of all candidates with the picked ones marked; format by the ending."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.8), layout="constrained")
    _gains(left, np.array(selection.gains, float), selection.saturated)
    _novelty(right, selection)
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", linewidth=0.4, alpha=0.5)
        axis.set_axisbelow(True)
    figure.savefig(path, dpi=160)
    plt.close(figure)


def _gains(axis, gains: np.ndarray, saturated: bool) -> None:
    numbers = 1 + np.arange(len(gains))
    shown = np.isfinite(gains)
    axis.set(xlabel="pick", ylabel="gain (nat)", title="What each pick added")
    if not shown.any():
        _say(axis, "no gain to show")
        return
    axis.plot(numbers[shown], gains[shown], "o-", color=PICKED, markersize=3.5, linewidth=1)
    _scale(axis, gains[shown])
    axis.xaxis.get_major_locator().set_params(integer=True)
    remarks = []
    if np.isposinf(gains).any():
        remarks.append("the first: without a reference, ∞")
    if saturated:
        remarks.append("saturated: nothing left adds more")
    if remarks:
        axis.text(0.98, 0.97, "\n".join(remarks), transform=axis.transAxes, ha="right", va="top", fontsize=9)


def _novelty(axis, selection: Selection) -> None:
    axis.set(xlabel="candidates, most novel first", ylabel="novelty against the reference (nat)")
    novelty = selection.novelty
    order = np.argsort(-np.where(np.isnan(novelty), -np.inf, novelty), kind="stable")
    order = order[np.isfinite(novelty[order])]
    axis.set_title("Novelty of all candidates")
    if not len(order):
        _say(axis, "without a reference,\nevery candidate is new" if np.isinf(novelty).any() else "no candidate")
        return
    places = 1 + np.arange(len(order))
    picked = np.isin(order, selection.indices)
    axis.plot(places, novelty[order], "-", color=OTHERS, linewidth=2, label=f"{len(order)} candidates")
    label = f"{picked.sum()} picked"
    axis.plot(
        places[picked], novelty[order][picked], "o", color=PICKED, markersize=4.5, mec="white", mew=0.4, label=label
    )
    _scale(axis, novelty[order])
    axis.legend(frameon=False)


def _scale(axis, values: np.ndarray) -> None:
    """A log axis; where there are values of zero and below, linear around zero."""
    if values.min() > 0:
        axis.set_yscale("log")
    else:
        axis.set_yscale("symlog", linthresh=1.0)
    axis.yaxis.set_major_formatter("{x:g}")


def _say(axis, text: str) -> None:
    axis.text(0.5, 0.5, text, transform=axis.transAxes, ha="center", va="center")
    axis.set_axis_off()
