"""Loading much and ending: garbage is not looked for then, and at all other times it is."""

import gc
import subprocess
import sys
from pathlib import Path

import pytest

from pfdhpc.lazy_imports import many_imports


def test_garbage_is_looked_for_again_afterwards_also_if_an_import_fails():
    with many_imports():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ImportError), many_imports():
        raise ImportError("no such library")
    assert gc.isenabled()


def test_what_is_to_be_done_at_the_end_is_done():
    code = """
import atexit, tempfile
from pfdhpc.lazy_imports import end_without_search
atexit.register(print, "registered before")
end_without_search()
atexit.register(print, "registered after")
folder = tempfile.TemporaryDirectory()
folder.itself = folder  # a ring, which only a search finds
print(folder.name)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    folder, *words = done.stdout.split("\n")[:-1]
    assert done.returncode == 0 and words == ["registered after", "registered before"]
    assert not Path(folder).exists()
