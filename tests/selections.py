"""Frames to select from, and a whole selection over any number of teams."""

import threading

import numpy as np
from ase.build import bulk

from pfdhpc import messages as m
from pfdhpc.config.select import SelectSection
from pfdhpc.data import Frame, Labelling, Origin, Record
from pfdhpc.parallel.channel import local_channels
from pfdhpc.selection.distributed import Reduction
from pfdhpc.selection.peer_messages import Mailbox
from pfdhpc.selection.quests import QuestsDescriptor
from pfdhpc.selection.reference_blocks import Shard, block_of, owner_of


def make_records(n, seed=0, level=""):
    """Silicon cells of two sizes and any disorder; with a level of theory they count as labelled."""
    rng = np.random.default_rng(seed)
    records = []
    for index in range(n):
        atoms = bulk("Si", cubic=True).repeat((1 + index % 2, 1, 1))
        atoms.rattle(0.02 + 0.3 * rng.random(), rng=rng)
        labelling = Labelling(level) if level else None
        records.append(Record(Frame.from_atoms(atoms), Origin(system="Si", step=index), labelling=labelling))
    return records


class Describe(QuestsDescriptor):
    """Counts how often each frame is described."""

    def __init__(self):
        super().__init__(neighbours=16)
        object.__setattr__(self, "counts", {})

    def __call__(self, frames):
        for frame in frames:
            self.counts[frame.frame_id] = self.counts.get(frame.frame_id, 0) + 1
        return super().__call__(frames)


def make_order(teams, team, reference, max_sel=6, round=1, blocks=64, **changes):
    """The order one team gets: with the reference frames it holds."""
    mine = [record for record in reference if owner_of(block_of(record.frame_id, blocks), list(teams)) == team]
    return m.Select(
        order_id=f"select/{round}/{team}",
        round=round,
        participants=teams,
        replicas=(),
        volumes={},
        reference_ids=tuple(sorted(record.label_id for record in reference)),
        max_sel=max_sel,
        reference=tuple(mine),
        **changes,
    )


def run_teams(shares, reference, section=None, shards=None, late=(), **changes):
    """Every team of ``shares`` (lists of candidates) in a thread; returns what each returned or raised."""
    section = section or SelectSection()
    channels = local_channels(len(shares))
    teams = {f"explorer-{rank}": rank for rank in range(len(shares))}
    shards = shards or [Shard("cpu", Describe()) for _ in shares]
    results = [None] * len(shares)

    def work(rank, team):
        if team in late:
            return
        reduction = Reduction(section, team, Mailbox(channels[rank]), shards[rank])
        try:
            results[rank] = reduction.run(
                make_order(teams, team, reference, blocks=section.blocks, **changes), shares[rank]
            )
        except Exception as error:
            results[rank] = error

    threads = [threading.Thread(target=work, args=(rank, team)) for team, rank in teams.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


def picked_of(results):
    """``{frame id: novelty}`` over all teams."""
    return {record.frame_id: record.origin.novelty for picked, _ in results for record in picked}
