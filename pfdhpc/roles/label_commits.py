"""Between the answers and the store: a label counts when it is on the disk, and the loop never waits for the disk."""

from collections import Counter, deque
from dataclasses import replace

from .. import messages as m
from ..data import Record
from ..engines.label.level_of_theory import Levels
from ..store.store import Store
from ..store.writer import Writer

TRIES = 3
"""So often in a job the program may be killed at a frame, each time on all of the ladder, before it is rejected:
a stop of the whole job is known to the coordinator long before that, and memory may stay too short for ever."""


class KilledLabels:
    """Takes outcomes out of answers; their frames are still waiting, so that they are asked for again."""

    def __init__(self):
        self._killed: Counter[str] = Counter()

    def sift(self, answer: m.Labelled, stopping: bool) -> m.Labelled | m.Unlabelled:
        """What an answer tells of its frames, and what is left to be done by the next job where one is ``stopping``.

        A stop that goes to all processes of a job also makes launchers fail that do not say why.
        """
        kept = tuple(outcome for outcome in answer.outcomes if not self._is_unjudged(answer, outcome, stopping))
        if len(kept) == len(answer.outcomes):
            return answer
        if not kept or isinstance(answer, m.Simulated):  # a segment is made as a whole
            reason = next(outcome.reason for outcome in answer.outcomes if not outcome.accepted)
            return m.Unlabelled(answer.order_id, answer.seconds, reason)
        return replace(answer, outcomes=kept)

    def _is_unjudged(self, answer: m.Labelled, outcome: m.LabelOutcome, stopping: bool) -> bool:
        if outcome.killed is None:
            return False
        if stopping or not outcome.killed:
            return stopping
        # a segment that is made again may come to slightly other frames
        what = answer.order_id if isinstance(answer, m.Simulated) else outcome.record.frame_id
        self._killed[what] += 1
        return self._killed[what] < TRIES


Answered = tuple[int, m.Answer]
"""The rank an answer came from, and the answer."""


class LabelCommits:
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
