"""Errors of a multi-task model on the validation frames, as a markdown table.

Usage: python evaluate.py MODEL.pt DATA [--readme README.md] [--json errors.json]

DATA is the folder made by make_data.py. With --readme, the text between the
lines ``<!-- errors: begin -->`` and ``<!-- errors: end -->`` is replaced.
Root-mean-square errors: energy in meV/atom, force component in eV/Å, virial
component in meV/atom. "Force size" is the root mean square of the labels.
"""

import argparse
import json
from pathlib import Path

import numpy as np

BEGIN, END = "<!-- errors: begin -->\n", "<!-- errors: end -->"
HEADER = (
    "| material | branch | frames: training | validation | energy (meV/atom) | force (eV/Å) "
    "| force size (eV/Å) | virial (meV/atom) |\n|---|---|---|---|---|---|---|---|\n"
)


def load_system(folder):
    """Arrays of one deepmd mixed system (Å, eV, eV/Å)."""
    names = ("coord", "box", "energy", "force", "virial", "real_atom_types")
    return {name: np.load(folder / f"set.000/{name}.npy") for name in names}


def model_types(model, folder, types):
    """Translate the element numbers of a data folder into those of the model."""
    elements = (folder / "type_map.raw").read_text().split()
    table = np.array([model.get_type_map().index(e) for e in elements])
    return table[types]


def residuals(model, folder):
    """Errors of one system: energy (eV/atom), force (eV/Å), virial (eV/atom); and labels' forces."""
    data = load_system(folder)
    n_frames, n_atoms = data["real_atom_types"].shape
    types = model_types(model, folder, data["real_atom_types"])
    energy, force, virial = model.eval(data["coord"], data["box"], types, mixed_type=True)[:3]
    return {
        "energy": (energy.reshape(n_frames) - data["energy"]) / n_atoms,
        "force": force.ravel() - data["force"].ravel(),
        "virial": (virial.reshape(n_frames, 9) - data["virial"]).ravel() / n_atoms,
        "force_size": data["force"].ravel(),
    }


def rms(values):
    """Root mean square of a list of arrays."""
    return float(np.sqrt(np.mean(np.concatenate(values) ** 2)))


def errors_of(model, folders):
    """Root-mean-square errors over the systems in `folders`, and the number of frames."""
    parts = [residuals(model, folder) for folder in folders]
    row = {key: rms([part[key] for part in parts]) for key in parts[0]}
    row["n_frames"] = sum(len(part["energy"]) for part in parts)
    return row


def training_counts(data):
    """Number of training frames per branch, by material and in all."""
    counts = {name: row["train"] for name, row in json.loads((data / "counts.json").read_text()).items()}
    return counts | {"all": sum(counts.values())}


def all_errors(model_file, data):
    """One row per material and branch, then one per branch over everything."""
    from deepmd.infer import DeepPot

    trained_on = training_counts(data)
    rows = []
    for branch in sorted(path.name for path in data.iterdir() if path.is_dir()):
        model = DeepPot(str(model_file), head=branch)
        materials = sorted((data / branch / "valid").iterdir())
        groups = {path.name: sorted(path.iterdir()) for path in materials}
        groups["all"] = [folder for group in groups.values() for folder in group]
        rows += [
            {"material": name, "branch": branch, "n_training": trained_on[name]} | errors_of(model, folders)
            for name, folders in groups.items()
        ]
    return sorted(rows, key=lambda row: (row["material"] == "all", row["material"]))


def table(rows):
    """The rows in markdown."""
    line = (
        "| {material} | {branch} | {n_training} | {n_frames} | {e:.1f} | {force:.3f} | {force_size:.2f} | {v:.1f} |\n"
    )
    return HEADER + "".join(line.format(e=1e3 * row["energy"], v=1e3 * row["virial"], **row) for row in rows)


def splice(readme, text):
    """Put the table between the two markers of the model card."""
    head, rest = readme.read_text().split(BEGIN)
    readme.write_text(head + BEGIN + text + END + rest.split(END)[1])


def main():
    """Read the command line, evaluate, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--readme", type=Path)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = all_errors(args.model, args.data)
    print(table(rows))
    if args.readme:
        splice(args.readme, table(rows))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
