"""What a finished run leaves for its user: the table, results.json and errors.png."""

import json
import resource
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from ..config import Config
from ..store.store import Store
from .converge import CONVERGED, MEANING, SATURATED, has_criteria
from .coordinator import Coordinator
from .folder import RunFolder
from .plots import draw
from .state import RunState


def conclude(coordinator: Coordinator) -> None:
    """Write ``final/results.json`` and the picture of a run that has just ended."""
    config, folder, state, store = coordinator.config, coordinator.folder, coordinator.state, coordinator.store
    results = collect(config, state, store)
    results["overhead_seconds"] = {kind: median(values) for kind, values in coordinator.overheads.items()}
    results["coordinator"] = _usage(coordinator)
    (folder.final / "results.json").write_text(json.dumps(_plain(results), indent=1, allow_nan=False) + "\n")
    held_out = coordinator.evaluated
    if held_out is not None and held_out.test_ids:
        records = store.records(held_out.test_ids)
        draw(folder.final / "errors.png", state, records, held_out.parent, held_out.final)


def collect(config: Config, state: RunState, store: Store) -> dict[str, Any]:
    """The figures of a run as plain values; units eV, Å, seconds."""
    return {
        "ended": state.ended,
        "verdict": verdict(config, state),
        "rounds": [asdict(item) for item in state.history],
        "labels": len(store),
        "rejected": store.n_rejected,
        "train": len(state.train_ids),
        "validation": len(state.validation_ids),
        "held_out": len(state.test_ids),
        "pretrained": state.pretrained and asdict(state.pretrained),
        "finetuned": state.finetuned and asdict(state.finetuned),
        "production": dict(state.production),
        "seconds": dict(state.seconds),
        "model": state.model.digest,
    }


def _usage(coordinator: Coordinator) -> dict[str, float]:
    """What this process took so far: memory at its peak, and the share of one core."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "peak_megabytes": usage.ru_maxrss / 1024,
        "core_share": (usage.ru_utime + usage.ru_stime) / coordinator.books.seconds(),
    }


def _plain(value: Any) -> Any:
    """JSON has no nan and no infinity: they become null."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def verdict(config: Config, state: RunState) -> str:
    """In a sentence: why the run is over, and whether that is a success."""
    reason = MEANING[state.ended]
    if state.ended in (CONVERGED, SATURATED):
        return f"{state.ended}: {reason}"
    if not has_criteria(config.converge):
        return f"done: {reason}, and no criterion of [converge] was given"
    return f"NOT converged: {reason}; raise it and run again to go on"


def show(config: Config, folder: RunFolder, state: RunState, console: Console) -> None:
    """Print the summary of a finished run."""
    console.print()
    console.print(_rounds(state))
    if state.finetuned is not None:
        console.print(_errors(state))
    else:
        console.print("No frame was held out (test.holdout), so there is no error on unseen frames to show.")
    for line in _production(state):
        console.print(line, markup=False)
    spent = ", ".join(f"{role} {seconds:.0f} s" for role, seconds in sorted(state.seconds.items()))
    console.print(f"busy time by role: {spent}; {state.elapsed:.0f} s in all")
    console.print(verdict(config, state), style="bold", markup=False)
    for what, where in _outputs(folder):
        console.print(f"  {what:<12} {where}", markup=False)
    console.print(
        f"next: pair_style deepmd {folder.final / 'model.pth'}; to go on with this run, raise converge.max_rounds or"
        " tighten the criteria and run again; for another run choose another run.directory",
        style="dim",
        markup=False,
    )


def _outputs(folder: RunFolder) -> list[tuple[str, Path | str]]:
    return [
        ("model", folder.final / "model.pth"),
        ("checkpoint", folder.final / "model.pt"),
        ("results", folder.final / "results.json"),
        ("picture", folder.final / "errors.png"),
        ("frames", f"{folder.frames}  (pfdhpc export {folder.directory} FRAMES.extxyz)"),
    ]


def _rounds(state: RunState) -> Table:
    table = Table(title="Rounds", title_justify="left", caption="* of the exploring model on its new labels, eV/Å")
    names = "round", "model", "MD steps", "candidates", "filtered", "selected", "labelled", "rejected", "restarts"
    for name in names:
        table.add_column(name, justify="right")
    table.add_column("force RMSE*", justify="right")
    for item in state.history:
        cells = (item.steps, item.candidates, item.filtered, item.selected, item.labelled, item.rejected, item.guards)
        model = "-" if item.model_version < 0 else str(item.model_version)
        error = "-" if item.errors is None else f"{item.errors.total.force:.3f}"
        table.add_row(str(item.round), model, *map(str, cells), error)
    return table


def _errors(state: RunState) -> Table:
    before, after = state.pretrained, state.finetuned
    table = Table(title=f"RMSE on {after.total.n_frames} held-out frames, which no training saw", title_justify="left")
    table.add_column("")
    for name in ("pre-trained", "fine-tuned", "ratio") if before else ("student vs teacher",):
        table.add_column(name, justify="right")
    for label, name, scale in (
        ("force, eV/Å", "force", 1),
        ("energy, meV/atom", "energy", 1000),
        ("virial, meV/atom", "virial", 1000),
    ):
        _row(table, label, getattr(after.total, name), before and getattr(before.total, name), scale)
    for system, errors in after.systems.items() if len(after.systems) > 1 else ():
        _row(table, f"force of {system}, eV/Å", errors.force, before and before.systems[system].force)
    for element, error in after.elements.items() if len(after.elements) > 1 else ():
        _row(table, f"force on {element}, eV/Å", error, before and before.elements[element])
    return table


def _row(table: Table, label: str, after: float, before: float | None, scale: float = 1) -> None:
    digits = 3 if scale == 1 else 1
    old = [] if before is None else [f"{scale * before:.{digits}f}"]
    ratio = [] if before is None else [f"{before / after:.1f}" if after else "-"]
    table.add_row(label, *old, f"{scale * after:.{digits}f}", *ratio)


def _production(state: RunState) -> list[str]:
    """What is known of a student's model for production."""
    found = state.production
    if not found:
        return []
    lines = [f"model for production: {found['product']}"]
    if "atoms" in found:
        teacher, student = found["teacher_speed"], found["student_speed"]
        lines.append(
            f"speed in LAMMPS, {found['atoms']} atoms: teacher {teacher:.3g}, student {student:.3g} steps/s:"
            f" {student / teacher:.1f} times"
        )
    if found.get("stable"):
        lines.append(f"constant-energy dynamics is stable: drift {found['drift']:.2g} meV/atom/ps")
    elif "stable" in found:
        lines.append(f"constant-energy dynamics is NOT stable: {found['reason']}")
    return lines
