"""Pictures of the selection: what is known grows, what was there to choose from, and where it lies."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data import Record
from ..selection.bandwidth import spread_bandwidth
from ..selection.entropy import diversity, entropy
from .novelty import Describe
from .plot_style import AFTER, BEFORE, TRUTH, colour, panels, png, remark, whole_numbers
from .report_data import Chosen
from .run_data import RunData

MOST = 6000
"""Environments that are compared with each other or drawn, at most; of more, some are drawn by lot."""
SHOWN_ROUNDS = 7
SEED = 1


@dataclass(frozen=True, eq=False)
class Described:
    """The environments of the labelled frames: descriptors (n, width), the round of each, and h in 1/Å."""

    points: np.ndarray
    rounds: np.ndarray
    bandwidth: float


def described(run: RunData, describe: Describe) -> Described | None:
    """All labelled environments, or as many of them as :data:`MOST`; None where none has been labelled."""
    records = list(run.labelled)
    if not records:
        return None
    random = np.random.default_rng(SEED)
    random.shuffle(records)
    some, count = [], 0
    for record in records:
        if count >= MOST:
            break
        some.append(record)
        count += len(record.frame)
    points = describe([record.frame for record in some])
    rounds = np.concatenate([np.full(len(record.frame), _round(record)) for record in some])
    found = np.concatenate(points)
    measured = [chosen.bandwidth for chosen in run.chosen if chosen.bandwidth == chosen.bandwidth]
    given = run.config["select"]["bandwidth"]
    h = measured[-1] if measured else given if isinstance(given, int | float) else spread_bandwidth(found[:512])
    return Described(found, rounds, float(h))


def _round(record: Record) -> int:
    """The round a frame came from; 0 for initial ones and those brought along."""
    return max(record.origin.round, 0)


@dataclass(frozen=True)
class Growth:
    """After a round: entropy H and diversity D in nats, and how many environments they are of."""

    round: int
    entropy: float
    diversity: float
    n_environments: int


def growth(known: Described) -> list[Growth]:
    """How the information in the labels grew from round to round."""
    found = []
    for number in sorted(set(known.rounds.tolist())):
        points = known.points[known.rounds <= number]
        found.append(Growth(number, entropy(points, known.bandwidth), diversity(points, known.bandwidth), len(points)))
    return found


def selection(grown: Sequence[Growth], chosen: Sequence[Chosen]) -> bytes:
    """Entropy by round, novelty of candidates by round, and what each pick added, as PNG."""
    with panels(1, 3, 10.5, 3.5) as (figure, axes):
        _growth(axes[0, 0], grown)
        _novelty(axes[0, 1], chosen)
        _gains(axes[0, 2], chosen)
        return png(figure)


def _growth(axis: Any, grown: Sequence[Growth]) -> None:
    axis.set(title="information in the labels", xlabel="round", ylabel="nats")
    rounds = [item.round for item in grown]
    if not rounds:
        remark(axis, "nothing was labelled yet")
        return
    limit = [np.log(item.n_environments) for item in grown]
    axis.plot(rounds, limit, "--", color=BEFORE, label="all different: ln n", linewidth=1)
    axis.plot(rounds, [item.diversity for item in grown], "s-", color=TRUTH, label="diversity D", markersize=4)
    axis.plot(rounds, [item.entropy for item in grown], "o-", color=AFTER, label="entropy H", markersize=4)
    whole_numbers(axis.xaxis)
    axis.legend()


def _novelty(axis: Any, chosen: Sequence[Chosen]) -> None:
    """A strip of points a round: novelty before the first pick, those that were picked in front."""
    axis.set(title="novelty of candidates", xlabel="round", ylabel="novelty before the first pick, nats")
    random = np.random.default_rng(SEED)
    some = [item for item in chosen if np.isfinite(item.novelty).any()][-12:]
    if not some:
        remark(axis, "no novelty was recorded")
        return
    for index, item in enumerate(some):
        good = np.isfinite(item.novelty)
        picked = np.isin(item.frame_ids, item.picked)
        spread = item.round + random.uniform(-0.22, 0.22, len(good))
        for mask, shade, size, name in ((~picked, BEFORE, 3, "not picked"), (picked, AFTER, 5, "picked")):
            style = {"color": shade, "markersize": size, "alpha": 0.8 if name == "picked" else 0.35, "mew": 0}
            label = name if index == 0 else None
            axis.plot(spread[good & mask], item.novelty[good & mask], "o", label=label, **style)
    axis.axhline(0, color="black", linewidth=0.7, linestyle="--", zorder=0)
    for word, place in (("new", "bottom"), ("covered", "top")):
        axis.annotate(word, (1.01, 0), xycoords=("axes fraction", "data"), ha="left", va=place, fontsize=8)
    _by_size(axis, np.concatenate([item.novelty for item in some]))
    whole_numbers(axis.xaxis)
    axis.margins(x=0.1, y=0.14)
    axis.legend(loc="upper center", markerscale=1.4, ncols=2, bbox_to_anchor=(0.5, 1.02), columnspacing=1)


def _gains(axis: Any, chosen: Sequence[Chosen]) -> None:
    axis.set(title="what each pick added", xlabel="pick", ylabel="gain, nats")
    some = [item for item in chosen if np.isfinite(item.gains).any()]
    if not some:
        remark(axis, "no gain was recorded")
        return
    for item in some[-SHOWN_ROUNDS:]:
        gains = np.array(item.gains)
        shade, label = colour(item.round - 1), f"round {item.round}"
        axis.plot(1 + np.arange(len(gains)), gains, "o-", color=shade, markersize=3.5, linewidth=1, label=label)
    _by_size(axis, np.concatenate([item.gains for item in some]))
    whole_numbers(axis.xaxis)
    axis.legend()


def _by_size(axis: Any, values: np.ndarray) -> None:
    """Novelty of frames unlike any known is hundreds of nats: then linear around zero and log beyond."""
    if np.abs(values[np.isfinite(values)]).max(initial=0.0) > 30:
        axis.set_yscale("symlog", linthresh=5.0)
        axis.yaxis.set_major_formatter("{x:g}")


def atlas(known: Described, chosen: Sequence[Chosen]) -> bytes:
    """Environments on the two directions in which they differ most: candidates, and labels by round, as PNG."""
    candidates = [item.points for item in chosen if item.points.shape[1:] == known.points.shape[1:]]
    everything = np.concatenate([known.points, *candidates])
    centre, axes_of, shares = principal(everything)
    with panels(1, 1, 7.2, 5.2) as (figure, axes):
        axis = axes[0, 0]
        if candidates:
            places = (np.concatenate(candidates) - centre) @ axes_of
            label = "candidates (their newest environment)"
            axis.plot(*places.T, "o", color="#c3cad1", markersize=3, alpha=0.6, mew=0, label=label)
        places = (known.points - centre) @ axes_of
        last = int(known.rounds.max())
        for number in range(last + 1):
            mine = places[known.rounds == number]
            name = "initial labels" if number == 0 else f"picked in round {number}"
            label = name if number < SHOWN_ROUNDS or number == last else None
            shade = colour(number)
            axis.plot(*mine.T, "o", color=shade, markersize=4.5, mec="white", mew=0.3, label=label)
        axis.set(xlabel=f"first component, 1/Å ({shares[0]:.0%} of the variance)")
        axis.set(ylabel=f"second component, 1/Å ({shares[1]:.0%})")
        figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=3)
        return png(figure)


def principal(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centre (width,), first principal axes (width, 2), their shares of the variance (2,) of points (n, width)."""
    centre = points.mean(axis=0)
    _, sizes, directions = np.linalg.svd(points - centre, full_matrices=False)
    if len(sizes) < 2:
        sizes, directions = np.append(sizes, 0.0), np.vstack([directions, np.zeros_like(directions)])
    total = float((sizes**2).sum()) or 1.0
    return centre, directions[:2].T, sizes[:2] ** 2 / total
