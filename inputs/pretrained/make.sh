#!/usr/bin/env bash
# Make the small pre-trained model from nothing: environments, frames, training, evaluation.
# Usage: bash make.sh [WORK_FOLDER]     (about 30 minutes on two cores; 8 GB of disk)
# Needs: Python 3.11 or newer and pip. The package index is pip's own default.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=${1:-pretrained_work}
mkdir -p "$work" && cd "$work"
export OMP_NUM_THREADS=1 DP_INTRA_OP_PARALLELISM_THREADS=1 DP_INTER_OP_PARALLELISM_THREADS=1

# Two environments: the labelling potentials and deepmd-kit want different torch versions.
[ -d label ] || python3 -m venv label
label/bin/pip install torch==2.13.0
label/bin/pip install numpy ase diep==2.0.0 sevenn==0.13.0
[ -d train ] || python3 -m venv train
train/bin/pip install "deepmd-kit[torch,lmp]==3.2.0" mpi4py ase dpdata

# Frames and both sets of labels (2 minutes on two cores).
rm -rf data && label/bin/python "$here/make_data.py" data --workers 2
train/bin/python "$here/pack.py" data

# Training (one thread), then the file that ships and its table of errors.
train/bin/dp --pt train "$here/train.json" --skip-neighbor-stat
train/bin/python "$here/strip.py" model.ckpt.pt "$here/dpa3_small.pt"
train/bin/python "$here/evaluate.py" "$here/dpa3_small.pt" data \
    --readme "$here/README.md" --json "$here/errors.json"
