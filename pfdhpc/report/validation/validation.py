"""A model put to physical questions beside the one it came from, and first principles where they are affordable."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from ...data import Record
from ..html_document import Figure, Section, Table, number
from ..plot_style import AFTER, BEFORE, TRUTH, panels, png, remark
from . import crystal_properties
from .crystal_properties import Elastic, Equation, NoCrystal, Vibrations, Warm
from .rdf_comparison import Likeness, by_model, of_labels

FOLDER, RESULTS = "validation", "validation.json"
LABELS = "labels"
"""What the labeler is called among the models."""
COLOURS = {"pre-trained": BEFORE, "teacher": BEFORE, LABELS: TRUTH}


@dataclass(frozen=True)
class Questions:
    """What to ask. ``temperature`` K, ``timestep`` fs; ``md_steps`` 0: no dynamics."""

    temperature: float
    timestep: float
    md_steps: int
    phonons: bool = False


@dataclass
class Answers:
    """What one model says of one structure; what is None was not asked, or ``problems`` tell why there is none."""

    structure: str
    model: str
    cell: list[float] | None = None  # a, b, c in Å and the angles in degrees
    volume: float | None = None  # Å³/atom at rest
    equation: Equation | None = None
    elastic: Elastic | None = None
    warm: Warm | None = None
    vibrations: Vibrations | None = None
    likeness: Likeness | None = None
    problems: list[str] = field(default_factory=list)


Tell = Callable[[str], None]


def ask(
    structure: str,
    atoms: Atoms,
    model: str,
    calculator: Any,
    questions: Questions,
    tell: Tell,
    labelled: Sequence[Record] = (),
) -> Answers:
    """Everything a model can answer of a structure; a question it fails at is told in ``problems``.

    ``labelled``: frames of it at one temperature, to compare the structure of dynamics with.
    """
    found = Answers(structure, model)
    try:
        tell("relaxing")
        rest = crystal_properties.relaxed(crystal_properties.crystal(atoms), calculator)
    except NoCrystal as error:
        found.problems.append(f"relaxation: {error}")
        return found
    found.cell, found.volume = rest.cell.cellpar().tolist(), float(rest.get_volume() / len(rest))
    parts: list[tuple[str, Callable[[], Any]]] = [
        ("equation", lambda: crystal_properties.equation_of_state(rest, calculator)),
        ("elastic", lambda: crystal_properties.elastic_constants(rest, calculator)),
    ]
    q = questions
    if questions.md_steps:
        work = lambda: crystal_properties.warm(rest, calculator, q.temperature, q.md_steps, q.timestep, tell)  # noqa: E731
        parts.append(("warm", work))
    if questions.md_steps and labelled:
        truth = of_labels(labelled)
        parts.append(("likeness", lambda: by_model(truth, labelled, calculator, q.md_steps // 2, q.timestep, tell)))
    if questions.phonons:
        parts.append(("vibrations", lambda: crystal_properties.vibrations(rest, calculator)))
    for name, work in parts:
        tell(name)
        try:
            setattr(found, name, work())
        except NoCrystal as error:
            found.problems.append(f"{name}: {error}")
    return found


def table(answers: Sequence[Answers]) -> tuple[list[str], list[list[str]]]:
    """The heading and a line for each, as :data:`CAPTION` says; without columns of what was not asked."""
    rows = [_row(one) for one in answers]
    shown = [index for index, cells in enumerate(zip(HEAD, *rows, strict=True)) if index < 2 or {*cells[1:]} - {"–"}]
    return [HEAD[index] for index in shown], [[row[index] for index in shown] for row in rows]


def _row(one: Answers) -> list[str]:
    constants = (
        [number(value) for _, value in crystal_properties.cubic_constants(one.elastic)] if one.elastic else ["–"] * 3
    )
    return [
        one.structure,
        one.model,
        crystal_properties.lattice(one.cell) if one.cell else "–",
        number(one.volume, 4),
        number(one.equation and one.equation.bulk_modulus),
        *constants,
        number(one.elastic and one.elastic.shear_modulus),
        number(one.vibrations and one.vibrations.lowest, 2),
        f"{one.likeness.overlap:.0%}" if one.likeness else "–",
        number(one.warm and one.warm.drift, 2),
    ]


HEAD = ("structure", "model", "lattice", "V0", "B0", "C11", "C12", "C44", "G", "phonon", "g(r)", "drift")
CAPTION = (
    "Lattice of the cell, Å; V0 in Å³/atom; moduli in GPa: C11, C12, C44 averaged over the axes of the cell as given, G"
    " by Voigt, Reuss and Hill; lowest phonon in THz; g(r): overlap of the radial distribution with that of the"
    " labelled frames, whose own is that of one half of them with the other; drift of the energy at constant energy in"
    " meV/atom/ps."
)


def remarks(answers: Sequence[Answers]) -> list[str]:
    """What is to be said beside the figures: what failed, and what is unstable."""
    found = []
    for one in answers:
        where = f"{one.structure}, {one.model}"
        found += [f"{where}: {problem}" for problem in one.problems]
        if one.elastic and not one.elastic.stable:
            found.append(f"{where}: elastically unstable (Born)")
        if one.vibrations and one.vibrations.lowest < -0.3:
            found.append(f"{where}: unstable phonons, down to {one.vibrations.lowest:.1f} THz")
        if one.model == LABELS and one.likeness:
            found.append(f"{one.structure}: g(r) is compared with {_frames(one.likeness)}")
    return found


def _frames(found: Likeness) -> str:
    what = f"{found.n_frames} labelled frames at {found.temperature:g} K"
    if found.own:
        return f"{what}, from dynamics by the labeler itself"
    return f"{what}; they were picked for what is unusual in them, so wider peaks than those of dynamics are no fault"


def pictures(answers: Sequence[Answers]) -> list[Figure]:
    """Equations of state, distributions and phonons, a panel a structure."""
    structures = list(dict.fromkeys(one.structure for one in answers))
    kinds = (
        ("equation", "equation of state", "volume, Å³/atom", "energy above the minimum, meV/atom", _equation),
        ("warm", "radial distribution", "distance, Å", "g(r)", _warm),
        ("likeness", "radial distribution in the cells of labelled frames", "distance, Å", "g(r)", _warm),
        ("vibrations", "phonons", "frequency, THz", "states, 1/THz", _vibrations),
    )
    found = []
    for key, title, below, beside, draw in kinds:
        if not any(getattr(one, key) for one in answers):
            continue
        width = max(5.6, 3.6 * len(structures))
        with panels(1, len(structures), width, 3.4) as (figure, axes):
            for axis, structure in zip(axes[0], structures, strict=True):
                mine = [one for one in answers if one.structure == structure and getattr(one, key)]
                for one in mine:
                    draw(axis, getattr(one, key), COLOURS.get(one.model, AFTER), one.model)
                axis.set(title=structure, xlabel=below)
                if not mine:
                    remark(axis, "no answer")
            axes[0, 0].set_ylabel(beside)
            handles, labels = _legend(axes[0])
            figure.legend(handles, labels, loc="outside lower center", ncols=4)
            found.append(
                Figure(f"validation-{key}", png(figure), f"{title[:1].upper()}{title[1:]}.", len(structures) < 3)
            )
    return found


def _legend(axes: Sequence[Any]) -> tuple[list, list]:
    pairs = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    return list(pairs.values()), list(pairs)


def _equation(axis: Any, found: Equation, shade: str, name: str) -> None:
    from ase import units
    from ase.eos import birchmurnaghan

    place = int(np.argmin(found.energies))
    volumes = np.linspace(found.volumes[0], found.volumes[-1], 100)
    slope = found.bulk_modulus * units.GPa
    lowest = np.mean(found.energies - birchmurnaghan(found.volumes, 0.0, slope, 4.0, found.volume))
    lowest = min(lowest, found.energies[place])
    axis.plot(found.volumes, 1000 * (found.energies - lowest), "o", color=shade, markersize=4, label=name)
    fit = np.polynomial.Polynomial.fit(found.volumes, 1000 * (found.energies - lowest), 4)
    axis.plot(volumes, fit(volumes), "-", color=shade, linewidth=1)
    axis.axvline(found.volume, color=shade, linestyle=":", linewidth=1)


def _warm(axis: Any, found: Warm | Likeness, shade: str, name: str) -> None:
    axis.plot(found.distances, found.g, "-", color=shade, label=name)


def _vibrations(axis: Any, found: Vibrations, shade: str, name: str) -> None:
    axis.fill_between(found.frequencies, found.density, color=shade, alpha=0.25, step="mid", linewidth=0)
    axis.plot(found.frequencies, found.density, "-", color=shade, drawstyle="steps-mid", linewidth=1, label=name)


def section_of(answers: Sequence[Answers]) -> Section:
    """What the report shows of a validation."""
    text = ["Quantities no training saw as such, by the model at the end and the one it came from.", *remarks(answers)]
    return Section("Physical validation", text, pictures(answers), [Table(*table(answers), CAPTION)])


def save(folder: Path, answers: Sequence[Answers]) -> None:
    """All figures as JSON and all pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps([_plain(one) for one in answers], indent=1)
    (folder / RESULTS).write_text(text + "\n")
    for old in folder.glob("validation-*.png"):  # of questions that were not asked this time
        old.unlink()
    for figure in pictures(answers):
        (folder / f"{figure.name}.png").write_bytes(figure.png)


def load(folder: Path) -> list[Answers]:
    """What :func:`save` wrote; empty where nothing was."""
    path = folder / RESULTS
    if not path.is_file():
        return []
    kinds = {"equation": Equation, "elastic": Elastic, "warm": Warm, "vibrations": Vibrations, "likeness": Likeness}
    return [
        Answers(**{key: _object(kinds[key], value) if key in kinds and value else value for key, value in one.items()})
        for one in json.loads(path.read_text())
    ]


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {item.name: _plain(getattr(value, item.name)) for item in fields(value)}
    return value.tolist() if isinstance(value, np.ndarray) else value


def _object(kind: type, values: Mapping[str, Any]) -> Any:
    return kind(**{key: np.array(value) if isinstance(value, list) else value for key, value in values.items()})
