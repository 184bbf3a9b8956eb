"""Imports of many modules at once, such as torch and deepmd with all they bring along."""

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def many_imports() -> Iterator[None]:
    """Do not look for garbage during the imports inside: they leave hardly any, and looking is a fifth of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def end_without_search() -> None:
    """Let this process end without a last look for garbage, which takes a second once torch and deepmd are there."""
    atexit.register(gc.freeze)
