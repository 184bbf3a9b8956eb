"""Errors on test.data: frames brought along that never train."""

from dataclasses import asdict
from typing import Any

from rich.table import Table

from .metrics import Errors
from .state import RunState

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
