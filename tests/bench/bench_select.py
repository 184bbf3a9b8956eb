"""Selection of frames: pfdhpc beside the algorithm of PFD-kit, how it grows, and what its picks are worth.

    python tests/bench/bench_select.py [peer] [growth] [quality] [memory]

Without a word: the first three. Cells of 192 atoms of silicon, copper and CuZn with thermal rattles and strains
from a fixed seed; one thread everywhere, and seconds are CPU seconds unless said otherwise. PFD-kit's
algorithm (full recomputation for every chunk, with the entropy it logs) is written with the functions of the
``quests`` package. It wants versions of its own, so install it beside an environment that has pfdhpc:

    python -m venv --system-site-packages bench && bench/bin/pip install quests
    PYTHONPATH=. bench/bin/python tests/bench/bench_select.py

Where PFD-kit's algorithm takes more than --budget seconds it is stopped after a chunk, and its time is
extrapolated by the pairs of environments still to be compared; the table says so.
"""

import os

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"))

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk

from pfdhpc import select_frames
from pfdhpc.data import Frame
from pfdhpc.selection.entropy import Environments, delta_entropy, diversity, entropy
from pfdhpc.selection.quests import QuestsDescriptor
from pfdhpc.selection.standalone import Material, Selection, choose, standalone_section

H, CHUNK, BATCH = 0.015, 2, 1000
SIZES = ((20, 60, 20), (20, 300, 100))
"""Reference frames, candidates, picks."""


def cells(n: int, seed: int, least: float = 0.02, most: float = 0.18) -> list[Atoms]:
    """Cells of 192 atoms in turn of the three materials, strained by up to 3 % and rattled by least to most Å."""
    starts = (
        bulk("Si", cubic=True).repeat((2, 3, 4)),
        bulk("Cu", cubic=True).repeat((3, 4, 4)),
        bulk("CuZn", "cesiumchloride", a=2.95).repeat((4, 4, 6)),
    )
    rng = np.random.default_rng(seed)
    found = []
    for index in range(n):
        atoms = starts[index % len(starts)].copy()
        strain = np.eye(3) + rng.uniform(-0.03, 0.03, (3, 3))
        atoms.set_cell(atoms.cell @ ((strain + strain.T) / 2), scale_atoms=True)
        atoms.rattle(rng.uniform(least, most), rng=rng)
        found.append(atoms)
    return found


@dataclass
class Peer:
    """What PFD-kit's algorithm did in its budget: picks, seconds, and those still to come by the rate of pairs."""

    picked: list[int]
    seconds: float
    done: float  # share of the pairs
    whole: float  # seconds


def pfd_kit(reference: Sequence[Atoms], candidates: Sequence[Atoms], max_sel: int, budget: float) -> Peer:
    """``_h_filter`` of PFD-kit with the functions of ``quests``."""
    from quests.descriptor import get_descriptors
    from quests.entropy import delta_entropy, entropy

    started = time.process_time()
    left = {index: get_descriptors([atoms], k=32, cutoff=5.0) for index, atoms in enumerate(candidates)}
    known = get_descriptors(list(reference), k=32, cutoff=5.0)
    described = time.process_time() - started
    picked, done = [], 0
    steps = min(-(-max_sel // CHUNK), -(-len(candidates) // CHUNK))
    n, size = len(candidates), len(candidates[0])
    pairs = [_pairs(len(reference) + CHUNK * step, n - CHUNK * step, size) for step in range(steps)]
    for step in range(steps):
        scores = {index: delta_entropy(some, known, h=H, batch_size=BATCH).sum() for index, some in left.items()}
        best = sorted(scores, key=lambda index: -scores[index])[:CHUNK]
        known = np.concatenate([known, *(left.pop(index) for index in best)])
        entropy(known, h=H, batch_size=BATCH)
        picked, done = picked + best, done + pairs[step]
        if time.process_time() - started > budget:
            break
    seconds = time.process_time() - started
    return Peer(picked, seconds, done / sum(pairs), described + (seconds - described) * sum(pairs) / done)


def _pairs(n_known: int, n_left: int, size: int) -> int:
    """Pairs of environments a chunk compares: the candidates with what is known, then what is known with itself."""
    return size**2 * (n_left * n_known + (n_known + CHUNK) ** 2)


def best_of(repeats: int, work) -> tuple[float, object]:
    """The shortest of some runs and what the last one returned."""
    seconds = []
    for _ in range(repeats):
        started = time.process_time()
        found = work()
        seconds.append(time.process_time() - started)
    return min(seconds), found


def pfd_of_ours(reference: list[Atoms], candidates: list[Atoms], max_sel: int, entropies: bool = True) -> Selection:
    """The same with pfdhpc; H is computed before and after, or not at all, as in a run."""
    filters = {"min_distance_ratio": 0.0}
    section = standalone_section({"method": "pfd", "chunk": CHUNK, "max_sel": max_sel, "filter": filters})
    material = Material(section)
    for atoms in reference:
        material.refer(Frame.from_atoms(atoms), "reference")
    for atoms in candidates:
        material.consider(Frame.from_atoms(atoms), "candidate")
    return choose(section, material, entropies=entropies)


def peer(options: argparse.Namespace) -> None:
    """Part (a): the same input, the same picks."""
    try:
        import quests  # noqa: F401
    except ImportError:
        print("quests is not installed: no comparison with PFD-kit's algorithm; see the top of this file\n")
        return
    pfd_kit(cells(1, 0), cells(2, 1), 2, 1e9)  # compiles
    print("PFD-kit's algorithm, chunk 2, descriptors included; cells of 192 atoms")
    heads = f"{'PFD-kit s':>12}{'pfdhpc s':>10}{'ratio':>7}{'without H':>11}{'ratio':>7}   picks"
    print(f"{'reference':>10}{'candidates':>12}{'picks':>7}{heads}")
    for n_reference, n_candidates, max_sel in SIZES:
        reference, candidates = cells(n_reference, 1, most=0.08), cells(n_candidates, 2)
        work = partial(pfd_of_ours, reference, candidates, max_sel)
        (ours, found), (bare, _) = best_of(3, work), best_of(3, partial(work, entropies=False))
        theirs = pfd_kit(reference, candidates, max_sel, options.budget)
        same = list(found.indices[: len(theirs.picked)]) == theirs.picked
        told = f"{'same' if same else 'DIFFERENT'} {len(theirs.picked)}"
        if theirs.done < 1:
            told += f"; PFD-kit's time from {theirs.seconds:.0f} s, {100 * theirs.done:.0f} % of its pairs"
        line = f"{n_reference:>10}{n_candidates:>12}{max_sel:>7}{theirs.whole:>12.1f}{ours:>10.2f}"
        print(f"{line}{theirs.whole / ours:>7.0f}{bare:>11.2f}{theirs.whole / bare:>7.0f}   {told}", flush=True)
    print()


def growth(options: argparse.Namespace) -> None:
    """Part (b): seconds of the greedy selection, and CPU seconds on several ranks."""
    reference, candidates = cells(20, 1, most=0.08), cells(480, 2)
    print("growth of the greedy selection, 20 reference frames: seconds (per candidate or pick, ms)")
    for n in (60, 120, 240, 480):
        seconds, found = best_of(2, lambda n=n: select_frames(candidates[:n], reference, 20))
        print(
            f"  {n:>4} candidates, {len(found.indices):>3} picks {seconds:>8.2f} ({1e3 * seconds / n:.1f})", flush=True
        )
    for picks in (20, 40, 80, 160):
        seconds, found = best_of(2, lambda picks=picks: select_frames(candidates[:240], reference, picks))
        print(
            f"   240 candidates, {len(found.indices):>3} picks {seconds:>8.2f} ({1e3 * seconds / picks:.1f})",
            flush=True,
        )
    print("240 candidates, 40 picks: CPU seconds of all ranks together, beside those of one rank that does it all")
    print("while as many others do the same, for what shares a processor's caches is slower")
    for ranks in (1, 2, 4):
        alone, together = on_ranks(ranks, "alone"), on_ranks(ranks, "share")
        same = "same picks" if together[2] == alone[2] else "DIFFERENT picks"
        cpu, one = float(together[0]), float(alone[0]) / ranks
        pairs = float(together[3]) * ranks / float(alone[3])
        figures = f"{cpu:>8.2f} beside {one:.2f} ({cpu / one:.2f}), pairs of environments compared {pairs:.2f}"
        print(f"  {ranks} ranks {figures}, wall {float(together[1]):.2f} s, {same}", flush=True)
    print()


def on_ranks(ranks: int, part: str) -> list[str]:
    """What the fastest of three runs of a part on some ranks prints."""
    line = ["mpiexec", "-n", str(ranks), sys.executable, "-m", "mpi4py", __file__, part]
    runs = (subprocess.run(line, capture_output=True, text=True, check=True).stdout.split() for _ in range(3))
    return min(runs, key=lambda words: float(words[0]))


def alone(options: argparse.Namespace) -> None:
    """A whole selection on every rank, each for itself."""
    share(options, together=False)


def share(options: argparse.Namespace, together: bool = True) -> None:
    """One rank's part of a selection: prints CPU seconds of all, wall seconds, the picks, and pairs compared by all."""
    from mpi4py import MPI

    from pfdhpc.parallel.channel import MpiChannel

    comm, section = MPI.COMM_WORLD, standalone_section({"max_sel": 40})
    material = Material(section, comm.rank, comm.size) if together else Material(section)
    for atoms in cells(20, 1, most=0.08):
        material.refer(Frame.from_atoms(atoms), "reference")
    for atoms in cells(240, 2):
        material.consider(Frame.from_atoms(atoms), "candidate")
    select_frames(cells(2, 3), cells(1, 4), 1)  # loads torch
    channel = MpiChannel(comm) if together and comm.size > 1 else None
    pairs, log_sums = [], Environments.log_sums

    def counted(some: Environments, known: Environments, *tolerance: float) -> np.ndarray:
        pairs.append(len(some) * len(known))
        return log_sums(some, known, *tolerance)

    Environments.log_sums = counted
    comm.barrier()
    started, cpu = time.perf_counter(), time.process_time()
    found = choose(section, material, channel=channel)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - started
    total, compared = comm.reduce(cpu), comm.reduce(sum(pairs))
    if comm.rank == 0:
        print(total, wall, ",".join(map(str, found.indices)), compared)


def quality(options: argparse.Namespace) -> None:
    """Part (c): equal numbers of picks from data of which most is dull, as a trajectory's is."""
    candidates = cells(160, 5, 0.02, 0.06) + cells(40, 6, 0.06, 0.3)
    reference = cells(6, 7, 0.01, 0.03)
    describe = QuestsDescriptor(species=(14, 29, 30))
    known = np.concatenate(describe([Frame.from_atoms(atoms) for atoms in reference]))
    some = describe([Frame.from_atoms(atoms) for atoms in candidates])
    print("quality: 200 candidates, one in five hot; H and diversity of the reference with the picks, nats;")
    print("and mean and largest δH of what was not picked against it, nats")
    print(f"{'method':>20}{'picks':>7}{'H':>8}{'D':>8}{'δH mean':>10}{'δH max':>9}")
    for budget in (10, 20, 40):
        rows = {
            "greedy": {},
            "pfd, chunk 10": {"method": "pfd", "descriptor": {"type": "chemistry", "smoothing": 0.02}},
        }
        rows |= {f"random, seed {seed}": {"method": "random"} for seed in range(3)}
        for name, settings in rows.items():
            seed = int(name[-1]) if "random" in name else 0
            found = select_frames(candidates, reference, budget, seed=seed, **settings)
            chosen = found.indices
            after = np.concatenate([known, *(some[index] for index in chosen)])
            left = np.concatenate(
                [some[index] for index in np.flatnonzero(~np.isnan(found.novelty)) if index not in chosen]
            )
            gains = delta_entropy(left, after, H)
            figures = f"{entropy(after, H):>8.3f}{diversity(after, H):>8.3f}{gains.mean():>10.3f}{gains.max():>9.1f}"
            print(f"{name:>20}{len(chosen):>7}{figures}", flush=True)
    print()


class _Enough(Exception):
    pass


def memory(options: argparse.Namespace) -> None:
    """A million atoms of candidates and of reference on one rank; their descriptors are those of few, displaced."""
    n_frames, blocks = options.atoms // 192, 1
    section = standalone_section({"max_sel": 10, "descriptor": {"type": "quests"}})
    material = Material(section)
    start = cells(1, 0)[0]
    patterns = np.stack(QuestsDescriptor()([Frame.from_atoms(atoms) for atoms in cells(24, 1)]))
    for number in range(2 * n_frames):
        frame = Frame(start.numbers, start.cell.array, start.positions + 1e-3 * number, start.pbc)
        (material.refer if number < n_frames else material.consider)(frame, "frame")

    def describe(frames: Sequence[Frame]) -> list[np.ndarray]:
        found = []
        for frame in frames:
            rng = np.random.default_rng(int(frame.frame_id[:8], 16))
            pattern = patterns[rng.integers(len(patterns))]
            found.append(pattern + 0.003 * rng.normal(size=pattern.shape))
        return found

    stamps = []

    def progress(phase: str, done: int, total: int) -> None:
        if phase == "comparing":
            stamps.append(time.process_time())
            if done > blocks:
                raise _Enough

    # the whole reference is there before the first block, as on a rank that has to answer others
    with_all = _Loaded(describe, material.reference)
    try:
        choose(section, material, with_all, entropies=False, progress=progress)
    except _Enough:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    per_block = (stamps[-1] - stamps[0]) / blocks
    print(f"{192 * n_frames:.3g} candidate atoms, as many of reference, one rank, {patterns.shape[2]} columns, float64")
    print(f"  peak memory {peak:.2f} GiB, a block of {section.blocks} takes {per_block:.0f} s")
    print(f"  all blocks, extrapolated: {per_block * section.blocks / 3600:.1f} h of one core\n")


class _Loaded:
    """Descriptors of the reference made all at once, before anything is compared."""

    def __init__(self, describe, reference):
        made = describe([record.frame for record in reference])
        self._describe = describe
        self._known = dict(zip((record.frame_id for record in reference), made, strict=True))

    def __call__(self, frames):
        return [
            self._known[frame.frame_id] if frame.frame_id in self._known else self._describe([frame])[0]
            for frame in frames
        ]


PARTS = {"peer": peer, "growth": growth, "quality": quality, "memory": memory, "share": share, "alone": alone}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help="peer, growth, quality, memory")
    parser.add_argument("--budget", type=float, default=240.0, help="seconds PFD-kit's algorithm may take (240)")
    parser.add_argument(
        "--atoms", type=int, default=10**6, help="of memory: atoms of candidates and of reference (10⁶)"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    for part in options.parts or ("peer", "growth", "quality"):
        PARTS[part](options)


if __name__ == "__main__":
    main()
