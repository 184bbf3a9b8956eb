"""Make the frames the small pre-trained model learns from, and label them twice.

Every frame is built with ASE from a fixed seed, then labelled by two universal
potentials whose weights come inside their PyPI wheels:

* branch ``MatPES_r2SCAN``: DIEP (diep 2.0.0, fold 1, MatPES r2SCAN);
* branch ``MPtrj_PBE``: SevenNet-0 (sevenn 0.13.0, 11 July 2024, MPtrj PBE).

Output, in deepmd/npy mixed format (Å, eV, eV/Å; virial in eV)::

    OUT/<branch>/train/n<atoms>/             all materials together
    OUT/<branch>/valid/<material>/n<atoms>/  one material each
    OUT/counts.json                          frames per material and branch

Usage: python make_data.py OUT [--workers 2] [--materials Si SiC ...]
"""

import argparse
import json
import multiprocessing
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.build import bulk, make_supercell
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution

BRANCHES = ("MatPES_r2SCAN", "MPtrj_PBE")
ELEMENTS = ("H", "Li", "C", "O", "F", "Na", "Mg", "Al", "Si", "Cl", "Cu", "Ga", "Ge", "As", "Ag", "Au")
SEED = 20260
MAX_STRAIN = 0.06  # largest strain component, no unit
DISPLACEMENT = (0.02, 0.35)  # root-mean-square displacement of an atom, Å
MAX_FORCE = 20.0  # eV/Å; harder frames are dropped
TIMESTEP = 1.5  # fs, molecular dynamics
N_MD_STEPS, MD_STRIDE = 160, 10
EMPHASIS = ("Si", "SiC", "Al", "Ag", "Au", "AgAu")

# name: (crystal structure, lattice constant in Å, MD temperature in K)
CUBIC = {
    "C": ("diamond", 3.56, 2500),
    "Si": ("diamond", 5.45, 1400),
    "Ge": ("diamond", 5.71, 1000),
    "SiC": ("zincblende", 4.37, 2200),
    "GaAs": ("zincblende", 5.70, 1000),
    "Al": ("fcc", 4.04, 1000),
    "Cu": ("fcc", 3.61, 1300),
    "Ag": ("fcc", 4.12, 1200),
    "Au": ("fcc", 4.13, 1200),
    "NaCl": ("rocksalt", 5.65, 900),
    "LiF": ("rocksalt", 4.04, 1000),
    "MgO": ("rocksalt", 4.23, 2000),
    "LiH": ("rocksalt", 4.02, 700),
}
MATERIALS = tuple(CUBIC) + ("AgAu", "Mg")
TEMPERATURE = {name: row[2] for name, row in CUBIC.items()} | {"AgAu": 1200, "Mg": 800}


def cubic_cells(name):
    """Primitive, doubled primitive and conventional cells of a cubic crystal."""
    structure, a, _ = CUBIC[name]
    primitive = bulk(name, structure, a=a)
    conventional = bulk(name, structure, a=a, cubic=True)
    cells = [primitive, primitive.repeat((1, 1, 2)), conventional]
    if len(conventional) == 4:
        cells.append(conventional.repeat((1, 1, 2)))
    return cells


def hexagonal_cells():
    """Magnesium: the hcp cell, doubled along c, and doubled in the plane."""
    hcp = bulk("Mg", "hcp", a=3.19, c=5.18)
    return [hcp, hcp.repeat((1, 1, 2)), hcp.repeat((2, 2, 1))]


def alloy_cells(rng):
    """Ag-Au on the fcc lattice: L1_0, both L1_2, and random 8-atom occupations."""
    fcc = bulk("Ag", "fcc", a=4.125, cubic=True)
    cells = []
    for symbols in ("Ag2Au2", "AgAu3", "Ag3Au"):
        cells.append(Atoms(symbols, scaled_positions=fcc.get_scaled_positions(), cell=fcc.cell, pbc=True))
    layered = make_supercell(bulk("Ag", "fcc", a=4.125), np.diag([1, 1, 2]))
    layered.symbols[1] = "Au"
    cells.append(layered)
    for n_gold in (2, 4, 6):
        random_alloy = fcc.repeat((1, 1, 2))
        random_alloy.symbols[rng.permutation(8)[:n_gold]] = "Au"
        cells.append(random_alloy)
    return cells


def cells_of(name, rng):
    """List the ideal cells (1 to 8 atoms) of one material."""
    if name == "AgAu":
        return alloy_cells(rng)
    return hexagonal_cells() if name == "Mg" else cubic_cells(name)


def nearest_distance(atoms):
    """Shortest interatomic distance in Å, periodic images included."""
    pairs = atoms.repeat((2, 2, 2)).get_all_distances(mic=True)
    return pairs[pairs > 1e-3].min()


def distort(ideal, rng):
    """Strain the cell (up to 6 %, with shear) and displace the atoms (Å)."""
    atoms = ideal.copy()
    size = rng.uniform(0, MAX_STRAIN)
    strain = rng.uniform(-size, size, (3, 3))
    strain = (strain + strain.T) / 2
    atoms.set_cell(atoms.cell @ (np.eye(3) + strain), scale_atoms=True)
    low, high = DISPLACEMENT
    high *= min(1.0, nearest_distance(ideal) / 2.5)
    rms = np.exp(rng.uniform(np.log(low), np.log(high)))
    atoms.positions += rng.normal(0, rms / np.sqrt(3), atoms.positions.shape)
    return atoms


def hot_frames(ideal, temperature, calculator, rng):
    """Frames of a short Langevin run at `temperature` (K), every MD_STRIDE steps."""
    atoms = distort(ideal, rng)
    atoms.calc = calculator
    MaxwellBoltzmannDistribution(atoms, temperature_K=2 * temperature, rng=rng)
    dynamics = Langevin(atoms, TIMESTEP * units.fs, temperature_K=temperature, friction=0.02 / units.fs, rng=rng)
    frames = []
    for _ in range(N_MD_STEPS // MD_STRIDE):
        dynamics.run(MD_STRIDE)
        frames.append(atoms.copy())
    return frames


def frames_of(name, calculator):
    """All unlabelled frames of one material, in a reproducible order."""
    rng = np.random.default_rng([SEED, MATERIALS.index(name)])
    cells = cells_of(name, rng)
    n_distorted = 64 if name in EMPHASIS else 44
    frames = [distort(cells[i % len(cells)], rng) for i in range(n_distorted)]
    return frames + hot_frames(cells[-1], TEMPERATURE[name], calculator, rng)


def calculators():
    """One ASE calculator per branch (energies in eV, stress in eV/Å^3)."""
    from diep.pretrained import make_calculator
    from sevenn.calculator import SevenNetCalculator

    return {"MatPES_r2SCAN": make_calculator(), "MPtrj_PBE": SevenNetCalculator("7net-0", device="cpu")}


def label(atoms, calculator):
    """Energy (eV), forces (eV/Å) and virial (3x3, eV: minus stress times volume)."""
    atoms = atoms.copy()
    atoms.wrap()
    atoms.calc = calculator
    stress = atoms.get_stress(voigt=False)
    return {
        "symbols": atoms.get_chemical_symbols(),
        "coord": atoms.positions,
        "box": atoms.cell.array,
        "energy": atoms.get_potential_energy(),
        "force": atoms.get_forces(),
        "virial": -stress * atoms.get_volume(),
    }


def trusted(labels):
    """Keep a frame if no force is extreme and the two teachers roughly agree.

    DIEP can give spurious float32 forces on collinear triplets; a frame whose
    largest force exceeds twice that of SevenNet-0 plus 2 eV/Å is dropped.
    """
    largest = {branch: np.abs(labels[branch]["force"]).max() for branch in BRANCHES}
    return max(largest.values()) < MAX_FORCE and largest["MatPES_r2SCAN"] < 2 * largest["MPtrj_PBE"] + 2


def labelled_material(name):
    """Label one material: a list with one dict per frame, keyed by branch."""
    import torch

    torch.set_num_threads(1)
    calcs = calculators()
    frames = frames_of(name, calcs["MatPES_r2SCAN"])
    labelled = [{b: label(f, calcs[b]) for b in BRANCHES} for f in frames]
    kept = [row for row in labelled if trusted(row)]
    print(f"{name}: {len(kept)} frames kept of {len(frames)}", flush=True)
    return name, kept


def write_system(folder, rows):
    """Write frames with the same number of atoms as one deepmd mixed system."""
    (folder / "set.000").mkdir(parents=True)
    n_frames, n_atoms = len(rows), len(rows[0]["symbols"])
    (folder / "type_map.raw").write_text("\n".join(ELEMENTS) + "\n")
    (folder / "type.raw").write_text("0\n" * n_atoms)
    types = [[ELEMENTS.index(s) for s in row["symbols"]] for row in rows]
    np.save(folder / "set.000/real_atom_types.npy", np.array(types, dtype=np.int64))
    for key in ("coord", "box", "energy", "force", "virial"):
        values = np.array([row[key] for row in rows], dtype=np.float64)
        values = values.reshape(n_frames) if key == "energy" else values.reshape(n_frames, -1)
        np.save(folder / f"set.000/{key}.npy", values)


def write_groups(folder, rows):
    """Split frames by number of atoms and write one system for each."""
    for n_atoms in sorted({len(row["symbols"]) for row in rows}):
        write_system(folder / f"n{n_atoms}", [row for row in rows if len(row["symbols"]) == n_atoms])


def split(rows, name):
    """Give one frame in eight to validation: (training, validation)."""
    rng = np.random.default_rng([SEED + 1, MATERIALS.index(name)])
    held_out = set(rng.permutation(len(rows))[: len(rows) // 8].tolist())
    return ([r for i, r in enumerate(rows) if i not in held_out], [r for i, r in enumerate(rows) if i in held_out])


def write_all(out, labelled):
    """Write both branches and the table of frame counts."""
    parts = {name: split(rows, name) for name, rows in labelled}
    for branch in BRANCHES:
        training = [row[branch] for part, _ in parts.values() for row in part]
        write_groups(out / branch / "train", training)
        for name, (_, part) in parts.items():
            write_groups(out / branch / "valid" / name, [row[branch] for row in part])
    counts = {name: {"train": len(a), "valid": len(b)} for name, (a, b) in parts.items()}
    (out / "counts.json").write_text(json.dumps(counts, indent=1) + "\n")


def main():
    """Read the command line, label in parallel over materials, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--materials", nargs="+", choices=MATERIALS, default=MATERIALS)
    args = parser.parse_args()
    with multiprocessing.get_context("spawn").Pool(args.workers) as pool:
        labelled = pool.map(labelled_material, args.materials, chunksize=1)
    write_all(args.out, labelled)


if __name__ == "__main__":
    main()
