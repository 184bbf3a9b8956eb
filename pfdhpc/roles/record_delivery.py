"""Records travel to a team once per job: orders name them, and those not sent before are attached."""

from collections.abc import Sequence
from dataclasses import replace

from .. import messages as m
from ..data import Record
from ..engines.label.level_of_theory import Levels
from ..parallel.layout import TRAINER
from ..selection.reference_blocks import block_of, owner_of
from ..store.store import Store


class Delivery:
    """Remembers what each team has been sent."""

    def __init__(self, store: Store, blocks: int):
        """``blocks``: into how many the reference of the selections is cut."""
        self._store, self._blocks = store, blocks
        self._sent: dict[str, set[str]] = {}

    def complete(self, team: str, order: m.Order, levels: Levels) -> m.Order:
        """The order with the records it names and the team lacks; ``levels``: at which frames may have been refused."""
        if isinstance(order, m.Select):
            mine = [key for key in order.reference_ids if self._owner(key, order) == team]
            waiting = {record.frame_id: record for record in order.reference}  # of these the store knows nothing yet
            missing = self._missing(team, [key for key in mine if key not in waiting], levels)
            records = (*missing, *(waiting[key] for key in mine if key in waiting))
            return replace(order, reference=tuple(map(_structure_only, records)))
        if isinstance(order, m.Train):
            keys = (*order.old_ids, *order.new_ids, *order.validation_ids)
            return replace(order, records=self._missing(team, keys, levels))
        if isinstance(order, m.Evaluate):
            keys = (*order.train_ids, *order.test_ids, *order.fixed_ids)
            if team.startswith(TRAINER):
                return replace(order, records=self._missing(team, keys, levels))
            return replace(order, records=tuple(map(_structure_only, self._store.records(keys))))  # what it was sent
        return order

    def _missing(self, team: str, keys: Sequence[str], levels: Levels) -> tuple[Record, ...]:
        """Labelled records by label id, refused ones by frame id, as far as the team has not been sent them."""
        sent = self._sent.setdefault(team, set())
        missing = [key for key in keys if key not in sent]
        sent.update(missing)
        labelled = self._store.records([key for key in missing if ":" in key])
        return (*labelled, *(self._refused(key, levels) for key in missing if ":" not in key))

    def _refused(self, frame_id: str, levels: Levels) -> Record:
        level = next(level for level in levels if self._store.was_rejected(frame_id, level) is not None)
        return self._store.refused(frame_id, level)

    def _owner(self, key: str, order: m.Select) -> str:
        return owner_of(block_of(key, self._blocks), list(order.participants))


def _structure_only(record: Record) -> Record:
    """What a descriptor needs: the frame, and the label's identity."""
    return replace(record, label=None, prediction=None)
