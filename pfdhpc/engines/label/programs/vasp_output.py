"""Convergence of VASP's electronic steps as its output tells it."""

import re

from ....errors import LabelError

CONVERGED = "aborting loop because EDIFF is reached"
RUNNING = r"running on +(\d+) +total cores|running +(\d+) +mpi-ranks"
"""Of VASP 5, and of VASP 6; on the screen and in the OUTCAR."""


def check_converged(text: str) -> None:
    """Raise LabelError unless the OUTCAR of a step says that it converged."""
    if CONVERGED not in text:
        steps = len(re.findall(r"Iteration +\d+\( *\d+\)", text))
        raise LabelError(f"VASP: SCF not converged after {steps} iterations (NELM)")
