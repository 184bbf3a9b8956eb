"""Physical validation: figures that are known of a potential, and the command over a run with real models."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import specimens
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import write
from models import frozen, tiny_checkpoint
from programs import computed, section

from pfdhpc.cli.main import main
from pfdhpc.cli.validate_labels import labeler, planned, spawner
from pfdhpc.data import Frame, Label, Labelling, Origin, Record
from pfdhpc.errors import InputError, LabelError
from pfdhpc.report.run_data import read_run
from pfdhpc.report.validation import crystal_properties, first_principles, rdf_comparison, validation
from pfdhpc.report.validation.validation import Answers, Questions, ask
from pfdhpc.units import virial_from_stress


def silent(what):
    """Nobody watches a test."""


@pytest.fixture(scope="module")
def copper():
    return ask("Cu", bulk("Cu"), "fine-tuned", EMT(), Questions(300.0, 2.0, 20, phonons=True), silent)


def test_copper_by_emt_is_what_the_literature_says(copper):
    """K. W. Jacobsen, P. Stoltze, J. K. Nørskov, Surf. Sci. 366, 394 (1996): C11, C12, C44 = 173, 116, 91 GPa."""
    assert copper.problems == []
    assert copper.volume == pytest.approx(11.56, rel=0.01) and copper.cell[0] == pytest.approx(2.538, rel=0.003)
    found = dict(crystal_properties.cubic_constants(copper.elastic))
    assert found["C11"] == pytest.approx(173, rel=0.03) and found["C12"] == pytest.approx(116, rel=0.03)
    assert found["C44"] == pytest.approx(90, rel=0.03) and copper.elastic.stable
    assert copper.equation.bulk_modulus == pytest.approx((173 + 2 * 116) / 3, rel=0.03)
    assert copper.elastic.bulk_modulus == pytest.approx(copper.equation.bulk_modulus, rel=0.03)


def test_its_dynamics_and_phonons_are_those_of_a_crystal(copper):
    nearest = copper.warm.distances[np.argmax(copper.warm.g)]
    assert nearest == pytest.approx(2.54, abs=0.15) and copper.warm.g[copper.warm.distances < 2.0].max() == 0
    assert abs(copper.warm.drift) < 50 and copper.warm.n_atoms > 40
    assert copper.vibrations.lowest > -0.5 and 5 < copper.vibrations.frequencies.max() < 10  # THz


def test_averages_of_an_isotropic_solid_are_its_moduli():
    constants = np.diag([0.0] * 3 + [30.0] * 3)
    constants[:3, :3] = 50.0 - 2 / 3 * 30.0
    constants[:3, :3] += 2 * 30.0 * np.eye(3)
    found = crystal_properties.averaged(constants)
    assert found.bulk_modulus == pytest.approx(50.0) and found.shear_modulus == pytest.approx(30.0) and found.stable
    assert not crystal_properties.averaged(-constants).stable


def test_the_distribution_of_an_ideal_gas_is_one():
    random = np.random.default_rng(0)
    gas = Atoms("H1500", positions=random.uniform(0, 20, (1500, 3)), cell=[20] * 3, pbc=True)
    g = crystal_properties.distribution(gas)
    assert g[40:] == pytest.approx(1.0, abs=0.15) and g[40:].mean() == pytest.approx(1.0, abs=0.01)


def by_emt(frame):
    """A labeler: EMT."""
    atoms = frame.to_atoms()
    atoms.calc = EMT()
    stress = atoms.get_stress(voigt=False)
    return Label(atoms.get_potential_energy(), atoms.get_forces(), virial_from_stress(stress, atoms.get_volume()))


def test_a_labeler_answers_like_the_model_it_is(copper):
    """The same potential as model and as labeler: the same crystal, by the same code."""
    found = Answers("Cu", "labels")
    everything = first_principles.EQUATION, first_principles.ELASTIC
    first_principles.ask_labels(found, bulk("Cu"), EMT(), by_emt, everything, silent)
    assert found.problems == [] and found.volume == pytest.approx(copper.volume, rel=0.01)
    assert crystal_properties.lattice(found.cell).startswith("FCC a=3.5") and crystal_properties.lattice(
        copper.cell
    ).startswith("FCC a=3.5")
    for mine, model in zip(
        crystal_properties.cubic_constants(found.elastic),
        crystal_properties.cubic_constants(copper.elastic),
        strict=True,
    ):
        assert mine[1] == pytest.approx(model[1], rel=0.02)


def test_a_labeler_whose_volume_is_another_one_is_followed_there():
    """A model that was off by 7 %: its minimum lies beyond the volumes about that of the model."""
    small = bulk("Cu", a=3.62 * 0.93 ** (1 / 3))
    asked = []
    found = crystal_properties.equation_of_state(
        small, first_principles.ByLabels(lambda frame: asked.append(1) or by_emt(frame), silent)
    )
    assert found.volume == pytest.approx(11.56, rel=0.01) and len(found.volumes) <= 7 < len(asked) <= 11
    with pytest.raises(crystal_properties.NoCrystal, match="no minimum"):
        crystal_properties.equation_of_state(bulk("Cu", a=3.1), EMT())


def test_labels_without_a_virial_tell_that_they_have_no_stiffness():
    found = Answers("Cu", "labels")
    no_virial = lambda frame: Label(by_emt(frame).energy, by_emt(frame).forces)  # noqa: E731
    first_principles.ask_labels(
        found, bulk("Cu"), EMT(), no_virial, (first_principles.EQUATION, first_principles.ELASTIC), silent
    )
    assert found.equation and found.problems == ["elastic constants: its labels have no virial"]


def records(count, n_atoms=4, temperature=300.0, version=1, seconds=2.0, system="Cu"):
    random = np.random.default_rng(0)
    found = []
    for _ in range(count):
        atoms = bulk("Cu", cubic=True) * (1, 1, n_atoms // 4)
        atoms.positions += random.normal(scale=0.08, size=atoms.positions.shape)
        origin = Origin(system, temperature=temperature, model_version=version)
        labelling = Labelling("x", "gpaw", seconds)
        found.append(Record(Frame.from_atoms(atoms), origin, None, Label(-1.0, atoms.positions), labelling))
    return found


def test_only_what_is_affordable_is_asked_and_the_rest_is_told():
    seconds = first_principles.seconds_by(records(3), ranks=2)
    assert seconds(4) == 4.0 and seconds(8) == 16.0  # two ranks; twice the atoms
    assert first_principles.seconds_by(records(3, seconds=float("nan")), 1)(4) == 0.0
    wanted = first_principles.prices({"Cu": bulk("Cu"), "N2": Atoms("N2")}, True, lambda n: n)
    assert [(one.question, one.labels) for one in wanted] == [
        ("equation of state", 7), ("elastic constants", 60), ("phonons", 6)
    ]  # fmt: skip
    assert wanted[2].atoms == 5**3  # a supercell of 10 Å
    taken, left = first_principles.affordable(wanted, 50)
    assert [one.question for one in taken] == ["equation of state"]
    assert [one.question for one in left] == ["elastic constants", "phonons"]


def test_the_price_is_told_before_and_what_is_left_out_for_it():
    config = {"label": {"type": "gpaw", "options": {}}, "ranks": {"labeler": {"ranks": 1}}}
    run = SimpleNamespace(config=config, labelled=records(3, seconds=60.0))
    offer = planned(run, {"Cu": bulk("Cu", cubic=True)}, False, None)
    assert offer.of("Cu") == [] and "--label would ask for the equation of state of Cu: 7 labels" in offer.lines()[0]
    config["label"]["type"] = "offline"
    assert planned(run, {"Cu": bulk("Cu")}, False, None).lines() == []  # which cannot be asked here
    for kind in ("offline", "teacher"):
        config["label"]["type"] = kind
        with pytest.raises(InputError, match="--label: "):
            planned(run, {"Cu": bulk("Cu")}, False, 1.0)


def by_program(folder, monkeypatch, **changes):
    """A run whose labels are by a program, in teams of four; two cores are there."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    values = section("vasp", folder, **changes).model_dump(mode="json")
    values["launch"] |= {"processes": None, "command": f"{values['launch']['command']} {{ranks}}"}
    config = {"label": values, "ranks": {"labeler": {"ranks": 4}}}
    return SimpleNamespace(directory=folder / "run", config=config, labelled=records(3, seconds=1.0))


def test_a_program_is_launched_for_what_the_labeler_is_asked(tmp_path, monkeypatch):
    """On the cores there are here; its time is foretold from that of the run's teams."""
    run = by_program(tmp_path, monkeypatch, processes=2)
    crystals = {"Cu": bulk("Cu", cubic=True)}
    assert "7 labels of 4 atoms, about 14 s" in planned(run, crystals, False, None).lines()[0]
    with spawner(run, 1.0) as starts:
        plan = planned(run, crystals, False, 1.0, starts)
        assert plan.of("Cu") == [first_principles.EQUATION]
        frame = Frame.from_atoms(crystals["Cu"])
        energy, forces, _ = computed(frame)
        found = plan.label("Cu", frame)
        assert found.energy == pytest.approx(energy) and found.forces == pytest.approx(forces, abs=1e-5)
    assert len(list((tmp_path / "run" / "labels").iterdir())) == 1  # which launch.keep asks for


def test_a_program_that_the_minutes_are_too_few_for_is_ended(tmp_path, monkeypatch):
    run = by_program(tmp_path, monkeypatch, processes=2, behaviour="hang")
    with spawner(run, 1.0) as starts:
        label = labeler(run, 0.5 / 60, starts)
        with pytest.raises(crystal_properties.NoCrystal, match="minutes of --label are over"):
            label("Cu", Frame.from_atoms(bulk("Cu", cubic=True)))


def test_the_structure_of_labelled_frames_is_found_again_by_their_own_potential(copper):
    hot = records(8, temperature=600.0) + records(7, temperature=300.0)
    own = records(6, temperature=900.0, version=-1)
    assert {one.origin.temperature for one in rdf_comparison.comparable(hot, "Cu")} == {600.0}
    assert {one.origin.temperature for one in rdf_comparison.comparable(hot + own, "Cu")} == {
        900.0
    }  # the labeler's dynamics
    assert rdf_comparison.comparable(records(5), "Cu") == [] and rdf_comparison.comparable(hot, "other") == []
    truth = rdf_comparison.of_labels(records(8))
    assert 0.7 < truth.overlap < 1 and not truth.own and truth.n_frames == 8
    model = rdf_comparison.by_model(truth, records(8), EMT(), 40, 2.0, silent)
    assert model.overlap > 0.6 and model.temperature == 300.0
    assert rdf_comparison.overlap(truth.g, truth.g) == 1.0 and rdf_comparison.overlap(truth.g, 0 * truth.g) == 0.0


def test_what_a_model_fails_at_is_told_and_the_rest_goes_on():
    molecule = ask("N2", Atoms("N2", [[0, 0, 0], [0, 0, 1.1]]), "m", EMT(), Questions(300.0, 1.0, 0), silent)
    assert "not periodic" in molecule.problems[0]
    with pytest.raises(crystal_properties.NoCrystal, match="no minimum"):
        crystal_properties.fitted(np.linspace(10, 11, 7), np.linspace(0, 1, 7))
    found = Answers("Cu", "labels")
    first_principles.ask_labels(found, bulk("Cu"), EMT(), _failing, [first_principles.EQUATION], silent)
    assert found.problems == ["equation of state: a label failed: SCF did not converge"]
    told = validation.remarks([molecule])
    assert told and told[0].startswith("N2, m: relaxation")


def _failing(frame):
    raise crystal_properties.NoCrystal("a label failed: SCF did not converge")


def test_answers_come_back_as_they_were_and_have_a_section_in_the_report(copper, tmp_path):
    validation.save(tmp_path / "found", [copper, Answers("Cu", "labels", problems=["equation: none"])])
    found = validation.load(tmp_path / "found")
    assert validation.table(found[:1]) == validation.table([copper]) and found[1].problems == ["equation: none"]
    section = validation.section_of(found)
    assert "Cu, labels: equation: none" in section.text and len(section.tables[0].rows) == 2
    assert [figure.caption for figure in section.figures] == ["Equation of state.", "Radial distribution.", "Phonons."]
    assert validation.load(tmp_path) == []


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A run whose models before and after are the same real one."""
    folder = tmp_path_factory.mktemp("real")
    run = folder / "run"
    shutil.copytree(specimens.finished(), run)
    model = frozen(tiny_checkpoint(folder, ("Cu",)), folder)
    for digest in (item["digest"] for item in read_run(run, frames=False).models):
        shutil.copy(model, run / "models" / f"{digest}.pth")
    shutil.copy(model, run / "final" / "model.pth")
    return run


def test_the_command_asks_both_models_and_the_labeler(real, capsys):
    """Random weights are no potential: whatever they fail at is told, and the labeler answers where there is a cell."""
    assert main(["validate", str(real), "--md-steps", "0", "--label"]) == 0
    shown = capsys.readouterr().out
    assert "labels: equation of state of Cu: 7 labels of 4 atoms" in shown or "7 labels" in shown
    assert "pre-trained" in shown and "fine-tuned" in shown
    found = json.loads((real / "validation" / "validation.json").read_text())
    assert [one["model"] for one in found] == ["pre-trained", "fine-tuned", "labels"]


def test_bad_requests_are_clear(real, tmp_path, capsys):
    (tmp_path / "no.vasp").write_text("nothing")
    write(tmp_path / "al.vasp", bulk("Al"), format="vasp")
    for name, said in (("no.vasp", "cannot be read as a structure"), ("al.vasp", "does not know Al")):
        assert main(["validate", str(real), "--structures", str(tmp_path / name)]) == 2
        assert said in capsys.readouterr().err
    assert main(["validate", str(specimens.stopped()), "--structures", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err
    assert main(["validate", str(real), "--md-steps", "5", "--temperature", "0"]) == 2
    told = capsys.readouterr().err
    assert "--md-steps 5: give 0 for no dynamics, or 20 or more" in told and "--temperature 0" in told


def test_a_system_is_labelled_with_its_own_options(tmp_path, monkeypatch):
    asked = []

    def answer(frame, changes, timeout):
        asked.append(changes)
        if len(asked) == 1:
            raise LabelError("SCF did not converge")
        return by_emt(frame)

    monkeypatch.setattr("pfdhpc.engines.registry.make_labeler", lambda *given: SimpleNamespace(label=answer))
    own, aid = {"mode": {"name": "pw", "ecut": 900}}, {"maxiter": 500}
    values = {"type": "gpaw", "options": {"mode": {"name": "pw", "ecut": 400}}, "systems": {"Cu": own}}
    run = SimpleNamespace(directory=tmp_path, config={"label": {**values, "retries": [aid]}})
    label, copper = labeler(run, 1.0), Frame.from_atoms(bulk("Cu"))
    assert label("Cu", copper).energy == label("other", copper).energy == by_emt(copper).energy
    assert asked == [own, {**own, **aid}, {}]  # as in a run: what failed is tried again as the input says
    with pytest.raises(crystal_properties.NoCrystal, match="0 minutes of --label are over"):
        labeler(run, 0.0)("Cu", copper)
