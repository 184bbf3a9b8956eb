"""Quantum ESPRESSO in the tests: the real one where it is installed, and a stand-in that prints what one printed."""

import os
import shutil
from pathlib import Path

import pytest
from ase.build import bulk

from pfdhpc.config.label import LabelSection
from pfdhpc.data import Frame

PSEUDO = Path("/usr/share/espresso/pseudo")
PRINTED = Path(__file__).parent / "data" / "qe" / "si2.out"
"""Of the frame ``silicon()`` with ``OPTIONS``."""
NESTED = "/usr/bin/mpiexec.openmpi -n {ranks} --oversubscribe --bind-to none --mca mpi_yield_when_idle 1 pw.x"
ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
SYSTEM = {"ecutwfc": 12, "occupations": "smearing", "smearing": "mv", "degauss": 0.01}
OPTIONS = {
    "pseudo_dir": str(PSEUDO),
    "pseudopotentials": {"Si": "Si.pz-vbc.UPF"},
    "kpts": [2, 2, 2],
    "input": {"system": SYSTEM, "electrons": {"conv_thr": 1e-10}},
}
STAND_IN = f"""#!/usr/bin/env python3
import os, subprocess, sys, time
from pathlib import Path
way = os.environ.get("WAY", "")
if way == "hang":  # with a child in a group of its own, as launchers have
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"], start_new_session=True)
    Path(os.environ["PIDS"]).write_text(f"{{os.getpid()}} {{child.pid}}")
    time.sleep(1000)
if way == "soft":
    while not Path("pwscf.EXIT").exists():
        time.sleep(0.01)
    Path(os.environ["PIDS"]).write_text("ended by itself")
if way == "killed":  # so often as TIMES says
    import signal
    told = Path(os.environ["PIDS"])
    before = told.read_text().split() if told.exists() else []
    if len(before) < int(os.environ.get("TIMES", 1000)):
        told.write_text(" ".join([*before, "killed"]))
        number = int(os.environ["SIGNAL"])
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
if way == "environment":
    Path(os.environ["PIDS"]).write_text("\\0".join(f"{{key}}={{value}}" for key, value in os.environ.items()))
    Path("words").write_text(" ".join(sys.argv[1:]) + f" {{sorted(os.sched_getaffinity(0))}}")
Path("pwscf.save").mkdir()
text = Path({str(PRINTED)!r}).read_text()
for old, new in eval(os.environ.get("CHANGES", "[]")):
    text = text.replace(old, new)
print(text[: int(os.environ.get("LENGTH", len(text)))])
sys.exit(int(os.environ.get("CODE", 0)))
"""

needs_qe = pytest.mark.skipif(
    shutil.which("pw.x") is None or not PSEUDO.is_dir(), reason="Quantum ESPRESSO is not installed"
)
needs_openmpi = pytest.mark.skipif(not os.access("/usr/bin/mpiexec.openmpi", os.X_OK), reason="needs Open MPI")


def silicon(seed: int = 1, a: float = 5.3) -> Frame:
    atoms = bulk("Si", a=a)
    atoms.rattle(0.05, seed=seed)
    return Frame.from_atoms(atoms)


def stand_in(folder: Path) -> Path:
    """An executable ``pw.x`` in a folder, with a file that passes for a pseudopotential; ``WAY`` says how it ends."""
    path = folder / "pw.x"
    path.write_text(STAND_IN)
    path.chmod(0o755)
    (folder / "Si.upf").write_text("<UPF>")
    return path


def section(launch: dict, options: dict = OPTIONS, **more) -> LabelSection:
    return LabelSection(type="qe", options=options, launch=launch, **more)
