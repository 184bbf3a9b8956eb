"""An explorer team's candidates, and its side of the selections."""

import time
from collections.abc import Iterable
from typing import Any

from .. import messages as m
from ..config import Config
from ..data import Record
from ..selection.distributed import Reduction
from ..selection.peer_messages import Mailbox, Unheard
from ..selection.quests import make_quests
from ..selection.reference_blocks import Describe, Shard, compute_device, make_model
from ..store.array_cache import ArrayCache
from ..store.run_directory import RunFolder
from .published_model import near_copy


class Selector:
    """Candidates wait here until a selection has looked at them: in the next round, when this team was late."""

    def __init__(self, config: Config, folder: RunFolder, team: str, peers: Any):
        self._config, self._folder, self._team = config, folder, team
        self._mailbox = Mailbox(peers)
        self._candidates: dict[tuple[int, str], tuple[Record, ...]] = {}  # by round and replica
        self._considered: tuple[int, set[tuple[int, str]]] = (-1, set())  # round of a selection, and what it looked at
        self._shard: Shard | None = None
        self._model = ""

    def hold(self, round: int, replica: str, records: Iterable[Record]) -> None:
        """The candidates of one replica's segment."""
        self._forget(round)
        self._candidates[round, replica] = tuple(records)

    def select(self, order: m.Select) -> m.Answer:
        """Take part in a selection; where it does not come about, the candidates are kept."""
        started = time.monotonic()
        self._forget(order.round)
        reduction = Reduction(self._config.select, self._team, self._mailbox, self._shard_for(order))
        try:
            picked, report = reduction.run(order, [*order.again, *self._those_of(order)])
        except Unheard as error:
            return m.Unselected(order.order_id, time.monotonic() - started, error.team, str(error))
        self._considered = order.round, set(self._candidates)
        return m.Selected(order.order_id, time.monotonic() - started, picked, report)

    def _forget(self, round: int) -> None:
        """In a new round: what a selection has looked at. In the same one it may be made again."""
        when, looked_at = self._considered
        if when != round:
            for key in looked_at & self._candidates.keys():
                del self._candidates[key]

    def _those_of(self, order: m.Select) -> list[Record]:
        """Ours of this round, if the coordinator counts their replica, and what is left of earlier ones."""
        return [
            record
            for (number, replica), records in self._candidates.items()
            if number != order.round or replica in order.replicas
            for record in records
        ]

    def _shard_for(self, order: m.Select) -> Shard:
        section = self._config.select.descriptor
        if self._shard is None:
            device = compute_device()
            if section.type == "model":
                self._shard = Shard(device)
            else:
                describe = make_quests(section, order.species, device)
                self._shard = Shard(device, describe, ArrayCache(self._folder.descriptors / describe.name, self._team))
        if section.type == "model" and order.model.digest != self._model:
            self._model = order.model.digest
            self._shard.use(self._load(order.model))
        return self._shard

    def _load(self, model: m.ModelRef) -> Describe:
        return make_model(near_copy(self._folder, model.digest, "select"))
