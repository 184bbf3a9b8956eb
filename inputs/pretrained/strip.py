"""Drop the optimizer state from a deepmd-kit checkpoint.

Usage: python strip.py CHECKPOINT.pt OUTPUT.pt
"""

import sys

import torch


def strip(source, target):
    """Keep the weights and the model description only; load nothing but data."""
    checkpoint = torch.load(source, map_location="cpu", weights_only=True)
    torch.save({"model": checkpoint["model"]}, target)


if __name__ == "__main__":
    strip(*sys.argv[1:3])
