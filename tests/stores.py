"""Files of a store, written and read by the ways a run itself goes."""

from pathlib import Path

from pfdhpc.store.shards import read_table, table_of, write_table
from pfdhpc.store.verify import check_store


def write_rows(path: Path, rows, attrs=None) -> None:
    """A shard of ``(record, texts by column)``."""
    write_table(path, table_of(list(rows)), attrs or {})


def write_records(path: Path, *records) -> None:
    write_rows(path, [(record, {}) for record in records])


def records_in(path: Path) -> list:
    """The records of a shard."""
    return [record for record, _ in read_table(path)[0].rows()]


def problems_of(frames: Path) -> list[str]:
    """What a check of a frames folder finds, a line each."""
    return [f"{what}; {remedy}" for part in check_store(frames) for what, remedy in part.problems]
