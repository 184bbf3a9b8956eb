"""Engines by name. A new engine is one file and one row here; it is imported only where it is used."""

from importlib import import_module
from typing import Any

from ..config.explore import ExploreSection
from ..config.label import LabelSection
from ..config.train import ModelSection, TrainSection
from .base import Explorer, Labeler, Trainer

EXPLORERS = {"lammps": "explore.lammps:LammpsExplorer", "ase": "explore.ase:AseExplorer"}
LABELERS = {"gpaw": "label.gpaw:GpawLabeler", "ase": "label.ase:AseLabeler", "deepmd": "label.deepmd:DeepmdLabeler"}
TRAINERS = {"deepmd": "train.deepmd:DeepmdTrainer"}


def make_explorer(section: ExploreSection) -> Explorer:
    """An explorer for this rank; raises InputError when its program does not start."""
    return _load(EXPLORERS[section.engine])(section)


def make_labeler(section: LabelSection, comm: Any) -> Labeler:
    """A labeler over the team communicator ``comm`` (an mpi4py communicator, None for one rank)."""
    return _load(LABELERS[section.type])(section, comm)


def make_trainer(model: ModelSection, train: TrainSection, comm: Any) -> Trainer:
    """A trainer over the team communicator ``comm`` (an mpi4py communicator, None for one rank)."""
    return _load(TRAINERS["deepmd"])(model, train, comm)


def _load(place: str) -> type:
    module, name = place.split(":")
    return getattr(import_module(f"pfdhpc.engines.{module}"), name)
