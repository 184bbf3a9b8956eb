"""The run directory: what lies where, and how models are published in it."""

import os
import shutil
from hashlib import sha256
from pathlib import Path

from ..store.container import publish


class RunFolder:
    """Paths inside a run directory."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.frames = directory / "frames"
        self.checkpoints = directory / "checkpoints"
        self.models = directory / "models"
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

    def trainings(self) -> list[Path]:
        """Those of all rounds so far."""
        return sorted(self.directory.glob("scratch/train-*"))

    def engine_log(self, team: str) -> Path:
        """Where the child process that holds a team's engine writes."""
        return self.logs / f"{team}.engine.log"

    def checkpoint(self, digest: str) -> Path:
        return self.models / f"{digest}.pt"

    def frozen(self, digest: str) -> Path:
        return self.models / f"{digest}.pth"

    def publish(self, checkpoint: Path, frozen: Path) -> str:
        """Copy a trained model here under its digest; complete before it can be seen."""
        self.models.mkdir(parents=True, exist_ok=True)
        digest = sha256(checkpoint.read_bytes()).hexdigest()[:32]
        for source, target in ((checkpoint, self.checkpoint(digest)), (frozen, self.frozen(digest))):
            _publish(source, target)
        return digest

    def product(self, digest: str) -> Path:
        """A student's model for production, frozen and, where deepmd can, compressed."""
        return self.models / f"{digest}.product.pth"

    def keep_product(self, digest: str, frozen: Path) -> None:
        _publish(frozen, self.product(digest))

    def conclude(self, digest: str) -> tuple[Path, Path]:
        """The final model, under names a person looks for."""
        self.final.mkdir(parents=True, exist_ok=True)
        targets = self.final / "model.pt", self.final / "model.pth"
        frozen = self.product(digest) if self.product(digest).exists() else self.frozen(digest)
        for source, target in zip((self.checkpoint(digest), frozen), targets, strict=True):
            _publish(source, target)
        return targets


def _publish(source: Path, target: Path) -> None:
    unfinished = target.with_name(f".{target.name}.unfinished")
    shutil.copyfile(source, unfinished)
    with open(unfinished, "rb+") as handle:
        os.fsync(handle.fileno())
    os.replace(unfinished, target)
