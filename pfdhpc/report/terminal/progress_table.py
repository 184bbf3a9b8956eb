"""A moment of a run as a few tidy lines: for ``pfdhpc status``, and below the lines of a run in a terminal."""

from collections.abc import Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text

from ...units import duration
from .run_progress import RunProgress

SILENCE = 900.0
"""Seconds without a word after which a running run may be a dead one."""
STYLES = {"running": "bold cyan", "complete": "bold green", "incomplete": "bold yellow"}
STYLES |= dict.fromkeys(("failed", "lost"), "bold red")
BARS = "▁▂▃▄▅▆▇█"
SHOWN = 5
"""Rounds whose error is given as a figure."""
LONG = 24
"""Rounds whose error is drawn."""
BAR = 12
"""Characters of the bar of a role."""
MEANS = {"wait": "exploration waits for a newer model", "drain": "exploration is over, the last labels come in"}
"""Phases whose names alone say too little."""


def board(found: RunProgress, name: str) -> Group:
    """All that is known; ``name`` of the run."""
    head = Text.assemble((found.state, STYLES.get(found.state, "bold")), "  ", name)
    if found.reason not in ("", found.phase):
        head.append(f"\n{found.reason}")
    if not found.over and found.silent > SILENCE:
        head.append(f"\n{_silence(found)}", "yellow")
    return Group(head, lines(found))


def _silence(found: RunProgress) -> str:
    where = f" on {found.host}" if found.host else ""
    return (
        f"no sign of life for {duration(found.silent)}: if its job{where} is gone (squeue, qstat, ps), run it again; it"
        " goes on from what is saved"
    )


def lines(found: RunProgress) -> Table:
    """What it does, has, and lacks, by row."""
    table = Table.grid(padding=(0, 2))
    rows = _rows(found)
    table.add_column(style="dim", no_wrap=True, min_width=max(len(name) for name, _ in rows))
    table.add_column(no_wrap=True, overflow="ellipsis")
    for name, value in rows:
        table.add_row(name, value)
    return table


def _rows(found: RunProgress) -> list[tuple[str, Text | str]]:
    phase = MEANS.get(found.phase, found.phase)
    rows: list[tuple[str, Text | str]] = [("round", f"{found.round} of at most {found.max_rounds}, {phase}")]
    if found.candidates:
        rows.append(("candidates", f"{found.candidates} in this round"))
    rows.append(("labels", _labels(found)))
    if found.queue is not None:
        eta = f", about {duration(found.eta_phase)} for all" if found.eta_phase else ""
        under_way = "" if found.under_way is None else f", {found.under_way} under way"
        rows.append(("queue", f"{found.queue} frames wait for a label{under_way}{eta}"))
    rows += _work(found)
    rows.append(("used", f"{duration(found.elapsed)}, {found.core_hours:.2f} core hours"))
    if found.eta is not None:
        until = f"{duration(found.eta)} to the end of round {found.max_rounds}, or converged before"
        rows.append(("at this pace", until))
    if found.ends_at:
        rows.append(("job ends", str(found.ends_at)))
    if found.force_rmse:
        rows.append(("force RMSE", trend(list(found.force_rmse.values()), found.criterion)))
    if not found.over and found.silent:
        rows.append(("last word", Text(f"{duration(found.silent)} ago", "yellow" if found.silent > SILENCE else "")))
    return rows


def _labels(found: RunProgress) -> str:
    rejected = f", {found.rejected} rejected" if found.rejected else ""
    dropped = f", {found.dropped} picks dropped as redundant" if found.dropped else ""
    rate = f", {found.labels_per_hour:.0f} an hour" if found.labels_per_hour else ""
    return f"{found.labels}{rejected}{dropped}{rate}"


def _work(found: RunProgress) -> list[tuple[str, Text]]:
    """A line a role: how busy it was in the last minutes and over the run, and how many teams work now."""
    rows = []
    for role in dict.fromkeys((*found.teams, *found.utilization)):
        recent = found.busy.get(role)
        whole = found.utilization.get(role, {}).get("busy")
        share = whole if recent is None else recent
        if share is None or role == "coordinator":
            continue
        filled = min(BAR, max(0, round(BAR * share)))
        text = Text.assemble(("█" * filled, "green"), ("░" * (BAR - filled), "dim"))
        here = not found.over and role in found.at_work
        said = [f"{found.at_work[role]} of {found.teams.get(role, '?')} at work"] if here else []
        said += [] if recent is None else [f"{recent:.0%} of the last minutes"]
        said += [] if whole is None else [f"{whole:.0%} of the run"]
        rows.append((role, text.append("  " + ", ".join(said))))
    return rows


def trend(values: Sequence[float], criterion: float | None = None) -> Text:
    """Errors of the rounds so far, eV/Å, as bars and figures."""
    known = [value for value in values if value == value]
    top = max(known, default=0.0) or 1.0
    bars = "".join(BARS[min(7, int(8 * value / top))] for value in known[-LONG:])
    text = Text.assemble((bars, "cyan"), "  ", " → ".join(f"{value:.3g}" for value in known[-SHOWN:]), " eV/Å")
    if criterion and known:
        text.append(f"  (criterion {criterion:g})", "green" if known[-1] <= criterion else "dim")
    return text
