"""Everything that can be wrong with an input and can be seen without running."""

from ..config import Config
from ..config.acts import first_act
from ..config.load import act
from ..config.train import RANDOM, ModelSection
from ..errors import InputError


def problems(config: Config) -> list[str]:
    """One line per problem, over all sections; loads the pre-trained model on the CPU."""
    if config.workflow == "pfd":
        found = problems(first_act(config))
        later = problems(act(config, 1))  # the pre-trained model stands for the one that is not there yet
        return [*found, *(f"distill.{line}" for line in later if line not in found)]
    from ..engines.explore.check import check_explore
    from ..engines.label.preflight import check_labeler
    from ..engines.train.settings import check_deepmd_input

    model_problems, type_map = model_facts(config.model)
    deepmd_problems = check_deepmd_input(config.train, config.model)
    return [
        *(() if config.pool else check_explore(config.explore)),
        *(check_labeler(config.label, config.ranks.labeler.ranks) or element_problems(config)),
        *(deepmd_problems or training_problems(config)),
        *student_problems(config),
        *model_problems,
        *_structures(config, type_map),
    ]


def teacher_problems(config: Config) -> list[str]:
    """What would change a teacher. Not for a ``pfd`` input before its first act: there the parent stands for it."""
    if config.workflow != "distill":
        return []
    given = [("branch", config.model.branch == RANDOM), ("type_map", bool(config.model.type_map))]
    return [f"model.{key}: a teacher stays as it is; remove it" for key, wrong in given if wrong]


def training_problems(config: Config) -> list[str]:
    """What the pre-trained model has against how it is to be fine-tuned; ``train.deepmd`` must have been checked."""
    from ..engines.train.parent import check_training

    if config.workflow == "distill":
        return []
    return check_training(config.model, config.train, config.init.gives_labels)


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


def model_facts(section: ModelSection) -> tuple[list[str], tuple[str, ...]]:
    """What is wrong with the pre-trained model and its branch, and the type map if nothing is.

    The model is built, as a training would: that it can be read does not mean that this deepmd knows it.
    """
    from ..engines.train.parent import open_parent
    from ..engines.train.typemap import retyped

    try:
        state = retyped(open_parent(section), section.type_map)
    except InputError as error:
        return error.problems, ()
    return [], tuple(state["_extra_state"]["model_params"]["type_map"])


def _structures(config: Config, type_map: tuple[str, ...]) -> list[str]:
    """Problems of the structures and data; the elements are looked at where the type map is known."""
    from .begin import begin

    try:
        begin(config, type_map)
    except InputError as error:
        return error.problems
    return []
