"""Pictures of errors: the way down from round to round, parity on held-out frames, by system and element."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data import Label, Record
from .plot_style import AFTER, BEFORE, GOOD, INK, panels, plain_numbers, png, whole_numbers
from .run_data import RunData, Tree

QUANTITIES = (("force", "force, eV/Å", 1.0), ("energy", "energy, meV/atom", 1e3), ("virial", "virial, meV/atom", 1e3))
"""Key in a table of errors, name with unit, and factor to it."""


@dataclass(frozen=True, eq=False)
class Cloud:
    """Labels and predictions of one quantity, both (n,) in the unit of :data:`QUANTITIES`."""

    truth: np.ndarray
    predicted: np.ndarray

    @property
    def difference(self) -> np.ndarray:
        return self.predicted - self.truth

    @property
    def rmse(self) -> float:
        return float(np.sqrt(np.mean(self.difference**2))) if len(self.truth) else float("nan")

    @property
    def mae(self) -> float:
        return float(np.mean(np.abs(self.difference))) if len(self.truth) else float("nan")


def clouds(records: Sequence[Record], predictions: Sequence[Label]) -> list[Cloud]:
    """Forces, energies from the labels' mean, and virials, both per atom, of frames in the same order."""
    pairs = [(record.label, found, len(record.frame)) for record, found in zip(records, predictions, strict=True)]
    energies = np.array([(known.energy / size, found.energy / size) for known, found, size in pairs]).T * 1e3
    energies -= energies[0].mean()
    virials = [(k.virial / size, f.virial / size) for k, f, size in pairs if k.virial is not None is not f.virial]
    return [
        Cloud(*(np.concatenate([pair[side].forces.ravel() for pair in pairs]) for side in (0, 1))),
        Cloud(*energies),
        Cloud(*(1e3 * np.array([pair[side] for pair in virials]).ravel() for side in (0, 1))),
    ]


Model = tuple[str, str, Sequence[Label]]
"""Name, colour and predictions of a model."""


def parity(records: Sequence[Record], models: Sequence[Model], truth: str = "label") -> bytes:
    """Predictions against labels, and below them the differences, as PNG.

    The one of ``models`` to look at comes last.
    """
    with panels(2, 3, 10.5, 5.6, gridspec_kw={"height_ratios": [2, 1]}, sharex="col") as (figure, axes):
        for name, shade, predictions in models:
            for column, cloud in enumerate(clouds(records, predictions)):
                _cloud(axes[:, column], cloud, name, shade)
        for column, (_, name, _) in enumerate(QUANTITIES):
            what = f"{name} from the mean" if column == 1 else name
            top, below = axes[:, column]
            top.axline((0, 0), slope=1, color=INK, linewidth=0.7, zorder=0)
            below.axhline(0, color=INK, linewidth=0.7, zorder=0)
            top.set(ylabel="model", title=what)
            below.set(xlabel=f"{truth}: {what}", ylabel=f"model - {truth}")
            low, high = top.get_ylim()
            top.set_ylim(low, high + (0.06 + 0.08 * len(models)) * (high - low))
            top.legend(loc="upper left", handletextpad=0.1, borderpad=0.1)
        return png(figure)


def _cloud(axes: Sequence[Any], cloud: Cloud, name: str, shade: str) -> None:
    many = len(cloud.truth) > 3000
    style = {"color": shade, "markersize": 2 if many else 4, "alpha": 0.35 if many else 0.75, "mew": 0}
    label = f"{name}: RMSE {cloud.rmse:.3g}, MAE {cloud.mae:.3g}"
    axes[0].plot(cloud.truth, cloud.predicted, "o", label=label, **style)
    axes[1].plot(cloud.truth, cloud.difference, "o", **style)


def learning_curve(run: RunData) -> bytes:
    """Root mean square errors against the number of labels, one panel a quantity, as PNG."""
    with panels(1, 3, 10.5, 3.3) as (figure, axes):
        for axis, (key, name, scale) in zip(axes[0], QUANTITIES, strict=True):
            _curve(axis, run, key, scale)
            axis.set(title=f"{name.split(',')[0]} RMSE", xlabel="labels made before", ylabel=name)
            whole_numbers(axis.xaxis)
        handles, labels = axes[0, 0].get_legend_handles_labels()
        if handles:
            figure.legend(handles, labels, loc="outside lower center", ncols=4)
        return png(figure)


def _curve(axis: Any, run: RunData, key: str, scale: float) -> None:
    points = curve(run, key)
    values = [scale * value for _, value in points]
    axis.plot([n for n, _ in points], values, "o-", color=AFTER, label=f"{_tested(run)}, on new labels")
    before, after = (table and scale * table["total"][key] for table in (run.before, run.after))
    total = sum(item["labelled"] for item in run.rounds) + run.state["given"]
    if before is not None and before == before:
        axis.plot([0], [before], "s", color=BEFORE, markersize=7, label="pre-trained, on held-out frames")
        axis.axhline(before, color=BEFORE, linestyle=":", linewidth=1)
    if after is not None and after == after:
        label = f"{run.product} at the end, on held-out frames"
        axis.plot([total], [after], "*", color=GOOD, markersize=12, label=label)
    goal = run.config["converge"].get(f"{key}_rmse")
    if goal:
        axis.axhline(scale * goal, color=INK, linestyle="--", linewidth=1, label="convergence criterion")
    shown = [value for value in (*values, before, after) if value is not None and value > 0]
    if shown and min(shown) < max(shown):
        axis.set_yscale("log")
        axis.set_ylim(0.7 * min(shown), 1.4 * max(shown))
        plain_numbers(axis.yaxis)


def _tested(run: RunData) -> str:
    return "newest student" if run.distilling else "exploring model"


def curve(run: RunData, key: str) -> list[tuple[int, float]]:
    """Labels known before a round, and the error of its exploring model on its new labels: eV/Å, eV/atom."""
    points, total = [], run.state["given"]
    for item in run.rounds:
        if item["errors"] is not None and item["errors"]["total"][key] == item["errors"]["total"][key]:
            points.append((total, item["errors"]["total"][key]))
        total += item["labelled"]
    return points


def by_kind(before: Tree | None, after: Tree, name: str) -> bytes:
    """Force errors by system and by element, as PNG; trees of ErrorTables."""
    systems = {key: [table and table["systems"][key]["force"] for table in (before, after)] for key in after["systems"]}
    elements = {key: [table and table["elements"][key] for table in (before, after)] for key in after["elements"]}
    height = 1.1 + 0.42 * max(len(systems), len(elements))
    with panels(1, 2, 10.5, height) as (figure, axes):
        for axis, rows, what in ((axes[0, 0], systems, "system"), (axes[0, 1], elements, "element")):
            _bars(axis, rows, name)
            axis.set_ylim(max(len(systems), len(elements)) - 0.5, -0.5)
            axis.set(title=f"by {what}", xlabel="force RMSE, eV/Å")
            axis.grid(axis="y", visible=False)
        if before:
            figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right upper")
        return png(figure)


def _bars(axis: Any, rows: dict[str, list[float | None]], name: str) -> None:
    places = np.arange(len(rows))
    for shift, index, shade, what in ((-0.2, 0, BEFORE, "pre-trained"), (0.2, 1, AFTER, name)):
        values = [row[index] for row in rows.values()]
        if any(value is None for value in values):
            continue
        bars = axis.barh(places + shift, values, 0.38, color=shade, label=what)
        axis.bar_label(bars, fmt="%.3g", padding=3, fontsize=8, color=INK)
    axis.set_yticks(places, list(rows))
    axis.margins(x=0.15)
