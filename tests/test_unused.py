"""What structure files hold beside atoms: named with a remedy, which works."""

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from programs import options
from toys import make_config

from pfdhpc.config.label import LabelSection, merged
from pfdhpc.data import Frame
from pfdhpc.data.io import read_frames
from pfdhpc.engines.label.input_checks import check_labeler
from pfdhpc.engines.label.level_of_theory import level_hash
from pfdhpc.engines.label.programs import program_class
from pfdhpc.engines.registry import make_labeler
from pfdhpc.errors import InputError, LabelError
from pfdhpc.log import remark, remarks_told
from pfdhpc.start.fresh_state import begin

AFM, CHARGES = [2.0, -2.0, 2.0, -2.0], [1.0, 0.0, 0.0, 0.0]
SEEN = []


class Magnetic(EMT):
    """A calculator that keeps what moments and charges it was given."""

    def calculate(self, *arguments, **keywords):
        super().calculate(*arguments, **keywords)
        SEEN.append((self.atoms.get_initial_magnetic_moments().tolist(), self.atoms.get_initial_charges().tolist()))


LABEL = {"type": "ase", "options": {"calculator": f"{__name__}.Magnetic"}}


@pytest.fixture(autouse=True)
def untold():
    remark.cache_clear()
    SEEN.clear()


def magnetic(moments=AFM, charges=None):
    atoms = bulk("Cu", cubic=True)
    if moments is not None:
        atoms.set_initial_magnetic_moments(moments)
    if charges is not None:
        atoms.set_initial_charges(charges)
    return atoms


def config_of(folder, *images, name="cu.extxyz", label=None, **system):
    """The toy run with structures of its own; ``label`` changes the section, ``system`` the only system."""
    folder.mkdir(exist_ok=True)
    ase.io.write(folder / name, images, parallel=False)
    own = {"name": "Cu", "structures": [name], "perturb": {"count": 2, "displacement": 0.1}, **system}
    return make_config(folder, system=[own], label=merged(LABEL, label or {}))


def noted(config):
    """The notes at the start, and the fresh state."""
    said = []
    with remarks_told(said.append):
        return said, begin(config, ()).state


def labelled(config, state):
    """What the calculator sees of each first frame."""
    section = config.label.of("Cu")
    labeler = make_labeler(section, None)
    for record in state.pending:
        labeler.label(record.frame, section.attempts[0], 60.0)
    return SEEN


NAMED = "note: system Cu: the magnetic moments in cu.extxyz are not used; give label.options.magmoms"


@pytest.mark.parametrize("name", ["cu.extxyz", "cu.traj", "cu.json"])
def test_moments_and_charges_are_named_with_what_to_write_which_works(name, tmp_path):
    said, state = noted(config_of(tmp_path, magnetic(charges=CHARGES), name=name))
    assert said == [
        f"note: system Cu: the magnetic moments in {name} are not used; give label.options.magmoms = {AFM}",
        f"note: system Cu: the charges in {name} are not used; give label.options.charges = {CHARGES}",
    ]
    config = config_of(
        tmp_path, magnetic(charges=CHARGES), name=name, label={"options": {"magmoms": AFM, "charges": CHARGES}}
    )
    remark.cache_clear()
    said, state = noted(config)
    assert said == [] and check_labeler(config.label, 1) == []
    assert labelled(config, state) == [(AFM, CHARGES)] * 4


def test_one_value_of_each_element_is_a_table_that_serves_every_supercell(tmp_path):
    atoms = magnetic([2.5, 2.5, 0, 0])
    atoms.symbols[:2] = "Ni"
    table = {"Cu": 0.0, "Ni": 2.5}
    said, _ = noted(config_of(tmp_path, atoms, supercell=[2, 1, 1]))
    assert said == [f"{NAMED} = {{ Cu = 0, Ni = 2.5 }}"]
    config = config_of(tmp_path, atoms, supercell=[2, 1, 1], label={"systems": {"Cu": {"magmoms": table}}})
    _, state = noted(config)
    assert [moments for moments, _ in labelled(config, state)] == [[2.5, 2.5, 0, 0] * 2] * 4


def test_a_list_is_of_the_supercell_and_another_length_is_refused_before_a_label_is_paid(tmp_path):
    def config(moments):
        return config_of(tmp_path, magnetic(), supercell=[1, 1, 2], label={"systems": {"Cu": {"magmoms": moments}}})

    with pytest.raises(InputError) as refused:
        begin(config(AFM), ())
    (problem,) = refused.value.problems
    assert problem.startswith(
        "label.systems.Cu.magmoms: 4 values, but the frames of system Cu have 8 atoms; give a value"
    )
    said, state = noted(config(AFM * 2))
    assert said == [] and [moments for moments, _ in labelled(config(AFM * 2), state)] == [AFM * 2] * 4
    assert noted(config_of(tmp_path, magnetic(), supercell=[1, 1, 2]))[0] == [f"{NAMED} = {AFM * 2}"]
    short = make_labeler(config(AFM).label.of("Cu"), None)
    with pytest.raises(LabelError, match=r"label\.options\.magmoms: 4 values, but the frame has 8 atoms"):
        short.label(state.pending[0].frame, config(AFM).label.of("Cu").attempts[0], 60.0)


def test_where_no_list_can_be_right_none_is_proposed(tmp_path):
    perturb = {"count": 2, "vacancies": 1}
    assert noted(config_of(tmp_path / "a", magnetic(), perturb=perturb))[0] == [f"{NAMED}, by element"]
    with pytest.raises(InputError, match="the frames of system Cu have 3 atoms"):
        begin(config_of(tmp_path / "a", magnetic(), perturb=perturb, label={"options": {"magmoms": AFM}}), ())
    (said,) = noted(config_of(tmp_path / "b", magnetic(), magnetic(AFM[::-1])))[0]
    assert "in cu.extxyz and others, 2 of 2 structures, are not used" in said and "structures that agree" in said


def test_each_of_several_systems_has_its_own_options(tmp_path):
    config = config_of(tmp_path, magnetic())
    other = config.system[0].model_copy(update={"name": "more"})
    said, _ = noted(config.model_copy(update={"system": [config.system[0], other]}))
    assert [line.rpartition("; ")[2] for line in said] == [
        f"give label.systems.{name}.magmoms = {AFM}" for name in ("Cu", "more")
    ]


@pytest.mark.parametrize(
    ("kind", "moments", "charges"),
    [
        ("gpaw", f"give label.options.magmoms = {AFM}", "give label.options.charge = 1"),
        ("vasp", f"give label.options.magmoms = {AFM} with ISPIN = 2", "give label.options.charge = 1"),
        ("abacus", "give label.options.magmoms, by element with nspin = 2", "give nelec in label.options.input"),
        ("qe", "starting_magnetization(1)", "give label.options.input.system.tot_charge = 1"),
        ("cp2k", "MAGNETIZATION in each &KIND", "CHARGE"),
        ("offline", "set them where the labels are made", "set them where the labels are made"),
        ("deepmd", "labels are made without them", "labels are made without them"),
    ],
)
def test_every_labeler_has_its_remedy(kind, moments, charges, tmp_path):
    config = config_of(tmp_path, magnetic(charges=CHARGES))
    label = config.label.model_copy(update={"type": kind, "options": {}})
    said, _ = noted(config.model_copy(update={"label": label}))
    assert len(said) == 2 and moments in said[0] and charges in said[1]


def test_constraints_and_velocities_are_named_and_nothing_is_where_there_is_nothing(tmp_path):
    atoms = magnetic(None)
    atoms.set_constraint(FixAtoms([0]))
    ase.io.write(tmp_path / "selective.vasp", atoms, format="vasp", parallel=False)
    atoms.set_velocities(np.ones((4, 3)))
    said, _ = noted(config_of(tmp_path, atoms, name="cu.traj", structures=["cu.traj", "selective.vasp"]))
    assert said == [
        "note: system Cu: the constraints in cu.traj and others, 2 of 2 structures, are not used; all atoms move",
        "note: system Cu: the velocities in cu.traj and others, 1 of 2 structures, are not used; exploring begins with"
        " thermal ones",
    ]
    plain = magnetic([0.0] * 4, [0.0] * 4)
    assert noted(config_of(tmp_path, plain))[0] == []


@pytest.mark.parametrize("virial", [True, False])
def test_clusters_are_labelled_without_a_virial_and_that_is_said(virial, tmp_path):
    cluster = magnetic(None)
    cluster.pbc = False
    config = config_of(tmp_path, cluster, label={"virial": virial})
    said, state = noted(config)
    line = "note: system Cu: 6 of 6 frames are not periodic in three directions: their labels have no virial"
    assert said == [line] * virial and len(labelled(config, state)) == 4


@pytest.mark.parametrize("column", ["initial_magmoms", "magmoms", "magmom", "spin"])
def test_columns_of_data_are_named_once_whatever_they_are_called(column, tmp_path, caplog):
    path = tmp_path / "data.extxyz"
    frame = f'1\nLattice="9 0 0 0 9 0 0 0 9" Properties=species:S:1:pos:R:3:{column}:R:1\nFe 0 0 0 2.2\n'
    path.write_text(frame * 3)
    for _ in range(2):
        assert len(read_frames(path)) == 3
    (line,) = caplog.messages
    assert line.startswith(f"{path}: the magnetic moments that 3 frames hold are not used")


@pytest.mark.parametrize("moments", ["two", [1.0, "x"], {"Cu": "x"}, {"Zz": 1.0}, 3.0])
def test_moments_that_are_none_are_refused(moments):
    section = LabelSection(**merged(LABEL, {"systems": {"Cu": {"magmoms": moments}}}))
    (problem,) = check_labeler(section, 1)
    assert problem.startswith("label.systems.Cu.magmoms")


def test_vasp_gets_the_moments_in_the_order_of_its_atoms(tmp_path):
    atoms = bulk("Cu", cubic=True)
    atoms.symbols[[0, 2]] = "Al"  # atoms are written by atomic number: those of Al first
    given = merged(options("vasp", tmp_path / "files"), {"incar": {"ISPIN": 2}, "magmoms": [1.0, 2.0, -1.0, -2.0]})
    program_class("vasp")(given).write(Frame.from_atoms(atoms), tmp_path)
    (line,) = (one for one in (tmp_path / "INCAR").read_text().splitlines() if one.startswith("MAGMOM"))
    assert line == "MAGMOM = 1*1.0 1*-1.0 1*2.0 1*-2.0"


def test_moments_are_part_of_the_level_of_theory():
    with_moments = LabelSection(**merged(LABEL, {"options": {"magmoms": AFM}}))
    assert level_hash(with_moments) != level_hash(LabelSection(**LABEL))
