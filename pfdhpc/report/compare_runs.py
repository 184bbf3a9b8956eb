"""Runs side by side: what each cost and what its model is worth."""

from collections.abc import Sequence
from typing import Any

from ..units import duration
from .error_plots import QUANTITIES, curve
from .html_document import error, number
from .model_card import len_of
from .plot_style import colour, panels, plain_numbers, png, whole_numbers
from .run_data import RunData

MARKS = "osD^vPX"


def names(runs: Sequence[RunData]) -> list[str]:
    """As short as tells the runs apart."""
    paths = [run.directory.resolve().parts for run in runs]
    for depth in range(1, max(map(len, paths)) + 1):
        short = ["/".join(parts[-depth:]) for parts in paths]
        if len(set(short)) == len(short):
            return short
    return [str(run.directory) for run in runs]


def comparison(runs: Sequence[RunData]) -> list[tuple[str, list[str]]]:
    """Rows of a table: what, and the value of each run."""
    rows = [
        ("workflow", [run.workflow for run in runs]),
        ("ended", [run.state["ended"] or run.status.get("state", "–") for run in runs]),
        ("labels", [str(len_of(run) + len(run.state["fresh"])) for run in runs]),
        ("rounds", [str(len(run.rounds) - 1) for run in runs]),
    ]
    for key, name, scale in QUANTITIES:
        rows.append((f"{name}, held out", [_held_out(run, key, scale) for run in runs]))
    rows += [(f"  {name}, before", [number(_error(run, key, "before"), 3, scale) for run in runs])
             for key, name, scale in QUANTITIES[:1]]  # fmt: skip
    rows += [
        ("held-out frames", [str(run.after["total"]["n_frames"]) if run.after else "–" for run in runs]),
        ("core hours", [number(float(run.state["core_hours"])) for run in runs]),
        ("wall time", [duration(run.state["elapsed"]) for run in runs]),
        ("  labels", [_spent(run, "labeler") for run in runs]),
        ("  training", [_spent(run, "trainer") for run in runs]),
        ("  exploration", [_spent(run, "explorer") for run in runs]),
    ]
    if any("student_speed" in run.production for run in runs):
        rows.append(("student, steps/s", [number(run.production.get("student_speed")) for run in runs]))
        rows.append(("teacher, steps/s", [number(run.production.get("teacher_speed")) for run in runs]))
    return rows


def _held_out(run: RunData, key: str, scale: float) -> str:
    return error(_error(run, key), scale) if run.after else "–"


def _error(run: RunData, key: str, which: str = "after") -> float | None:
    table = run.after if which == "after" else run.before
    return table and table["total"][key]


def _spent(run: RunData, role: str) -> str:
    return duration(run.state["seconds"].get(role, 0.0))


def learning_curves(runs: Sequence[RunData]) -> bytes:
    """Errors of all runs on their new labels; large marks: on held-out frames, before (open) and after. As PNG."""
    with panels(1, 3, 10.5, 3.5) as (figure, axes):
        for axis, (key, name, scale) in zip(axes[0], QUANTITIES, strict=True):
            shown = []
            for index, (run, short) in enumerate(zip(runs, names(runs), strict=True)):
                shown += _one(axis, run, key, scale, short, index)
            axis.set(title=f"{name.split(',')[0]} RMSE", xlabel="labels made before", ylabel=name)
            whole_numbers(axis.xaxis)
            if shown and 0 < min(shown) < max(shown):
                axis.set_yscale("log")
                axis.set_ylim(0.7 * min(shown), 1.4 * max(shown))
                plain_numbers(axis.yaxis)
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
        return png(figure)


def _one(axis: Any, run: RunData, key: str, scale: float, name: str, index: int) -> list[float]:
    """One run's points: lines on new labels, a larger mark for the model at the end on held-out frames."""
    points = [(n, scale * value) for n, value in curve(run, key)]
    style = {"color": colour(index), "marker": MARKS[index % len(MARKS)]}
    axis.plot([n for n, _ in points], [value for _, value in points], "-", label=name, markersize=5, **style)
    values = [value for _, value in points]
    before, after = _error(run, key, "before"), _error(run, key)
    total = sum(item["labelled"] for item in run.rounds) + run.state["given"]
    for place, value, fill in ((0, before, "none"), (total, after, "full")):
        if value is not None and value == value:
            axis.plot([place], [scale * value], linestyle="", fillstyle=fill, markersize=9, mew=1.5, **style)
            values.append(scale * value)
    return values
