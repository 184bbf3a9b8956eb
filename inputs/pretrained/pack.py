"""Pack the training frames of each branch into one LMDB file, which deepmd-kit reads faster.

Usage: python pack.py DATA      (writes DATA/<branch>/train.lmdb)
"""

import sys
from pathlib import Path

import dpdata


def pack(folder):
    """Turn the mixed systems under `folder`/train into `folder`/train.lmdb (Å, eV)."""
    systems = dpdata.MultiSystems()
    groups = sorted((folder / "train").iterdir())
    for group in groups:
        systems.load_systems_from_file(str(group), fmt="deepmd/npy/mixed")
    elements = (groups[0] / "type_map.raw").read_text().split()
    systems.to("deepmd/lmdb", str(folder / "train.lmdb"), type_map=elements)
    print(f"{folder.name}: {systems.get_nframes()} training frames packed")


if __name__ == "__main__":
    for branch in sorted(path for path in Path(sys.argv[1]).iterdir() if path.is_dir()):
        pack(branch)
