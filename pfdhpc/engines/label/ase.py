"""Labels from any ASE calculator that runs in this process, named by its import path.

.. code-block:: toml

    [label]
    type = "ase"
    options = { calculator = "ase.calculators.emt.EMT", arguments = {} }

``options.magmoms`` and ``options.charges`` become the atoms' initial magnetic moments and charges: a table by element,
as ``{ Fe = 3.0 }``, or a list with a value for each atom. ``options.path`` is a folder added to Python's search path
first, for a calculator of one's own; ``options.reuse`` keeps one calculator for all labels, for interatomic potentials
that take longer to load than to label. Any potential of LAMMPS by ASE's LAMMPSlib, in this process:

.. code-block:: toml

    [label.options]
    calculator = "ase.calculators.lammpslib.LAMMPSlib"
    reuse = true
    [label.options.arguments]
    lmpcmds = ["pair_style eam/alloy", "pair_coeff * * /potentials/Cu.eam.alloy Cu"]
    atom_types = { Cu = 1 }
"""

from typing import Any

from ase.calculators.calculator import PropertyNotImplementedError

from ...config.label import LabelSection, merged
from ...data import Frame, Label
from ...data.geometry import right_handed
from ...errors import InputError, LabelError
from ...units import virial_from_stress
from ..base import Labeler
from ..calculator_answers import check_answers, consistent_energy
from ..calculators import DEEPMD, Maker, check_dp, named
from .input_checks import check_labeler
from .label_checks import check_unmoved
from .level_of_theory import level_hash
from .per_atom import per_atom
from .timelimit import time_limit
from .vacuum import check_vacuum_of


class AseLabeler(Labeler):
    """One rank; a fresh calculator per label (or one reset), so that no label depends on the one before."""

    def __init__(self, section: LabelSection, comm: Any):
        """Raises InputError when the calculator cannot be imported or the team has more than one rank."""
        problems = check_labeler(section, 1 if comm is None else comm.Get_size())
        if problems:
            raise InputError(problems)
        self.section = section
        self.level = level_hash(section)
        self._make = Maker("label.options", section.options)
        arguments, keys = section.options.get("arguments", {}), named("label.options.arguments")
        if section.options["calculator"] == DEEPMD and (problems := check_dp(arguments, keys)):
            raise InputError(problems)

    def label(self, frame: Frame, changes: dict[str, Any], timeout: float) -> Label:
        options = merged(self.section.options, changes)
        frame = right_handed(frame)
        atoms = _prepared(frame, options)
        try:
            with time_limit(timeout):
                atoms.calc = self._make(options.get("arguments", {}))
                check_vacuum_of(frame, atoms.calc)
                label = _evaluate(atoms, self.section.virial and frame.has_virial)
        except Exception as error:
            self._make.forget()  # what failed may be in any state
            if isinstance(error, LabelError):
                raise
            raise LabelError(f"{self._make.name}: {type(error).__name__}: {error}") from error
        check_unmoved(frame, atoms)
        return label


def _prepared(frame: Frame, options: dict[str, Any]) -> Any:
    atoms = frame.to_atoms()
    if "magmoms" in options:
        atoms.set_initial_magnetic_moments(per_atom(options["magmoms"], frame, "magmoms"))
    if "charges" in options:
        atoms.set_initial_charges(per_atom(options["charges"], frame, "charges"))
    return atoms


def _evaluate(atoms: Any, virial: bool) -> Label:
    check_answers(atoms.calc, virial)
    forces = atoms.get_forces(apply_constraint=False)
    energy = consistent_energy(atoms)
    if not virial:
        return Label(energy, forces)
    try:
        stress = atoms.get_stress(voigt=False, apply_constraint=False)
    except (PropertyNotImplementedError, NotImplementedError):
        name = type(atoms.calc).__name__
        raise LabelError(f"{name} gives no stress for this frame; set label.virial = false") from None
    return Label(energy, forces, virial_from_stress(stress, atoms.get_volume()))
