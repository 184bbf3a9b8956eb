"""The line to a program that connects to an i-PI socket.

Source: the i-PI protocol as ASE speaks it (ase.calculators.socketio).
"""

import os
import select
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from ....data import Frame
from ....errors import LabelError
from .base import Output, ProgramConnection

PROMPT = 20.0
"""Seconds in which a program that has begun to say something must have said it."""


class SocketLine(ProgramConnection):
    """A Unix socket in /tmp, which is gone as soon as the program has connected."""

    def __init__(self, program: str, directory: Path, check: Callable[[], int | None]):
        """``check`` gives the number of processes of the program; it raises LabelError if its output tells why not."""
        from ase.calculators.socketio import actualunixsocketname, bind_unixsocket

        self.name = f"pfdhpc-{os.getpid()}-{directory.name}"
        self._program, self._check = program, check
        self._frame, self._sent = None, False
        self._stack, self._protocol = ExitStack(), None
        self._server = self._stack.enter_context(bind_unixsocket(actualunixsocketname(self.name)))
        self._server.listen(1)

    def ask(self, frame: Frame) -> None:
        self._frame, self._sent = frame, False
        if self._protocol is not None:
            with _hung_up():
                self._protocol.sendmsg("STATUS")

    def wait(self, seconds: float) -> bool:
        """One step of the conversation, of which each takes the program its time: ready?, the frame, done?"""
        if self._protocol is None:
            if select.select([self._server], [], [], seconds)[0]:
                self._accept()
            return False
        if not select.select([self._protocol.socket], [], [], seconds)[0]:
            return False
        if not self._sent:
            with _hung_up():
                self._go_on()
            return False
        return True

    def answer(self) -> Output:
        try:
            with _hung_up():
                status = self._protocol.recvmsg()
                assert status == "HAVEDATA", status
                energy, forces, virial, _ = self._protocol.sendrecv_force()
        except (AssertionError, ValueError) as error:
            raise LabelError(f"{self._program}: an answer that is none: {error}") from error
        return Output(energy, forces, virial, self._check())

    def farewell(self) -> None:
        if self._protocol is not None:
            self._protocol.end()

    def close(self) -> None:
        self._stack.close()

    def _accept(self) -> None:
        from ase.calculators.socketio import IPIProtocol

        line = self._server.accept()[0]
        line.settimeout(PROMPT)
        self._stack.close()  # nobody else is to come, and no file is left when a job is killed
        self._protocol = IPIProtocol(self._stack.enter_context(line))
        with _hung_up():
            self._protocol.sendmsg("STATUS")

    def _go_on(self) -> None:
        """The frame to a program that is ready; each ends with the question that is answered when it has done so."""
        if self._protocol.recvmsg() == "NEEDINIT":
            self._protocol.sendinit()
        else:
            cell = self._frame.cell
            self._protocol.sendposdata(cell, np.linalg.inv(cell).T, self._frame.positions)
            self._sent = True
        self._protocol.sendmsg("STATUS")


@contextmanager
def _hung_up() -> Iterator[None]:
    """Every way in which a line breaks, as one."""
    try:
        yield
    except OSError as error:  # a closed or broken socket, or one that says nothing more
        raise ConnectionError(str(error)) from error
