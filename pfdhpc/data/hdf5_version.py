"""Whether an HDF5 file is too new for the HDF5 that reads it."""

import h5py


def newer_form(error: Exception) -> str:
    """The reason and remedy where HDF5 raised ``error`` for an object in a form it does not know yet, else empty."""
    if "bad version number" not in str(error):
        return ""
    ours = f"h5py {h5py.version.version} (HDF5 {h5py.version.hdf5_version})"
    return f"written by a newer h5py, in a form that {ours} cannot read; use h5py 3.16 or newer"
