"""A private folder of this process for small files a program insists on, in memory where the node has room."""

import shutil
import tempfile
import weakref
from pathlib import Path

MEMORY = Path("/dev/shm")
"""Linux' file system in memory."""
ROOM = 256 * 2**20
"""Bytes that must be free in it: containers often have only 64 MB."""


def private_folder(owner: object) -> Path:
    """A new folder, removed with ``owner`` or at the exit of the process, whichever comes first.

    It lies in :data:`MEMORY` when that is writable and has room, otherwise where ``TMPDIR`` says.
    """
    try:
        folder = tempfile.mkdtemp(prefix="pfdhpc-", dir=MEMORY if shutil.disk_usage(MEMORY).free > ROOM else None)
    except OSError:
        folder = tempfile.mkdtemp(prefix="pfdhpc-")
    weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
