"""Labels made elsewhere: frames go out as files, and results come back as files.

.. code-block:: toml

    [label]
    type = "offline"
    options = { level = "VASP PBE 520 eV", wait = 60 }

``level`` names the level of theory. For each frame ``todo/<frame id>/`` holds a POSCAR, the same as extxyz, and a
README; ``done/<frame id>/`` is where an OUTCAR, vasprun.xml, extxyz or other output of the calculation is put. A
result that cannot be read, or is of another structure, is left there with the reason in REFUSED.txt; another one may
replace it. One that is read and then rejected (``max_force``, ``energy_outlier``) gives its frame up, as a file FAILED
does.
"""

import logging
import shutil
import time
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ...config.label import LabelSection
from ...data import Frame, Label, Record
from ...data.geometry import right_handed
from ...data.io import read_labelled
from ...errors import InputError, LabelError
from ..base import Labeler
from .input_checks import check_labeler
from .level_of_theory import level_hash
from .match_structures import matching

log = logging.getLogger(__name__)

PATTERNS = ("*OUTCAR*", "*vasprun*.xml", "*.extxyz", "*.xyz")
"""Files that are looked into first; others only where there are none of these."""
REFUSED, FAILED = "REFUSED.txt", "FAILED"
PAUSE = 1.0
"""Seconds between two looks. A folder counts that did not change from one to the next: it has arrived whole."""

README = """Wanted: energy and forces{stress} of the structure in POSCAR (or frame.extxyz: the same, in another order).
Level of theory: {level}. System: {system}.
Do not move an atom. Put the output (OUTCAR, vasprun.xml, extxyz, or another file ASE reads) into
{place}
or, if there is none to be had, a file {failed} there with the reason.
What cannot be read, or is of another structure, stays there beside {refused}, which says why, and may be replaced.
What is read counts: if it is then rejected (label.max_force, label.energy_outlier), the frame is given up.
"""
Signature = tuple[tuple[str, int, int], ...]


class OfflineLabeler(Labeler):
    """One rank; waits for files, asleep."""

    def __init__(self, section: LabelSection, comm: Any, folder: Path):
        """``folder`` holds ``todo`` and ``done``. Raises InputError."""
        problems = check_labeler(section, 1 if comm is None else comm.Get_size())
        if problems:
            raise InputError(problems)
        self.section, self.folder, self.level = section, Path(folder), level_hash(section)
        self._seen: dict[str, Signature] = {}
        self._settled: dict[str, Signature] = {}  # what has been looked into

    def label(self, frame: Frame, changes: dict[str, Any], timeout: float) -> Label:
        """Hand out one frame and wait for it. Raises LabelError after ``timeout`` seconds."""
        self.offer([Record(frame)])
        deadline = time.monotonic() + timeout
        while not (found := self.collect([frame])):
            if time.monotonic() > deadline:
                raise LabelError(f"time-out: no result in {self._done(frame)} in {timeout:g} s (label.timeout)")
            time.sleep(PAUSE)
        answer = found[frame.frame_id]
        if isinstance(answer, LabelError):
            raise answer
        return answer

    def offer(self, records: Sequence[Record]) -> None:
        """Write the inputs of frames that are not there yet."""
        (self.folder / "done").mkdir(parents=True, exist_ok=True)
        for record in records:
            place = self._todo(record.frame)
            if not place.exists():
                self._write(record, place)

    def collect(self, frames: Sequence[Frame]) -> dict[str, Label | LabelError]:
        """What has come back: labels, or why there is none, by frame id."""
        found: dict[str, Label | LabelError] = {}
        for frame in frames:
            key, place = frame.frame_id, self._done(frame)
            before, now = self._seen.get(key), _signature(place)
            self._seen[key] = now
            if not now or now != before or now == self._settled.get(key):
                continue
            self._settled[key] = now
            try:
                found[key] = self._result(place, frame)
            except (ValueError, OSError) as error:
                self._refuse(place, error)
        return found

    def close(self, frames: Sequence[Frame]) -> None:
        """Take back the inputs of frames that are done."""
        for frame in frames:
            shutil.rmtree(self._todo(frame), ignore_errors=True)
            try:
                (self._done(frame) / REFUSED).unlink(missing_ok=True)
            except OSError as error:
                log.warning("%s cannot be removed: %s", self._done(frame) / REFUSED, error.strerror)

    def _refuse(self, place: Path, reason: Exception) -> None:
        """Say beside a result why it is not used; where nothing can be written, in the log."""
        if isinstance(reason, OSError):
            log.warning("%s: a result cannot be read: %s", place, reason)
        try:
            (place / REFUSED).write_text(f"{reason}\n")
        except OSError as error:
            log.warning("%s: %s cannot be written (%s): %s", place, REFUSED, error.strerror, reason)

    def _result(self, place: Path, frame: Frame) -> Label | LabelError:
        """Raises ValueError when there is nothing to be used, with a line for each file."""
        if (place / FAILED).exists():
            return LabelError((place / FAILED).read_text(errors="replace").strip() or "given up outside")
        files = sorted(path for path in place.iterdir() if path.is_file() and path.name != REFUSED)
        if not files:
            raise ValueError("no file here, only folders: put the output itself into this folder")
        known = [path for path in files if any(fnmatch(path.name, pattern) for pattern in PATTERNS)]
        reasons = []
        for path in known or files:
            try:
                return self._label_in(path, frame)
            except ValueError as error:
                reasons.append(f"{path.name}: {str(error).removeprefix(f'{path}: ')}")
        raise ValueError("\n".join(reasons))

    def _label_in(self, path: Path, frame: Frame) -> Label:
        """The label a file has for a frame, in the order of its atoms. Raises ValueError (InputError is one)."""
        reason = ""
        for record in reversed(read_labelled(path)):
            try:
                order = matching(frame, record.frame)
            except ValueError as error:
                reason = reason or str(error)
                continue
            if self.section.virial and frame.has_virial and record.label.virial is None:
                why = "there is no stress in it" if record.frame.has_virial else "it is not periodic: no stress counts"
                raise ValueError(f"{why}; compute it, or set label.virial = false")
            virial = record.label.virial if self.section.virial else None
            return Label(record.label.energy, record.label.forces[order], virial)
        raise ValueError(f"not the structure in question: {reason}")

    def _todo(self, frame: Frame) -> Path:
        return self.folder / "todo" / frame.frame_id

    def _done(self, frame: Frame) -> Path:
        return self.folder / "done" / frame.frame_id

    def _write(self, record: Record, place: Path) -> None:
        """The folder of a frame, complete before it can be seen."""
        import ase.io

        unfinished = place.with_name(f".{place.name}")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        atoms = right_handed(record.frame).to_atoms()
        ase.io.write(unfinished / "frame.extxyz", atoms, format="extxyz", parallel=False)
        if record.frame.volume > 0:
            ase.io.write(unfinished / "POSCAR", atoms, format="vasp", sort=True, parallel=False)
        text = README.format(
            stress=" and stress" if self.section.virial else "",
            level=self.section.options["level"],
            system=record.origin.system or "-",
            place=self._done(record.frame).resolve(),
            failed=FAILED,
            refused=REFUSED,
        )
        (unfinished / "README").write_text(text)
        unfinished.rename(place)


def _signature(place: Path) -> Signature:
    """What is in a folder now; empty if nothing is."""
    try:
        facts = [(path.name, path.stat()) for path in place.iterdir() if path.name != REFUSED]
    except OSError:  # not there, or changing under our eyes
        return ()
    return tuple(sorted((name, fact.st_size, fact.st_mtime_ns) for name, fact in facts))
