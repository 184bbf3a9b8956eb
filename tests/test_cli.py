"""The command line as a user meets it."""

import subprocess
import sys
from pathlib import Path

import pytest

from pfdhpc.cli.main import main
from pfdhpc.roles.stopping import Stopping

ROOT = Path(__file__).parents[1]
QUICKSTART = ROOT / "inputs" / "quickstart" / "input.toml"


def test_check_finds_the_shipped_inputs_in_order(capsys):
    pytest.importorskip("gpaw")
    for path in (QUICKSTART, ROOT / "inputs" / "sic-npt" / "input.toml"):
        assert main(["check", str(path)]) == 0
        assert "no problem found" in capsys.readouterr().out


def test_check_reports_problems_of_all_sections_at_once(tmp_path, capsys):
    text = QUICKSTART.read_text().replace('"../pretrained', f'"{ROOT}/inputs/pretrained')
    text = text.replace("MPtrj_PBE", "nowhere").replace('xc = "PBE"', 'xd = "PBE"')
    (tmp_path / "si2.vasp").write_text("no structure")
    (tmp_path / "si4.vasp").write_bytes((QUICKSTART.parent / "si4.vasp").read_bytes())
    (tmp_path / "input.toml").write_text(text)
    assert main(["check", str(tmp_path / "input.toml")]) == 2
    told = capsys.readouterr().err
    for expected in ('model.branch: the checkpoint has no "nowhere"', "MatPES_r2SCAN", "label.options.xd", "si2.vasp"):
        assert expected in told
    assert "Traceback" not in told and not (tmp_path / "run").exists()


def test_check_tells_what_deepmd_makes_of_a_loss_and_a_learning_rate(tmp_path, capsys):
    text = QUICKSTART.read_text().replace('"../pretrained', f'"{ROOT}/inputs/pretrained')
    for name in ("si2.vasp", "si4.vasp"):
        (tmp_path / name).write_bytes((QUICKSTART.parent / name).read_bytes())
    for extra, code, words in (
        (
            "[train.deepmd.learning_rate]\ndecay_steps = 5000\n",
            0,
            "note: train.deepmd.learning_rate.decay_steps: deepmd makes",
        ),
        ("[train.deepmd.loss]\nstart_pref_v = 0\nlimit_pref_v = 1\n", 2, "train.deepmd.loss.start_pref_v: 0 while"),
    ):
        (tmp_path / "input.toml").write_text(f"{text}\n{extra}")
        assert main(["check", str(tmp_path / "input.toml")]) == code
        told = capsys.readouterr()
        assert words in " ".join((told.out + told.err).split())


def test_plan_shows_every_rank_and_refuses_too_few(capsys):
    assert main(["plan", str(QUICKSTART), "-n", "6"]) == 0
    shown = capsys.readouterr().out
    assert "coordinator" in shown and "labeler-2" in shown
    assert main(["plan", str(QUICKSTART), "-n", "3"]) == 2
    assert "1 coordinator + 1 trainer" in capsys.readouterr().err


def test_commands_on_something_that_is_no_run_are_clear(tmp_path, capsys):
    for command in (["status", str(tmp_path)], ["export", str(tmp_path), str(tmp_path / "out")]):
        assert main(command) == 2
        assert "not a run directory" in capsys.readouterr().err


def test_where_prints_the_run_directory_alone(capsys):
    assert main(["where", str(QUICKSTART)]) == 0
    assert capsys.readouterr().out == f"{QUICKSTART.parent / 'run'}\n"


def test_the_command_starts_fast_and_knows_its_version():
    done = subprocess.run([sys.executable, "-m", "pfdhpc", "--version"], capture_output=True, text=True)
    assert done.stdout.startswith("pfdhpc 0.")


def test_a_time_limit_is_a_reason_to_stop():
    stopping = Stopping()
    assert stopping.reason() == ""
    stopping.limit(0.0)
    assert "time_limit" in stopping.reason()
