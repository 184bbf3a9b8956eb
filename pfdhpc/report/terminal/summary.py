"""What a finished run leaves for its user: the table, RESULTS.json and errors.png."""

import json
import resource
import time
from collections.abc import Sequence
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from ... import messages as m
from ...config import Config
from ...config.trainers import TRAINERS
from ...data import Record
from ...data.error_metrics import Errors
from ...files import publish
from ...store.run_directory import RunFolder
from ...store.store import Store
from ...workflow.convergence import ACCURATE, ALL_FAILED, CONVERGED, MEANING, SATURATED, has_criteria
from ...workflow.energy_check import undetermined_note
from ...workflow.state import RunState
from ..error_plots import parity
from ..final_files import hand_over
from ..plot_style import AFTER, BEFORE
from ..snapshot import Snapshot
from ..time_and_cost import costs
from ..timeline import gather, tracks_of, utilization
from ..timeline_plot import timeline

WIDER = (
    "look at them, then raise select.trust_hi (or pool.trust_energy_hi) and run again to go on; or begin anew with more"
    " first labels (pool.init_pick) or longer trainings (train.first_steps, train.steps)"
)


def conclude(now: Snapshot) -> None:
    """Write ``final/RESULTS.json`` and the picture of a run that has just ended."""
    config, folder, state, store = now.config, now.folder, now.state, now.store
    results = collect(config, state, store)
    results["overhead_seconds"] = {kind: median(values) for kind, values in now.overheads.items()}
    results["coordinator"] = _usage(now.seconds)
    results |= _ledgers(folder, state)
    text = json.dumps(_plain(results), indent=1, allow_nan=False) + "\n"
    publish(folder.final / "RESULTS.json", text.encode())
    hand_over(now, results["verdict"])
    held_out = state.job.evaluated
    if held_out is not None and held_out.test_ids:
        records = store.records(held_out.test_ids)
        publish(folder.final / "errors.png", _picture(state, records, held_out))


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
        "test_data": fixed_results(state),
        "production": dict(state.production),
        "seconds": dict(state.seconds),
        "model": state.model.digest,
        "warnings": list(state.warnings.values()),
    }


def _ledgers(folder: RunFolder, state: RunState) -> dict[str, Any]:
    """Where the time went, from all ranks' ledgers, which are gathered; a run in one process has but one."""
    tracks = tracks_of(folder.ledger, time.time())
    if not tracks:
        return {"utilization": {}}
    gather(tracks, folder.final / "ledger.h5")
    publish(folder.final / "timeline.png", timeline(tracks))
    return {"utilization": utilization(tracks), **costs(tracks, state.elapsed, state.core_hours, state.n_paid)}


def _picture(state: RunState, records: Sequence[Record], found: m.Evaluated) -> bytes:
    """Parity of the held-out frames, before and after, as PNG."""
    before = [("pre-trained", BEFORE, found.parent)] if found.parent else []
    name = "student" if state.teacher else "fine-tuned"
    return parity(records, [*before, (name, AFTER, found.final)], "teacher" if state.teacher else "label")


def _usage(seconds: float) -> dict[str, float]:
    """Memory of this process at its peak, and its share of one core over so many seconds."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "peak_megabytes": usage.ru_maxrss / 1024,
        "core_share": (usage.ru_utime + usage.ru_stime) / seconds,
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
    if state.ended in (CONVERGED, SATURATED, ACCURATE):
        return f"{state.ended}: {reason}"
    if state.ended == ALL_FAILED:
        return f"NOT converged: {reason} ({state.current.failed} of them); {WIDER}"
    if config.pool is None and not has_criteria(config.converge):
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
    if state.fixed:
        console.print(fixed_table(state))
    if note := undetermined_note([*filter(None, (state.finetuned, *state.fixed.values()))]):
        console.print(note, markup=False)
    for line in _production(state):
        console.print(line, markup=False)
    spent = ", ".join(f"{role} {seconds:.0f} s" for role, seconds in sorted(state.seconds.items()))
    console.print(f"busy time by role: {spent}; {state.elapsed:.0f} s in all")
    shares = _shares(folder)
    busy = ", ".join(f"{role} {found['busy']:.0%}" for role, found in shares.items() if role != "coordinator")
    if busy:
        console.print(f"share of its time each role was at work: {busy}", markup=False)
    for text in state.warnings.values():
        console.print(f"WARNING: {text}", style="yellow", markup=False)
    console.print(verdict(config, state), style="bold", markup=False)
    for what, where in _outputs(config, folder):
        console.print(f"  {what:<12} {where}", markup=False)
    console.print(
        f"next: {_next(config, folder)}; to go on with this run, raise converge.max_rounds or"
        " tighten the criteria and run again; for another run choose another run.directory",
        style="dim",
        markup=False,
    )


def _next(config: Config, folder: RunFolder) -> str:
    kind = TRAINERS[config.train.type]
    if not kind.not_lammps:
        return f"pair_style deepmd {folder.final / kind.final_names[1]}"
    return f"python {folder.final / 'run_ase.py'} ({kind.not_lammps}: for ASE, not for pair_style deepmd)"


def _shares(folder: RunFolder) -> dict[str, Any]:
    """As they were when the run ended, whenever its summary is shown again."""
    path = folder.final / "RESULTS.json"
    return json.loads(path.read_text()).get("utilization", {}) if path.is_file() else {}


def _outputs(config: Config, folder: RunFolder) -> list[tuple[str, Path | str]]:
    checkpoint, model = config.train.final_names
    scripts = ["run_ase.py"] if TRAINERS[config.train.type].not_lammps else ["in.lammps", "run_ase.py"]
    return [
        ("model", folder.final / model),
        ("checkpoint", folder.final / checkpoint),
        ("model card", folder.final / "MODEL_CARD.md"),
        ("results", folder.final / "RESULTS.json"),
        ("picture", folder.final / "errors.png"),
        ("to run it", ", ".join(str(folder.final / name) for name in scripts)),
        ("report", f"pfdhpc report {folder.directory}; pfdhpc validate {folder.directory}"),
        ("frames", f"{folder.frames}  (pfdhpc export {folder.directory} FRAMES.extxyz)"),
    ]


def _rounds(state: RunState) -> Table:
    table = Table(title="Rounds", title_justify="left", caption="* of the exploring model on its new labels, eV/Å")
    names = ["round", "model", "MD steps", "candidates", "filtered", "selected", "labelled", "rejected", "restarts"]
    dropped = any(item.dropped for item in state.history)
    for name in (*names, *(["dropped"] if dropped else []), "force RMSE*"):
        table.add_column(name, justify="right")
    for item in state.history:
        cells = [item.steps, item.candidates, item.filtered, item.selected, item.labelled, item.rejected, item.guards]
        cells += [item.dropped] if dropped else []
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
        missing = "not determined" if name == "energy" else "not labelled"
        _row(table, label, getattr(after.total, name), before and getattr(before.total, name), scale, missing)
    for system, errors in after.systems.items() if len(after.systems) > 1 else ():
        _row(table, f"force of {system}, eV/Å", errors.force, before and before.systems[system].force)
    for element, error in after.elements.items() if len(after.elements) > 1 else ():
        _row(table, f"force on {element}, eV/Å", error, before and before.elements[element])
    return table


def _row(
    table: Table, label: str, after: float, before: float | None, scale: float = 1, missing: str = "not labelled"
) -> None:
    digits = 3 if scale == 1 else 1
    said = [
        missing if value != value else f"{scale * value:.{digits}f}" for value in (before, after) if value is not None
    ]
    ratio = [] if before is None else [f"{before / after:.1f}" if after == after != 0 else "-"]
    table.add_row(label, *said, *ratio)


def _production(state: RunState) -> list[str]:
    """What is known of a student's model for production."""
    found = state.production
    if not found:
        return []
    lines = [f"model for production: {found['product']}"]
    if "atoms" in found:
        teacher, student = found["teacher_speed"], found["student_speed"]
        slow = f" ({found['teacher_engine']})" if found.get("teacher_engine", "LAMMPS") != "LAMMPS" else ""
        lines.append(
            f"speed in LAMMPS, {found['atoms']} atoms: teacher{slow} {teacher:.3g}, student {student:.3g} steps/s:"
            f" {student / teacher:.1f} times"
        )
    if found.get("stable"):
        lines.append(f"constant-energy dynamics is stable: drift {found['drift']:.2g} meV/atom/ps")
    elif "stable" in found:
        lines.append(f"constant-energy dynamics is NOT stable: {found['reason']}")
    return lines


ROWS = (
    ("force, eV/Å", "force", 1.0, 3),
    ("energy, meV/atom", "energy", 1e3, 1),
    ("virial, meV/atom", "virial", 1e3, 1),
)
NAMES = {"pretrained": "pre-trained", "teacher": "teacher", "final": "final model"}


def fixed_results(state: RunState) -> dict[str, Any] | None:
    """For RESULTS.json, None where there are no such frames. In a distillation energies count up to constants per
    element."""
    if not state.fixed_ids:
        return None
    return {"frames": len(state.fixed_ids), **{name: asdict(table) for name, table in state.fixed.items()}}


def fixed_table(state: RunState) -> Table:
    """For the terminal: errors of the model the run was given and of the final one; by file where there are several."""
    until = "; energies up to a constant per element" if state.teacher else ""
    table = Table(title=f"RMSE on the {len(state.fixed_ids)} frames of test.data{until}", title_justify="left")
    table.add_column("")
    for name in state.fixed:
        table.add_column(NAMES[name], justify="right")
    for label, name, scale, digits in ROWS:
        table.add_row(label, *_cells([found.total for found in state.fixed.values()], name, scale, digits))
    systems = state.fixed["final"].systems
    for system in systems if len(systems) > 1 else ():
        errors = [found.systems[system] for found in state.fixed.values()]
        table.add_row(f"force of {system}, eV/Å", *_cells(errors, "force", 1.0, 3))
    return table


def _cells(errors: list[Errors], name: str, scale: float, digits: int) -> list[str]:
    values = [scale * getattr(item, name) for item in errors]
    missing = "not determined" if name == "energy" else "not labelled"
    return [f"{value:.{digits}f}" if value == value else missing for value in values]
