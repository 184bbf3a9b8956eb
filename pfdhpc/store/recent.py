"""What was used last stays in memory."""

import threading
from collections import OrderedDict

from .shards import Row

ATOMS = 500_000
"""Atoms whose frames are kept: about 50 MB."""


class Recent:
    """Rows by key, the longest unused forgotten first; safe for several threads."""

    def __init__(self):
        self._rows: OrderedDict[str, Row] = OrderedDict()
        self._atoms = 0
        self._lock = threading.Lock()

    def get(self, key: str) -> Row | None:
        with self._lock:
            if key in self._rows:
                self._rows.move_to_end(key)
            return self._rows.get(key)

    def put(self, key: str, row: Row) -> None:
        with self._lock:
            if key in self._rows:
                return
            self._rows[key] = row
            self._atoms += len(row[0].frame)
            while self._atoms > ATOMS and len(self._rows) > 1:
                _, (record, _) = self._rows.popitem(last=False)
                self._atoms -= len(record.frame)
