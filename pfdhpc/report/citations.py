"""The papers of the methods a run used."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..config.label import EXTERNAL
from ..config.trainers import TRAINERS
from .run_data import RunData


@dataclass(frozen=True)
class Citation:
    """A paper, why it is to be cited, and when it is."""

    why: str
    text: str
    link: str
    used: Callable[[RunData], bool] = lambda run: True


def citations(run: RunData) -> list[Citation]:
    """What a publication with this run's model should cite."""
    return [paper for paper in PAPERS if paper.used(run)]


def _selects_by_entropy(run: RunData) -> bool:
    return run.config["select"]["method"] != "random"


def _label(run: RunData) -> str:
    return run.config["label"]["type"]


def _student(run: RunData) -> dict:
    return run.config.get("student") or {}


def _functional(run: RunData) -> str:
    return str(run.config["label"]["options"].get("xc", "")) if _label(run) == "gpaw" else ""


def _of_trainers() -> Iterator[Citation]:
    """The papers of each kind of trainer; kinds that share one are asked for together."""
    papers = dict.fromkeys(paper for kind in TRAINERS.values() for paper in kind.papers)
    for paper in papers:
        kinds = tuple(name for name, kind in TRAINERS.items() if paper in kind.papers)
        yield Citation(*paper, lambda run, kinds=kinds: run.trainer in kinds)


PAPERS = (
    Citation(
        "the workflow",
        "Wang, Gao, Wu, Zhong, Pre-training, fine-tuning, and distillation (PFD): automatically generating machine "
        "learning force fields from universal models, Phys. Rev. Mater. 9, 113802 (2025)",
        "https://arxiv.org/abs/2502.20809",
    ),
    *_of_trainers(),
    Citation(
        "direct forces first, then conservative ones",
        "Bigi, Langer, Ceriotti, The dark side of the forces: assessing non-conservative force models for atomistic "
        "machine learning, Proc. 42nd Int. Conf. Mach. Learn. (2025)",
        "https://arxiv.org/abs/2412.11569",
        lambda run: "direct" in run.config["train"].get("stages", ()),
    ),
    Citation(
        "the pre-trained model",
        "the paper of the checkpoint in [model], and that of its training data",
        "",
        lambda run: run.config["model"]["checkpoint"] is not None,
    ),
    Citation(
        "which frames were labelled",
        "Schwalbe-Koda, Hamel, Sadigh, Zhou, Lordi, Model-free estimation of completeness, uncertainties, and outliers "
        "in atomistic machine learning using information theory, Nat. Commun. 16, 4014 (2025)",
        "https://arxiv.org/abs/2404.12367",
        _selects_by_entropy,
    ),
    Citation(
        "molecular dynamics",
        "Thompson et al., LAMMPS, Comput. Phys. Commun. 271, 108171 (2022)",
        "https://doi.org/10.1016/j.cpc.2021.108171",
        lambda run: run.config["explore"]["engine"] == "lammps" and not run.scanning,
    ),
    Citation(
        "structures and calculators",
        "Larsen et al., The atomic simulation environment, J. Phys.: Condens. Matter 29, 273002 (2017)",
        "https://doi.org/10.1088/1361-648X/aa680e",
    ),
    Citation(
        "labels",
        "Mortensen et al., GPAW: an open Python package for electronic structure calculations, "
        "J. Chem. Phys. 160, 092503 (2024)",
        "https://doi.org/10.1063/5.0182685",
        lambda run: _label(run) == "gpaw",
    ),
    Citation(
        "labels",
        "Perdew, Burke, Ernzerhof, Generalized gradient approximation made simple, Phys. Rev. Lett. 77, 3865 (1996)",
        "https://doi.org/10.1103/PhysRevLett.77.3865",
        lambda run: _functional(run) == "PBE",
    ),
    Citation(
        "labels",
        "Giannozzi et al., Advanced capabilities for materials modelling with Quantum ESPRESSO, J. Phys.: Condens. "
        "Matter 29, 465901 (2017)",
        "https://doi.org/10.1088/1361-648X/aa8f79",
        lambda run: _label(run) == "qe",
    ),
    Citation(
        "labels",
        "Kresse, Furthmüller, Efficient iterative schemes for ab initio total-energy calculations using a plane-wave "
        "basis set, Phys. Rev. B 54, 11169 (1996)",
        "https://doi.org/10.1103/PhysRevB.54.11169",
        lambda run: _label(run) == "vasp",
    ),
    Citation(
        "labels",
        "Kühne et al., CP2K: An electronic structure and molecular dynamics software package - Quickstep: Efficient "
        "and accurate electronic structure calculations, J. Chem. Phys. 152, 194103 (2020)",
        "https://doi.org/10.1063/5.0007045",
        lambda run: _label(run) == "cp2k",
    ),
    Citation(
        "labels",
        "Li et al., Large-scale ab initio simulations based on systematically improvable atomic basis, Comput. Mater. "
        "Sci. 112, 503 (2016)",
        "https://doi.org/10.1016/j.commatsci.2015.07.004",
        lambda run: _label(run) == "abacus",
    ),
    Citation(
        "labels",
        "the papers of the functional and of the pseudopotentials that [label] names",
        "",
        lambda run: _label(run) in EXTERNAL,
    ),
    Citation(
        "labels",
        "the program behind the calculator of [label], and its functional",
        "",
        lambda run: _label(run) not in ("gpaw", "teacher", *EXTERNAL),
    ),
    Citation(
        "the trust band of a committee",
        "Zhang et al., DP-GEN: a concurrent learning platform, Comput. Phys. Commun. 253, 107206 (2020)",
        "https://doi.org/10.1016/j.cpc.2020.107206",
        lambda run: run.scanning or bool(run.config["explore"].get("committee")),
    ),
    Citation(
        "the compressed student",
        "Lu et al., DP Compress: a model compression scheme for generating efficient deep potential models, "
        "J. Chem. Theory Comput. 18, 5559 (2022)",
        "https://doi.org/10.1021/acs.jctc.2c00102",
        lambda run: str(run.production.get("product", "")).startswith("compressed"),
    ),
)
