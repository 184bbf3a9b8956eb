"""The same sleeps, given out by three managers: ours, mpi4py.futures and the scheme of PAL.

    python tests/bench/bench_peers.py [--ranks 2 4 8 16] [--tasks 300] [--seconds 0.05] [--cv 1.0]

Compared is what giving out labels costs, nothing else: tasks of one frame of 200 atoms each that sleep, lognormal with
the mean ``--seconds`` and the coefficient of variation ``--cv``, the same ones for all, on one manager and
``ranks - 1`` workers, more ranks than cores. ``pfdhpc`` is its coordinator's loop as it is, with one more rank for the
trainer and one for the explorer, which do nothing: each answer is a label on the disk (fsynced) before it counts.
``futures`` is MPICommExecutor, nothing kept. ``PAL`` (Chen et al., arXiv:2412.00401) is on no package index that was
within reach: its scheme for oracles is written down here, as its engine has it: flat float64 arrays, the size and then
the data, blocking Send and Recv on both sides, a manager that probes its oracles in turn without a pause, no delay
after a task (``orcl_time = orcl_penalty_time = 0``); nothing kept.

Columns: makespan over the ideal one (the same sleeps given out by a list scheduler without any cost), messages a second
(two a task), the median time from giving out a task to its result beyond its sleep, and the processor time of all ranks
over the makespan, in cores: what managing and waiting cost; that of ``pfdhpc`` has its imports in it.
"""

import argparse
import heapq
import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

ATOMS = 200
WAYS = ("pfdhpc", "futures", "PAL")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4, 8, 16])
    parser.add_argument("--tasks", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=0.05)
    parser.add_argument("--cv", type=float, default=1.0)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        return job(options.one[0], Path(options.one[1]))
    print(
        f"{'ranks':>5} {'manager':>8} {'makespan s':>10} {'/ ideal':>8} {'messages/s':>10} {'late ms':>8} {'cores':>6}"
    )
    for ranks in options.ranks:
        sleeps = kernels(min(options.tasks, 100 * (ranks - 1)), options.seconds, options.cv)
        for way in WAYS:
            print(row(way, ranks, sleeps), flush=True)


def kernels(n_tasks: int, mean: float, cv: float) -> list[float]:
    import numpy as np

    spread = np.sqrt(np.log(1 + cv**2))
    return np.random.default_rng(1).lognormal(np.log(mean) - spread**2 / 2, spread, n_tasks).tolist()


def ideal(sleeps: list[float], workers: int) -> float:
    """The makespan where each worker takes the next task the moment it is free."""
    free = [0.0] * workers
    for seconds in sleeps:
        heapq.heappush(free, heapq.heappop(free) + seconds)
    return max(free)


def row(way: str, ranks: int, sleeps: list[float]) -> str:
    with tempfile.TemporaryDirectory() as folder:
        task = Path(folder) / "task.pickle"
        task.write_bytes(pickle.dumps((sleeps, make_input(Path(folder), len(sleeps), ranks))))
        size = ranks + 2 * (way == "pfdhpc")
        command = ["mpiexec", "-n", str(size), sys.executable, "-m", "mpi4py", __file__, "--one", way, str(task)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
        found = json.loads((Path(folder) / "found.json").read_text())
    seconds = found["seconds"]
    ratio, rate = seconds / ideal(sleeps, ranks - 1), 2 * len(sleeps) / seconds
    late = 1000 * median(found["late"])
    return f"{ranks:5d} {way:>8} {seconds:8.2f} {ratio:8.2f} {rate:10.0f} {late:8.1f} {found['cpu'] / seconds:6.2f}"


def make_input(folder: Path, frames: int, ranks: int):
    import bench_messages

    config = bench_messages.make_input(folder, ATOMS, 1, frames)
    teams = config.ranks.labeler.model_copy(update={"teams": ranks - 1})
    return config.model_copy(update={"ranks": config.ranks.model_copy(update={"labeler": teams})})


def job(way: str, path: Path) -> None:
    """One rank of a measured job; rank 0 writes what it found."""
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    sleeps, config = pickle.loads(path.read_bytes())
    play = {"pfdhpc": ours, "futures": futures, "PAL": pal}[way]
    comm.Barrier()
    used = time.process_time()
    found = play(comm, sleeps, config)
    cpu = comm.gather(time.process_time() - used)
    if comm.rank == 0:
        (path.parent / "found.json").write_text(json.dumps({**found, "cpu": sum(cpu)}))


def ours(comm, sleeps: list[float], config) -> dict | None:
    """From the first order for a label to the last label."""
    import bench_messages

    from pfdhpc.parallel import world
    from pfdhpc.parallel.channel import MpiChannel
    from pfdhpc.parallel.layout import plan_layout
    from pfdhpc.roles import worker

    layout = plan_layout(config.ranks, comm.size)
    place = world.split(comm, layout)
    channel = MpiChannel(place.orders_comm)
    if comm.rank:
        program = sleeping(place.team.role, config, sleeps)
        worker.lead(place.team, program, channel, MpiChannel(place.team_comm))
        return None
    coordinator, spans = bench_messages.watched(config, layout, channel)
    coordinator.run()
    coordinator.dismiss(0)
    return {"seconds": spans[1] - spans[0], "late": coordinator.context.overheads["label"]}


def sleeping(role: str, config, sleeps: list[float]):
    """A team whose labels take the seconds of their place in the queue."""
    import bench_messages

    from pfdhpc import messages as m
    from pfdhpc.start.fresh_state import begin

    turn = {record.frame_id: number for number, record in enumerate(begin(config, ("Cu",)).state.pending)}

    class Sleeping(bench_messages.Null):
        def handle(self, order):
            if not isinstance(order, m.LabelFrames):
                return super().handle(order)
            seconds = sum(sleeps[turn[record.frame_id]] for record in order.records)
            time.sleep(seconds)
            return replace(super().handle(order), seconds=seconds)

    return Sleeping(role, config)


def futures(comm, sleeps: list[float], config) -> dict | None:
    """MPICommExecutor; as many tasks are with it as there are workers, so that none waits in a queue."""
    from mpi4py.futures import FIRST_COMPLETED, MPICommExecutor, wait

    with MPICommExecutor(comm, root=0) as executor:
        if executor is None:
            return None
        started, left, given, late = time.monotonic(), sleeps[::-1], {}, []
        while left or given:
            while left and len(given) < comm.size - 1:
                seconds = left.pop()
                given[executor.submit(sleep, seconds, frame())] = time.monotonic() + seconds
            for future in wait(given, return_when=FIRST_COMPLETED).done:
                future.result()
                late.append(time.monotonic() - given.pop(future))
        return {"seconds": time.monotonic() - started, "late": late}


def frame():
    """What a task is about, as numbers."""
    import numpy as np

    return np.zeros(3 * ATOMS)


def sleep(seconds: float, positions):
    """A task: sleeps, and answers with an energy, forces and a virial."""
    import numpy as np

    time.sleep(seconds)
    return np.zeros(1 + positions.size + 9)


def pal(comm, sleeps: list[float], config) -> dict | None:
    """Rank 0 is PAL's manager, the others its oracles."""
    import numpy as np
    from mpi4py import MPI

    size = np.empty(1, dtype=np.int64)
    if comm.rank:
        while True:
            comm.Recv([size, MPI.LONG], source=0, tag=comm.rank)
            data = np.empty(size[0])
            comm.Recv([data, MPI.DOUBLE], source=0, tag=comm.rank)
            if data[0] == 1:
                return None
            answer = sleep(data[1], data[2:])
            comm.Send([np.array([answer.size]), MPI.LONG], dest=0, tag=comm.rank)
            comm.Send([answer, MPI.DOUBLE], dest=0, tag=comm.rank)

    def send(oracle: int, stop: float, seconds: float) -> None:
        data = np.concatenate([[stop, seconds], frame()])
        comm.Send([np.array([data.size]), MPI.LONG], dest=oracle, tag=oracle)
        comm.Send([data, MPI.DOUBLE], dest=oracle, tag=oracle)

    started, left, due, late = time.monotonic(), sleeps[::-1], {}, []
    while left or due:
        for oracle in range(1, comm.size):
            if oracle in due and comm.Iprobe(source=oracle, tag=oracle):
                comm.Recv([size, MPI.LONG], source=oracle, tag=oracle)
                comm.Recv([np.empty(size[0]), MPI.DOUBLE], source=oracle, tag=oracle)
                late.append(time.monotonic() - due.pop(oracle))
            if left and oracle not in due:
                due[oracle] = time.monotonic() + left[-1]
                send(oracle, 0.0, left.pop())
    seconds = time.monotonic() - started
    for oracle in range(1, comm.size):
        send(oracle, 1.0, 0.0)
    return {"seconds": seconds, "late": late}


if __name__ == "__main__":
    main()
