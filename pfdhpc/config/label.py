"""[label]: the first-principles program and when its answer is trusted."""

import difflib
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PrivateAttr, ValidationInfo, field_validator, model_validator

from .base import AnyPath, ExistingFile, Section, resolve

EXTERNAL = ("qe", "vasp", "abacus", "cp2k")
"""Types of labelers that are programs of their own, launched as [label.launch] says."""
PATHS: dict[str, dict[str, str | None]] = {
    "deepmd": {"model": None},
    "ase": {"path": None},
    "qe": {"template": None, "pseudo_dir": "pseudopotentials"},
    "vasp": {"template": None, "potcar_dir": "potcars"},
    "abacus": {"template": None, "pseudo_dir": "pseudopotentials", "orbital_dir": "orbitals"},
    "cp2k": {"template": None, "data_dir": None},
}
"""The options that are paths, by type of labeler. Of a folder, with the option that names the files in it."""

PLACEHOLDERS = {
    "ranks": "processes to start",
    "nodes": "the nodes of the team, n1,n2",
    "n_nodes": "how many nodes that are",
    "hosts": "the nodes with the team's ranks on each, n1:4,n2:4",
    "hostfile": "a file with the node of every rank, a line each",
}
"""What may stand in braces in the command that starts a program."""
WAIT = 60.0
"""Seconds a job waits for results from elsewhere, by default."""
ISOLATION = (
    "none: the program runs in the rank itself, where a crash ends the job and a hang the team; process: in a child "
    "process of the rank, where either costs one attempt. A child costs 0.3 ms a task and 50 MB, and 0.4 to 5 s (its "
    "imports) whenever one is replaced. Take it for programs that crash or hang, or that are new. It is not the "
    "default: the MPI must let a child be a job of its own, and teams of several ranks cannot have one"
)


class LaunchSection(Section):
    """How a program of its own is started, from inside the job; none of it changes a number."""

    command: str = Field(
        description='e.g. "pw.x" (one process), "mpiexec -n {ranks} pw.x", "srun --mpi=pmi2 -n {ranks} pw.x": '
        "split into words, never given to a shell; name a launcher of another MPI than the job's by its full path; "
        + ", ".join(f"{{{name}}}: {meaning}" for name, meaning in PLACEHOLDERS.items())
    )
    processes: int | None = Field(
        None, ge=1, description="what {ranks} stands for, and what the output must say; default: the ranks of a team"
    )
    env: dict[str, str] = Field({}, description="variables of the program's environment")
    env_script: ExistingFile | None = Field(
        None, description="a file bash sources for the environment, e.g. of module loads: once, before the labels"
    )
    scratch: AnyPath | None = Field(
        None, description="where labels are computed, e.g. a node's own disk; default: labels in the run directory"
    )
    keep: bool = Field(False, description="keep the folders of good labels too")
    resident: Literal[False, True, "shell"] = Field(
        False,
        description="keep the program running from label to label, which then depend a little, within the convergence, "
        'on what came before: true (qe, cp2k: an i-PI socket; vasp: its interactive mode) or "shell" (cp2k: its shell, '
        "which needs no socket)",
    )
    resident_labels: int = Field(50, ge=1, description="labels after which a resident program is started anew")

    @field_validator("command")
    @classmethod
    def _placeholders(cls, command: str) -> str:
        for name in re.findall(r"(?<!\$)\{(\w*)\}", command):
            if name not in PLACEHOLDERS:
                near = difflib.get_close_matches(name, PLACEHOLDERS, 1)
                known = ", ".join(f"{{{one}}} ({meaning})" for one, meaning in PLACEHOLDERS.items())
                meant = f"did you mean {{{near[0]}}}? " if near else ""
                raise ValueError(f"{{{name}}} stands for nothing; {meant}known are {known}")
        return command


class LabelSection(Section):
    """What labels the picked frames, and when its answer is trusted."""

    type: Literal["gpaw", "ase", "deepmd", "teacher", "qe", "vasp", "abacus", "cp2k", "offline", "pool"] = Field(
        description="teacher: the model of [model], in a distillation; offline: made elsewhere, exchanged as files;"
        " pool: the labels the pool has"
    )
    options: dict[str, Any] = Field(
        {},
        description="gpaw: GPAW's keywords; ase: calculator, arguments, path, reuse, magmoms, charges; "
        "deepmd: model, branch; offline: level, wait; "
        "qe: template, input, pseudopotentials, pseudo_dir, kpts, koffset, kspacing; "
        "vasp: template, incar, potcars, potcar_dir, kpts, koffset, kspacing, magmoms, charge; "
        "abacus: template, input, pseudopotentials, pseudo_dir, orbitals, orbital_dir, kpts, koffset, kspacing, "
        "magmoms; cp2k: template, input, data_dir",
    )
    systems: dict[str, dict[str, Any]] = Field(
        {}, description="options that differ in one system, by its name: its charge, magnetic moments, k-points"
    )
    launch: LaunchSection | None = Field(None, description="how a program of its own is started")
    retries: list[dict[str, Any]] = Field(
        [], description="the ladder: options changed in the 2nd, 3rd, ... attempt after a failed one"
    )
    timeout: float = Field(3600.0, gt=0, description="seconds one attempt may take")
    isolation: Literal["none", "process"] = Field("none", description=ISOLATION)
    batch: int = Field(1, ge=1, description="frames in one order; more than 1 pays for the teacher (deepmd)")
    max_force: float = Field(100.0, gt=0, description="a label with a larger force is rejected, eV/Å")
    energy_outlier: float | None = Field(
        None, gt=0, description="a label further from the exploring model's own energy is rejected, eV/atom"
    )
    virial: bool = Field(True, description="compute the virial (stress) too")
    _own: dict[str, Any] = PrivateAttr({})

    def of(self, system: str) -> "LabelSection":
        """The section for one system, whose ``attempts`` have the options of its own."""
        section = self.model_copy()
        section._own = self.systems.get(system, {})
        return section

    @property
    def attempts(self) -> list[dict[str, Any]]:
        """What is changed in ``options`` in the first attempt at a label, the second, ..."""
        return [merged(self._own, changes) for changes in [{}, *self.retries]]

    @field_validator("options")
    @classmethod
    def _paths(cls, options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        return _resolved(options, info)

    @field_validator("systems")
    @classmethod
    def _paths_of_systems(cls, systems: dict[str, dict], info: ValidationInfo) -> dict[str, dict]:
        return {name: _resolved(options, info) for name, options in systems.items()}

    @field_validator("retries")
    @classmethod
    def _paths_of_retries(cls, retries: list[dict], info: ValidationInfo) -> list[dict]:
        return [_resolved(options, info) for options in retries]

    @model_validator(mode="after")
    def _consistent(self):
        unused = ("options", "systems", "launch", "retries", "isolation")
        given = [key for key in unused if key in self.model_fields_set]
        if self.type == "teacher" and given:
            raise ValueError("\n".join(f"{key}: a teacher has none; remove it" for key in given))
        if self.type == "pool" and (given := sorted({*given, *({"timeout", "virial"} & self.model_fields_set)})):
            raise ValueError("\n".join(f"{key}: the labels are there, nothing is computed; remove it" for key in given))
        if problems := self._launch_problems() + self._offline_problems():
            raise ValueError("\n".join(problems))
        if self.type == "ase" and "calculator" not in self.options:
            raise ValueError('options.calculator is missing; e.g. calculator = "ase.calculators.emt.EMT"')
        if self.type == "deepmd" and not isinstance(self.options.get("branch", ""), str):
            raise ValueError(f"options.branch: {self.options['branch']!r} is no name of a branch; give one, in quotes")
        if self.type == "deepmd" and "model" not in self.options:
            raise ValueError('options.model is missing; e.g. options.model = "teacher.pth"')
        return self

    @property
    def wait(self) -> float:
        """offline: seconds without a new result after which a job ends."""
        return self.options.get("wait", WAIT)

    def _offline_problems(self) -> list[str]:
        if self.type != "offline":
            return []
        unused = ("systems", "retries", "isolation", "batch", "timeout")
        given = [key for key in unused if key in self.model_fields_set]
        problems = [f"{key}: labels are made elsewhere, nothing here reads it; remove it" for key in given]
        level = self.options.get("level")
        if not isinstance(level, str) or not level.strip():
            problems.append('options.level: name the level of theory, as text; e.g. level = "VASP PBE 520 eV"')
        wait = self.wait
        if isinstance(wait, bool) or not isinstance(wait, int | float) or wait < 0:
            problems.append(f"options.wait: {wait!r} is no number of seconds (0 or more)")
        return problems

    def _launch_problems(self) -> list[str]:
        problems = []
        if self.type not in EXTERNAL:
            if self.launch is not None:
                programs = ", ".join(EXTERNAL)
                problems.append(f"launch: the {self.type} labeler starts no program; remove it ({programs} do)")
            return problems
        if self.launch is None:
            problems.append('launch.command: missing; e.g. [label.launch] command = "mpiexec -n {ranks} pw.x"')
        if self.isolation == "process":
            problems.append(f"isolation: {self.type} runs in processes of its own anyway; remove it")
        return problems


def merged(options: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """``options`` with ``changes`` put in, table by table, e.g. only ``mode.ecut`` of a GPAW input."""
    result = dict(options)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


def _resolved(options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
    """Paths among the options, like all in the input, start from its folder."""
    found = {}
    for key in PATHS.get(info.data.get("type", ""), {}):
        if key in options:
            if not isinstance(options[key], str):
                raise ValueError(f"{key} must be a path, as text")
            found[key] = str(resolve(Path(options[key]), info))
    return {**options, **found}
