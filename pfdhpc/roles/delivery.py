"""Records travel to a team once per job: orders name them, and those not sent before are attached."""

from collections.abc import Callable
from dataclasses import replace

from ..data import Record
from ..store.store import Store
from . import messages as m


class Delivery:
    """Remembers what each team has been sent."""

    def __init__(self, store: Store, level: str):
        self._store, self._level = store, level
        self._sent: dict[str, set[str]] = {}

    def complete(self, team: str, order: m.Order) -> m.Order:
        """The order with the records it names and the team lacks."""
        if isinstance(order, m.Select):
            return replace(order, reference=self._missing(team, order.reference_ids, _structure_only))
        if isinstance(order, m.Train):
            return replace(order, records=self._missing(team, (*order.old_ids, *order.new_ids, *order.validation_ids)))
        if isinstance(order, m.Evaluate):
            return replace(order, records=self._missing(team, (*order.train_ids, *order.test_ids)))
        return order

    def _missing(
        self, team: str, keys: tuple[str, ...], form: Callable[[Record], Record] = lambda record: record
    ) -> tuple[Record, ...]:
        sent = self._sent.setdefault(team, set())
        missing = [key for key in keys if key not in sent]
        sent.update(missing)
        return tuple(form(self._find(key)) for key in missing)

    def _find(self, key: str) -> Record:
        """A record by label id, or a refused one by frame id."""
        return self._store.records([key])[0] if ":" in key else self._store.refused(key, self._level)


def _structure_only(record: Record) -> Record:
    """What a descriptor needs: the frame, and the label's identity."""
    return replace(record, label=None, prediction=None)
