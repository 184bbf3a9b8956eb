"""Real runs on 4 ranks that lose a rank at a random instant, and what their stores held then and hold now."""

import json
import os
import random
import re
import signal
import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from e2e.jobs import Job, write_copper
from stores import problems_of, records_in

from pfdhpc.store.shard_folder import shard_paths

RANKS = {"coordinator": 0, "trainer": 1, "explorer": 2, "labeler": 3}
"""Who is who on 4 ranks."""
WRITER = "writer"
"""The coordinator, at an instant when a shard is half written."""
FIRST = r"resumed|taken as model 0"
"""The line on the terminal that tells that the work has begun."""
ANSWER = r"(?s:.*?)round \d+ +(label|train|explore) "
"""A line that tells of an answer."""
EMT = 'options = { calculator = "ase.calculators.emt.EMT" }'


def write_faulty(folder: Path, calculator: str, arguments: str = "", rounds: int = 2, more: str = "") -> Path:
    """The copper input with labels by one of the doubles; ``more`` are further lines of [label]."""
    path = write_copper(folder, rounds)
    where = Path(__file__).parent
    options = f'calculator = "doubles.{calculator}", path = "{where}", arguments = {{ {arguments} }}'
    path.write_text(path.read_text().replace(EMT, f"options = {{ {options} }}\n{more}"))
    return path


def stored(folder: Path) -> Counter:
    """How many times each label is in the files of a run."""
    paths = shard_paths(folder / "run" / "frames" / "labelled")
    return Counter(record.label_id for path in paths for record in records_in(path))


def faults_of_store(folder: Path) -> list[str]:
    """Whatever is wrong with the store of a run, labels that are there twice included."""
    twice = [f"{label_id} is there {count} times" for label_id, count in stored(folder).items() if count > 1]
    return problems_of(folder / "run" / "frames") + twice


def pid_of(path: Path, rank: int) -> int:
    """The process of one rank of the job of an input."""
    for entry in Path("/proc").iterdir():
        try:
            command, environment = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
        except OSError:
            continue
        started = f"pfdhpc\0run\0{path}\0".encode() in command
        if started and f"PMI_RANK={rank}".encode() in environment.split(b"\0"):
            return int(entry.name)
    raise ProcessLookupError(f"no rank {rank} of {path}")


@dataclass
class Kill:
    """What one kill did: labels on disk before and lost by it; how the start after it went (seconds)."""

    kind: str
    labels: int
    lost: int
    first_order: float = float("nan")  # from the start, without the imports of the teams
    first_label: float = float("nan")  # from the start, everything included


class Victim:
    """One run that is killed again and again: :meth:`kill`, :meth:`kill`, ..., :meth:`finish`."""

    def __init__(self, path: Path, seed: int, window: int = 8):
        self.path, self.folder, self.window = path, path.parent, window
        self.random = random.Random(seed)
        self.kills: list[Kill] = []
        self._before: Counter = Counter()

    def kill(self, kind: str) -> Kill:
        """Start the job and kill a rank up to a second after it filed a random number of answers, 0 to ``window``."""
        started = time.time()
        job = Job(self.path)
        job.wait_for(f"({FIRST})" + ANSWER * self.random.randint(0, self.window))
        time.sleep(self.random.uniform(0, 1))
        pid = pid_of(self.path, RANKS["coordinator" if kind == WRITER else kind])
        if kind == WRITER:
            self._await_half_a_shard(job)
        self._before |= stored(self.folder) if kind != WRITER else Counter()
        os.kill(pid, signal.SIGKILL)
        code = job.wait(30)
        assert code == signal.SIGKILL, f"a lost rank ends the job with {code}\n{job.text()}"
        self._measure(started)
        now = stored(self.folder)
        self.kills.append(Kill(kind, len(now), len(self._before.keys() - now.keys())))
        self._before = now
        return self.kills[-1]

    def finish(self) -> None:
        """Let the run come to its end after one more round; it must be a good one."""
        self.more_rounds()
        started = time.time()
        job = Job(self.path)
        assert job.wait() == 0, job.text()
        self._measure(started)

    def more_rounds(self, count: int = 1) -> None:
        """Let the run end so many rounds after the one it is in."""
        round_now = json.loads((self.folder / "run" / "status.json").read_text())["round"]
        text = re.sub(r"max_rounds = \d+", f"max_rounds = {round_now + count}", self.path.read_text())
        self.path.write_text(text)

    def lost(self) -> int:
        """Labels that were on disk at some kill and are not now."""
        return sum(kill.lost for kill in self.kills) + len(self._before.keys() - stored(self.folder).keys())

    def _await_half_a_shard(self, job: Job) -> None:
        folder = self.folder / "run" / "frames" / "labelled"
        deadline = time.monotonic() + 60
        while not any(name.endswith(".unfinished") for name in os.listdir(folder)):
            assert time.monotonic() < deadline, job.text()

    def _measure(self, started: float) -> None:
        """Write down with the last kill how the start after it went."""
        if not self.kills:
            return
        times = dict(_log_times(self.folder / "run" / "logs" / "rank-00000.log", started))
        kill = self.kills[-1]
        kill.first_label = times.get("label", float("nan"))
        if {"begun", "ready", "resumed"} <= times.keys():
            kill.first_order = times["begun"] + times["resumed"] - times["ready"]


EVENTS = {"begun": "run directory", "ready": "teams have started", "resumed": ": resumed: ", "label": r"label +\d+/"}


def _log_times(path: Path, started: float):
    """``(event, seconds)`` from ``started`` (Unix time) to the first line that tells of each event."""
    found = set()
    for line in path.read_text().splitlines():
        for event, pattern in EVENTS.items():
            if event in found or not re.search(pattern, line) or "(from the store)" in line:
                continue
            seconds = datetime.strptime(line[:23], "%Y-%m-%d %H:%M:%S,%f").timestamp() - started
            if seconds >= 0:
                found.add(event)
                yield event, seconds
