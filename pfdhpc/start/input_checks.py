"""Everything that can be wrong with an input and can be seen without running."""

from pathlib import Path
from typing import Any

from ..config import Config
from ..config.load import stage_config
from ..config.pfd_stages import first_act
from ..config.teacher import labeling, of_teacher
from ..config.train import ModelSection, TrainSection
from ..engines.registry import trainer_checks
from ..errors import InputError


def problems(config: Config) -> list[str]:
    """One line per problem, over all sections; loads the models it names on the CPU."""
    if config.workflow == "pfd":
        found = problems(first_act(config))
        later = _problems(stage_config(config, 1))  # the pre-trained model stands for the one that is not there yet
        return [*found, *(f"distill.{line}" for line in later if line not in found)]
    return [*_problems(config), *given_models(config)]


def _problems(config: Config) -> list[str]:
    from ..engines.explore.input_checks import check_explore
    from ..engines.label.input_checks import check_labeler

    model_problems, type_map = model_facts(config.model, config.train)
    engines = [] if config.pool else check_explore(config.explore)
    engines += check_labeler(labeling(config), config.ranks.labeler.ranks) or element_problems(config)
    return [
        *of_teacher(config.model, engines),
        *training_problems(config),
        *student_problems(config),
        *model_problems,
        *committee_problems(config),
        *_structures(config, type_map),
    ]


def notes(config: Config) -> list[str]:
    """What is made of an input without :func:`problems` that may surprise; one line each."""
    if config.workflow == "pfd":
        found = notes(first_act(config))
        return [*found, *(f"distill.{line}" for line in _training_notes(stage_config(config, 1)) if line not in found)]
    return [*_training_notes(config), *_start(config).told]


_begun: list[tuple[Config, Any]] = []
"""The last input that was looked at, and what it begins with: its data are read once for all checks."""


def _start(config: Config) -> Any:
    """What a run of the input begins with, its elements not compared with the model's; raises InputError."""
    from .fresh_state import begin

    if not (_begun and _begun[0][0] is config):
        try:
            found = begin(config, ())
        except InputError as error:
            found = error
        _begun[:] = [(config, found)]
    found = _begun[0][1]
    if isinstance(found, InputError):
        raise found
    return found


def _training_notes(config: Config) -> list[str]:
    virial = config.label.virial or config.label.type == "pool"
    return trainer_checks(config.train).notes(config.model, config.train, virial)


def training_problems(config: Config) -> list[str]:
    """What is wrong with the trainer's own input, or with fine-tuning the pre-trained model as it says."""
    labels = None if config.workflow == "distill" else config.init.gives_labels
    return trainer_checks(config.train).check(config.model, config.train, labels)


def committee_problems(config: Config) -> list[str]:
    """Models of ``explore.committee`` that cannot explore beside the one that is fine-tuned, or beside the teacher."""
    committee = [path for path in config.explore.committee if path.suffix == ".pth"]  # others are told of already
    if config.explore.engine != "lammps" or config.pool or not committee:
        return []
    labels = None if config.workflow == "distill" else config.init.gives_labels
    return trainer_checks(config.train).committee(config.model, config.train, labels, committee)


def given_models(config: Config) -> list[str]:
    """What is wrong with models of deepmd's that the input names to label, or to be loaded by its ASE calculator."""
    from ..engines.calculators import DEEPMD, check_dp, named
    from ..engines.explore.committee_checks import unknown_to_committee

    label, explore, model, problems = labeling(config), config.explore, config.model, []
    if label.type == "deepmd" and Path(label.options["model"]).suffix in (".pt", ".pth"):
        problems += _labeling_model(config)
    if label.type == "ase" and label.options["calculator"] == DEEPMD:
        keys = named("model.arguments" if model.calculator else "label.options.arguments")
        keys = {"model.branch": keys["model.branch"]} if model.model_argument else keys
        problems += check_dp(label.options.get("arguments", {}), keys)
    if explore.engine == "ase" and explore.options["calculator"] == DEEPMD and model.calculator is None:
        problems += check_dp(explore.options.get("arguments", {}), named("explore.options.arguments"))
        problems += unknown_to_committee(explore.committee, _elements(config))
    return problems


def _labeling_model(config: Config) -> list[str]:
    from ..engines.deep_potential import open_potential
    from ..engines.label.deepmd import KEYS

    options = config.label.options
    try:
        known = open_potential(Path(options["model"]), options.get("branch")).get_type_map()
    except InputError as error:
        return error.about(KEYS).problems
    missing = ", ".join(name for name in _elements(config) if name not in known)
    return [f"label.options.model: it does not know {missing}, which the systems hold"] if missing else []


def _elements(config: Config) -> list[str]:
    """What the systems hold; nothing where that is not to be found out, which is told where they are looked at."""
    from ase.data import chemical_symbols

    try:
        return [chemical_symbols[z] for z in _start(config).state.species]
    except InputError:
        return []


def element_problems(config: Config) -> list[str]:
    """Elements of the systems for which a program of its own has no potential; its options must have been checked."""
    if config.label.launch is None:
        return []
    from ..config.label import merged
    from ..engines.label.programs import program_class

    label, needed = config.label, set(_elements(config))
    try:
        tables = [label.options, *(merged(label.options, own) for own in label.systems.values())]
        known = [program_class(label.type)(options, label.virial).elements() for options in tables]
    except InputError:
        return []  # told where the structures and the options are looked at
    missing = sorted(set().union(*(needed - elements for elements in known if elements is not None)))
    return [f"label.options: no potential for {', '.join(missing)}, which the systems hold"] if missing else []


def student_problems(config: Config) -> list[str]:
    """What deepmd says of the student's model, with the elements of the systems."""
    from ..engines.train.deepmd.student_model import check_student

    elements = tuple(_elements(config)) if config.student else ()
    return check_student(config.student, config.train, elements) if elements else []


def model_facts(section: ModelSection, train: TrainSection | None = None) -> tuple[list[str], tuple[str, ...]]:
    """What is wrong with the pre-trained model and its branch, and the type map if nothing is.

    Of a teacher that is an ASE calculator nobody knows the elements.
    """
    if section.calculator is not None:
        return [], ()
    return trainer_checks(train or TrainSection()).facts(section)


def _structures(config: Config, type_map: tuple[str, ...]) -> list[str]:
    """Problems of the structures and data; the elements are looked at where the type map is known."""
    from .fresh_state import begin

    try:
        begin(config, type_map)
    except InputError as error:
        return error.problems
    return []
