"""Explorer program of a pool: committee deviations of its frames."""

from dataclasses import replace

from .. import messages as m
from ..config import Config
from ..data import Frame, Label, Record
from ..engines.explore.committee import ACCURATE, CANDIDATE, FAILED, Committee
from ..start.pool import Pool, read_pool
from ..store.run_directory import RunFolder
from .published_model import near_copy


class Scanner:
    """An explorer's side: reads the pool once, holds the newest committee."""

    def __init__(self, config: Config, folder: RunFolder):
        self._section, self._folder = config.pool, folder
        self._pool: Pool | None = None
        self._committee: tuple[tuple[str, ...], Committee | None] = (), None

    def read(self) -> None:
        """Read the pool; raises InputError."""
        self._pool = read_pool(self._section)

    def scan(self, order: m.Scan) -> tuple[list[Record], dict[str, int]]:
        """The candidates of a chunk with the first member's predictions, and how many frames are of which kind."""
        done = set(order.done)
        records = [record for record in self._pool.chunks[order.replica] if record.frame_id not in done]
        frames: list[Frame] = [record.frame for record in records]
        labels: list[Label | None] | None = [record.label for record in records] if self._section.true_error else None
        counts, candidates = dict.fromkeys((ACCURATE, CANDIDATE, FAILED), 0), []
        judgements = self._models(order.models).judge(frames, labels) if frames else []
        for record, found in zip(records, judgements, strict=True):
            kind = found.kind(order.forces, order.energies) if order.forces else CANDIDATE
            counts[kind] += 1
            if kind == CANDIDATE:
                candidates.append(self._candidate(order, record, found))
        return candidates, counts

    def _candidate(self, order: m.Scan, record: Record, found) -> Record:
        origin = {"replica": order.replica, "round": order.round, "deviation": found.force}
        origin |= {"model_version": order.models[0].version, "model_hash": order.models[0].digest}
        return replace(record.with_origin(**origin), prediction=found.prediction)

    def _models(self, models: tuple[m.ModelRef, ...]) -> Committee:
        digests = tuple(model.digest for model in models)
        if self._committee[0] != digests:
            paths = [near_copy(self._folder, digest, f"scan {member}") for member, digest in enumerate(digests)]
            self._committee = digests, Committee(paths)
        return self._committee[1]
