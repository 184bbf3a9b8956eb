"""Between the answers and the store: a label counts when it is on the disk, and the loop never waits for the disk."""

from collections import deque

from ..data import Record
from ..engines.label.level import Levels
from ..store.store import Store
from ..store.writer import Writer
from . import messages as m

Answered = tuple[int, m.Answer]
"""The rank an answer came from, and the answer."""


class Filing:
    """Keeps labels and rejections through a :class:`Writer`, and holds their answers back until they are kept."""

    def __init__(self, store: Store):
        self.store = store
        self._writer = Writer(store)
        self._held: deque[tuple[int, Answered]] = deque()

    def ready(self) -> bool:
        """Whether :meth:`settled` has something to give."""
        return self._writer.ready

    def take(self, source: int, answer: m.Labelled, levels: Levels) -> None:
        """Begin to keep what labelers found at their levels of theory. Raises StoreError."""
        labelled = [outcome.record for outcome in answer.outcomes if outcome.accepted]
        rejected = [
            (outcome.record, outcome.reason, levels.of(outcome.record.origin.system))
            for outcome in answer.outcomes
            if not outcome.accepted
        ]
        self._held.append((self._writer.submit(labelled, rejected), (source, answer)))

    def settled(self, wait: bool = False) -> list[Answered]:
        """Answers whose labels have come to the disk; with ``wait``, all that are held. Raises StoreError."""
        if wait:
            self._writer.flush()
        done = set(self._writer.done())
        found = []
        while self._held and self._held[0][0] in done:
            found.append(self._held.popleft()[1])
        return found

    def known(self, record: Record, levels: Levels) -> m.LabelOutcome | None:
        """What the store has of a frame at its level of theory: its label, or why there is none."""
        level = levels.of(record.origin.system)
        found = self.store.get(record.frame_id, level)
        if found is not None:
            return m.LabelOutcome(found)
        reason = self.store.was_rejected(record.frame_id, level)
        return None if reason is None else m.LabelOutcome(record, reason)

    def close(self) -> None:
        """Keep what is still on its way. Raises StoreError."""
        self._writer.close()
