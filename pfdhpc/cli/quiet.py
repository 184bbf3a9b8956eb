"""How a command that loads a model by itself behaves: threads as the user set them, no advice between its lines."""

import os

from ..parallel.devices import limit_threads


def quiet() -> None:
    """Before torch or deepmd-kit load: OMP_NUM_THREADS threads, one where it is not set."""
    limit_threads(int(os.environ.get("OMP_NUM_THREADS") or 1))
    os.environ.setdefault("DP_INFER_BATCH_SIZE", "1024")  # deepmd-kit's own, which tells of it where it is not set
