"""A team leader's ear: orders one after the other, and, while it works on one, the word that it is not wanted any more.

Only programs of their own can be ended in the middle of a label; whatever runs in a rank itself does not listen.
"""

from collections import deque
from typing import Any

from .. import messages as m
from ..parallel.channel import Channel


class CancellableChannel(Channel):
    """A channel whose messages can be looked at before they are taken."""

    def __init__(self, channel: Channel):
        self._channel, self.rank = channel, channel.rank
        self._held: deque[tuple[int, Any]] = deque()

    def send(self, dest: int, message: Any) -> None:
        self._channel.send(dest, message)

    def poll(self) -> tuple[int, Any] | None:
        """The next message; a word about an order that has been answered already comes too late."""
        self._listen()
        while self._held:
            found = self._held.popleft()
            if not isinstance(found[1], m.CallOff):
                return found
        return None

    def flush(self, timeout: float) -> bool:
        return self._channel.flush(timeout)

    def called_off(self) -> float | None:
        """The seconds in which the order under way is to be ended; None if it is still wanted."""
        self._listen()
        return next((word.seconds for _, word in self._held if isinstance(word, m.CallOff)), None)

    def _listen(self) -> None:
        while (found := self._channel.poll()) is not None:
            self._held.append(found)
