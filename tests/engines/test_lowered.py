"""Models made ready for many steps of LAMMPS: the same physics, from segment to segment the same bits."""

import numpy as np
import pytest
from ase.build import bulk
from models import frozen, tiny_checkpoint

from pfdhpc.config.explore import ExploreSection
from pfdhpc.data import Frame
from pfdhpc.engines.base import SegmentTask
from pfdhpc.engines.deepmd_inference import Predictor
from pfdhpc.engines.explore.constant_folding import LATE, SOON, lowered
from pfdhpc.engines.registry import make_explorer

CARBIDE = Frame.from_atoms(bulk("SiC", "zincblende", a=4.36) * (2, 1, 1))


@pytest.fixture(scope="module", params=["se_e2_a", "dpa3"])
def model(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lowered")
    return request.param, frozen(tiny_checkpoint(folder, ("Si", "C"), descriptor=request.param), folder)


def explored(models, steps):
    explorer = make_explorer(ExploreSection(steps=steps, interval=steps // 2, temperatures=[50.0], timestep=0.1))
    explorer.load_models(models, ("Si", "C"))
    task = SegmentTask("a", "SiC", CARBIDE, None, 0, (50.0, 50.0), (0.0, 0.0), 1)
    first = explorer.run(task)
    return first, explorer.run(SegmentTask("a", "SiC", CARBIDE, first.state, 1, (50.0, 50.0), (0.0, 0.0), 2))


def test_a_lowered_model_predicts_what_the_model_does_and_repeats_itself_to_the_last_bit(model, monkeypatch):
    _, path = model
    monkeypatch.setattr("pfdhpc.engines.explore.constant_folding.LATE", SOON)
    runs = [explored([path, path], SOON) for _ in range(2)]
    for one, other in zip(*runs, strict=True):
        assert one.stopped == "" and len(one.records) == 2
        for a, b in zip(one.records, other.records, strict=True):
            assert a.frame_id == b.frame_id and np.array_equal(a.prediction.forces, b.prediction.forces)
        assert one.records[-1].origin.deviation < 1e-6  # of the lowered model from the model
        expected = Predictor(path)([record.frame for record in one.records])
        for record, label in zip(one.records, expected, strict=True):
            assert record.prediction.energy == pytest.approx(label.energy, abs=1e-6)
            np.testing.assert_allclose(record.prediction.forces, label.forces, atol=2e-6)
            np.testing.assert_allclose(record.prediction.virial, label.virial, atol=1e-5)


def test_a_model_is_lowered_where_its_steps_earn_it(model, tmp_path):
    kind, path = model
    message_passing = kind == "dpa3"
    for steps, worth in ((SOON - 1, False), (SOON, message_passing), (LATE - 1, message_passing), (LATE, True)):
        to = tmp_path / f"{steps}.pth"
        assert lowered(path, steps, to) == (to if worth else path)
        assert to.exists() == worth


def test_what_cannot_be_lowered_is_taken_as_it_is_and_said_so(tmp_path, caplog):
    (broken := tmp_path / "broken.pth").write_bytes(b"no model")
    (package := tmp_path / "model.pt2").write_bytes(b"of another kind")
    for path in (broken, package):
        assert lowered(path, LATE, tmp_path / "to.pth") == path
    assert [record.args[0] for record in caplog.records] == [broken]
    assert "is explored as it is, slower" in caplog.text
