"""Engines by name. A new engine is one file and one row here; it is imported only where it is used."""

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from ..config.explore import ExploreSection
from ..config.label import EXTERNAL, LabelSection
from ..config.train import ModelSection, TrainSection
from ..config.trainers import TRAINERS
from .base import Explorer, Labeler, Trainer
from .label.launch.exit_reason import Wish, never

EXPLORERS = {"lammps": "explore.lammps:LammpsExplorer", "ase": "explore.ase:AseExplorer"}
LABELERS = {"gpaw": "label.gpaw:GpawLabeler", "ase": "label.ase:AseLabeler", "deepmd": "label.deepmd:DeepmdLabeler"}
LABELERS["offline"] = "label.offline:OfflineLabeler"
LABELERS |= dict.fromkeys(EXTERNAL, "label.launch.one_shot:ExternalLabeler")


def make_explorer(section: ExploreSection, spawner: Any = None, log: Path | None = None) -> Explorer:
    """An explorer for this rank; raises InputError when its program does not start.

    With ``isolation = "process"`` a child of ``spawner`` (:class:`pfdhpc.engines.isolated.spawner.Spawner`)
    holds it, which writes to ``log``.
    """
    if section.isolation == "process":
        return _load("isolated.proxies:IsolatedExplorer")(section, spawner, log)
    return _load(EXPLORERS[section.engine])(section)


def make_labeler(
    section: LabelSection, comm: Any, spawner: Any = None, log: Path | None = None, called_off: Wish = never
) -> Labeler:
    """A labeler over the team communicator ``comm`` (an mpi4py communicator, None for one rank).

    ``spawner`` and ``log`` as for :func:`make_explorer`. Programs of their own are started by ``spawner`` and work
    in ``labels`` beside the folder of ``log``, unless [label.launch] says otherwise; frames for elsewhere are in
    ``offline`` there. ``called_off`` is asked while a program of its own runs whether it is to be ended.
    """
    engine = _load(LABELERS[section.type])
    if section.type == "offline":
        return engine(section, comm, log.parent.parent / "offline")
    if section.launch is not None:
        engine = _load("label.launch.resident:ResidentLabeler") if section.launch.resident else engine
        return engine(section, comm, spawner, log.parent.parent / "labels", log.name.split(".")[0], called_off)
    if section.isolation == "process":
        batched = engine.label_batch is not Labeler.label_batch
        name = "IsolatedBatchLabeler" if batched else "IsolatedLabeler"
        return _load(f"isolated.proxies:{name}")(section, comm, spawner, log)
    return engine(section, comm)


def make_trainer(model: ModelSection, train: TrainSection, comm: Any, spawner: Any = None) -> Trainer:
    """A trainer over the team communicator ``comm`` (an mpi4py communicator, None for one rank).

    One that trains in child processes has them started by ``spawner``.
    """
    kind = TRAINERS[train.type]
    engine = _load(kind.engine)
    return engine(model, train, comm, spawner) if kind.in_child else engine(model, train, comm)


def trainer_checks(train: TrainSection) -> ModuleType:
    """What looks at a training before it begins, without a rank that trains.

    ``check(model, train, labels)``: problems as lines; ``labels`` says whether there are some before the
    first exploration, None that nothing is fine-tuned. ``notes(model, train, virial)``: what becomes of a correct
    input that may surprise; ``virial`` says whether labels are computed with one. ``facts(model)``: problems of the
    pre-trained model, and its elements if there are none.
    """
    return import_module(f"pfdhpc.engines.{TRAINERS[train.type].checks}")


def _load(place: str) -> type:
    module, name = place.split(":")
    return getattr(import_module(f"pfdhpc.engines.{module}"), name)
