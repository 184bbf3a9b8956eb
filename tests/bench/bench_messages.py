"""What a label costs on its way: from the coordinator to a labeler and back, until it is on the disk.

    python tests/bench/bench_messages.py [--ranks 4 16 64] [--atoms 64 200 1000 10000] [--frames 300] [--batch 1 16]

The real coordinator, messages over MPI and store; labelers that answer at once with zeros, and no program loaded (no
torch, no LAMMPS), on as many ranks as asked for, more than there are cores. The latency of a label is the time from
sending its order to its label being committed (fsynced) and applied, less the labeler's own. Goals: 10 ms p50 for a
label of 200 atoms, 500 frames of 200 atoms a second in batches.

``--rules 100 1000 10000``: what the policy and the rules alone take of a message, in processor time, with so many ranks
and twice as many frames that wait for a label; no rank but one is needed for that.
"""

import argparse
import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--ranks", type=int, nargs="+", default=[4, 16, 64])
    parser.add_argument("--atoms", type=int, nargs="+", default=[64, 200, 1000, 10000])
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--rules", type=int, nargs="+", help="numbers of ranks")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        return job(Path(options.one))
    if options.rules:
        return print_rules(options.rules)
    print(f"{'ranks':>6} {'atoms':>6} {'batch':>6} {'frames/s':>9} {'MB/s':>7} {'p50 ms':>7} {'p99 ms':>7}")
    for ranks in options.ranks:
        for atoms in options.atoms:
            for batch in options.batch:
                print(row(ranks, atoms, batch, options.frames), flush=True)


def print_rules(numbers: list[int]) -> None:
    from test_simulate import fresh, setup

    from pfdhpc.parallel.layout import plan_layout
    from pfdhpc.workflow.simulate_run import simulate

    print(f"{'ranks':>6} {'messages':>9} {'ms each':>8}")
    times = {"label.2": (10.0, 12.0, 20.0), "explore.Cu": (1e-4,), "train.step": (1e-6,), "train.rest": (0.1,)}
    for number in numbers:
        explore = {"steps": 2 * number, "interval": 1}
        config = setup(rounds=1, select={"max_sel": 2 * number}, explore=explore, ranks={"explorer": {"teams": 20}})
        began = time.process_time()
        outcome = simulate(config, fresh(20, **times), plan_layout(config.ranks, number))
        print(
            f"{number:6d} {outcome.messages:9d} {1000 * (time.process_time() - began) / outcome.messages:8.2f}",
            flush=True,
        )


def row(ranks: int, atoms: int, batch: int, frames: int) -> str:
    with tempfile.TemporaryDirectory() as folder:
        task = Path(folder) / "config.pickle"
        task.write_bytes(pickle.dumps(make_input(Path(folder), atoms, batch, frames)))
        command = ["mpiexec", "-n", str(ranks), sys.executable, "-m", "mpi4py", __file__, "--one", str(task)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
        found = json.loads((Path(folder) / "found.json").read_text())
    rate = frames / found["seconds"]
    megabytes = rate * atoms * (3 + 3 + 1) * 8 / 1e6
    return f"{ranks:6d} {atoms:6d} {batch:6d} {rate:9.0f} {megabytes:7.1f} {found['p50']:7.1f} {found['p99']:7.1f}"


def job(path: Path) -> None:
    """One rank of the measured job."""
    from mpi4py import MPI

    from pfdhpc.parallel import world
    from pfdhpc.parallel.channel import MpiChannel
    from pfdhpc.parallel.layout import plan_layout
    from pfdhpc.roles import worker

    comm = world.communicator()
    config = pickle.loads(path.read_bytes())
    layout = plan_layout(config.ranks, comm.size)
    place = world.split(comm, layout)
    channel = MpiChannel(place.orders_comm)
    if comm.rank == 0:
        coordinate(config, layout, channel, path.parent / "found.json")
    else:
        worker.lead(place.team, Null(place.team.role, config), channel, MpiChannel(place.team_comm))
    MPI.Finalize()


def make_input(folder: Path, atoms: int, batch: int, frames: int):
    from toys import make_config

    side = round((atoms / 4) ** (1 / 3)) or 1
    repeats = [side, side, max(1, round(atoms / 4 / side**2))]
    structures = {"name": "Cu", "structures": ["cu.vasp"], "supercell": repeats, "perturb": {"count": 1}}
    return make_config(
        folder,
        system=[structures],
        init={"frames": frames},
        label={"batch": batch},
        converge={"max_labels": frames},
        ranks={"labeler": {"teams": "rest"}},
    )


def coordinate(config, layout, channel, found: Path) -> None:
    import numpy as np

    coordinator, spans = watched(config, layout, channel)
    coordinator.run()
    coordinator.dismiss(0)
    latency = 1000 * np.array(coordinator.context.overheads["label"])
    values = {"seconds": spans[1] - spans[0], "p50": np.percentile(latency, 50), "p99": np.percentile(latency, 99)}
    found.write_text(json.dumps(values))


def watched(config, layout, channel):
    """A coordinator, and a list that will hold when it began to have labels made and when it had the last one."""
    from pfdhpc.config import dump
    from pfdhpc.engines.label.level_of_theory import levels_of
    from pfdhpc.report.snapshot import Listener
    from pfdhpc.roles.coordinator import Coordinator
    from pfdhpc.roles.run_context import RunContext
    from pfdhpc.roles.stopping import Stopping
    from pfdhpc.store.run_directory import RunFolder
    from pfdhpc.workflow.state import LABEL

    spans: list[float] = []

    def event(before, after, message) -> None:
        if (before.phase == LABEL) != (after.phase == LABEL):
            spans.append(time.monotonic())

    listener = Listener(event, lambda text: None)
    folder = RunFolder(config.run.directory)
    attrs = {"input": dump(config)}
    levels = levels_of(config.label)
    context = RunContext(config, folder, layout, channel, Stopping(), levels, attrs, listener=listener)
    return Coordinator(context), spans


class Null:
    """A team that answers every order at once."""

    def __init__(self, role: str, config):
        from pfdhpc.store.run_directory import RunFolder

        self._role, self._folder = role, RunFolder(config.run.directory)

    def ready(self, team: str):
        from pfdhpc import messages as m

        return m.Ready(team, (), ("Cu",))

    def handle(self, order):
        from dataclasses import replace

        from pfdhpc import messages as m
        from pfdhpc.data import Labelling

        started = time.monotonic()
        if isinstance(order, m.LabelFrames):
            labelled = [
                replace(record, label=zeros(len(record.frame)), labelling=Labelling("null", "null"))
                for record in order.records
            ]
            return m.Labelled(order.order_id, time.monotonic() - started, tuple(map(m.LabelOutcome, labelled)))
        if isinstance(order, m.ImportParent):
            return m.Imported(order.order_id, 0.0, self._model(0))
        if isinstance(order, m.Train):
            return m.Trained(order.order_id, 0.0, self._model(order.version), 1, 0.0)
        labels = tuple(record.label for record in order.records if record.label_id in order.test_ids)
        return m.Evaluated(order.order_id, 0.0, order.test_ids, labels, labels)

    def _model(self, version: int):
        from pfdhpc import messages as m

        path = self._folder.scratch("null") / f"{version}.pt"
        path.write_text(str(version))
        return m.ModelRef(version, self._folder.publish(path, path))


def zeros(n_atoms: int):
    """A label of the right shape."""
    import numpy as np

    from pfdhpc.data import Label

    return Label(0.0, np.zeros((n_atoms, 3)), np.zeros((3, 3)))


if __name__ == "__main__":
    main()
