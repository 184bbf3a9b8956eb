"""A PET model in a whole job: killed in a training, taken up, and handed over."""

import os
import subprocess
import sys
import time

import pytest

from .jobs import Job, finish, write_copper

pytest.importorskip("metatrain", reason='metatrain is not installed: pip install "pfdhpc[metatrain]"')

HYPERS = "cutoff = 4.0, d_pet = 8, d_head = 8, d_node = 8, d_feedforward = 8, num_heads = 2"
PET = f"""
[train]
type = "metatrain"
stages = ["direct", "conservative"]
first_steps = 40
steps = 20
batch_size = 2
start_lr = 3e-3
metatrain = {{ model = {{ {HYPERS}, num_attention_layers = 1, num_gnn_layers = 1 }} }}
"""


def mtt_of(folder):
    """Processes of metatrain at work in a run."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.readlink(f"/proc/{name}/cwd").startswith(str(folder)):
                found.append(int(name))
        except OSError:
            continue
    return found


def test_a_killed_training_leaves_nothing_behind_and_is_made_again(tmp_path):
    path = write_copper(tmp_path, rounds=1)
    text = path.read_text().split("[train]")[0] + PET + "[test]" + path.read_text().split("[test]")[1]
    lines = [line for line in text.splitlines() if not line.startswith(("checkpoint", "branch"))]
    path.write_text("\n".join(lines).replace("[model]", '[model]\ntype_map = ["Cu"]').replace("nvt", "langevin"))
    log = tmp_path / "run" / "scratch" / "train-000" / "train.log"
    job = Job(path)
    job.wait_for_state(lambda: log.is_file() and "Epoch" in log.read_text(), 400)
    assert mtt_of(tmp_path / "run")
    job.kill()
    for _ in range(100):
        if not mtt_of(tmp_path / "run"):
            break
        time.sleep(0.1)
    assert not mtt_of(tmp_path / "run")

    text = finish(path)
    assert "resumed" in text and "python" in text and "not for pair_style deepmd" in text
    final = tmp_path / "run" / "final"
    assert {item.name for item in final.iterdir()} >= {"model.ckpt", "model.pt", "run_ase.py", "structure.extxyz"}
    assert not (final / "in.lammps").exists() and not (final / "model.pth").exists()
    assert "metatomic model" in (final / "MODEL_CARD.md").read_text()
    said = subprocess.run([sys.executable, final / "run_ase.py", "2"], capture_output=True, text=True, timeout=400)
    assert said.returncode == 0 and "eV/atom" in said.stdout, said.stderr
