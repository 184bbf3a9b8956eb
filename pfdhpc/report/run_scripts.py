"""What makes a model usable the minute a run ends: a structure, an ASE script and, of deepmd, a LAMMPS input."""

import io
from collections.abc import Sequence
from pathlib import Path

from ase.data import atomic_numbers

from ..config.trainers import TRAINERS
from ..data import Frame
from ..data.geometry import right_handed
from ..files import publish

N_ATOMS = 64
LAMMPS_INPUT, STRUCTURE, ASE_SCRIPT = "in.lammps", "structure.lammps", "run_ase.py"
ASE_STRUCTURE = "structure.extxyz"

LAMMPS = """\
# Molecular dynamics with the model of this folder, in it:
#   python -c "from mpi4py import MPI; from lammps import lammps; lammps().file('in.lammps')"   with pfdhpc's LAMMPS
#   lmp -in in.lammps                                                 with one of your own that has pair_style deepmd
# {system}, {n_atoms} atoms; units metal: Å, eV, ps, K, bar.
units           metal
atom_style      atomic
boundary        {boundary}
read_data       {structure}

pair_style      deepmd model.pth
pair_coeff      * * {elements}

variable        nsteps index 1000
timestep        {timestep}
velocity        all create {temperature:g} 4928 dist gaussian
fix             md all nvt temp {temperature:g} {temperature:g} {damping:g}
thermo_style    custom step temp pe etotal press vol
thermo          100
run             ${{nsteps}}
"""

ASE = '''\
"""Molecular dynamics with the model of this folder:  python run_ase.py [STEPS]{note}"""

import sys
from pathlib import Path

from ase import units
from ase.io import read
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta
{imported}

here = Path(__file__).parent
steps = int(sys.argv[1]) if len(sys.argv) > 1 else 100

atoms = read(here / "{structure}"{form})
atoms.pbc = {pbc}
atoms.calc = {calculator}
print(f"{{len(atoms)}} atoms, {{atoms.get_potential_energy() / len(atoms):.4f}} eV/atom")

thermalize_momenta(atoms, temperature_K={temperature:g})
step, friction = {timestep_fs:g} * units.fs, 0.01 / units.fs
dynamics = Langevin(atoms, step, temperature_K={temperature:g}, friction=friction, fixcm=False)


def tell():
    print(f"step {{dynamics.nsteps:6d}}  {{atoms.get_temperature():7.1f}} K  {{atoms.get_potential_energy():12.4f}} eV")


dynamics.attach(tell, interval=max(1, steps // 10))
dynamics.run(steps)
'''


def hand_over(
    folder: Path, system: str, frame: Frame, temperature: float, timestep: float, kind: str = "deepmd"
) -> None:
    """Write the files into the folder of the model; ``temperature`` in K, ``timestep`` in fs; ``kind`` of trainer.

    A crystal or liquid is repeated to about :data:`N_ATOMS` atoms. For LAMMPS the elements are numbered by atomic
    number; it needs the first lattice vector along x, so that the structure is the frame rotated. A left-handed cell
    is made right-handed. Raises StoreError.
    """
    from ..engines.explore.stability_test import replicated

    if frame.pbc.all() and frame.volume > 0 and len(frame) < N_ATOMS:
        frame = replicated(frame, N_ATOMS)
    frame = right_handed(frame)
    facts = {"temperature": temperature, "pbc": frame.pbc.tolist(), "timestep_fs": timestep}
    facts |= TRAINERS[kind].ase_script
    if TRAINERS[kind].not_lammps:
        facts |= {"structure": ASE_STRUCTURE, "form": ""}
        publish(folder / ASE_STRUCTURE, _extxyz(frame).encode())
    else:
        facts |= {"structure": STRUCTURE, "form": _for_lammps(folder, system, frame, temperature, timestep)}
    publish(folder / ASE_SCRIPT, ASE.format(**facts).encode())


def _for_lammps(folder: Path, system: str, frame: Frame, temperature: float, timestep: float) -> str:
    """The structure and input of LAMMPS; how ASE is told to read the former."""
    elements = elements_of([frame])
    periodic = frame.pbc.tolist()
    publish(folder / STRUCTURE, _structure(frame, elements).encode())
    text = LAMMPS.format(
        structure=STRUCTURE, temperature=temperature, system=system, n_atoms=len(frame),
        boundary=" ".join("p" if one else "s" for one in periodic),
        elements=" ".join(elements), timestep=timestep / 1000, damping=100 * timestep / 1000,
    )  # fmt: skip
    publish(folder / LAMMPS_INPUT, text.encode())
    types = {index: atomic_numbers[element] for index, element in enumerate(elements, 1)}
    return f', format="lammps-data", atom_style="atomic", units="metal", Z_of_type={types}'


def elements_of(frames: Sequence[Frame]) -> list[str]:
    """Symbols of the elements in the frames, by atomic number."""
    symbols = {symbol for frame in frames for symbol in frame.to_atoms().get_chemical_symbols()}
    return sorted(symbols, key=lambda symbol: atomic_numbers[symbol])


def _extxyz(frame: Frame) -> str:
    from ase.io.extxyz import write_extxyz

    text = io.StringIO()
    write_extxyz(text, [frame.to_atoms()])
    return text.getvalue()


def _structure(frame: Frame, elements: Sequence[str]) -> str:
    from ase.io.lammpsdata import write_lammps_data

    atoms = frame.to_atoms()
    if frame.volume == 0:
        atoms.center(vacuum=10.0)
    text = io.StringIO()
    write_lammps_data(text, atoms, specorder=list(elements), masses=True, units="metal", atom_style="atomic")
    return text.getvalue()
