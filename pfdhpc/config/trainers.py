"""One row per kind of trainer: what the program knows of it outside the folder of its engine and its own keys."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .dpa4 import dpa4_conflicts, with_dpa4
from .metatrain import metatrain_conflicts, with_metatrain


@dataclass(frozen=True)
class TrainerKind:
    """What a value of ``train.type`` stands for.

    ``engine`` is its class and ``checks`` the module that looks at its input, below :mod:`pfdhpc.engines`
    (:func:`pfdhpc.engines.registry.trainer_checks`). ``implied(values)`` fills in what it implies for the rest of an
    input, ``conflicts(config)`` says what does not go with it. ``ase_script`` are the parts of ``run_ase.py``,
    ``papers`` why, what and where to cite.
    """

    help: str
    engine: str
    checks: str
    final_names: tuple[str, str]  # how a finished run calls the checkpoint and the model to use
    use: str  # in the model card: how the model is run
    ase_script: Mapping[str, str]
    papers: tuple[tuple[str, str, str], ...]
    implied: Callable[[dict[str, Any]], dict[str, Any]] = lambda values: values
    conflicts: Callable[[Any], list[str]] = lambda config: []
    not_lammps: str = ""  # what its models are, where pair_style deepmd does not run them
    in_child: bool = False  # trains in child processes of the spawner
    packages: tuple[str, ...] = field(default=())  # whose versions a run records, beside those of all runs


_DEEPMD_PAPER = (
    "training and inference",
    "Zeng et al., DeePMD-kit v3: a multiple-backend framework for machine learning potentials, "
    "J. Chem. Theory Comput. 21, 4375 (2025)",
    "https://doi.org/10.1021/acs.jctc.5c00340",
)
_DEEPMD_IMPORT = "from deepmd.calculator import DP"

TRAINERS = {
    "deepmd": TrainerKind(
        help="deepmd-kit's models",
        engine="train.deepmd.trainer:DeepmdTrainer",
        checks="train.deepmd.input_checks",
        final_names=("model.pt", "model.pth"),
        use="`in.lammps` (its first lines say how) and `python run_ase.py` run molecular dynamics with it",
        ase_script={"note": "", "imported": _DEEPMD_IMPORT, "calculator": 'DP(str(here / "model.pth"))'},
        papers=(_DEEPMD_PAPER,),
    ),
    "dpa4": TrainerKind(
        help="those of deepmd-kit that LAMMPS does not run unless compiled, explored with ASE",
        engine="train.deepmd.trainer:DeepmdTrainer",
        checks="train.deepmd.input_checks",
        final_names=("model.pt", "model.pt"),
        use="`python run_ase.py` runs molecular dynamics with it; for LAMMPS deepmd compiles it, on the machine"
        " it is to run on: `dp --pt freeze -c model.pt -o model.pt2`",
        ase_script={
            "note": "\n\nFor LAMMPS, on the machine it is to run on:  dp --pt freeze -c model.pt -o model.pt2\n",
            "imported": _DEEPMD_IMPORT,
            "calculator": 'DP(str(here / "model.pt"))',
        },
        papers=(_DEEPMD_PAPER,),
        implied=with_dpa4,
        conflicts=dpa4_conflicts,
        not_lammps="a DPA-4 that is not compiled",
    ),
    "metatrain": TrainerKind(
        help="PET models, explored with ASE (pip extra metatrain)",
        engine="train.metatrain.trainer:MetatrainTrainer",
        checks="train.metatrain.model",
        final_names=("model.ckpt", "model.pt"),
        use="`python run_ase.py` runs molecular dynamics with it; it is a metatomic model, for ASE and"
        " programs built with metatomic, and none for LAMMPS' pair_style deepmd",
        ase_script={
            "note": "\n\nThe forces are conservative. Direct ones, of a model that has them (non_conservative=True),"
            " are no gradient of\nan energy: never for constant-energy dynamics.\n",
            "imported": "from metatomic_ase import MetatomicCalculator",
            "calculator": 'MetatomicCalculator(str(here / "model.pt"))',
        },
        papers=(
            (
                "the model",
                "Pozdnyakov, Ceriotti, Smooth, exact rotational symmetrization for deep learning on point clouds "
                "(PET), Adv. Neural Inf. Process. Syst. 36 (2023)",
                "https://arxiv.org/abs/2305.19302",
            ),
            (
                "training and inference",
                "Bigi et al., Metatensor and metatomic: foundational libraries for interoperable atomistic machine "
                "learning (2025)",
                "https://arxiv.org/abs/2508.15704",
            ),
        ),
        implied=with_metatrain,
        conflicts=metatrain_conflicts,
        not_lammps="a metatomic model",
        in_child=True,
        packages=("metatrain", "metatomic-torch"),
    ),
}
"""By the name ``train.type`` takes. A new trainer: see pfdhpc/ARCHITECTURE.md."""


def with_implied(values: dict[str, Any]) -> dict[str, Any]:
    """An input with what its trainer implies for other sections filled in; a wrong type is told of elsewhere."""
    train = values.get("train", {})
    kind = TRAINERS.get(train.get("type")) if isinstance(train, dict) else None
    return kind.implied(values) if kind else values


def trainer_conflicts(config: Any) -> list[str]:
    """Where [train] does not go with the rest of a whole input, by the kind of trainer."""
    problems = TRAINERS[config.train.type].conflicts(config)
    if config.train.type != "metatrain":
        if config.model.checkpoint is None and config.model.calculator is None:
            problems.append(f"model.checkpoint: missing; {type(config.model).model_fields['checkpoint'].description}")
        if "metatrain" in config.train.model_fields_set:
            problems.append('train.metatrain: only read with train.type = "metatrain"; remove it')
    if config.train.type != "dpa4" and "lora" in config.train.model_fields_set and config.workflow != "distill":
        problems.append('train.lora: deepmd has it for DPA-4 models alone; set train.type = "dpa4", or remove it')
    return problems
