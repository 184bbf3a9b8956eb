"""What the report of a run says, section by section; each is None where there is nothing to say yet."""

import json
from collections.abc import Iterable, Sequence

from ase.data import chemical_symbols

from ..data.compositions import listed
from ..units import duration
from . import environment_plots, error_plots
from .citations import citations
from .html_document import Entry, Figure, Section, Table, Tile, error, number
from .model_card import len_of, temperatures
from .novelty import Describe
from .plot_style import AFTER, BEFORE
from .run_data import RunData, Tree
from .time_and_cost import spent

COUNTS = {
    "MD steps": "steps",
    "candidates": "candidates",
    "filtered": "filtered",
    "picked": "selected",
    "labelled": "labelled",
    "rejected": "rejected",
    "restarts": "guards",
}
"""What the table of rounds counts, by its heading."""


def tiles(run: RunData) -> list[Tile]:
    """What is seen first."""
    before, after, state = run.before, run.after, run.state
    found = [Tile(str(len_of(run) + len(state["fresh"])), "labels"), Tile(str(len(run.rounds) - 1), "rounds")]
    if after:
        last = number(after["total"]["force"])
        change = f"{number(before['total']['force'])} → {last}" if before else last
        found.append(Tile(change, "force RMSE on held-out frames, eV/Å"))
    elif points := error_plots.curve(run, "force"):
        found.append(Tile(number(points[-1][1]), "force RMSE on the newest labels, eV/Å"))
    if {"teacher_speed", "student_speed"} <= run.production.keys():
        ratio = run.production["student_speed"] / run.production["teacher_speed"]
        found.append(Tile(f"{ratio:.1f} ×", "as fast as the teacher"))
    found.append(Tile(duration(state["elapsed"]), "wall time"))
    found.append(Tile(number(float(state["core_hours"]), 3), "core hours"))
    return found


def compose(run: RunData, describe: Describe, extra: Sequence[Section] = ()) -> list[Section]:
    """All sections there is anything for; ``extra`` come after the errors."""
    parts = [
        warnings(run), what_was_done(run), learning(run), held_out(run), brought_along(run), *extra, production(run),
        selection(run, describe), refusals(run), spent(run), citing(run), provenance(run),
    ]  # fmt: skip
    return [part for part in parts if part is not None]


def warnings(run: RunData) -> Section | None:
    """What the run warned of; state of an older run has none."""
    found = (run.state.get("warnings") or {}).values()
    return Section("Warnings", [f"{text[:1].upper()}{text[1:]}." for text in found]) if found else None


def what_was_done(run: RunData) -> Section:
    elements = ", ".join(chemical_symbols[number] for number in run.species)
    low, high = temperatures(run)
    model, label = run.config["model"], run.config["label"]
    name = run.parent_name + (f" ({model['branch']})" if model.get("branch") else "")
    span = f"{low:g} K" if low == high else f"{low:g} to {high:g} K"
    labeler = "the teacher's labels" if run.distilling else f"labels by {label['type']}"
    driver = "the teacher" if run.distilling else "the newest model"
    verb = "A light student was distilled from" if run.distilling else "Fine-tuned:"
    systems = ", ".join(item["name"] for item in run.config["system"])
    proposed = f"Molecular dynamics with {driver} ({run.config['explore']['ensemble']}, {span}) proposed frames"
    if run.scanning:
        systems, proposed = "a pool of frames", "Frames on which the committee disagreed were candidates"
    text = (
        f"{verb} {name}, for {elements} ({systems}), with {labeler}. {proposed};"
        f" {run.config['select']['method']} selection chose the ones to label."
    )
    keys = dict(COUNTS)
    if run.overlapped:
        keys["dropped"] = "dropped"
    rows = [_round(item, keys.values()) for item in run.rounds]
    which = "newest student" if run.distilling else "exploring model"
    caption = f"Force RMSE: of the {which} on the new labels, before any training saw them, eV/Å."
    caption += " Dropped: picks that a later selection found redundant before they were labelled." * run.overlapped
    return Section("What was done", [text], tables=[Table(("round", "model", *keys, "force RMSE"), rows, caption)])


def _round(item: Tree, keys: Iterable[str]) -> list[str]:
    model = "–" if item["model_version"] < 0 else str(item["model_version"])
    force = None if item["errors"] is None else item["errors"]["total"]["force"]
    return [str(item["round"]), model, *(str(item.get(key, 0)) for key in keys), number(force)]


def learning(run: RunData) -> Section | None:
    if not error_plots.curve(run, "force") and run.after is None:
        return None
    explored = "the teacher explored" if run.distilling else "it explored itself"
    caption = f"Each point: a model against labels of frames that {explored}, before it was trained on them."
    if run.before and run.after:
        caption += " The square and the star are the models before and after, on the same held-out frames."
    return Section("Learning curve", figures=[Figure("learning-curve", error_plots.learning_curve(run), caption)])


def held_out(run: RunData) -> Section | None:
    if run.after is None:
        return None
    n_frames = run.after["total"]["n_frames"]
    section = Section("Errors on held-out frames", [f"{n_frames} labelled frames were kept from every training."])
    if run.truths:
        found = run.held_out
        models = [("pre-trained", BEFORE, found.before)] if found.before else []
        picture = error_plots.parity(run.truths, [*models, (run.product, AFTER, found.after)], run.truth)
        note = " The energies of the pre-trained model are aligned by element first." if found.before else ""
        section.figures.append(Figure("parity", picture, f"Above: predicted against true. Below: what is left.{note}"))
    else:
        section.text.append("Their predictions were not recorded by the version that ended this run.")
    section.tables.append(_error_table(run))
    section.text += _left_out(run.after)
    caption = "Force errors by system and by element."
    section.figures.append(Figure("errors-by-kind", error_plots.by_kind(run.before, run.after, run.product), caption))
    return section


def _error_table(run: RunData) -> Table:
    head = ["RMSE", *(["pre-trained"] if run.before else []), run.product, *(["ratio"] if run.before else [])]
    rows = []
    for key, name, scale in error_plots.QUANTITIES:
        values = [table["total"][key] for table in (run.before, run.after) if table]
        ratio = [number(values[0] / values[1], 2) if values[1] else "–"] if len(values) == 2 else []
        rows.append([name, *(error(value, scale, what=key) for value in values), *ratio])
    return Table(head, rows)


def _left_out(*tables: Tree) -> list[str]:
    """What the energy errors of some tables are not about."""
    found = sorted({text for table in tables for text in table.get("undetermined") or ()})
    return [f"No label in training determines the energies of {listed(found)}: they are left out."] if found else []


def brought_along(run: RunData) -> Section | None:
    """Errors on the frames of test.data: of a student and its teacher against first principles, for instance."""
    tables = run.state.get("fixed") or {}
    if not tables:
        return None
    until = " Energies count up to a constant per element." if run.distilling else ""
    text = f"{len(run.state['fixed_ids'])} labelled frames that were brought along to test with (test.data).{until}"
    names = {"pretrained": "pre-trained", "final": run.product}
    rows = [
        [name, *(error(table["total"][key], scale, what=key) for table in tables.values())]
        for key, name, scale in error_plots.QUANTITIES
    ]
    text = [text, *_left_out(*tables.values())]
    return Section("Errors on test data", text, tables=[Table(["RMSE", *(names.get(k, k) for k in tables)], rows)])


def production(run: RunData) -> Section | None:
    """What is known of a student as a model to work with."""
    found = run.production
    if not found:
        return None
    section = Section("Model for production", [f"{found['product'][:1].upper()}{found['product'][1:]}."])
    if "atoms" in found:
        engine = found.get("teacher_engine", "LAMMPS")
        slow = "teacher" if engine == "LAMMPS" else f"teacher, in {engine}"
        speeds = [(slow, found["teacher_speed"]), ("student", found["student_speed"])]
        rows = [[name, number(speed), number(speed / speeds[0][1], 2)] for name, speed in speeds]
        head = "model", "steps a second", "ratio"
        section.tables.append(Table(head, rows, f"Speed in LAMMPS, {found['atoms']} atoms, one rank."))
    if found.get("stable"):
        drift = number(found["drift"], 2)
        section.text.append(f"Dynamics at constant energy held: the energy drifts by {drift} meV/atom/ps.")
    elif "stable" in found:
        section.text.append(f"Dynamics at constant energy did NOT hold: {found['reason']}.")
    return section


def selection(run: RunData, describe: Describe) -> Section | None:
    known = environment_plots.described(run, describe)
    if known is None:
        return None
    text = (
        "A frame is worth a label when its atoms have surroundings that no labelled frame has. Novelty is"
        " δH = -ln Σ exp(-|x-y|²/2h²) over all labelled environments y, averaged with its largest value in the frame:"
        f" above 0 nothing alike is known. h = {known.bandwidth:.3g} /Å. A random choice would repeat what is dense;"
        " these picks are spread over what is new."
    )
    # a model's own descriptors are others in every round: candidates and labels would not lie in one space
    candidates = () if run.config["select"]["descriptor"]["type"] == "model" else run.chosen
    figures = [
        Figure("selection", environment_plots.selection(environment_plots.growth(known), run.chosen),
               "Left: H and D of all labelled environments after each round; ln n would be reached if all were"
               " different. Middle: candidates before the first pick of the round. Right: gains fall as picks cover"
               " what there is."),
        Figure("environments", environment_plots.atlas(known, candidates),
               "Atomic environments in the plane in which they differ most (principal components of the descriptors)."
               " Grey: candidates. Coloured: all environments of labelled frames, by round.", narrow=True),
    ]  # fmt: skip
    return Section("What was selected", [text], figures)


def refusals(run: RunData) -> Section:
    """Candidates that were filtered out, frames that got no label, trajectories that were cut."""
    restarts = sum(item["guards"] for item in run.rounds)
    section = Section("Rejected and failed")
    filtered: dict[str, int] = {}
    for item in run.chosen:
        for reason, count in item.filtered.items():
            filtered[reason] = filtered.get(reason, 0) + count
    rows = [["candidate filtered out", reason, str(count)] for reason, count in sorted(filtered.items())]
    rows += [["frame without a label", reason, str(count)] for reason, count in run.refusals.most_common()]
    if restarts:
        rows.append(["trajectory cut by a guard", "its head was kept, the replica restarted", str(restarts)])
    if rows:
        section.tables.append(Table(("what", "why", "how often"), rows, words=True))
    else:
        section.text.append("Nothing: every candidate was physical, every label converged, no trajectory was cut.")
    return section


def citing(run: RunData) -> Section:
    entries = [Entry(f"{paper.why}: {paper.text}", paper.link) for paper in citations(run)]
    return Section("How to cite", ["A publication with this model should cite:"], entries=entries)


def provenance(run: RunData) -> Section:
    rows = [[name, version] for name, version in sorted(run.versions.items())]
    rows.append(["seed", str(run.config["seed"])])
    rows += run.parent_facts
    rows += [[f"model {model['version']}", model["digest"]] for model in run.models]
    resolved = json.dumps(run.config, indent=1, sort_keys=True)
    return Section(
        "Provenance", tables=[Table(("what", "which"), rows, words=True)], details=[("The resolved input", resolved)]
    )
