"""What a run spent its time on: the section of the report, finished or not, and the figures it leaves."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..parallel.ledger import Track
from ..units import duration
from .html_document import Figure, Section, Table, number
from .run_data import RunData
from .timeline import n_nodes, sampled, tail, utilization
from .timeline_plot import timeline

LEDGERS = 2048
"""Of more ranks than these a part stands for all."""


def costs(tracks: Sequence[Track], elapsed: float, core_hours: float, n_labels: int) -> dict[str, float]:
    """Of the whole run by frame with a label of its own; hours, but for the seconds of the tail. What is known."""
    found = {}
    nodes = n_nodes(tracks)
    if n_labels:
        found["core_hours_per_label"] = core_hours / n_labels
    if n_labels and nodes is not None:
        found["node_hours_per_label"] = nodes * elapsed / 3600 / n_labels
    if (late := tail(tracks)) is not None:
        found["tail_seconds"] = late
    return found


def spent(run: RunData) -> Section:
    """How busy the roles were, what a label cost, and who did what when."""
    section = Section("Where the time went")
    folder = run.directory / "ledger"
    tracks = sampled(folder, LEDGERS)
    section.tables.append(_shares(run, tracks) if tracks else _by_orders(run))
    rows = _figures(run, tracks)
    if rows:
        section.tables.append(Table(("what", "how much"), rows, words=True))
    if tracks:
        n_ranks = sum(1 for _ in folder.glob("rank-*.txt"))
        part = f" {len(tracks)} of {n_ranks} ranks are shown." if len(tracks) < n_ranks else ""
        silent = "" if run.complete else " What is under way is not on record yet, and white."
        caption = f"What the ranks did, and when.{part}{silent}"
        section.figures.append(Figure("timeline", timeline(tracks), caption))
    return section


def _shares(run: RunData, tracks: Sequence[Track]) -> Table:
    """Shares of the time of each role, as far as it is on record."""
    shares = utilization(tracks)
    kinds = sorted({kind for found in shares.values() for kind in found} - {"busy", "wait"})
    rows = []
    for role, found in shares.items():
        ranks = sum(track.role == role for track in tracks)
        columns = (found["busy"], found.get("wait", 0.0), *(found.get(kind, 0.0) for kind in kinds))
        rows.append([role, str(ranks), *map(_percent, columns)])
    caption = (
        f"{run.world_size} ranks, {duration(run.state['elapsed'])} in all. Shares of the time since a role had started;"
        " busy: neither waiting nor talking to others."
    )
    return Table(("role", "ranks", "busy", "wait", *kinds), rows, caption)


def _by_orders(run: RunData) -> Table:
    """Of a run without ledgers: the time its teams worked on orders."""
    elapsed, rows = run.state["elapsed"], []
    for role, seconds in sorted(run.state["seconds"].items()):
        count = run.teams.get(role)
        share = f"{seconds / elapsed / count:.0%}" if count and elapsed else "–"
        rows.append([role, str(count or "–"), duration(seconds), share])
    caption = f"{run.world_size} ranks, {duration(elapsed)} in all; busy: working on an order, over the wall time."
    return Table(("role", "teams", "work", "busy"), rows, caption)


def _figures(run: RunData, tracks: Sequence[Track]) -> list[list[str]]:
    """What a label cost and what the slowest held up."""
    results, rows = _results(run), []
    seconds = [record.labelling.seconds for record in run.labelled if record.labelling.seconds > 0]
    if seconds:
        rows.append(["a label, on the average", f"{number(sum(seconds) / len(seconds))} s"])
    overhead = results.get("overhead_seconds", {}).get("label")
    if overhead is not None:
        rows.append(["from its order to the disk, besides the work on it (median)", f"{1000 * overhead:.0f} ms"])
    kept = sum(len(run.state[key]) for key in ("train_ids", "validation_ids", "test_ids", "fresh"))
    found = costs(tracks, run.state["elapsed"], run.state["core_hours"], kept - run.state["given"])
    if "core_hours_per_label" in found:
        rows.append(["the whole run, by accepted frame", f"{number(found['core_hours_per_label'])} core hours"])
    if "node_hours_per_label" in found:
        rows.append(["", f"{number(found['node_hours_per_label'])} node hours"])
    if "tail_seconds" in found:
        what = "tail: from the first labeler's last label of the last round to the last one's"
        rows.append([what, duration(found["tail_seconds"])])
    return rows


def _results(run: RunData) -> Mapping[str, Any]:
    path = run.directory / "final" / "RESULTS.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def _percent(share: float) -> str:
    """No digits that do not count, but what is there at all is not 0."""
    return f"{share:.0%}" if share >= 0.095 else f"{100 * share:.1g}%" if share >= 5e-4 else "–"
