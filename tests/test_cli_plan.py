"""``pfdhpc plan``: the layout, and what of it would be wasted."""

from pathlib import Path

import pytest

from pfdhpc.cli.main import main

QUICKSTART = Path(__file__).parents[1] / "inputs" / "quickstart" / "input.toml"


@pytest.fixture
def planned(tmp_path, capsys):
    """What plan says of the quickstart with another [ranks]."""

    def plan(ranks: str, *words: str) -> str:
        text = QUICKSTART.read_text()
        begin, end = text.index("[ranks]"), text.index("[model]")
        text = text.replace(text[begin:end], f"[ranks]\n{ranks}\n").replace('"si', f'"{QUICKSTART.parent}/si')
        (tmp_path / "input.toml").write_text(text.replace('"../', f'"{QUICKSTART.parent.parent}/'))
        assert main(["plan", str(tmp_path / "input.toml"), *words]) == 0
        return capsys.readouterr().out

    return plan


def test_ranks_that_fit_bring_no_warning(planned):
    assert "warning" not in planned("explorer.teams = 1", "-n", "4")


def test_more_explorers_than_replicas(planned):
    shown = planned("explorer.teams = 13\nlabeler.teams = 1", "-n", "16")
    assert "13 explorers, but 12 replicas" in shown and "1 never explore" in shown
    assert "never explore" not in planned("explorer.teams = 12\nlabeler.teams = 1", "-n", "15")


def test_turns_that_are_mostly_empty(planned):
    assert "12 replicas on 11 explorers take 2 turns, the last one with 1" in planned(
        "explorer.teams = 11\nlabeler.teams = 1", "-n", "14"
    )


def test_more_labelers_than_frames(planned):
    assert "11 labeler teams for 10 frames a round" in planned("labeler.teams = 11", "-n", "14")
    assert "labeler teams" not in planned("labeler.teams = 10", "-n", "13").partition("warning")[2]


def test_ranks_without_work(planned):
    assert "2 ranks have nothing to do" in planned("labeler.teams = 1", "-n", "6")


def test_gpus(planned):
    shown = planned("trainer.ranks = 2\nexplorer.teams = 2\nlabeler.teams = 1", "-n", "6", "--gpus-per-node", "4")
    assert "warning" not in shown
    shown = planned("trainer.ranks = 2\nexplorer.teams = 4\nlabeler.teams = 1", "-n", "8", "--gpus-per-node", "4")
    assert "trainer ranks 1, 2 share a GPU" in shown
    shown = planned("trainer.ranks = 2\nlabeler.teams = 1", "-n", "5", "--gpus-per-node", "0")
    assert "2 trainer ranks without GPUs" in shown
    shown = planned("trainer.ranks = 1\nlabeler.teams = 1", "-n", "4", "--gpus-per-node", "8")
    assert "5 GPUs are given to no rank" in shown
    assert "GPU" not in planned('gpus = "none"', "-n", "4", "--gpus-per-node", "8").partition("warning")[2]


def test_teams_of_many_nodes_are_shown_by_node(planned):
    shown = planned("explorer.teams = 4", "-n", "40", "--ranks-per-node", "20")
    assert "labeler-0 to 13" in shown and "20-39" in shown and "node 2" in shown


def test_numbers_that_make_no_sense(capsys):
    assert main(["plan", str(QUICKSTART), "-n", "0", "--ranks-per-node", "0", "--gpus-per-node", "-1"]) == 2
    told = capsys.readouterr().err
    assert "-n 0" in told and "--ranks-per-node 0" in told and "--gpus-per-node -1" in told
