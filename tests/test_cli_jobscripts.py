"""The job scripts that need no batch system to be tested: PBS by a stand-in, the others as shell."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(path for path in (ROOT / "jobscripts").iterdir() if path.suffix in (".sh", ".sbatch", ".pbs"))
PYTHON = """#!/usr/bin/env bash
# A run that gets on once and is then complete, or as STATE says.
case "$*" in
*where*) echo "$RUN" ;;
*"pfdhpc run"*)
    echo "{\\"state\\": \\"$STATE\\", \\"reason\\": \\"$REASON\\", \\"progress\\": $PROGRESS}" >"$RUN/status.json"
    echo "started: $*"; exit "$CODE" ;;
*) exec %s "$@" ;;
esac
"""


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_every_job_script_is_shell(script):
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    if script.suffix in (".sbatch", ".pbs"):
        text = script.read_text()
        assert "Edit:" in text and "pfdhpc plan" in text and "MAX_JOBS" in text


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script):
    checker = shutil.which("shellcheck")
    if checker is None:
        pytest.skip("no shellcheck here: apt-get install shellcheck")
    done = subprocess.run([checker, "-x", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


QSUB = """#!/usr/bin/env bash
# Runs what is submitted at once, as PBS would: its variables by -v, a node file, the folder it was submitted from.
echo "qsub $*" >>"$HERE/submitted"
if [[ $1 == -v ]]; then IFS=, read -ra given <<<"$2"; export "${given[@]}"; shift 2; fi
export PBS_O_WORKDIR=$PWD PBS_NODEFILE=$HERE/nodes PBS_JOBID=$RANDOM.server
bash "$1"
"""
RUN = """#!/usr/bin/env bash
case "$*" in
*where*) echo "$HERE" ;;
*"pfdhpc run"*)
    echo "$*" >>"$HERE/started"
    starts=$(wc -l <"$HERE/started")
    state=incomplete code=3
    if ((starts == 3)); then state=complete code=0; fi
    echo "{\\"state\\": \\"$state\\", \\"reason\\": \\"\\", \\"progress\\": $starts}" >"$HERE/status.json"
    exit $code ;;
*) exec @python@ "$@" ;;
esac
"""


def test_what_init_writes_for_pbs_runs_to_the_end_of_its_chain(tmp_path, monkeypatch, capsys):
    """A qsub on the path makes it a PBS machine; three jobs, each submitted by the one before."""
    from pfdhpc.cli.main import main

    tools = tmp_path / "bin"
    tools.mkdir()
    (tmp_path / "nodes").write_text("a\n" * 4)
    launcher = '#!/usr/bin/env bash\necho "$1 $2" >>"$HERE/launched"; shift 2; exec "$@"\n'
    for name, text in (("qsub", QSUB), ("mpiexec", launcher), ("python", RUN.replace("@python@", sys.executable))):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    system = os.pathsep.join(["/usr/bin", "/bin"])
    monkeypatch.setattr("pfdhpc.cli.init.init.shutil.which", lambda name: {"qsub": str(tools / "qsub")}.get(name))
    monkeypatch.setattr(sys, "executable", str(tools / "python"))  # the environment the script puts on PATH
    monkeypatch.chdir(tmp_path)
    assert main(["init", "finetune", "--gpu", "0"]) == 0
    assert "qsub job.pbs" in capsys.readouterr().out
    environment = {"PATH": f"{tools}:{system}", "HERE": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run(["qsub", "job.pbs"], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 3, done.stderr  # of the first job; the last one is complete
    submitted = (tmp_path / "submitted").read_text().splitlines()
    assert submitted[0] == "qsub job.pbs" and len(submitted) == 3
    assert submitted[1:] == [f"qsub -v INPUT=input.toml,PFDHPC_JOB={job} job.pbs" for job in (2, 3)]
    assert (tmp_path / "launched").read_text() == "-n 4\n" * 3
    assert "job 3 of at most 20, exit code 0, complete" in done.stdout


@pytest.fixture
def pbs(tmp_path):
    """A job of pbs.pbs on two nodes, with programs that only tell how they were called."""

    def submit(code, state, progress, reason="", **variables):
        tools, run = tmp_path / "bin", tmp_path / "run"
        for folder in (tools, run):
            folder.mkdir(exist_ok=True)
        for name, text in (
            ("qsub", '#!/usr/bin/env bash\necho "qsub $*"\n'),
            ("mpiexec", '#!/usr/bin/env bash\necho "mpiexec $1 $2"; shift 2; exec "$@"\n'),
            ("python", PYTHON % sys.executable),
        ):
            (tools / name).write_text(text)
            (tools / name).chmod(0o755)
        (tmp_path / "nodes").write_text("a\na\nb\nb\n")
        environment = {
            **os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "PFDHPC_VENV": str(tmp_path),
            "PBS_O_WORKDIR": str(ROOT), "PBS_NODEFILE": str(tmp_path / "nodes"), "PBS_JOBID": "1", "INPUT": "my.toml",
            "RUN": str(run), "CODE": str(code), "STATE": state, "PROGRESS": str(progress), "REASON": reason,
            **variables,
        }  # fmt: skip
        (tmp_path / "bin").joinpath("setup").touch()
        return subprocess.run(
            ["bash", ROOT / "jobscripts" / "pbs.pbs"], env=environment, capture_output=True, text=True, timeout=60
        )

    return submit


def test_an_incomplete_pbs_job_is_submitted_again_with_its_input(pbs):
    done = pbs(3, "incomplete", 5)
    assert done.returncode == 3, done.stderr
    assert "mpiexec -n 4" in done.stdout and "started: -m mpi4py -m pfdhpc run my.toml" in done.stdout
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("qsub")]
    assert "INPUT=my.toml,PFDHPC_JOB=2" in line and line.endswith("jobscripts/pbs.pbs")


def test_a_pbs_chain_ends(pbs):
    for given, code, told in (
        ((0, "complete", 5), 0, "exit code 0"),
        ((2, "none", 5), 2, "exit code 2"),
        ((3, "incomplete", 5, "/run/STOP was there"), 3, "stopped by hand"),
    ):
        done = pbs(*given)
        assert done.returncode == code and told in done.stdout and "qsub" not in done.stdout
    done = pbs(3, "incomplete", 5)  # the same progress as before
    assert "nothing progressed" in done.stdout and "qsub" not in done.stdout
    done = pbs(3, "incomplete", 6, PFDHPC_JOB="20")
    assert "submit again by hand" in done.stdout and "qsub" not in done.stdout


AFTER_A_RUN = """
run_job() { code=3 state=incomplete before=1 after=2 asked=""; }
crashed() { false; }
status() { echo none; }
"""


def test_a_slurm_job_is_submitted_again_as_it_was_given(tmp_path):
    """scontrol has a line for each job of an array; account and quality of service are handed on where there are."""
    for name in ("slurm-chain.sh", "chain.sh"):
        shutil.copy(ROOT / "jobscripts" / name, tmp_path)
    (tmp_path / "restart.sh").write_text(AFTER_A_RUN)
    facts = "JobId={} TimeLimit=01:00:00 Partition=p Command=/home/job-{}.sbatch WorkDir=/"
    lines = "\n".join(facts.format(n, n) for n in (7, 8))
    for name, text in (("scontrol", f"cat <<'.'\n{lines}\n."), ("sbatch", 'printf "<%s>" "$@"')):
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2", "SLURM_NTASKS": "8", "SLURM_JOB_PARTITION": "p"}
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    own = {"SLURM_JOB_ACCOUNT": "my lab", "SLURM_JOB_QOS": "long"}
    for given, told in (({}, ""), (own, "<--account=my lab><--qos=long>")):
        done = subprocess.run(
            ["bash", "-c", f"MAX_JOBS=9 INPUT=my.toml; source {tmp_path}/slurm-chain.sh"],
            env={**path, **slurm, **given}, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 3 and not done.stderr
        assert done.stdout.splitlines()[-1] == (
            f"<--nodes=2><--ntasks=8><--ntasks-per-node=8>{told}<--partition=p><--time=01:00:00>"
            "</home/job-7.sbatch><my.toml>"
        )


def test_an_array_without_its_line_is_bad_input(tmp_path):
    (tmp_path / "inputs.txt").write_text("nowhere.toml\n")
    environment = {**os.environ, "SLURM_ARRAY_TASK_ID": "7", "SLURM_SUBMIT_DIR": str(ROOT)}
    command = ["bash", ROOT / "jobscripts" / "slurm-array.sbatch", tmp_path / "inputs.txt"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and "no input: line 7" in done.stderr
