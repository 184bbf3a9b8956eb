#!/usr/bin/env bash
# deepmd-kit's PyTorch models overlook the periodic images of a cell whose lattice vectors are left-handed.
#
# The same crystal is given twice, the second time with two of its lattice vectors exchanged: energy and forces must be
# the same. deepmd/pt/utils/region.py divides the signed volume by the areas of the faces, so that the number of images,
# ceil(cutoff / distance), is 0 along every vector longer than the cutoff. No warning is given. (Where a cell is thinner
# than the cutoff the number is negative, which is an error.)
#
# Exit code 0: it is as described; 1: it has changed. Needs python3 with venv, pip, and about 7 GB of disk while it runs.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-cache-dir "deepmd-kit[torch]==3.2.0" "torch==2.11.0"
cd "$folder"
CUDA_VISIBLE_DEVICES="" venv/bin/python - <<'PYTHON'
import sys
from importlib.metadata import version

import torch
from deepmd.pt.model.model import get_model

torch.manual_seed(1)
print("deepmd-kit", version("deepmd-kit"), "torch", torch.__version__)
descriptor = {"type": "se_e2_a", "rcut": 4.0, "rcut_smth": 0.5, "sel": [60], "neuron": [4, 8], "axis_neuron": 2}
model = get_model(
    {
        "type_map": ["Cu"],
        "descriptor": descriptor | {"precision": "float64", "seed": 1},
        "fitting_net": {"neuron": [8, 8], "precision": "float64", "seed": 1},
    }
).eval()

# 32 atoms of fcc copper, 2 x 2 x 2 cubic cells of 3.6 Å, each atom a little off its place.
corners = torch.cartesian_prod(*[torch.arange(2.0, dtype=torch.float64)] * 3)
basis = torch.tensor([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]], dtype=torch.float64)
positions = 3.6 * (corners[:, None] + basis).reshape(-1, 3)
positions = positions + 0.1 * torch.randn(positions.shape, dtype=torch.float64)
right = 7.2 * torch.eye(3, dtype=torch.float64)
left = right[[1, 0, 2]]


def energy_and_force(cell):
    found = model(positions[None].clone(), torch.zeros((1, 32), dtype=torch.long), box=cell.reshape(1, 9))
    return found["energy"].item(), found["force"][0].detach()


one, two, negated = (energy_and_force(cell) for cell in (right, left, -left))
apart = (one[1] - two[1]).abs().max().item()
print(f"right-handed cell:                      {one[0]:.6f} eV")
print(f"two lattice vectors exchanged:          {two[0]:.6f} eV, forces differ by up to {apart:.4f} eV/Å")
print(f"these negated, so right-handed again:   {negated[0]:.6f} eV")
same = abs(one[0] - negated[0]) < 1e-8
if not (same and abs(one[0] - two[0]) > 1e-3 and apart > 1e-4):
    sys.exit("changed: the left-handed cell is no longer read otherwise than the right-handed one")
PYTHON
