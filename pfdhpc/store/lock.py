"""One live run per directory; a dead one leaves nothing behind, because the kernel holds the lock."""

import errno
import fcntl
import json
import logging
import os
import socket
from datetime import datetime
from pathlib import Path

from ..errors import InputError

log = logging.getLogger(__name__)

_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)


class RunLock:
    """Holds a run directory until :meth:`release` or the end of the process.

    Raises InputError when another live run holds it or the directory cannot be written. Where the
    file system has no locks (some NFS and Lustre mounts) that is logged as a warning, and ``held``
    is False.
    """

    def __init__(self, directory: Path):
        self.path = Path(directory) / "run.lock"
        try:
            self._file = open(self.path, "a+")
        except OSError as error:
            raise InputError(
                f"run.directory: {self.path} cannot be written: {error.strerror};"
                " make the folder writable or choose another"
            ) from None
        self.held = self._lock()
        if self.held:
            self._sign()

    def release(self) -> None:
        """Let the next run in."""
        if not self._file.closed:
            self._file.close()  # closing gives up the lock

    def _lock(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                log.warning(
                    "%s: this file system has no locks (%s); see that no other job runs in this directory",
                    self.path,
                    error.strerror,
                )
                return False
            holder = self._holder()
            self._file.close()
            raise InputError(
                f"run.directory: {self.path.parent} is in use by another run ({holder});"
                " wait for it, stop it, or choose another directory"
            ) from None
        return True

    def _sign(self) -> None:
        self._file.truncate(0)
        since = datetime.now().astimezone().isoformat(timespec="seconds")
        json.dump({"host": socket.gethostname(), "pid": os.getpid(), "since": since}, self._file)
        self._file.flush()

    def _holder(self) -> str:
        self._file.seek(0)
        try:
            return "host {host}, pid {pid}, since {since}".format(**json.loads(self._file.read()))
        except (ValueError, KeyError):
            return "it has just started"


def holder(directory: Path) -> str:
    """The machine of the process that signed the lock of ``directory`` last, empty where that is not known."""
    try:
        return str(json.loads((Path(directory) / "run.lock").read_text())["host"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def abandoned(directory: Path) -> bool:
    """Whether the process that signed the lock of ``directory`` last was of this machine and is gone.

    Of one of another machine that is not known from here: its locks may not be seen.
    """
    try:
        with open(Path(directory) / "run.lock") as file:
            if json.load(file)["host"] != socket.gethostname():
                return False
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # given up at once, by closing
    except (OSError, ValueError, KeyError):
        return False
    return True
