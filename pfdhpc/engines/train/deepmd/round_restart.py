"""A long round is kept as it goes: one that was killed goes on from there, instead of from its beginning.

Every ``train.restart_after`` seconds the first rank writes one file into the round's folder: deepmd's weights,
optimizer moments and step, what the monitor knows, the learning curve, and which round it is. Its name tells the
step and the checksum of its content; it appears by rename, and then the one before it goes.

The steps after it are not those of an undisturbed round bit for bit: the frames are drawn in an order of their own.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from hashlib import blake2b
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ....config.train import TrainSection
from ....data import Record
from ....files import renamed_into
from ...base import TrainTask
from .checkpoint import State
from .replay import Replayed

FILES = "restart-*.pt"
"""How the files are called: ``restart-<step>-<checksum>.pt``."""
CURVE = "lcurve.out"
_log = logging.getLogger("deepmd.pfdhpc")  # to the round's own log


@dataclass(frozen=True)
class Kept:
    """A whole file of this very round, and the step it was written after."""

    path: Path
    step: int

    def memory(self) -> State:
        """What the monitor knew."""
        return _content(self.path)["memory"]


def kept_step(directory: Path) -> int:
    """The step of the newest file in a round's folder, by its name alone; 0 if there is none."""
    return max((int(path.name.split("-")[1]) for path in directory.glob(FILES)), default=0)


def forget(directory: Path) -> None:
    """Remove the files of a round that is over."""
    for path in directory.glob(FILES):
        path.unlink(missing_ok=True)


def identity(section: TrainSection, task: TrainTask, replayed: Mapping[str, Replayed] = MappingProxyType({})) -> str:
    """All that makes a round this one, as text: parent, data, seed, steps, settings, and deepmd's version.

    ``replayed``: the data of ``train.replay``, which count by their content too.
    """
    import deepmd

    facts = {item.name: _plain(getattr(task, item.name)) for item in fields(task) if item.name != "directory"}
    facts["replayed"] = {name: [_plain(data.training), _plain(data.held_out)] for name, data in replayed.items()}
    settings = section.model_dump(mode="json", exclude={"restart_after"})
    return json.dumps({**facts, "train": settings, "deepmd": deepmd.__version__}, sort_keys=True)


def take_up(task: TrainTask, round_id: str) -> Kept | None:
    """The newest whole file of the round, the learning curve put back to its step; None: begin at the beginning."""
    for path in sorted(task.directory.glob(FILES), reverse=True):
        try:
            if _checksum(path.read_bytes()) != path.stem.split("-")[2]:
                raise ValueError("it is damaged")
            content = _content(path)
            if content["round"] != round_id:
                raise ValueError("it is of another round, or of one with other settings")
        except (OSError, ValueError) as error:
            _log.warning("%s is not gone on from: %s", path.name, error)
            continue
        (task.directory / CURVE).write_text(content["curve"])
        _log.info("going on after step %d, from %s", content["step"], path.name)
        return Kept(path, content["step"])
    return None


class Keeper:
    """Writes the files of one round, each ``interval`` seconds after the one before; on the first rank."""

    def __init__(self, trainer: Any, task: TrainTask, round_id: str, interval: float):
        self._trainer, self._folder, self._round_id = trainer, task.directory, round_id
        self._interval, self._last = interval, time.monotonic()

    def due(self) -> bool:
        return time.monotonic() - self._last >= self._interval

    def keep(self, step: int, lr: float, memory: Callable[[], State]) -> None:
        """Write a file after so many steps. A disk that refuses it is no reason to end the round: it is logged."""
        try:
            self._publish(step, self._image(step, lr, memory()))
        except OSError as error:
            _log.warning("the round could not be kept at step %d: %s", step, error)
        self._last = time.monotonic()

    def _image(self, step: int, lr: float, memory: State) -> bytes:
        """As deepmd's own ``save_model``, but with the number of steps done, and what is ours beside."""
        import torch

        self._trainer._get_inner_module().train_infos.update(lr=float(lr), step=step)
        model, optimizer = self._trainer._collect_checkpoint_states(use_ema_weights=False, include_optimizer=True)
        for group in optimizer["param_groups"]:
            group["lr"] = float(group["lr"])
        curve = (self._folder / CURVE).read_text() if (self._folder / CURVE).exists() else ""
        own = {"round": self._round_id, "step": step, "curve": curve, "memory": memory}
        stream = BytesIO()
        torch.save({"model": model, "optimizer": optimizer, **own}, stream)
        return stream.getvalue()

    def _publish(self, step: int, image: bytes) -> None:
        path = self._folder / f"restart-{step:09d}-{_checksum(image)}.pt"
        with renamed_into(path, durable=True) as unfinished:
            unfinished.write_bytes(image)
        for older in self._folder.glob(FILES):
            if older != path:
                older.unlink(missing_ok=True)


def _plain(value: Any) -> Any:
    """Files and records by what is in them."""
    if isinstance(value, Path):
        return _checksum(value.read_bytes())
    if isinstance(value, tuple) and all(isinstance(item, Record) for item in value):
        return _checksum(b"".join(_bytes(record) for record in value))
    return value


def _bytes(record: Record) -> bytes:
    label = record.label
    virial = b"" if label.virial is None else label.virial.tobytes()
    return f"{record.frame_id} {label.energy!r} ".encode() + label.forces.tobytes() + virial


def _content(path: Path) -> dict[str, Any]:
    import torch

    return torch.load(path, map_location="cpu", weights_only=True)


def _checksum(content: bytes) -> str:
    return blake2b(content, digest_size=16).hexdigest()
