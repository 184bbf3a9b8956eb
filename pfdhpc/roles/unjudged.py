"""Labels whose program was ended from outside: that says nothing of the frame, which so is not rejected."""

from collections import Counter
from dataclasses import replace

from . import messages as m

TRIES = 3
"""So often in a job the program may be killed at a frame, each time on all of the ladder, before it is rejected:
a stop of the whole job is known to the coordinator long before that, and memory may stay too short for ever."""


class Unjudged:
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
