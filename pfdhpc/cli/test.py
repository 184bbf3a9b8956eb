"""``pfdhpc test``: errors of a model on labelled frames, and whether its training covered them."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from ..errors import EXIT_COMPLETE, InputError, StoreError, TaskError, reason
from ..log import console
from .arguments import quiet

PICTURES = (".png",)
WORST = 10
"""Frames with new environments that are named."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", type=Path, metavar="MODEL", help="deep-potential model, .pth or .pt, or an exported metatomic one")
    add("data", type=Path, nargs="+", metavar="DATA", help="labelled frames: any file ASE or dpdata reads, or a run")
    add("--branch", help="of a multi-task model")
    add("--align", action="store_true", help="take an energy offset of each element out first: other levels of theory")
    add("--plot", type=Path, metavar="FILE", help="parity plot (png)")
    add("--novelty", action="store_true", help="flag environments that training had nothing like")
    source = "novelty.npz of a run, a run, or training frames (default: novelty.npz beside MODEL)"
    add("--reference", type=Path, metavar="FILE", help=source)


def test(options: argparse.Namespace) -> int:
    """Print errors by system and element; raises InputError."""
    from ..data.error_metrics import error_table

    _check(options)
    quiet()
    records = [record for path in options.data for record in labelled(path)]
    predictions = predicted(options.model, records, options.branch)
    if options.align:
        predictions = aligned(records, predictions)
    console.print(_table(error_table(records, predictions), options))
    for path in options.data:
        if (path / "input.json").is_file():
            console.print(_trained_on(path), style="yellow", markup=False)
    if not options.align and (offset := _offset(records, predictions)) > 0.1:
        text = f"energies differ by {offset:.2f} eV/atom on the average: another level of theory? --align takes it out"
        console.print(text, style="yellow")
    if options.plot:
        _draw(options, records, predictions)
    if options.novelty:
        _novelty(options, records)
    return EXIT_COMPLETE


def labelled(path: Path) -> list[Any]:
    """The labelled records of a run directory, or of a file or folder of data, named by it."""
    from ..data.io import read_labelled
    from ..store.store import read_records

    if (path / "input.json").is_file():
        records = read_records(path / "frames")
        if not records:
            raise InputError(f"{path}: this run has no labelled frame yet")
        return records
    return read_labelled(path)


def _trained_on(run: Path) -> str:
    """What errors on the frames of a run mean for the models of that run."""
    from ..report.run_data import read_run

    try:
        state = read_run(run, frames=False).state
    except (InputError, StoreError):
        return f"which of the frames of {run} trained its models is not known: it has no checkpoint that can be read"
    used = len(state["train_ids"]) + len(state["validation_ids"])
    held = run / "final" / "held_out.extxyz"
    rest = f"; {held} has those that no training saw" if held.is_file() else ""
    return f"{used} of the frames of {run} trained its models, whose errors here are not those on new frames{rest}"


def predicted(model: Path, records: Sequence[Any], branch: str | None = None, align: bool = False) -> list[Any]:
    """Labels by a model file; raises InputError where it cannot be used or does not know the elements."""
    from ..engines.models import open_predictor

    if not model.is_file():
        raise InputError(f"{model}: no such model file")
    try:
        found = open_predictor(model, branch)([record.frame for record in records])
    except InputError as error:
        raise error.about({"model.checkpoint": "", "model.branch": "--branch"}) from None
    except TaskError as error:
        raise InputError(f"{model}: {error}") from error
    except Exception as error:  # torch and deepmd raise anything
        raise InputError(f"{model}: cannot predict these frames: {reason(error)}") from error
    return aligned(records, found) if align else found


def aligned(records: Sequence[Any], predictions: Sequence[Any]) -> list[Any]:
    """Predictions less the minimum-norm least-squares fit of an energy of each element to their differences."""
    differences = np.array([p.energy - r.label.energy for r, p in zip(records, predictions, strict=True)])
    elements = np.unique(np.concatenate([record.frame.numbers for record in records]))
    counts = np.array([[(record.frame.numbers == z).sum() for z in elements] for record in records], float)
    shifts = counts @ np.linalg.lstsq(counts, differences, rcond=None)[0]
    return [replace(p, energy=p.energy - shift) for p, shift in zip(predictions, shifts, strict=True)]


def _check(options: argparse.Namespace) -> None:
    problems = []
    if options.plot and options.plot.suffix not in PICTURES:
        problems.append(f"--plot {options.plot}: pictures end in {', '.join(PICTURES)}")
    if options.plot and not options.plot.parent.is_dir():
        problems.append(f"--plot {options.plot}: there is no folder {options.plot.parent}; make it first")
    if options.reference and not options.novelty:
        problems.append("--reference: it is what --novelty compares with; give that too")
    if problems:
        raise InputError(problems)


def _table(errors: Any, options: argparse.Namespace) -> Table:
    from ..report.html_document import error

    note = ", energies aligned by element" if options.align else ""
    title = f"RMSE of {options.model.name} on {errors.total.n_frames} frames{note}"
    table = Table(title=title, title_justify="left")
    for name in ("", "frames", "force, eV/Å", "energy, meV/atom", "virial, meV/atom"):
        table.add_column(name, justify="right" if name else "left")
    for name, row in [("all", errors.total), *(errors.systems.items() if len(errors.systems) > 1 else ())]:
        cells = error(row.force, 1.0, 4), error(row.energy, 1e3, 1), error(row.virial, 1e3, 1)
        table.add_row(name, str(row.n_frames), *cells)
    for element, force in errors.elements.items() if len(errors.elements) > 1 else ():
        table.add_row(f"on {element}", "", f"{force:.4f}", "", "")
    return table


def _offset(records: Sequence[Any], predictions: Sequence[Any]) -> float:
    """Mean energy difference, eV/atom."""
    pairs = zip(records, predictions, strict=True)
    return abs(float(np.mean([(p.energy - r.label.energy) / len(r.frame) for r, p in pairs])))


def _draw(options: argparse.Namespace, records: Sequence[Any], predictions: Sequence[Any]) -> None:
    from ..report.error_plots import parity
    from ..report.plot_style import AFTER

    try:
        options.plot.write_bytes(parity(records, [(options.model.name, AFTER, predictions)]))
    except OSError as error:
        raise StoreError(f"{options.plot}: cannot be written: {error.strerror}") from error
    console.print(f"parity plot: {options.plot}", markup=False)


@dataclass(frozen=True)
class Flagged:
    """A frame that training did not cover."""

    name: str
    n_new: int
    n_atoms: int
    largest: float  # δH, nats


def _novelty(options: argparse.Namespace, records: Sequence[Any]) -> None:
    from ..report.novelty import THRESHOLD, judged

    coverage = _coverage(options)
    found = judged(coverage, [record.frame for record in records], options.model, options.branch)
    flagged = []
    for record, values in zip(records, found, strict=True):
        n_new = int((values > THRESHOLD).sum())
        if n_new:
            name = f"{record.origin.system} {record.origin.replica or record.origin.step}".strip()
            flagged.append(Flagged(name, n_new, len(values), float(values.max())))
    everything = np.concatenate(found)
    n_new = int((everything > THRESHOLD).sum())
    known = f"{len(coverage.frames)} training frames" + (f" ({coverage.left_out} left out)" * bool(coverage.left_out))
    console.print(
        f"novelty against {known}: {n_new} of {len(everything)} environments ({n_new / len(everything):.0%}),"
        f" in {len(flagged)} of {len(records)} frames, are new (δH above {THRESHOLD:g} nats)"
    )
    if flagged:
        console.print(_worst(flagged))


def _worst(flagged: Sequence[Flagged]) -> Table:
    table = Table(title="where the model extrapolates most", title_justify="left")
    for name in ("frame", "new environments", "of", "largest δH, nats"):
        table.add_column(name, justify="left" if name == "frame" else "right")
    for one in sorted(flagged, key=lambda item: -item.largest)[:WORST]:
        largest = "∞ (element not trained on)" if np.isinf(one.largest) else f"{one.largest:.1f}"
        table.add_row(one.name, str(one.n_new), str(one.n_atoms), largest)
    return table


def _coverage(options: argparse.Namespace) -> Any:
    """What is known, from the file beside the model or what ``--reference`` names; raises InputError."""
    from ..config.select import SelectSection
    from ..report.novelty import Coverage, load_coverage
    from ..selection.standalone import read_structures

    path = options.reference or options.model.with_name("novelty.npz")
    if options.reference is None and not path.is_file():
        raise InputError(f"{path}: no novelty reference beside the model; name one, or training frames: --reference")
    if path.is_dir() and (path / "final" / "novelty.npz").is_file():
        path = path / "final" / "novelty.npz"
    if path.suffix == ".npz":
        return load_coverage(path)
    from ..data import Frame

    frames = tuple(Frame.from_atoms(atoms) for atoms in read_structures(path))
    section = SelectSection()
    species = tuple(sorted({number for frame in frames for number in frame.numbers.tolist()}))
    return Coverage(section.descriptor.model_dump(), species, section.bandwidth, frames)
