"""Lots of environments that are compared with others one after the other, where these can matter to them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from .entropy import Environments

NEGLIGIBLE = np.log(1e-14)
"""What adds a smaller share than this to every kernel sum of a lot is left out."""


@dataclass(frozen=True, eq=False)
class Box:
    """Bounds of a lot, or of several: ``low`` and ``high`` (d,) or (lots, d) in 1/Å, ``log_count`` is one number
    or (lots,), ln of how many environments there are."""

    low: np.ndarray
    high: np.ndarray
    log_count: np.ndarray

    @classmethod
    def around(cls, environments: Environments) -> "Box":
        with np.errstate(divide="ignore"):  # there may be none
            return cls(*environments.bounds(), np.log(len(environments)))

    @classmethod
    def of_several(cls, boxes: Iterable["Box"]) -> "Box":
        sides = zip(*((box.low, box.high, box.log_count) for box in boxes), strict=True)
        return cls(*map(np.array, sides))

    def log_bounds(self, other: "Box", h: float) -> np.ndarray:
        """ln of what all of ``other`` add to p of any of these, at most; (lots,) where one of the two is several."""
        gaps = np.maximum(self.low - other.high, other.low - self.high).clip(0.0)
        return other.log_count - (gaps * gaps).sum(axis=-1) / (2 * h * h)


@dataclass(eq=False)
class EnvironmentSet:
    """Some environments, and ln p (n,) of each against all that they have been compared with."""

    environments: Environments
    box: Box
    log_sums: np.ndarray

    @classmethod
    def of(cls, environments: Environments, *more) -> "EnvironmentSet":
        """A lot that has not been compared with anything; ``more`` are the fields of a subclass."""
        return cls(environments, Box.around(environments), np.full(len(environments), -np.inf), *more)

    def compare(self, known: Environments, log_bound: float) -> bool:
        """Add some environments, unless they are too far; whether they were added.

        ``log_bound`` is ln of what they add to any of ours, at most.
        """
        near = log_bound >= self.log_sums.min(initial=np.inf) + NEGLIGIBLE
        if near:
            self.log_sums = np.logaddexp(self.log_sums, self.environments.log_sums(known))
        return bool(near)


def compare_all(
    lots: Iterable[EnvironmentSet], known: Environments, h: float, meanwhile: Callable[[], None] = lambda: None
) -> None:
    """Compare lots with some environments; calls ``meanwhile`` after each."""
    lots = list(lots)
    if lots and len(known):
        bounds = Box.of_several(lot.box for lot in lots).log_bounds(Box.around(known), h)
        for lot, log_bound in zip(lots, bounds.tolist(), strict=True):
            lot.compare(known, log_bound)
            meanwhile()
