"""Explorers: molecular dynamics with the current model, and the structures it starts from."""

from .input_checks import check_explore, check_starts
from .perturb import perturb, starts

__all__ = ["check_explore", "check_starts", "perturb", "starts"]
