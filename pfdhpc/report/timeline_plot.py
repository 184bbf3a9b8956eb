"""Ranks against time, coloured by what they did; of many ranks, how many of each role did what."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..parallel.ledger import Track
from .plot_style import FAINT, INK, panels, png
from .timeline import ROLES, closed_up

COLOURS = {
    "explore": "#0072B2",
    "select": "#56B4E9",
    "label": "#D55E00",
    "train": "#009E73",
    "other work": "#E69F00",
    "talk": "#CC79A7",
    "disk": "#5b4b8a",
    "decide": "#8d99a6",
    "start": "#c4ccd4",
    "wait": "#eef0f2",
}
"""By state, in the order in which they are stacked; ``other work``: taking up a model, evaluating, testing it."""
ROWS = 48
"""So many ranks have a row each; of more, a panel shows each role."""
BINS = 1200
"""Instants along the axis."""
Shares = Mapping[str, np.ndarray]


def timeline(tracks: Sequence[Track]) -> bytes:
    """The picture as PNG. ``tracks`` are those of a run, over all its jobs; what is not on record stays white."""
    tracks, cuts = closed_up([track for track in tracks if len(track.states)])
    begin = min(float(track.starts[0]) for track in tracks)
    end = max(float(track.starts[-1] + track.lengths[-1]) for track in tracks)
    edges = np.linspace(begin, max(end, begin + 1e-3), BINS + 1)
    factor, unit = _unit(end - begin)
    span = (end - begin) / factor
    if len(tracks) <= ROWS:
        return _by_rank(tracks, edges, span, unit, [cut / factor for cut in cuts])
    return _by_role(tracks, edges, span, unit, [cut / factor for cut in cuts])


def occupancy(track: Track, edges: np.ndarray) -> dict[str, np.ndarray]:
    """Share of each interval between ``edges`` a rank spent in each state; what is missing to 1 is not on record."""
    kinds = np.array([_kind(state) for state in track.states])
    found = {}
    for kind in set(kinds.tolist()):
        starts, lengths = track.starts[kinds == kind], track.lengths[kinds == kind]
        total = np.concatenate([[0.0], np.cumsum(lengths)])
        times = np.column_stack([starts, starts + lengths]).ravel()
        spent = np.column_stack([total[:-1], total[1:]]).ravel()
        found[kind] = np.diff(np.interp(edges, np.maximum.accumulate(times), spent)) / np.diff(edges)
    return found


def _kind(state: str) -> str:
    kind = state.split()[0]
    return kind if kind in COLOURS else "other work"


def _by_rank(tracks: Sequence[Track], edges: np.ndarray, span: float, unit: str, cuts: Sequence[float]) -> bytes:
    shares = [occupancy(track, edges) for track in tracks]
    n_rows = len(tracks)
    with panels(1, 1, 10, 1.3 + max(0.17 * n_rows, 0.5)) as (figure, axes):
        axis = axes[0, 0]
        picture = np.array([_blended(mine) for mine in shares])
        axis.imshow(picture, aspect="auto", interpolation="nearest", extent=(0, span, n_rows - 0.5, -0.5))
        for row in range(1, n_rows):
            changes = tracks[row].role != tracks[row - 1].role
            axis.axhline(row - 0.5, color=INK if changes else "white", linewidth=0.8 if changes else 1.5)
        names = [f"{track.team or track.role}  {track.rank}" for track in tracks]
        axis.set_yticks(range(n_rows), names if n_rows > 1 else ["all roles\nin turn"])
        axis.tick_params(axis="y", labelsize=7.5, length=0)
        _finished(figure, axis, shares, unit, cuts)
        return png(figure)


def _by_role(tracks: Sequence[Track], edges: np.ndarray, span: float, unit: str, cuts: Sequence[float]) -> bytes:
    roles = [role for role in ROLES if any(track.role == role for track in tracks)]
    counts = [sum(track.role == role for track in tracks) for role in roles]
    heights = [0.35 if count == 1 else 1.0 for count in counts]
    times = np.linspace(0, span, len(edges) - 1)
    everything = []
    options = {"height_ratios": heights, "sharex": True}
    with panels(len(roles), 1, 10, 1.0 + 1.35 * sum(heights), **options) as (figure, axes):
        for axis, role, count in zip(axes[:, 0], roles, counts, strict=True):
            shares = mean([occupancy(track, edges) for track in tracks if track.role == role])
            everything.append(shares)
            kinds = [kind for kind in COLOURS if kind in shares]
            axis.stackplot(
                times,
                [shares[kind] for kind in kinds],
                colors=[COLOURS[kind] for kind in kinds],
                step="mid",
                linewidth=0,
            )
            axis.set(xlim=(0, span), ylim=(0, 1), yticks=[] if count == 1 else [0, 0.5, 1])
            axis.set_yticklabels([] if count == 1 else ["0", "", f"{count}"])
            axis.set_ylabel(f"{role}\n{count} ranks" if count > 1 else role, rotation=0, ha="right", va="center")
            axis.grid(False)
        _finished(figure, axes[-1, 0], everything, unit, cuts, axes[:, 0])
        return png(figure)


def mean(shares: Sequence[Shares]) -> dict[str, np.ndarray]:
    """Of several ranks."""
    kinds = {kind for mine in shares for kind in mine}
    return {kind: sum(mine[kind] for mine in shares if kind in mine) / len(shares) for kind in kinds}


def _blended(shares: Shares) -> np.ndarray:
    """Colour of each instant, (n_bins, 3): those of the states by their share, white what is not on record."""
    from matplotlib.colors import to_rgb

    known = sum(shares.values())
    colours = sum(share[:, None] * np.array(to_rgb(COLOURS[kind])) for kind, share in shares.items())
    return np.clip(colours + (1 - known)[:, None], 0, 1)


def _finished(figure: Any, axis: Any, shares: Sequence[Shares], unit: str, cuts: Sequence[float], every=()) -> None:
    """Axis, legend, and a line where another job went on."""
    from matplotlib.patches import Patch

    axis.grid(False)
    axis.set_xlabel(f"{unit} since the start" + (", without the time between jobs (lines)" if cuts else ""))
    for one in every if len(every) else [axis]:
        for cut in cuts:
            one.axvline(cut, color=INK, linewidth=1.0, linestyle=(0, (4, 2)))
    seen = {kind for mine in shares for kind in mine}
    patches = [Patch(facecolor=shade, edgecolor=FAINT, label=kind) for kind, shade in COLOURS.items() if kind in seen]
    figure.legend(handles=patches, ncols=len(patches), loc="outside upper center", handlelength=1.0, columnspacing=1.2)


def _unit(seconds: float) -> tuple[float, str]:
    if seconds < 300:
        return 1.0, "seconds"
    return (60.0, "minutes") if seconds < 3 * 3600 else (3600.0, "hours")
