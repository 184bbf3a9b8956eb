"""A run directory as a report sees it: plain values of the newest checkpoint, the frames, the evidence."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ..config.load import parse_section
from ..config.ranks import RanksSection
from ..data import Frame, Record
from ..errors import InputError, StoreError
from ..parallel.layout import EXPLORER, LABELER, TRAINER, plan_layout
from ..store.checkpoint import load_checkpoint
from ..store.labelled_rejected import LABELLED, LEVEL, REJECTED, each_shard
from ..store.lock import abandoned
from ..store.shard_folder import keys_of
from ..store.status import read_status
from ..store.store import read_records
from .report_data import Chosen, HeldOut, read_chosen, read_held_out

GONE = "its processes were killed or died; run it again to go on from what is saved"
Tree = Mapping[str, Any]
Rejected = tuple[Record, str]


@dataclass(frozen=True, eq=False)
class RunData:
    """One run. ``state`` is the tree of its newest checkpoint, ``config`` its resolved input."""

    directory: Path
    config: Tree
    state: Tree
    versions: Mapping[str, str]
    status: Tree = field(default_factory=dict)
    labelled: Sequence[Record] = ()
    rejected: Sequence[Rejected] = ()
    chosen: Sequence[Chosen] = ()
    held_out: HeldOut | None = None

    @property
    def name(self) -> str:
        """The folder and the one it is in: ``quickstart/run`` says more than ``run``."""
        path = self.directory.resolve()
        return f"{path.parent.name}/{path.name}"

    @property
    def workflow(self) -> str:
        return self.config["workflow"]

    @property
    def distilling(self) -> bool:
        return self.state["teacher"] is not None or self.workflow == "distill"

    @property
    def taught_by_calculator(self) -> bool:
        """Whether the teacher is an ASE calculator: no model file."""
        return bool(self.config["model"].get("calculator"))

    @property
    def parent_name(self) -> str:
        """What the run was given to begin with: a model file or none, or a teacher that is a calculator."""
        model = self.config["model"]
        return model.get("calculator") or (model["checkpoint"] or "random weights").rsplit("/", 1)[-1]

    @property
    def parent_facts(self) -> list[list[str]]:
        """What identifies it, as rows of a table."""
        model, files = self.config["model"], self.config["files"]
        rows = (
            [["pre-trained checkpoint", f"sha256 {files['model.checkpoint']}"]] if "model.checkpoint" in files else []
        )
        if self.taught_by_calculator:
            arguments = json.dumps(model["arguments"], sort_keys=True)
            rows.insert(0, ["teacher", f"{model['calculator']}, arguments {arguments}"])
        return rows

    @property
    def trainer(self) -> str:
        """The kind of trainer."""
        return self.config["train"].get("type", "deepmd")

    @property
    def scanning(self) -> bool:
        """Whether frames came from a pool, and no molecular dynamics was run."""
        return self.workflow == "simplify"

    @property
    def product(self) -> str:
        """What the trained model is called."""
        return "student" if self.distilling else "fine-tuned"

    @property
    def truth(self) -> str:
        """What made the labels."""
        return "teacher" if self.distilling else "label"

    @property
    def complete(self) -> bool:
        return self.status.get("state") == "complete"

    @property
    def overlapped(self) -> bool:
        """Whether its rounds overlap, or did before a restart."""
        return self.config.get("overlap", {}).get("staleness", 0) != 0 or any(
            item.get("dropped") for item in self.rounds
        )

    @property
    def rounds(self) -> list[Tree]:
        return list(self.state["history"])

    @property
    def before(self) -> Tree | None:
        """Errors (an ErrorTable as a tree) of the pre-trained model on the held-out frames."""
        return self.state["pretrained"]

    @property
    def after(self) -> Tree | None:
        """Errors of the model at the end on the held-out frames."""
        return self.state["finetuned"]

    @property
    def production(self) -> Tree:
        return self.state["production"]

    @property
    def models(self) -> list[Tree]:
        """``version`` and ``digest`` of each, the pre-trained one first, if this is no distillation."""
        return list(self.state["models"])

    @property
    def species(self) -> tuple[int, ...]:
        """Atomic numbers in the run."""
        return tuple(self.state["species"])

    @property
    def known(self) -> list[Frame]:
        """The frames the models were made from, held-out ones not among them."""
        used = {*self.state["train_ids"], *self.state["validation_ids"]}
        return [record.frame for record in self.labelled if record.label_id in used]

    @cached_property
    def truths(self) -> list[Record]:
        """The held-out records, in the order of the kept predictions."""
        found = {record.label_id: record for record in self.labelled}
        ids = self.held_out.label_ids if self.held_out else ()
        return [found[key] for key in ids] if all(key in found for key in ids) else []

    @property
    def refusals(self) -> Counter[str]:
        """How often each reason kept a frame from its label."""
        return Counter(reason.splitlines()[0] if reason else "no reason was given" for _, reason in self.rejected)

    @property
    def world_size(self) -> int:
        """Ranks, on the average over the jobs of the run."""
        hours = self.state["elapsed"] / 3600 * self.config["ranks"]["threads"]
        return max(1, round(self.state["core_hours"] / hours)) if hours else 1

    @property
    def teams(self) -> dict[str, int]:
        """Teams of each role, as they are laid out on so many ranks."""
        section = parse_section("ranks", RanksSection, dict(self.config["ranks"]))
        try:
            layout = plan_layout(section, self.world_size)
        except InputError:  # its jobs had different numbers of ranks, the average fits none
            return {}
        return {role: len(layout.of_role(role)) for role in (TRAINER, EXPLORER, LABELER)}


def read_run(directory: Path, frames: bool = True) -> RunData:
    """All there is of a run, finished or not; ``frames=False`` leaves its frames and evidence unread.

    Raises InputError for a folder that is no run or has no checkpoint yet, StoreError where it cannot be read.
    """
    directory = Path(directory)
    config, tree = config_of(directory), _checkpoint(directory)
    status = status_of(directory) or {}
    found = RunData(directory, config, tree["state"], json.loads(tree.get("versions", "{}")), status)
    if not frames:
        return found
    return replace(
        found,
        labelled=read_records(directory / "frames"),
        rejected=read_rejected(directory / "frames"),
        chosen=read_chosen(directory),
        held_out=read_held_out(directory),
    )


def read_rejected(frames: Path) -> list[Rejected]:
    """Every frame of a store that got no label, with the reason, also while a run is writing to it."""
    found: dict[str, Rejected] = {}

    def take(table, attrs) -> None:
        rows = ((record, texts["reason"]) for record, texts in table.rows())
        found.update(zip(keys_of(table, LEVEL[REJECTED]), rows, strict=True))

    each_shard(frames / REJECTED, take)
    return [found[key] for key in sorted(found)]


def config_of(directory: Path) -> Tree:
    """The resolved input of a run; raises InputError, with a guess at what was meant, where there is no run."""
    if directory.is_file():
        meant = f"pfdhpc where {directory} prints it" if directory.suffix == ".toml" else "it has an input.json in it"
        raise InputError(f"{directory}: not a run directory but a file; {meant}")
    if not directory.is_dir():
        raise InputError(f"{directory}: no such folder; give the run directory (run.directory of the input)")
    path = directory / "input.json"
    if not path.is_file():
        inside = [found.parent.name for found in sorted(directory.glob("*/input.json"))]
        hint = f"; did you mean {directory / inside[0]}?" if inside else ""
        store = directory / LABELLED
        hint = f"; it is the frames folder of one: give {directory.parent}" if store.is_dir() else hint
        raise InputError(f"{directory}: not a run directory (no input.json in it){hint}")
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read: {error}") from None


def status_of(directory: Path) -> dict[str, Any] | None:
    """``status.json``, None where there is none yet; of a run whose processes are gone without a word: lost."""
    status = read_status(directory)
    if status and status["state"] == "running" and abandoned(directory):
        return {**status, "state": "lost", "reason": GONE}
    return status


def _checkpoint(directory: Path) -> Tree:
    """The newest checkpoint; a running job may remove the oldest while they are looked through."""
    for _ in range(3):
        try:
            tree = load_checkpoint(directory / "checkpoints")
        except (FileNotFoundError, StoreError):
            tree = load_checkpoint(directory / "checkpoints")
        if tree is not None:
            return tree
    raise InputError(f"{directory}: the run has not come to its first checkpoint yet; try again in a minute")
