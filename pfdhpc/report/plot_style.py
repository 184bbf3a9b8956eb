"""How all pictures look: colours that are told apart without colour vision and in print (Okabe-Ito), and sizes."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

BEFORE, AFTER, TRUTH, GOOD = "#7f8c99", "#D55E00", "#0072B2", "#009E73"
"""The model before (grey), the model made (vermilion), what it learned from (blue), where it ended (green)."""
ROUNDS = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#5b4b8a"
"""One after the other for rounds, systems, runs."""
INK, FAINT = "#1f2933", "#d9dee3"
DPI = 160
SETTINGS = {
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelcolor": INK,
    "axes.edgecolor": "#9aa5b1",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "xtick.color": "#52606d",
    "ytick.color": "#52606d",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.5,
    "figure.constrained_layout.use": True,
}


def colour(index: int) -> str:
    """Of the n-th thing of its kind."""
    return ROUNDS[index % len(ROUNDS)]


@contextmanager
def panels(n_rows: int, n_columns: int, width: float, height: float, **options: Any) -> Iterator[tuple[Any, Any]]:
    """A figure (inches) with its axes in an array (rows, columns), closed in the end; nothing needs a display."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    with plt.rc_context(SETTINGS):
        figure, axes = plt.subplots(n_rows, n_columns, figsize=(width, height), squeeze=False, **options)
        try:
            yield figure, axes
        finally:
            plt.close(figure)


def png(figure: Any) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, facecolor="white")
    return buffer.getvalue()


def whole_numbers(axis: Any) -> None:
    """Ticks of an axis that counts."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True, nbins=7, steps=[1, 2, 5, 10]))


def plain_numbers(*axes: Any) -> None:
    """Log axes labelled 0.05, not 5 x 10^-2; minor ticks too where the axis spans less than a decade."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    for axis in axes:
        low, high = axis.get_view_interval()
        axis.set_major_formatter(FuncFormatter(_plain))
        axis.set_minor_formatter(FuncFormatter(_sparse) if high / max(low, 1e-300) < 30 else NullFormatter())


def _plain(value: float, _: int) -> str:
    return f"{value:g}"


def _sparse(value: float, _: int) -> str:
    return f"{value:g}" if f"{value:e}"[0] in "25" else ""


def remark(axis: Any, text: str) -> None:
    """Words in the place of a picture there is nothing for."""
    axis.text(0.5, 0.5, text, transform=axis.transAxes, ha="center", va="center", color="#52606d")
    axis.set_axis_off()
