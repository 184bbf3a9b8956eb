"""The run directory: what lies where, and how models are published in it."""

import shutil
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

from ..config.trainers import TRAINERS
from ..errors import InputError
from ..files import publish, renamed_into
from ..published_models import FOLDER, check_published, sum_of


class RunFolder:
    """Paths inside a run directory."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.frames = directory / "frames"
        self.checkpoints = directory / "checkpoints"
        self.models = directory / FOLDER
        self.logs = directory / "logs"
        self.ledger = directory / "ledger"
        self.final = directory / "final"
        self.descriptors = directory / "descriptors"
        self.input = directory / "input.json"

    def keep_input(self, text: str) -> None:
        """Keep the resolved input; one it replaces stays beside it as ``input-N.json``."""
        if self.input.exists():
            if self.input.read_text() == text:
                return
            number = len(list(self.directory.glob("input-*.json"))) + 1
            publish(self.directory / f"input-{number}.json", self.input.read_bytes())
        publish(self.input, text.encode())

    def scratch(self, name: str) -> Path:
        """A folder for one team's or one round's own files."""
        path = self.directory / "scratch" / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def training(self, number: int, member: int = 0) -> Path:
        """The scratch folder of a training round, or of one member of its committee."""
        return self.directory / "scratch" / f"train-{number:03d}{f'-{member}' if member else ''}"

    def trainings(self, but: int | None = None) -> list[Path]:
        """Those of all rounds so far, but one."""
        found = sorted(self.directory.glob("scratch/train-*"))
        return [path for path in found if but is None or int(path.name.split("-")[1]) != but]

    def engine_log(self, team: str) -> Path:
        """Where the child process that holds a team's engine writes."""
        return self.logs / f"{team}.engine.log"

    def checkpoint(self, digest: str) -> Path:
        """A model's checkpoint, of whatever trainer; :meth:`frozen` is what explores."""
        return self.models / f"{digest}.pt"

    def frozen(self, digest: str) -> Path:
        """What explores: a model frozen or exported, or a checkpoint where that is what is run (DPA-4)."""
        frozen = self.models / f"{digest}.pth"
        return frozen if frozen.exists() else self.checkpoint(digest)

    def sum_of(self, digest: str) -> str:
        """SHA-256, or the beginning of it, of what :meth:`frozen` gives; empty where an older run has not kept it."""
        path = self.frozen(digest)
        if path == self.checkpoint(digest):
            return digest
        return sum_of(path).read_text() if sum_of(path).exists() else ""

    def publish(self, checkpoint: Path, frozen: Path) -> str:
        """Copy a trained model here under its digest; complete before it can be seen."""
        self.models.mkdir(parents=True, exist_ok=True)
        digest = sha256(checkpoint.read_bytes()).hexdigest()[:32]
        _publish(checkpoint, self.checkpoint(digest))
        if frozen != checkpoint:
            target = self.models / f"{digest}.pth"
            _publish_with_sum(frozen, target)
        return digest

    def check_models(self, digests: Iterable[str]) -> None:
        """Raise InputError for those of these models that were damaged; what is not there is told where it is used."""
        problems = []
        for path in sorted({place(digest) for digest in digests for place in (self.checkpoint, self.frozen)}):
            try:
                if path.is_file():
                    check_published(path)
            except InputError as error:
                problems += error.problems
        if problems:
            raise InputError(problems)

    def product(self, digest: str) -> Path:
        """A student's model for production, frozen and, where deepmd can, compressed."""
        return self.models / f"{digest}.product.pth"

    def keep_product(self, digest: str, frozen: Path) -> None:
        _publish_with_sum(frozen, self.product(digest))

    def conclude(self, digest: str, names: tuple[str, str] = TRAINERS["deepmd"].final_names) -> tuple[Path, Path]:
        """The final checkpoint and model, under names a person looks for. Raises InputError for a damaged one."""
        self.final.mkdir(parents=True, exist_ok=True)
        targets = self.final / names[0], self.final / names[1]
        frozen = self.product(digest) if self.product(digest).exists() else self.frozen(digest)
        for source, target in zip((self.checkpoint(digest), frozen), targets, strict=True):
            check_published(source)
            _publish(source, target)
        return targets


def _publish_with_sum(source: Path, target: Path) -> None:
    """As :func:`_publish`; the sum comes first, so that a model without one is of an older run."""
    publish(sum_of(target), sha256(source.read_bytes()).hexdigest().encode())
    _publish(source, target)


def _publish(source: Path, target: Path) -> None:
    with renamed_into(target, durable=True) as unfinished:
        shutil.copyfile(source, unfinished)
