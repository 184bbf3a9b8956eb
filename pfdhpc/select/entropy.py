"""Kernel sums and entropies of atomic environments, finite at any distance.

``p(x|Y) = sum_y exp(-|x - y|² / 2h²)``, ``δH(x|Y) = -ln p(x|Y)`` and
``H(X) = -mean_i ln(p(x_i|X) / n)``, in nats (Schwalbe-Koda et al., Nat. Commun. 16, 4014 (2025)).
All is done with ``ln p`` (log-sum-exp): p itself underflows for environments far from all others.
"""

import numpy as np

BLOCK = 4096
"""Reference rows per matrix product; a fixed number, so that sums do not depend on who computes them."""
RESOLUTION = 1e-13
"""Squared distances (1/Å²) below this are rounding and count as zero: an equal environment adds nothing."""


def log_kernel_sums(x: np.ndarray, y: np.ndarray, h: float) -> np.ndarray:
    """``ln p(x|y)`` (n,) of the environments x (n, d) against y (m, d), descriptors and ``h`` in 1/Å.

    -inf where y is empty. The result depends on x, y and their order alone; give the environments
    of one frame at a time where the result must not depend on which frames are together.
    """
    total = np.full(len(x), -np.inf)
    norms = np.einsum("ij,ij->i", x, x)
    for start in range(0, len(y), BLOCK):
        total = np.logaddexp(total, _log_sums(x, norms, y[start : start + BLOCK], h))
    return total


def delta_entropy(x: np.ndarray, y: np.ndarray, h: float) -> np.ndarray:
    """``δH(x|y)`` (n,), nats: 0 for one equal environment in y, below for several, above for a new one."""
    return -log_kernel_sums(x, y, h)


def entropy(x: np.ndarray, h: float) -> float:
    """``H(x)`` in nats: 0 if all environments are equal, ln n if none are alike."""
    if len(x) == 0:
        raise ValueError("the entropy of no environments is not defined")
    return float(np.log(len(x)) - log_kernel_sums(x, x, h).mean())


def _log_sums(x: np.ndarray, norms: np.ndarray, y: np.ndarray, h: float) -> np.ndarray:
    squared = norms[:, None] + np.einsum("ij,ij->i", y, y) - 2 * (x @ y.T)
    exponents = np.where(squared < RESOLUTION, 0.0, squared) / (-2 * h * h)
    largest = exponents.max(axis=1)
    return largest + np.log(np.exp(exponents - largest[:, None]).sum(axis=1))
