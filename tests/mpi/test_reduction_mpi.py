"""The selection over real ranks: one team each, the same picks as in one process."""

import sys
from pathlib import Path

import numpy as np
from mpi4py import MPI

sys.path.insert(0, str(Path(__file__).parents[1]))
from selections import Describe, make_order, make_records, picked_of, run_teams  # noqa: E402

from pfdhpc.config.select import SelectSection  # noqa: E402
from pfdhpc.parallel.channel import MpiChannel  # noqa: E402
from pfdhpc.selection.distributed import Reduction  # noqa: E402
from pfdhpc.selection.peer_messages import Mailbox  # noqa: E402
from pfdhpc.selection.reference_blocks import Shard  # noqa: E402


def test_ranks_pick_what_one_process_picks():
    comm = MPI.COMM_WORLD.Dup()  # offers nobody waits for stay in it
    candidates, reference = make_records(10), make_records(4, seed=1, level="pbe")
    expected = picked_of(run_teams([candidates], reference))
    mailbox = Mailbox(MpiChannel(comm))
    teams = {f"explorer-{rank}": rank for rank in range(comm.size)}
    describe = Describe()
    team, shard = f"explorer-{comm.rank}", Shard("cpu", describe)
    for round in (1, 2):  # the second one finds the descriptors where the first has left them
        owners = np.random.default_rng(round).integers(comm.size, size=len(candidates))
        mine = [record for record, owner in zip(candidates, owners, strict=True) if owner == comm.rank]
        reduction = Reduction(SelectSection(), team, mailbox, shard)
        result = reduction.run(make_order(teams, team, reference, round=round), mine)
        assert picked_of(comm.allgather(result)) == expected
    described = comm.allgather(describe.counts)
    assert all(sum(counts.get(record.frame_id, 0) for counts in described) == 1 for record in reference)
