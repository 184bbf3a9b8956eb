"""Where the time of a run went, from its ledgers: how busy each role was, what the last labels held up, one file."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..files import renamed_into
from ..parallel.ledger import WAIT, Track, read_track, read_tracks

ROLES = ("coordinator", "trainer", "explorer", "labeler", "flexible", "idle")
FEW = 256
"""Ledgers that are all read for a look at a run; of more, as many of each role as of any other."""
GAP = 60.0
"""Seconds in which rank 0 recorded nothing after which the job was another one."""


def tracks_of(folder: Path, until: float | None = None) -> list[Track]:
    """The ledgers of a run. With ``until`` (seconds since 1970) ranks that are silent before have waited."""
    tracks = read_tracks(folder)
    return tracks if until is None else [_padded(track, until) for track in tracks if len(track.states)]


def sampled(folder: Path, most: int = FEW) -> list[Track]:
    """The ledgers of a run, or where there are more than ``most`` some of each role, evenly over its ranks."""
    paths = sorted(folder.glob("rank-*.txt"))
    if len(paths) <= most:
        return [track for track in map(read_track, paths) if len(track.states)]
    by_role: dict[str, list[Path]] = {}
    for path in paths:
        with path.open() as file:
            by_role.setdefault(" ".join(file.readline().split()[1:2]), []).append(path)
    share = max(1, most // len(by_role))
    chosen = [path for mine in by_role.values() for path in mine[:: -(-len(mine) // share)]]
    return [track for track in map(read_track, sorted(chosen)) if len(track.states)]


def _padded(track: Track, until: float) -> Track:
    end = track.starts[-1] + track.lengths[-1]
    if end >= until:
        return track
    return replace(
        track,
        starts=np.append(track.starts, end),
        lengths=np.append(track.lengths, until - end),
        states=(*track.states, WAIT),
    )


def utilization(tracks: Sequence[Track]) -> dict[str, dict[str, float]]:
    """By role: the share of its ranks' time (their start apart) spent busy, and in each state."""
    found = {}
    for role in ROLES:
        mine = [track for track in tracks if track.role == role]
        total = sum(float(track.lengths.sum()) - track.seconds("start") for track in mine)
        if total <= 0:
            continue
        kinds = sorted({state.split()[0] for track in mine for state in track.states} - {"start"})
        shares = {kind: sum(track.seconds(kind) for track in mine) / total for kind in kinds}
        found[role] = {"busy": 1 - shares.get("wait", 0.0) - shares.get("talk", 0.0), **shares}
    return found


def gather(tracks: Sequence[Track], path: Path) -> None:
    """All ledgers in one HDF5 file, a group per rank; times in seconds since 1970."""
    import h5py

    with renamed_into(path) as unfinished, h5py.File(unfinished, "w") as file:
        for track in tracks:
            group = file.create_group(f"rank-{track.rank:05d}")
            group.attrs.update(role=track.role, team=track.team)
            group["start"], group["length"] = track.starts, track.lengths
            group["state"] = np.array(track.states, dtype=h5py.string_dtype())


def closed_up(tracks: Sequence[Track]) -> tuple[list[Track], list[float]]:
    """The tracks without the time between jobs, and where the next job begins (seconds from the start)."""
    clock = next((track for track in tracks if track.rank == 0 and len(track.states)), None)
    if clock is None:
        return list(tracks), []
    ends = clock.starts + clock.lengths
    gaps = np.maximum(0.0, clock.starts[1:] - ends[:-1])
    after, gaps = ends[:-1][gaps > GAP], gaps[gaps > GAP]
    before = np.concatenate([[0.0], np.cumsum(gaps)])

    def moved(times: np.ndarray) -> np.ndarray:
        return times - before[np.searchsorted(after, times, side="left")]

    cuts = (after - before[:-1] - clock.starts[0]).tolist()
    return [replace(track, starts=moved(track.starts)) for track in tracks], cuts


def tail(tracks: Sequence[Track]) -> float | None:
    """Seconds from when the first labeler was through with the last round's labels to when the last one was.

    The round begins with the last selection; None if fewer than two teams labelled after it.
    """
    selected = [_last(track, "select") for track in tracks]
    since = max((end for end in selected if end is not None), default=-np.inf)
    teams: dict[str, float] = {}
    for track in tracks:
        end = _last(track, "label")
        if end is not None and end > since:
            teams[track.team] = max(end, teams.get(track.team, end))
    return max(teams.values()) - min(teams.values()) if len(teams) > 1 else None


def n_nodes(tracks: Sequence[Track]) -> int | None:
    """Nodes the ranks were on; None where that is not on record."""
    hosts = {track.host for track in tracks}
    return None if not hosts or "" in hosts else len(hosts)


def _last(track: Track, kind: str) -> float | None:
    """When a rank was last done with something."""
    places = [place for place, state in enumerate(track.states) if state.split()[0] == kind]
    return float(track.starts[places[-1]] + track.lengths[places[-1]]) if places else None
