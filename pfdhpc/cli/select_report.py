"""What ``pfdhpc select`` says of its selection."""

import argparse
import math
from collections.abc import Mapping

from rich.table import Table

from ..config.select import SelectSection
from ..log import console
from ..selection.standalone import Material, Selection

SHOWN = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)
"""Picks of the gain curve that are printed, and the last one."""


def report(
    options: argparse.Namespace, section: SelectSection, material: Material, found: Selection, seconds: Mapping
) -> None:
    """Everything on the terminal: counts, entropies, gains, where the time went, and where the picks are."""
    table = Table(show_header=False)
    table.add_row("candidates", f"{material.n_candidates}")
    if found.duplicates:
        table.add_row("  copies of others", f"{found.duplicates}")
    if found.known:
        table.add_row("  in the reference already", f"{found.known}")
    for reason, count in sorted(found.filtered.items()):
        table.add_row(f"  filtered: {reason}", f"{count}")
    table.add_row("reference", f"{len(material.reference_ids)}")
    table.add_row("picked", f"{len(found.indices)}")
    table.add_row("how", _how(section, found))
    if found.atoms_after and not math.isnan(found.entropy_after):
        table.add_row("H before", _entropy(found.entropy_before, found.atoms_before))
        table.add_row("H after", _entropy(found.entropy_after, found.atoms_after))
    if found.gains and section.method != "random":
        table.add_row("gain of pick", _gains(found.gains))
    table.add_row("seconds", ", ".join(f"{phase} {value:.1f}" for phase, value in seconds.items()))
    console.print(table)
    console.print(_ending(section, found))
    if found.warning:
        console.print(f"[yellow]{found.warning}[/]")
    if found.indices:
        console.print(f"{len(found.indices)} frames written to {options.output}", markup=False)
    else:
        console.print("[yellow]nothing was picked, no file was written[/]")


def _how(section: SelectSection, found: Selection) -> str:
    kind = section.descriptor
    width = "" if kind.type == "model" else f" of {kind.neighbours} neighbours within {kind.cutoff:g} Å"
    text = f"{section.method}, descriptor {kind.type}{width}"
    return text if math.isnan(found.bandwidth) else f"{text}, h = {found.bandwidth:.4g} 1/Å"


def _entropy(value: float, n_atoms: int) -> str:
    if not n_atoms:
        return "-, there is no reference"
    return f"{value:.3f} nats; ln n = {math.log(n_atoms):.3f} of {n_atoms} environments"


def _gains(gains: tuple[float, ...]) -> str:
    last = len(gains)
    numbers = [number for number in SHOWN if number < last] + [last]
    return ",  ".join(f"{number}: {gains[number - 1]:.4g}" for number in numbers) + " nats"


def _ending(section: SelectSection, found: Selection) -> str:
    if found.saturated:
        return f"saturated: nothing left adds more than min_gain = {section.min_gain:g} nats"
    if len(found.indices) < section.max_sel:
        return "no candidate is left"
    if section.method == "random":
        return "max_sel is reached"
    return f"max_sel is reached: not saturated, the last pick added {found.gains[-1]:.3g} nats"
