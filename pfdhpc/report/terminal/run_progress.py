"""How a run is going, from the small files it writes as it goes; the run is not disturbed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...store.lock import holder
from ..run_data import RunData, read_run, status_of
from ..timeline import sampled
from ..timeline import utilization as utilization_of

LEDGER = "ledger"
"""The folder of the ledgers in a run directory."""
Shares = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class RunProgress:
    """A moment of a run; seconds, labels per hour, and force RMSE in eV/Å.

    ``eta`` is when the rounds that are allowed would be done at the pace so far; a run that converges ends before.
    """

    state: str  # running, complete, incomplete, failed; lost: said to run, but its processes are gone
    reason: str
    round: int
    max_rounds: int
    phase: str
    labels: int
    rejected: int
    queue: int | None  # frames waiting for a label; None where that is not known
    elapsed: float
    silent: float  # since its last word; a job of several ranks says one every minute
    core_hours: float
    labels_per_hour: float | None
    eta_phase: float | None
    eta: float | None
    ends_at: str | None  # of the job
    measured_seconds: Mapping[str, float] = field(default_factory=dict)
    force_rmse: Mapping[str, float] = field(default_factory=dict)  # by round, of the exploring model on new labels
    criterion: float | None = None
    host: str = ""  # where its coordinator is, or was
    candidates: int = 0  # of the present round
    under_way: int | None = None  # frames that labelers are at work on
    dropped: int = 0  # overlapped: picks that became redundant before a labeler began
    dropped_by_round: Mapping[str, int] = field(default_factory=dict)
    teams: Mapping[str, int] = field(default_factory=dict)  # by role
    at_work: Mapping[str, int] = field(default_factory=dict)  # teams with an order, by role
    busy: Mapping[str, float] = field(default_factory=dict)  # share of the last minutes with an order, by role
    utilization: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # of the run, from the ledgers

    @property
    def moment(self) -> tuple:
        """What differs when something has happened."""
        return self.state, self.reason, self.round, self.phase, self.labels

    @property
    def over(self) -> bool:
        """Nothing will change without another job."""
        return self.state != "running"


def read_progress(directory: Path, now: datetime | None = None, utilization: Shares | None = None) -> RunProgress:
    """Where a run stands; raises InputError for a folder that is no run, or one that has not begun.

    ``utilization`` saves reading the ledgers again.
    """
    run = read_run(directory, frames=False)
    status = status_of(directory)
    if status is None:
        raise InputError(f"{directory}: the run has not come to its first checkpoint yet; try again in a minute")
    now = now or datetime.now().astimezone()
    silent = max(0.0, (now - datetime.fromisoformat(status["updated"])).total_seconds())
    running = status["state"] == "running"
    elapsed = run.state["elapsed"] + _since_checkpoint(run, status) + (silent if running else 0.0)
    queue = status.get("waiting", _queue(run, status)) if running else None
    under_way = status.get("labelling") if running else None
    n_left = (queue or 0) + (under_way or 0)
    dropped = {str(item["round"]): item["dropped"] for item in run.rounds if item.get("dropped")}
    made = status["labels"] - run.state["given"]
    return RunProgress(
        state=status["state"],
        reason=status["reason"],
        round=status["round"],
        max_rounds=run.config["converge"]["max_rounds"],
        phase=status["phase"],
        labels=status["labels"],
        rejected=sum(item["rejected"] for item in run.rounds),
        queue=queue,
        elapsed=elapsed,
        silent=silent,
        core_hours=status["core_hours"],
        labels_per_hour=3600 * made / elapsed if elapsed > 0 and made > 0 else None,
        eta_phase=label_seconds(status["measured_seconds"], n_left, run.teams.get("labeler", 1)) if n_left else None,
        eta=rest(status["round"], run.config["converge"]["max_rounds"], elapsed) if running else None,
        ends_at=status["ends_at"],
        measured_seconds=status["measured_seconds"],
        force_rmse={str(r["round"]): r["errors"]["total"]["force"] for r in run.rounds if r["errors"] is not None},
        criterion=run.config["converge"]["force_rmse"],
        host=holder(directory),
        candidates=status.get("candidates", 0) if running else 0,
        under_way=under_way,
        dropped=max(sum(dropped.values()), status.get("dropped", 0)),
        dropped_by_round=dropped,
        teams=status.get("teams", {}) or (run.teams if run.world_size > 1 else {}),
        at_work=status.get("at_work", {}) if running else {},
        busy=status.get("busy", {}) if running else {},
        utilization=busy_shares(run) if utilization is None else utilization,
    )


def _since_checkpoint(run: RunData, status: Mapping[str, Any]) -> float:
    """Seconds from the newest checkpoint to the last word, from the core hours both tell."""
    if not run.state["elapsed"]:
        return 0.0
    hours = status["core_hours"] - run.state["core_hours"]
    return max(0.0, hours * run.state["elapsed"] / run.state["core_hours"]) if run.state["core_hours"] else 0.0


def _queue(run: RunData, status: Mapping[str, Any]) -> int | None:
    """The frames that waited at the checkpoint, less the labels made since."""
    if status["phase"] != "label" or run.state["phase"] != "label":
        return None
    kept = sum(len(run.state[key]) for key in ("train_ids", "validation_ids", "test_ids", "fresh"))
    return max(0, len(run.state["pending"]) - max(0, status["labels"] - kept))


def label_seconds(measured: Mapping[str, float], n_frames: int, n_teams: int) -> float | None:
    """Until so many frames are labelled, by what labels of all sizes took (seconds, by kind)."""
    took = [value for key, value in measured.items() if key.split(".")[-2:-1] == ["label"]]
    return n_frames / max(n_teams, 1) * sum(took) / len(took) if took else None


def rest(done: int, last: int, elapsed: float) -> float | None:
    """Until the last round allowed is done, if all take as long as those so far; None in the first."""
    if done < 1:
        return None
    begun = elapsed / (done + 0.5)  # half of the present round, on the average
    return max(0.0, (last + 1) * begun - elapsed)


def busy_shares(run: RunData) -> Shares:
    """How each role of a run spent its time, as far as it is on record; of one rank that plays all, from its orders."""
    found = utilization_of(sampled(run.directory / LEDGER))
    elapsed = run.state["elapsed"]
    if run.world_size > 1 or not elapsed:
        return found
    return found | {role: {"busy": seconds / elapsed} for role, seconds in run.state["seconds"].items()}
