"""Molecular dynamics by LAMMPS in this process, forces by DeePMD-kit's pair style; one rank per replica.

Every segment, interrupted or not, does the same: ``clear``, ``read_restart``, a fresh pair style, the
fixes, a few discarded force calls. So a run continued in another process repeats the uninterrupted
one bit for bit. The fixes come before the first ``run 0``, which throws away what the restart file
holds for them. No trajectory files: frames are taken from memory.
"""

import os
import shutil
import sys
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from ase.data import atomic_masses, atomic_numbers

from ...config.explore import ExploreSection
from ...data import Frame, Label
from ...errors import InputError, TaskError
from ...published_models import check_published
from ..base import Explorer, SegmentResult, SegmentTask
from ..deep_potential import open_potential
from ..deepmd_inference import interpreted
from .committee_checks import committee_problems
from .constant_folding import lowered
from .input_checks import check_explore
from .lammps_box import off_faces, reduced_box
from .md_segment import Breakdown, Motion, Snapshot, run_segment, thermal_velocities

MEMORY = Path("/dev/shm")
"""Linux' file system in memory."""
ROOM = 256 * 2**20
"""Bytes that must be free in it: containers often have only 64 MB."""


def private_folder(owner: object) -> Path:
    """A new folder, removed with ``owner`` or at the exit of the process, whichever comes first.

    It lies in :data:`MEMORY` when that is writable and has room, otherwise where ``TMPDIR`` says.
    """
    try:
        folder = tempfile.mkdtemp(prefix="pfdhpc-", dir=MEMORY if shutil.disk_usage(MEMORY).free > ROOM else None)
    except OSError:
        folder = tempfile.mkdtemp(prefix="pfdhpc-")
    weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


SKIN = 1.0
"""Neighbour list skin in Å; small, since ghost atoms are what a many-body model pays for."""

WARM_UP = 3
"""Discarded force calls: where TorchScript optimises, the first ones differ in the last digits."""

# The lammps module's numbers for what extract_compute and extract_fix are asked for.
LMP_STYLE_GLOBAL, LMP_STYLE_ATOM = 0, 1
LMP_TYPE_SCALAR, LMP_TYPE_VECTOR, LMP_TYPE_ARRAY = 0, 1, 2

MPI_REMEDY = (
    "mpi4py and the lammps module must be of one MPI, which for its wheel is one of MPICH's family; in a job on Open"
    ' MPI explore.isolation = "process" gives LAMMPS its own (pfdhpc docs clusters)'
)

PLUGIN_REMEDY = "install pfdhpc's own deepmd-kit[torch,lmp], torch and lammps together: they are built for each other"

PREPARE = f"""
neighbor {SKIN} bin
neigh_modify delay 0 every 1 check yes
compute virial all pressure NULL virial
thermo_style custom step temp pe c_virial[1]
fix pair all store/force
"""
"""``store/force`` keeps the model's forces, to which ``fix langevin`` adds its own."""


class LammpsExplorer(Explorer):
    """LAMMPS with ``pair_style deepmd``; models are frozen ``.pth`` files.

    Start structures must be periodic in three directions. Restart bytes and committee deviations pass
    through files in ``scratch``, a folder of this process alone.
    """

    def __init__(self, section: ExploreSection):
        """Opens LAMMPS; raises InputError when it does not start."""
        problems = check_explore(section)
        if problems:
            raise InputError(problems)
        self.section = section
        self.type_map: tuple[str, ...] = ()
        self.models: tuple[Path, ...] = ()
        self._lmp = _open_lammps()
        self.scratch = private_folder(self)

    def load_models(self, models: Sequence[Path], type_map: tuple[str, ...]) -> None:
        """Raises InputError when a file is missing or damaged, or the committee does not fit the first model."""
        models = tuple(Path(model).resolve() for model in models)
        missing = [f"no such model file: {model}; put it back" for model in models if not model.is_file()]
        if missing:
            raise InputError(missing)
        for model in models:
            check_published(model)
        if models[1:] and models[1:] != self.models[1:]:
            _check_committee(models)
        driver = lowered(models[0], self.section.steps, self.scratch / "driver.pth")
        self.models, self.type_map = (driver, *models[1:]), tuple(type_map)

    def run(self, task: SegmentTask) -> SegmentResult:
        self._check(task)
        if self._lmp is None:
            self._lmp = _open_lammps()
        healthy = False
        try:
            with interpreted():
                result = run_segment(self.section, task, self.begin)
            healthy = not result.stopped
        finally:
            if not healthy:
                self.close()  # after an error an instance of LAMMPS is not to be trusted
        return result

    def begin(self, task: SegmentTask) -> Motion:
        """The trajectory of ``task`` at its first configuration."""
        return LammpsMotion(self._lmp, self, task)

    def close(self) -> None:
        if self._lmp is not None:
            self._lmp.close()
            self._lmp = None

    def _check(self, task: SegmentTask) -> None:
        if not self.models:
            raise TaskError("no model is loaded; load_models comes first")
        if not task.start.pbc.all() or task.start.volume == 0:
            raise TaskError(
                f"replica {task.replica}: LAMMPS explores structures periodic in three directions; "
                "give molecules and slabs a cell with vacuum and pbc in all directions"
            )
        unknown = {int(n) for n in task.start.numbers} - {atomic_numbers[name] for name in self.type_map}
        if unknown:
            raise TaskError(f"replica {task.replica}: atomic numbers {sorted(unknown)} are not in the model")


class LammpsMotion(Motion):
    """A trajectory in LAMMPS' box: lattice vectors lower triangular, rotated back in every snapshot."""

    def __init__(self, lmp, explorer: LammpsExplorer, task: SegmentTask):
        self.lmp = lmp
        self.section, self.task = explorer.section, task
        self.type_map, self.models = explorer.type_map, explorer.models
        self.restart = explorer.scratch / "segment.restart"
        self.deviations = explorer.scratch / "deviation.out"
        self.box, self.rotation, self.basis = reduced_box(task.start.cell)
        with _broken():
            self._read(task.state or self._first_state())
            self._set_model()
            self._set_ensemble()

    def advance(self, steps: int) -> None:
        with _broken():
            self.lmp.command(f"run {steps} pre no post no start 0 stop {self.section.steps}")

    def snapshot(self) -> Snapshot:
        with _broken():
            low, high, xy, yz, xz, *_ = self.lmp.extract_box()
            box = np.diag(np.subtract(high, low))
            box[1, 0], box[2, 0], box[2, 1] = xy, xz, yz
            n_local = self.lmp.extract_setting("nlocal")  # after them come the ghosts
            ids, x = (self.lmp.numpy.extract_atom(name)[:n_local] for name in ("id", "x"))
            forces = self.lmp.numpy.extract_fix("pair", LMP_STYLE_ATOM, LMP_TYPE_ARRAY)[:n_local]
            order = np.argsort(ids)
            if len(order) != len(self.task.start):
                raise Breakdown(f"{len(self.task.start) - len(order)} atoms are lost")
            energy = self.lmp.get_thermo("pe")
            temperature = self.lmp.extract_compute("thermo_temp", LMP_STYLE_GLOBAL, LMP_TYPE_SCALAR)
            virial = self._virial(np.linalg.det(box))
        back = self.rotation.T
        positions = (x[order] - low) @ back
        frame = Frame(self.task.start.numbers, self.basis @ box @ back, positions, self.task.start.pbc)
        label = Label(energy, forces[order] @ back, self.rotation @ virial @ back)
        return Snapshot(frame, label, temperature)

    def deviation(self) -> float:
        if len(self.models) == 1:
            return float("nan")
        step, *values = self.deviations.read_text().splitlines()[-1].split()
        if int(step) != self.lmp.extract_global("ntimestep"):
            raise Breakdown(f"the pair style gave no deviation for step {step}")
        return float(values[3])

    def state(self) -> bytes:
        with _broken():
            self.lmp.command(f'write_restart "{self.restart}"')
        content = self.restart.read_bytes()
        self.restart.unlink()
        return content

    def _virial(self, volume: float) -> np.ndarray:
        """Virial (3, 3) eV in LAMMPS' orientation, without the kinetic part."""
        pressure = self.lmp.extract_compute("virial", LMP_STYLE_GLOBAL, LMP_TYPE_VECTOR)
        xx, yy, zz, xy, xz, yz = pressure[:6]
        tensor = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
        return tensor * volume / self.lmp.extract_global("nktv2p")

    def _first_state(self) -> bytes:
        """The start structure with thermal velocities as restart bytes."""
        start, n_atoms = self.task.start, len(self.task.start)
        (ax, _, _), (bx, by, _), (cx, cy, cz) = self.box
        types = {atomic_numbers[name]: 1 + i for i, name in enumerate(self.type_map)}
        tilt = ""  # LAMMPS is a few percent faster without
        if bx or cx or cy or self.section.ensemble == "npt-tri":
            tilt = f"{bx:.17g} {cx:.17g} {cy:.17g}"
        masses = [f"mass {kind} {atomic_masses[number]:.17g}" for number, kind in types.items()]
        self._commands(
            "clear\nunits metal\natom_style atomic\natom_modify map yes\nboundary p p p\nbox tilt large\n"
            f"region box {'prism' if tilt else 'block'} 0 {ax:.17g} 0 {by:.17g} 0 {cz:.17g} {tilt}\n"
            f"create_box {len(types)} box\n" + "\n".join(masses)
        )
        fractions = np.linalg.solve(start.cell.T, start.positions.T).T @ self.basis
        if tilt:
            fractions += off_faces(fractions)
        positions = (fractions % 1.0 % 1.0) @ self.box  # twice: -1e-17 % 1.0 is 1.0
        velocities = 1000 * thermal_velocities(start.numbers, self.task.temperature[0], self.task.seed)
        created = self.lmp.create_atoms(
            n_atoms,
            list(range(1, n_atoms + 1)),
            [types[int(number)] for number in start.numbers],
            positions.ravel().tolist(),
            (velocities @ self.rotation).ravel().tolist(),
        )
        if created != n_atoms:
            raise Breakdown(f"LAMMPS placed {created} of {n_atoms} atoms in the box")
        return self.state()

    def _read(self, state: bytes) -> None:
        self.restart.write_bytes(state)
        self._commands(f'clear\nbox tilt large\nread_restart "{self.restart}"\nreset_timestep 0')
        self.restart.unlink()

    def _set_model(self) -> None:
        """A fresh pair style: on an existing one DeePMD-kit silently keeps the old model."""
        models = " ".join(f'"{model}"' for model in self.models)
        committee = f' out_file "{self.deviations}" out_freq {self.section.interval}'
        if len(self.models) == 1:
            committee = ""
        with _quiet():
            self._commands(f"pair_style none\npair_style deepmd {models}{committee}")
        self._commands(f"pair_coeff * * {' '.join(self.type_map)}{PREPARE}")
        self._commands(f"timestep {self.section.timestep / 1000:.17g}")
        if len(self.task.start) == 1:
            self.lmp.command("compute_modify thermo_temp extra/dof 0")

    def _set_ensemble(self) -> None:
        self._commands(ensemble(self.section, self.task))
        for _ in range(WARM_UP):
            self.lmp.command("run 0 post no")
        self.lmp.command(f"run 0 post no start 0 stop {self.section.steps}")

    def _commands(self, text: str) -> None:
        for line in text.splitlines():
            if line:
                self.lmp.command(line)


def ensemble(section: ExploreSection, task: SegmentTask) -> str:
    """LAMMPS' commands of an ensemble; the fix ids stay, so that a restart gives a fix its state back."""
    start, end = task.temperature
    damping = section.temperature_damping / 1000  # ps
    bath = f"temp {start:.17g} {end:.17g} {damping:.17g}"
    single = len(task.start) == 1
    if section.ensemble == "nve":
        return "fix md all nve"
    if section.ensemble == "langevin":
        rest = "" if single else " zero yes"
        seed = task.seed % 899_999_999 + 1
        return f"fix md all nve\nfix bath all langevin {start:.17g} {end:.17g} {damping:.17g} {seed}{rest}"
    command = f"fix md all nvt {bath}"
    if section.ensemble.startswith("npt"):
        shape, (low, high) = section.ensemble.removeprefix("npt-"), task.pressure
        damping = section.pressure_damping / 1000
        command = f"fix md all npt {bath} {shape} {low:.17g} {high:.17g} {damping:.17g} flip no"
    return command + ("\ncompute_modify md_temp extra/dof 0" if single else "")


def _open_lammps():
    """A silent LAMMPS of this rank alone; raises InputError when it does not start, or without deepmd in it."""
    try:
        from mpi4py import MPI  # noqa: I001  before lammps: both must end up with one MPI library
        from lammps import lammps

        opened = lammps(comm=MPI.COMM_SELF, cmdargs=["-screen", "none", "-log", "none", "-nocite"])
    except (ImportError, OSError) as error:
        raise InputError(f"explore.engine: LAMMPS cannot be loaded: {error}; {MPI_REMEDY}") from error
    except Exception as error:  # lammps raises nothing more special than this
        raise InputError(f"explore.engine: LAMMPS does not start: {error}; {MPI_REMEDY}") from error
    if not opened.has_style("pair", "deepmd"):
        opened.close()
        raise InputError(f"explore.engine: this LAMMPS has no pair style deepmd; {PLUGIN_REMEDY}")
    return opened


def _check_committee(models: Sequence[Path]) -> None:
    driver = open_potential(models[0])
    problems = committee_problems(models[1:], driver.get_type_map(), float(driver.get_rcut()))
    if problems:
        raise InputError(problems)


@contextmanager
def _broken() -> Iterator[None]:
    """Turns what LAMMPS raises, plain ``Exception``, into a :class:`Breakdown` with a short reason."""
    try:
        yield
    except (Breakdown, InputError):
        raise
    except Exception as error:
        reason = str(error).removeprefix("ERROR: ").split(" (src/")[0].split("\n")[0]
        raise Breakdown(f"LAMMPS: {reason}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Nothing on stdout: DeePMD-kit's C++ announces every model it loads."""
    sys.stdout.flush()
    saved = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)
        os.close(nowhere)
