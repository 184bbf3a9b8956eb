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

from pfdhpc.cli.main import main
from pfdhpc.cli.validate import _labeler
from pfdhpc.report import physics, validation
from pfdhpc.report.reading import read_run
from pfdhpc.report.validation import Answers, Questions, ask, ask_labels


def silent(what):
    """Nobody watches a test."""


@pytest.fixture(scope="module")
def copper():
    return ask("Cu", bulk("Cu"), "fine-tuned", EMT(), Questions(300.0, 2.0, 20, phonons=True), silent)


def test_copper_by_emt_is_what_the_literature_says(copper):
    """K. W. Jacobsen, P. Stoltze, J. K. Nørskov, Surf. Sci. 366, 394 (1996): C11, C12, C44 = 173, 116, 91 GPa."""
    assert copper.problems == []
    assert copper.volume == pytest.approx(11.56, rel=0.01) and copper.cell[0] == pytest.approx(2.538, rel=0.003)
    found = dict(physics.cubic_constants(copper.elastic))
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
    found = physics.averaged(constants)
    assert found.bulk_modulus == pytest.approx(50.0) and found.shear_modulus == pytest.approx(30.0) and found.stable
    assert not physics.averaged(-constants).stable


def test_the_distribution_of_an_ideal_gas_is_one():
    random = np.random.default_rng(0)
    gas = Atoms("H1500", positions=random.uniform(0, 20, (1500, 3)), cell=[20] * 3, pbc=True)
    g = physics.distribution(gas)
    assert g[40:] == pytest.approx(1.0, abs=0.15) and g[40:].mean() == pytest.approx(1.0, abs=0.01)


def test_labels_share_the_cells_of_the_model(copper):
    calls = []

    def label(atoms):
        calls.append(atoms)
        return validation.energy(atoms, EMT())

    found = ask_labels("Cu", bulk("Cu"), copper, label, silent)
    assert len(calls) == validation.LABELS
    assert found.volume == pytest.approx(copper.volume, rel=0.01)
    assert found.cell[0] == pytest.approx(copper.cell[0], rel=0.005)


def test_what_a_model_fails_at_is_told_and_the_rest_goes_on():
    molecule = ask("N2", Atoms("N2", [[0, 0, 0], [0, 0, 1.1]]), "m", EMT(), Questions(300.0, 1.0, 0), silent)
    assert "not periodic" in molecule.problems[0]
    with pytest.raises(physics.NoCrystal, match="no minimum"):
        physics.fitted(np.linspace(10, 11, 7), np.linspace(0, 1, 7))
    with pytest.raises(physics.NoCrystal, match="a label failed"):
        physics.equation_of_state(bulk("Cu"), _failing)
    told = validation.remarks([molecule])
    assert told and told[0].startswith("N2, m: relaxation")


def _failing(atoms):
    raise physics.NoCrystal("a label failed: SCF did not converge")


def test_answers_come_back_as_they_were_and_have_a_section_in_the_report(copper, tmp_path):
    validation.save(tmp_path / "found", [copper, Answers("Cu", "labels", problems=["equation: none"])])
    found = validation.load(tmp_path / "found")
    assert validation.rows(found[:1]) == validation.rows([copper]) and found[1].problems == ["equation: none"]
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
    assert "7 labels will be made" in shown and "pre-trained" in shown and "fine-tuned" in shown
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


def test_a_system_is_labelled_with_its_own_options(monkeypatch):
    asked = []

    def answer(frame, changes, timeout):
        asked.append(changes)
        return SimpleNamespace(energy=1.0)

    monkeypatch.setattr("pfdhpc.engines.registry.make_labeler", lambda *given: SimpleNamespace(label=answer))
    own = {"mode": {"name": "pw", "ecut": 900}}
    values = {"type": "gpaw", "options": {"mode": {"name": "pw", "ecut": 400}}, "systems": {"Cu": own}}
    label = _labeler(SimpleNamespace(config={"label": values}))
    assert label("Cu", bulk("Cu")) == label("other", bulk("Cu")) == 1.0
    assert asked == [own, {}]
