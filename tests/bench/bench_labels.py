"""What a label costs beyond its program's own time: started for every label, resident, and in this process.

    python tests/bench/bench_labels.py

The program's own time is, cold: the same command with the same input, run by hand in turn with the labels;
resident: from the geometry sent to the forces received, of CP2K's shell by another one that is spoken to through pipes,
in turn with the labels; in process: the calculator alone. With a stand-in that prints an old output at once
("nothing"), and with pw.x and CP2K (a pair potential, which takes it no time) where they are installed. Medians,
milliseconds.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]
from ase.build import bulk  # noqa: E402
from ase.calculators.emt import EMT as Calculator  # noqa: E402
from espresso import OPTIONS, PSEUDO, ROOT, section, silicon  # noqa: E402
from programs import computed  # noqa: E402
from programs import frame as program_frame  # noqa: E402
from programs import section as program_section  # noqa: E402

from pfdhpc.config.label import LabelSection  # noqa: E402
from pfdhpc.data import Frame  # noqa: E402
from pfdhpc.engines.isolated.spawner import Spawner, clean_environment  # noqa: E402
from pfdhpc.engines.label.programs.cp2k_shell import QUESTIONS, STRESS, ShellLine  # noqa: E402
from pfdhpc.engines.registry import make_labeler  # noqa: E402

EMT = {"calculator": "ase.calculators.emt.EMT"}
PAIRS = """
&FORCE_EVAL
  METHOD FIST
  &MM
    &FORCEFIELD
      &CHARGE
        ATOM He
        CHARGE 0
      &END
      &NONBONDED
        &LENNARD-JONES
          ATOMS He He
          EPSILON 10
          SIGMA 2.6
          RCUT 6
        &END
      &END
    &END
    &POISSON
      &EWALD
        EWALD_TYPE NONE
      &END
    &END
  &END
&END
"""
"""An input of CP2K whose energies take it no time."""
ALONE = {"OMP_NUM_THREADS": "1", **ROOT}


def seconds(call) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def row(title: str, whole: list[float], own: list[float], goal: float) -> None:
    extra = median(a - b for a, b in zip(whole, own, strict=True))
    figures = "".join(f"{1000 * value:12.1f}" for value in (median(whole), median(own), extra))
    print(f"{title:<28}{figures}{goal:12.0f}")


def cold(title: str, given: LabelSection, frame: Frame, spawner: Spawner, folder: Path, count: int) -> None:
    launch = given.launch.model_copy(update={"keep": True})
    labeler = make_labeler(given.model_copy(update={"launch": launch}), None, spawner, folder / "logs" / "x.log")
    labeler.label(frame, {}, 100.0)
    by_hand = next(path for path in (folder / "labels").iterdir() if path.name[0] != ".")
    command = [launch.command, *labeler._program({}).arguments()[0]]

    def run() -> None:
        with open(by_hand / "out", "w") as output:
            subprocess.run(command, cwd=by_hand, env=clean_environment() | launch.env, stdout=output, check=True)
        shutil.rmtree(by_hand / "pwscf.save", ignore_errors=True)

    whole, own = [], []
    for _ in range(count):
        own.append(seconds(run))
        whole.append(seconds(lambda: labeler.label(frame, {}, 100.0)))
    row(title, whole, own, 150.0)


def resident(title: str, given: LabelSection, frames: list[Frame], spawner: Spawner, folder: Path) -> None:
    """Over an i-PI socket, for frames of one cell."""
    launch = given.launch.model_copy(update={"resident": True, "resident_labels": 10**6})
    labeler = make_labeler(given.model_copy(update={"launch": launch}), None, spawner, folder / "logs" / "x.log")
    labeler.label(frames[0], {}, 100.0)
    protocol, sent, got = labeler._running.line._protocol, [], []
    send, receive = protocol.sendposdata, protocol.sendrecv_force

    def timed_send(*arguments):
        sent.append(time.perf_counter())
        send(*arguments)

    def timed_receive():
        found = receive()
        got.append(time.perf_counter())
        return found

    protocol.sendposdata, protocol.sendrecv_force = timed_send, timed_receive
    whole = [seconds(lambda frame=frame: labeler.label(frame, {}, 100.0)) for frame in frames]
    row(title, whole, [b - a for a, b in zip(sent, got, strict=True)], 20.0)


def keyboard(spawner: Spawner, folder: Path, count: int) -> None:
    """All that a stand-in for VASP takes counts as overhead but its potential; four atoms."""
    launch = {"resident": True, "resident_labels": 10**6}
    given = program_section("vasp", folder, {"incar": {"ISYM": 0}})
    given = given.model_copy(update={"launch": given.launch.model_copy(update=launch)})
    labeler = make_labeler(given, None, spawner, folder / "logs" / "x.log")
    frame, own, whole = program_frame(), [], []
    labeler.label(frame, {}, 100.0)
    for _ in range(count):
        own.append(seconds(lambda: computed(frame)))
        whole.append(seconds(lambda: labeler.label(frame, {}, 100.0)))
    row("resident, stand-in for VASP", whole, own, 20.0)


def helium(seed: int = 1) -> Frame:
    """Of another cell each time."""
    atoms = bulk("He", "fcc", a=4.2 + 0.002 * seed, cubic=True) * 2
    atoms.rattle(0.05, seed=seed)
    return Frame.from_atoms(atoms)


def shell(given: LabelSection, spawner: Spawner, folder: Path, count: int) -> None:
    launch = given.launch.model_copy(update={"resident": "shell", "resident_labels": 10**6})
    labeler = make_labeler(given.model_copy(update={"launch": launch}), None, spawner, folder / "logs" / "x.log")
    labeler.label(helium(), {}, 100.0)
    line, own, whole = labeler._running.line, [], []
    with subprocess.Popen(
        [launch.command, *ShellLine.arguments], cwd=labeler._running.directory, env=clean_environment() | launch.env,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as other:  # fmt: skip

        def told(commands: list[str]) -> None:
            other.stdin.write("".join(f"{command}\n" for command in commands))
            other.stdin.flush()
            for _ in commands:
                while other.stdout.readline().strip() != "* READY":
                    continue

        told(["HARSH", "LOAD cp2k.inp by_hand.out"])
        for frame in map(helium, range(count)):
            own.append(seconds(partial(told, [*line._changed(frame), "EVAL_EF", *QUESTIONS, STRESS])))
            whole.append(seconds(partial(labeler.label, frame, {}, 100.0)))
    row("resident, CP2K's shell", whole, own, 20.0)


def compute(frame: Frame) -> None:
    atoms = frame.to_atoms()
    atoms.calc = Calculator()
    atoms.get_potential_energy()
    atoms.get_stress()


def in_process(count: int) -> None:
    labeler = make_labeler(LabelSection(type="ase", options=EMT), None)
    frame = Frame.from_atoms(bulk("Cu", cubic=True) * 3)
    own, whole = [], []
    for _ in range(count):
        own.append(seconds(lambda: compute(frame)))
        whole.append(seconds(lambda: labeler.label(frame, {}, 100.0)))
    row("in process, EMT 108 atoms", whole, own, 20.0)


def main() -> None:
    print(f"{'':<28}{'label':>12}{'program':>12}{'overhead':>12}{'goal':>12}")
    with tempfile.TemporaryDirectory() as name, Spawner() as spawner:
        folder = Path(name)
        in_process(50)
        nothing = folder / "nothing"
        printed = Path(__file__).parents[1] / "data" / "qe" / "si2.out"
        nothing.write_text(f"#!/bin/sh\nexec cat {printed}\n")
        nothing.chmod(0o755)
        (folder / "Si.upf").write_text("<UPF>")
        options = OPTIONS | {"pseudo_dir": name, "pseudopotentials": {"Si": "Si.upf"}}
        given = section({"command": str(nothing)}, options)
        cold("cold, nothing", given, silicon(), spawner, folder / "nothing-run", 30)
        if shutil.which("pw.x") and PSEUDO.is_dir():
            given = section({"command": "pw.x"})
            cold("cold, pw.x", given, silicon(), spawner, folder / "run", 15)
            resident("resident, pw.x", given, [silicon(seed) for seed in range(15)], spawner, folder / "resident")
        if shutil.which("cp2k"):
            (folder / "cp2k.inp").write_text(PAIRS)
            launch = {"command": "cp2k", "env": ALONE}
            given = LabelSection(type="cp2k", options={"template": str(folder / "cp2k.inp")}, launch=launch)
            cold("cold, CP2K", given, helium(), spawner, folder / "cp2k", 15)
            frames = [Frame(helium().numbers, helium().cell, helium(seed).positions) for seed in range(30)]
            resident("resident, CP2K's socket", given, frames, spawner, folder / "socket")
            shell(given, spawner, folder / "shell", 30)
        keyboard(spawner, folder / "keyboard", 30)


if __name__ == "__main__":
    main()
