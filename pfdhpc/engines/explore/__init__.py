"""Explorers: molecular dynamics with the current model, and the structures it starts from."""

from .check import check_explore
from .perturb import perturb, starts

__all__ = ["check_explore", "perturb", "starts"]
