"""Labels from GPAW, in this process, parallel over the team's ranks.

.. code-block:: toml

    [label]
    type = "gpaw"
    [label.options]                                       # GPAW's own keywords
    mode = { name = "pw", ecut = 400 }
    xc = "PBE"
    kpts = { density = 3.5, gamma = true }
    occupations = { name = "fermi-dirac", width = 0.05 }
    magmoms = { Fe = 3.0 }                                # by element, or a list with one for each atom

Source: GPAW 26.7 (gpaw.dft.GPAW, gpaw.mpi4pywrapper), https://gpaw.readthedocs.io.
"""

import io
import time
from typing import Any

from ...config.label import LabelSection, merged
from ...data import Frame, Label
from ...data.geometry import right_handed
from ...errors import InputError, LabelError
from ...units import virial_from_stress
from ..base import Labeler
from .input_checks import check_labeler
from .label_checks import check_unmoved, first_reason
from .level_of_theory import level_hash
from .per_atom import per_atom
from .vacuum import check_vacuum, gpaw_directions


class GpawLabeler(Labeler):
    """A fresh calculator per label, so that no label depends on the one before.

    The energy is the free energy (electronic entropy included, not extrapolated to zero width):
    the one the forces and the stress are derivatives of, as a model's are.
    """

    def __init__(self, section: LabelSection, comm: Any):
        """``comm`` is the team's mpi4py communicator, None for this rank alone. Raises InputError."""
        from mpi4py import MPI

        self.section = section
        self._comm = MPI.COMM_SELF if comm is None else comm
        problems = check_labeler(section, self._comm.Get_size())
        if problems:
            raise InputError(problems)
        self.level = level_hash(section)
        _check_options(section)

    def label(self, frame: Frame, changes: dict[str, Any], timeout: float) -> Label:
        options = _with_moments(merged(self.section.options, changes), frame)
        team, log = _team(self._comm), io.StringIO()
        label, reason = None, ""
        try:
            check_vacuum(frame, "GPAW", gpaw_directions(options))
            label = self._evaluate(right_handed(frame), options, team, log, timeout)
        except LabelError as error:
            reason = str(error)
        except Exception as error:
            reason = _explain(error, log.getvalue())
        reason = first_reason(reason, self._comm)
        team.free()
        if reason:
            raise LabelError(reason)
        return label

    def _evaluate(self, frame: Frame, options: dict[str, Any], team: Any, log: Any, timeout: float) -> Label:
        from gpaw import GPAW

        atoms, begin = frame.to_atoms(), time.monotonic()
        calculator = GPAW(**options, communicator=team, txt=log, legacy_gpaw=False)
        for _ in calculator.iconverge(atoms):
            self._check_time(begin, timeout)
        energy = calculator.get_potential_energy(atoms, force_consistent=True)
        forces = calculator.get_forces(atoms)
        virial = None
        if self.section.virial and frame.has_virial:
            self._check_time(begin, timeout)
            stress = _full(calculator.get_stress(atoms))
            virial = virial_from_stress(stress, frame.volume)
        check_unmoved(frame, atoms)
        return Label(energy, forces, virial)

    def _check_time(self, begin: float, timeout: float) -> None:
        """The first rank's clock decides for the team."""
        if self._comm.bcast(time.monotonic() - begin > timeout, root=0):
            raise LabelError(f"time-out: longer than {timeout:g} s (label.timeout)")


def _with_moments(options: dict[str, Any], frame: Frame) -> dict[str, Any]:
    """GPAW's keywords, in which the moments are a list with one for each atom."""
    if options.get("magmoms") is None:
        return options
    return {**options, "magmoms": per_atom(options["magmoms"], frame, "magmoms")}


def _full(stress: Any) -> Any:
    from ase.stress import voigt_6_to_full_3x3_stress

    return voigt_6_to_full_3x3_stress(stress)


def _check_options(section: LabelSection) -> None:
    """Let GPAW read the options once, and those of each retry, before any frame pays for a mistake."""
    import gpaw

    # Read when gpaw.mpi is first imported; the default, "serial", refuses to run under an MPI launcher.
    gpaw.GPAW_MPI_BACKEND = "mpi4py"
    from gpaw.dft import LegacyGPAWError, Parameters

    for index, changes in enumerate([{}, *section.retries]):
        where = f"label.retries[{index - 1}]" if index else "label.options"
        try:
            Parameters(**{key: value for key, value in merged(section.options, changes).items() if key != "magmoms"})
        except LegacyGPAWError:
            raise InputError(f"{where}: only GPAW's old code has it; choose another eigensolver or xc") from None
        except Exception as error:
            raise InputError(f"{where}: GPAW does not accept it: {type(error).__name__}: {error}") from error


def _team(comm: Any) -> Any:
    """``comm`` as GPAW wants it; ``free()`` gives back the communicators GPAW made from it.

    GPAW splits a communicator for k-points, bands and domains in every calculation and never frees
    the parts; MPI has about two thousand of them.
    """
    from gpaw.mpi4pywrapper import MPI4PYWrapper

    made: list[Any] = []

    class Team(MPI4PYWrapper):
        def new_communicator(self, ranks):
            part = self.comm.Create(self.comm.group.Incl(ranks))
            if self.comm.rank not in ranks:
                return None
            made.append(part)
            return Team(part, parent=self)

        def free(self):
            while made:
                made.pop().Free()

    return Team(comm)


def _explain(error: Exception, log: str) -> str:
    from gpaw import KohnShamConvergenceError

    if not isinstance(error, KohnShamConvergenceError):
        return f"gpaw: {type(error).__name__}: {error}"
    steps = [line.strip("|").split("|") for line in log.splitlines() if line.startswith("|iter:")]
    if not steps:
        return "gpaw: SCF not converged"
    count, _, energy, eigenstates, density, *_ = (column.strip() for column in steps[-1])
    return (
        f"gpaw: SCF not converged after {count.split()[-1]} iterations (energy {energy} eV, "
        f"log10 of the errors: eigenstates {eigenstates}, density {density})"
    )
