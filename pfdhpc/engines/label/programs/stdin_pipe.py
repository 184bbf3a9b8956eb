"""A named pipe as the standard input of a program that stays, to type on."""

import os
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path


class StdinPipe:
    """Its program's input ends when it is closed, as it is when this process is gone."""

    def __init__(self):
        self._stack, self._outgoing = ExitStack(), b""
        # Not in the label's folder: not all file systems have pipes.
        self._place = self._stack.enter_context(ExitStack())
        self.path = Path(self._place.enter_context(tempfile.TemporaryDirectory(prefix="pfdhpc-"))) / "keyboard"
        os.mkfifo(self.path)
        # For reading as well, so that nobody's opening of it waits for somebody else's.
        self._pipe = os.open(self.path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._stack.callback(os.close, self._pipe)

    def opened(self) -> None:
        """The program has opened it: no file is left when a job is killed."""
        self._place.close()

    def type(self, text: str) -> None:
        self._outgoing += text.encode()
        self.flush()

    def flush(self) -> None:
        """Hand over what fits into the pipe now; never waits."""
        with suppress(BlockingIOError):
            while self._outgoing:
                self._outgoing = self._outgoing[os.write(self._pipe, self._outgoing) :]

    def close(self) -> None:
        self._stack.close()
