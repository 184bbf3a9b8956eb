"""VASP, ABACUS and CP2K in the tests: sections of inputs whose program is a stand-in."""

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from standins.common import potential

from pfdhpc.config.label import LabelSection, merged
from pfdhpc.data import Frame
from pfdhpc.engines.label.launch.exit_reason import never
from pfdhpc.errors import LabelError

STANDINS = Path(__file__).parent / "standins"
PROGRAMS = ("vasp", "abacus", "cp2k")
POTCAR = (
    "  PAW_PBE {0} 01Jan2000\n 11.0\n   VRHFIN ={0}: d10\n   POMASS =   1.000; ZVAL   =   {1:.3f}    mass and valenz\n"
)
CP2K_INPUT = """
&GLOBAL
  PROJECT something   ! replaced
  RUN_TYPE GEO_OPT
&END GLOBAL
&FORCE_EVAL
  METHOD QS
  &DFT
    BASIS_SET_FILE_NAME MY_BASIS
    &SCF
      MAX_SCF 50      # of each label
    &END SCF
  &END DFT
  &SUBSYS
    &CELL
      ABC 1 1 1
    &END CELL
    &COORD
      Cu 0 0 0
    &END COORD
    &KIND Cu
    &END KIND
    &KIND Al
    &END KIND
  &END SUBSYS
&END FORCE_EVAL
"""


def frame(strain=None):
    """Two elements, atom by atom in turn, in a skew cell."""
    atoms = bulk("Cu", cubic=True, a=3.8)
    atoms.symbols[[1, 3]] = "Al"
    atoms.set_cell(atoms.cell.array + [[0, 0.1, 0], [0, 0, 0.2], [0.3, 0, 0]], scale_atoms=True)
    atoms.rattle(0.1, seed=3)
    if strain is not None:
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    return Frame.from_atoms(atoms)


def computed(frame):
    """Energy, forces and stress of a frame by all stand-ins."""
    return potential(frame.to_atoms().get_chemical_symbols(), frame.cell, frame.positions)


def options(kind, folder):
    """The files of a program in ``folder``, and the options that name them."""
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "cp2k":
        (folder / "cp2k.inp").write_text(CP2K_INPUT)
        (folder / "MY_BASIS").write_text("Cu DZVP\n")
        return {"template": str(folder / "cp2k.inp"), "data_dir": str(folder)}
    for symbol, valence in (("Cu", 11), ("Al", 3)):
        (folder / symbol).mkdir(exist_ok=True)
        (folder / symbol / "POTCAR").write_text(POTCAR.format(symbol, valence))
        (folder / symbol / "some.upf").write_text(f"<UPF>{symbol}")
        (folder / symbol / "some.orb").write_text(symbol)
    if kind == "vasp":
        potcars = {"Cu": "Cu/POTCAR", "Al": "Al/POTCAR"}
        incar = {"ENCUT": 400, "NELM": 60}
        return {"incar": incar, "potcar_dir": str(folder), "potcars": potcars, "kspacing": 0.3}
    return {
        "input": {"basis_type": "lcao", "ecutwfc": 100},
        "pseudo_dir": str(folder),
        "pseudopotentials": {"Cu": "Cu/some.upf", "Al": "Al/some.upf"},
        "orbital_dir": str(folder),
        "orbitals": {"Cu": "Cu/some.orb", "Al": "Al/some.orb"},
        "kpts": [2, 2, 2],
    }


def section(kind, folder, changes=None, behaviour="", processes=1, version="old", resident=False, **more):
    launch = {
        "command": f"{sys.executable} {STANDINS / kind}.py",
        "env": {"STANDIN": behaviour, "STANDIN_PROCESSES": str(processes), "STANDIN_VERSION": version},
        "keep": True,
        "resident": resident,
    }
    given = merged(options(kind, folder / "files"), changes or {})
    return LabelSection(type=kind, options=given, launch=launch, **more)


def moved(seed, strain=None):
    atoms = frame(strain).to_atoms()
    atoms.rattle(0.05, seed=seed)
    return Frame.from_atoms(atoms)


def kept(folder):
    """The folder of the only label that was kept."""
    (found,) = (path for path in (folder / "labels").iterdir() if not path.name.startswith("."))
    return found


def after(seconds, patience=2.0):
    """A wish to stop that comes so many seconds from now; a program then has ``patience`` to end by itself."""
    moment = time.monotonic() + seconds
    return lambda: patience if time.monotonic() > moment else None


def ended_by_itself(folder, kind):
    name = {"vasp": "OUTCAR", "abacus": "OUT.ABACUS/running_scf.log", "cp2k": "standard.out"}[kind]
    words = {"vasp": "aborting job", "abacus": "convergence has not been achieved", "cp2k": "by external request"}[kind]
    return (kept(folder) / name).is_file() and words in (kept(folder) / name).read_text()


def running(folder):
    """The processes that work below a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            found += [process.name] if os.readlink(process / "cwd").startswith(str(folder)) else []
        except OSError:  # it ended, or is another user's
            continue
    return found


def check_judged(made, folder, place, said, timeout=60.0):
    """The first or second label by a program that stays fails as said; nothing runs then, until it is asked again."""
    if place == 2:
        assert made.label(moved(1), {}, 60.0).is_finite()
    with pytest.raises(LabelError, match=f"{said}.*; see labels/"):
        made.label(moved(place), {}, timeout)
    assert made._running is None and not running(folder)
    if place == 2:
        assert made.label(moved(2), {}, 60.0).is_finite()


def check_called_off(make, folder, kind, seconds):
    """The second label by a program that stays, and hangs, is called off after so many seconds, and it ends by itself.

    ``make(called_off)`` gives the labeler.
    """
    wish = never
    made = make(lambda: wish())
    assert made.label(moved(1), {}, 60.0).is_finite()
    wish = after(seconds)
    with pytest.raises(LabelError, match="stopped: this job is about to end") as found:
        made.label(moved(2), {}, 60.0)
    assert found.value.killed == signal.SIGTERM
    assert ended_by_itself(folder, kind) and not running(folder)
