"""Everything that can be wrong with an input and can be seen without running."""

from ..config import Config
from ..config.acts import first_act
from ..config.load import act
from ..config.teacher import labeling, of_teacher
from ..config.train import ModelSection, TrainSection
from ..engines.registry import trainer_checks
from ..errors import InputError


def problems(config: Config) -> list[str]:
    """One line per problem, over all sections; loads the pre-trained model on the CPU."""
    if config.workflow == "pfd":
        found = problems(first_act(config))
        later = problems(act(config, 1))  # the pre-trained model stands for the one that is not there yet
        return [*found, *(f"distill.{line}" for line in later if line not in found)]
    from ..engines.explore.check import check_explore
    from ..engines.label.preflight import check_labeler

    model_problems, type_map = model_facts(config.model, config.train)
    engines = [] if config.pool else check_explore(config.explore)
    engines += check_labeler(labeling(config), config.ranks.labeler.ranks) or element_problems(config)
    return [
        *of_teacher(config.model, engines),
        *training_problems(config),
        *student_problems(config),
        *model_problems,
        *_structures(config, type_map),
    ]


def notes(config: Config) -> list[str]:
    """What is made of an input without :func:`problems` that may surprise; one line each."""
    if config.workflow == "pfd":
        found = notes(first_act(config))
        return [*found, *(f"distill.{line}" for line in _training_notes(act(config, 1)) if line not in found)]
    from .begin import begin

    return [*_training_notes(config), *begin(config, ()).told]


def _training_notes(config: Config) -> list[str]:
    virial = config.label.virial or config.label.type == "pool"
    return trainer_checks(config.train).notes(config.model, config.train, virial)


def training_problems(config: Config) -> list[str]:
    """What is wrong with the trainer's own input, or with fine-tuning the pre-trained model as it says."""
    labels = None if config.workflow == "distill" else config.init.gives_labels
    return trainer_checks(config.train).check(config.model, config.train, labels)


def element_problems(config: Config) -> list[str]:
    """Elements of the systems for which a program of its own has no potential; its options must have been checked."""
    if config.label.launch is None:
        return []
    from ase.data import chemical_symbols

    from ..config.label import merged
    from ..engines.label.programs import program_class
    from .begin import begin

    label = config.label
    try:
        needed = {chemical_symbols[z] for z in begin(config, ()).state.species}
        tables = [label.options, *(merged(label.options, own) for own in label.systems.values())]
        known = [program_class(label.type)(options, label.virial).elements() for options in tables]
    except InputError:
        return []  # told where the structures and the options are looked at
    missing = sorted(set().union(*(needed - elements for elements in known if elements is not None)))
    return [f"label.options: no potential for {', '.join(missing)}, which the systems hold"] if missing else []


def student_problems(config: Config) -> list[str]:
    """What deepmd says of the student's model, with the elements of the systems."""
    if config.student is None:
        return []
    from ase.data import chemical_symbols

    from ..engines.train.student import check_student
    from .begin import begin

    try:
        species = begin(config, ()).state.species
    except InputError:
        return []  # told where the structures are looked at
    return check_student(config.student, config.train, tuple(chemical_symbols[z] for z in species))


def model_facts(section: ModelSection, train: TrainSection | None = None) -> tuple[list[str], tuple[str, ...]]:
    """What is wrong with the pre-trained model and its branch, and the type map if nothing is.

    Of a teacher that is an ASE calculator nobody knows the elements.
    """
    if section.calculator is not None:
        return [], ()
    return trainer_checks(train or TrainSection()).facts(section)


def _structures(config: Config, type_map: tuple[str, ...]) -> list[str]:
    """Problems of the structures and data; the elements are looked at where the type map is known."""
    from .begin import begin

    try:
        begin(config, type_map)
    except InputError as error:
        return error.problems
    return []
