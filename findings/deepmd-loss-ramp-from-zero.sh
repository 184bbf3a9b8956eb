#!/usr/bin/env bash
# deepmd-kit 3.2.0, PyTorch: a loss term whose prefactor starts at 0 is not trained at all, though it ends at 1.
#
# Documented (dp doc-train-input, loss[ener]/start_pref_v): "If both start_pref_v and limit_pref_v are set to 0, then the
# virial will be ignored." Seen: with start_pref_v = 0, limit_pref_v = 1 it is ignored too, as with limit_pref_v = 0
# beside start_pref_v = 1: no virial among the errors, and the same weights, bit for bit, as with both 0. The energy loss of
# the TensorFlow backend counts such a ramp. Also: decay_steps that are not shorter than the training are replaced
# (documented), 5000 by 1 in one of 20 steps.
#
# Ends with 0 if this is what is still seen, with 1 if deepmd-kit now does otherwise. Minutes, nearly all of them to
# install. Needs python3 (3.11 to 3.13) with pip and venv.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check "deepmd-kit[torch]==3.2.0" "torch==2.11.0" "e3nn==0.6.0"
export OMP_NUM_THREADS=1 DP_INTRA_OP_PARALLELISM_THREADS=1 DP_INTER_OP_PARALLELISM_THREADS=1 CUDA_VISIBLE_DEVICES=
cd "$folder"

cat > run.py <<'PYTHON'
import json, subprocess, sys
from pathlib import Path

import numpy as np
import torch

rng = np.random.default_rng(0)
data = Path("data/set.000")
data.mkdir(parents=True)
Path("data/type.raw").write_text("0\n" * 8)
Path("data/type_map.raw").write_text("Si\n")
grid = np.array([[x, y, z] for x in (0, 2.5) for y in (0, 2.5) for z in (0, 2.5)])
np.save(data / "coord.npy", (grid + rng.normal(0, 0.1, (4, 8, 3))).reshape(4, 24))
np.save(data / "box.npy", np.tile(5.0 * np.eye(3).ravel(), (4, 1)))
np.save(data / "energy.npy", rng.normal(0, 1, 4))
np.save(data / "force.npy", rng.normal(0, 1, (4, 24)))
np.save(data / "virial.npy", rng.normal(0, 1, (4, 9)))


def train(name, start, limit):
    """The columns of the learning curve, and all weights."""
    folder = Path(name)
    folder.mkdir()
    descriptor = {"type": "se_e2_a", "sel": [40], "rcut": 4.0, "rcut_smth": 0.5, "neuron": [4, 8], "seed": 1}
    content = {
        "model": {"type_map": ["Si"], "descriptor": descriptor, "fitting_net": {"neuron": [8, 8], "seed": 1}},
        "learning_rate": {"type": "exp", "start_lr": 1e-2, "stop_lr": 1e-4, "decay_steps": 5000},
        "loss": {"type": "ener", "start_pref_e": 1, "limit_pref_e": 1, "start_pref_f": 1, "limit_pref_f": 1,
                 "start_pref_v": start, "limit_pref_v": limit},
        "training": {"training_data": {"systems": ["../data"], "batch_size": 1}, "numb_steps": 20, "seed": 1,
                     "disp_freq": 1, "save_freq": 20},
    }
    (folder / "input.json").write_text(json.dumps(content))
    command = [str(Path(sys.executable).with_name("dp")), "--pt", "train", "input.json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = (folder / "lcurve.out").read_text().splitlines()
    model = torch.load(folder / "model.ckpt.pt", map_location="cpu", weights_only=True)["model"]
    rates = {line.split()[-1] for line in lines if not line.startswith("#")}
    return lines[0].split(), {k: v for k, v in model.items() if torch.is_tensor(v)}, len(rates)


def same(a, b):
    return all(torch.equal(a[key], b[key]) for key in a)


from importlib.metadata import version

print("deepmd-kit", version("deepmd-kit"), "torch", torch.__version__)
none, weights, rates = train("none", 0, 0)
found = {"decay_steps 5000 in 20 steps": f"{rates} learning rates"}
unchanged = rates == 20
for name, start, limit, expected in (("from", 0, 1, False), ("to", 1, 0, False), ("small", 1e-3, 1, True)):
    columns, other, _ = train(name, start, limit)
    shown, trained = any(column.startswith("rmse_v") for column in columns), not same(weights, other)
    found[f"start_pref_v {start}, limit_pref_v {limit}"] = f"virial errors shown: {shown}; it changes the weights: {trained}"
    unchanged &= (shown, trained) == (expected, expected)
for name, seen in found.items():
    print(f"{name}: {seen}")
print("as described" if unchanged else "CHANGED: deepmd-kit behaves otherwise now")
sys.exit(0 if unchanged else 1)
PYTHON
"$folder/venv/bin/python" run.py
