"""What the frozen files under ``tests/data/formats`` hold, one file per format version and kind.

    python tests/samples.py

writes those of the present version; they are made once per version, before the next one, and never again.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from pfdhpc.data import Frame, Label, Labelling, Origin, Record  # noqa: E402

FORMATS = Path(__file__).parent / "data" / "formats"
ATTRS = {"input": '{"seed": 7}', "versions": '{"pfdhpc": "0.1"}'}
REASONS = ["SCF did not converge", "force 200 eV/Å"]
TREE = {
    "round": 3,
    "ids": ["a", "b"],
    "$odd": None,
    "elapsed": 12.5,
    "nested": {"rng": b"\x00\xff", "positions": np.arange(12.0).reshape(4, 3), "mask": np.array([True, False])},
}


def record(index: int, n_atoms: int, labelled: bool = True, virial: bool = True, void: bool = False) -> Record:
    """Numbers that are the same on every machine. ``void``: with a virial also where the frame can have none, as the
    frozen files hold it; no record that is read has one."""
    grid = np.arange(3.0 * n_atoms).reshape(n_atoms, 3) / 4 + index
    frame = Frame(np.arange(n_atoms) % 2 * 8 + 6, 8 * np.eye(3) + index, grid, [True, True, index % 2 == 0])
    label = Label(-index - 0.5, grid / 8, np.diag([1.0, 2.0, 3.0]) if virial else None)
    origin = Origin("SiC-α", f"SiC-{index}", 1, 2, index, 300.0, float("nan"), 4, "ab", 0.25, 1.5)
    made = Labelling("pbe", "gpaw", 60.0, 2, "26.7") if labelled else None
    found = Record(frame, origin, label if index % 2 else None, label if labelled else None, made)
    for name in ("prediction", "label") if void else ():
        if getattr(found, name) is not None:
            object.__setattr__(found, name, label)
    return found


def labelled(void: bool = False) -> tuple[Record, ...]:
    return record(1, 2, void=void), record(2, 5, virial=False, void=void), record(3, 200, void=void)


def rejected(void: bool = False) -> tuple[Record, ...]:
    return record(4, 3, labelled=False, void=void), record(5, 4, void=void)


def write(folder: Path) -> None:
    from stores import write_rows

    from pfdhpc.store.checkpoint import save_checkpoint
    from pfdhpc.store.hdf5_file import FORMAT_VERSION

    told = [{"reason": reason, "level": "pbe"} for reason in REASONS]
    write_rows(folder / f"frames-labelled-{FORMAT_VERSION}.h5", ((record, {}) for record in labelled(void=True)), ATTRS)
    write_rows(folder / f"frames-rejected-{FORMAT_VERSION}.h5", zip(rejected(void=True), told, strict=True), ATTRS)
    save_checkpoint(folder, TREE).replace(folder / f"checkpoint-{FORMAT_VERSION}.h5")


if __name__ == "__main__":
    write(FORMATS)
