#!/usr/bin/env bash
# h5py 3.16 (HDF5 2.0) with libver="latest" writes booleans, complex numbers and chunked (compressed) datasets in forms
# that h5py 3.12 to 3.15 (HDF5 1.14) cannot read: KeyError "bad version number for datatype message", "... for layout
# message". Plain floats and texts in the same file are read. With libver=("v110", "v110"), or none, all is read.
# Exits with 0 if this is still so, with 1 if not. Needs python3 (3.11 to 3.13) and pip.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
pip install --quiet --disable-pip-version-check --no-deps --target "$place/numpy" numpy==2.4.2
for version in 3.12.1 3.15.1 3.16.0; do
    pip install --quiet --disable-pip-version-check --no-deps --target "$place/$version" "h5py==$version"
done
cat > "$place/write.py" <<'PYTHON'
import h5py
import numpy as np

for name, libver in (("latest", "latest"), ("v110", ("v110", "v110")), ("none", None)):
    with h5py.File(f"{name}.h5", "w", libver=libver) as file:
        file["floats"] = np.arange(10.0)
        file["booleans"] = np.array([True, False])
        file.create_dataset("chunked", data=np.zeros((1000, 3)), chunks=(100, 3), compression="gzip")
PYTHON
cat > "$place/read.py" <<'PYTHON'
import h5py

for name in ("latest", "v110", "none"):
    with h5py.File(f"{name}.h5") as file:
        for dataset in ("floats", "booleans", "chunked"):
            try:
                file[dataset][()]
                told = "read"
            except KeyError as error:
                told = str(error)
            print(f"h5py {h5py.__version__} (HDF5 {h5py.version.hdf5_version}), {name}, {dataset}: {told}")
PYTHON
cd "$place"
PYTHONPATH="$place/3.16.0:$place/numpy" python3 write.py
for version in 3.12.1 3.15.1 3.16.0; do
    PYTHONPATH="$place/$version:$place/numpy" python3 read.py
done | tee told
# two of the nine datasets, for each of the two older versions
[ "$(grep -c 'bad version number' told)" -eq 4 ] && [ "$(grep 'bad version number' told | grep -c ' latest, ')" -eq 4 ]
