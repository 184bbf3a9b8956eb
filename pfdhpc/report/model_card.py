"""MODEL_CARD.md: what a model is, how good it is, and where it must not be used."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ase.data import chemical_symbols

from ..config.explore import ends
from ..config.trainers import TRAINERS
from ..data import Record
from .citations import citations
from .html_document import error
from .run_data import RunData, Tree


@dataclass
class Known:
    """What the labelled frames of one system span."""

    frames: int = 0
    sizes: set[int] = field(default_factory=set)
    volumes: list[float] = field(default_factory=lambda: [float("inf"), 0.0])  # smallest and largest, Å³ an atom
    largest_force: float = 0.0  # eV/Å

    def take(self, record: Record) -> None:
        volume = record.frame.volume / len(record.frame)
        self.frames += 1
        self.sizes.add(len(record.frame))
        self.volumes = [min(self.volumes[0], volume), max(self.volumes[1], volume)]
        self.largest_force = max(self.largest_force, float((record.label.forces**2).sum(axis=1).max() ** 0.5))


def survey(records: Iterable[Record], found: dict[str, Known] | None = None) -> dict[str, Known]:
    """What records span, by system; added to ``found``."""
    found = {} if found is None else found
    for record in records:
        found.setdefault(record.origin.system, Known()).take(record)
    return found


def model_card(run: RunData, known: Mapping[str, Known], hashes: Mapping[str, str], verdict: str) -> str:
    """The card as Markdown. ``hashes``: sha256 of the model files by name; ``verdict``: why the run ended."""
    symbols = [chemical_symbols[number] for number in run.species]
    kind = "distilled" if run.distilling else "fine-tuned"
    parts = [
        f"# Model card: {''.join(symbols)}, {kind} with pfdhpc",
        _summary(run, symbols, verdict),
        _section("Accuracy", _accuracy(run)),
        _section("Where it applies", _domain(run, known)),
        _section("Where it must not be used", _limits(run, known, symbols)),
        _section("How it was made", _making(run)),
        _section("How to use it", _use(run)),
        _section("Provenance", _provenance(run, hashes)),
        _section("How to cite", "\n".join(f"- {c.why}: {c.text}{_link(c.link)}" for c in citations(run))),
    ]
    return "\n\n".join(parts) + "\n"


def _link(address: str) -> str:
    return f" <{address}>" if address else ""


def _section(title: str, text: str) -> str:
    return f"## {title}\n\n{text}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _summary(run: RunData, symbols: Sequence[str], verdict: str) -> str:
    parent = run.config["model"]
    branch = f", branch {parent['branch']}" if parent.get("branch") else ""
    source = f"{run.parent_name}{branch}"
    what = f"A light model distilled from {source}" if run.distilling else f"{source}, fine-tuned"
    elements = ", ".join(symbols)
    return f"{what} for {elements} on {len_of(run)} labels. The run ended: {verdict}."


def len_of(run: RunData) -> int:
    """Labels of the run."""
    return sum(len(run.state[key]) for key in ("train_ids", "validation_ids", "test_ids"))


def _accuracy(run: RunData) -> str:
    after, before = run.after, run.before
    if after is None:
        return "No frame was held out (test.holdout), so its errors on unseen frames are not known."
    n_frames = after["total"]["n_frames"]
    text = f"Root mean square errors on {n_frames} held-out frames, which no training saw, against the {run.truth}s."
    head = ["", *(["pre-trained"] if before else []), run.product]
    return f"{text}\n\n{_table(head, _error_rows(before, after))}"


def _error_rows(before: Tree | None, after: Tree) -> Iterable[list[str]]:
    def row(name: str, digits: int, scale: float, *path: str) -> list[str]:
        values = [_at(table, path) for table in (before, after) if table]
        return [name, *(error(value, scale, digits, path[-1]) for value in values)]

    yield row("force, eV/Å", 3, 1, "total", "force")
    yield row("energy, meV/atom", 1, 1000, "total", "energy")
    yield row("virial, meV/atom", 1, 1000, "total", "virial")
    for system in after["systems"]:
        yield row(f"force in {system}, eV/Å", 3, 1, "systems", system, "force")
    for element in after["elements"] if len(after["elements"]) > 1 else ():
        yield row(f"force on {element}, eV/Å", 3, 1, "elements", element)


def _at(table: Tree, path: Sequence[str]) -> float | None:
    for key in path:
        table = table[key]
    return table


def _domain(run: RunData, known: Mapping[str, Known]) -> str:
    low, high = temperatures(run)
    lines = ["- frames chosen from a pool; no molecular dynamics was run"] if run.scanning else []
    lines += [] if run.scanning else [f"- temperature: {low:g} to {high:g} K ({run.config['explore']['ensemble']})"]
    if not run.scanning and run.config["explore"]["ensemble"].startswith("npt"):
        low, high = _range(run.config["explore"]["pressures"])
        lines.append(f"- pressure: {low / 1e4:g} to {high / 1e4:g} GPa")
    rows = [
        [
            name,
            str(one.frames),
            _span(sorted(one.sizes)),
            f"{one.volumes[0]:.1f} to {one.volumes[1]:.1f}",
            f"{one.largest_force:.1f}",
        ]
        for name, one in sorted(known.items())
    ]
    head = ["system", "labels", "atoms", "volume, Å³/atom", "largest force, eV/Å"]
    return "\n".join(lines) + "\n\n" + _table(head, rows)


def temperatures(run: RunData) -> tuple[float, float]:
    """The lowest and highest temperature of the run's dynamics, K."""
    return _range(run.config["explore"]["temperatures"])


def _range(ramps: Sequence[Any]) -> tuple[float, float]:
    values = [value for ramp in ramps for value in ends(tuple(ramp) if isinstance(ramp, list) else ramp)]
    return min(values), max(values)


def _span(values: Sequence[int]) -> str:
    return str(values[0]) if len(values) == 1 else f"{values[0]} to {values[-1]}"


def _limits(run: RunData, known: Mapping[str, Known], symbols: Sequence[str]) -> str:
    hot = "" if run.scanning else f"above {temperatures(run)[1]:g} K, "
    model = TRAINERS[run.trainer].final_names[1]
    level = run.truth if run.distilling else "level of theory below"
    lines = [
        f"- for other elements than {', '.join(symbols)}: fine-tuning saw none",
        f"- {hot}outside the volumes above, or for phases, surfaces and defects that are not among the"
        " systems above, without a test on labels of your own",
        f"- for anything the {level} itself gets wrong",
        f"- where `pfdhpc test {model} FRAMES --novelty` flags environments: training had nothing like them",
    ]
    if run.state["ended"] not in ("converged", "saturated", "accurate"):
        lines.insert(0, "- where accuracy matters, before the run has converged: it did not")
    lines[:0] = [f"- before this is settled: {text}" for text in (run.state.get("warnings") or {}).values()]
    if run.production.get("stable") is False:
        lines.insert(0, f"- for long dynamics: its trajectory was not stable ({run.production.get('reason')})")
    return "\n".join(lines)


def _making(run: RunData) -> str:
    label, state = run.config["label"], run.state
    numbers = [len(state[key]) for key in ("train_ids", "validation_ids", "test_ids")]
    if run.distilling:
        level = f"Labels by the teacher {state['teacher']['digest']}."
    else:
        options = json.dumps(label["options"], sort_keys=True)
        level = f"Level of theory: {label['type']}, options `{options}`."
    rounds = len(run.rounds) - 1
    return (
        f"{level}\n\n{len_of(run)} labels ({state['given']} brought along): {numbers[0]} to train, {numbers[1]} to"
        f" validate, {numbers[2]} held out. {rounds} exploration rounds; frames chosen by"
        f" {run.config['select']['method']} selection. {state['core_hours']:.2f} core hours. The labels"
        " are beside this card (`train.extxyz`, `validation.extxyz`, `held_out.extxyz`), or, where they are many, to be"
        " had by `pfdhpc export`."
    )


def _use(run: RunData) -> str:
    kind = TRAINERS[run.trainer]
    return (
        f"- {kind.use}\n"
        f"- `pfdhpc test {kind.final_names[1]} FRAMES --novelty` tests it on labelled frames and flags what training"
        " did not cover"
    )


def _provenance(run: RunData, hashes: Mapping[str, str]) -> str:
    rows = [*([name, f"sha256 {digest}"] for name, digest in hashes.items())]
    rows += run.parent_facts
    rows.append(["seed", str(run.config["seed"])])
    rows += [[name, version] for name, version in sorted(run.versions.items())]
    return _table(["", ""], rows)
