"""Everything that can be wrong with an input and can be seen without running."""

from ..config import Config
from ..config.train import ModelSection
from ..errors import InputError


def problems(config: Config) -> list[str]:
    """One line per problem, over all sections; loads the pre-trained model on the CPU."""
    from ..engines.explore.check import check_explore
    from ..engines.label.preflight import check_labeler
    from ..engines.train.settings import check_deepmd_input

    model_problems, type_map = model_facts(config.model)
    return [
        *check_explore(config.explore),
        *check_labeler(config.label, config.ranks.labeler.ranks),
        *check_deepmd_input(config.train),
        *student_problems(config),
        *model_problems,
        *_structures(config, type_map),
    ]


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
    from ..engines.train.runtime import open_parent

    try:
        state = open_parent(section.checkpoint, section.branch)
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
