"""PFD-kit's ``fp`` as [label], or as the calculator that is the teacher."""

import re
from collections.abc import Mapping
from typing import Any

from .translation import EDIT, UNNAMED, Translation

CALCULATORS = {
    "mace": ("mace.calculators.MACECalculator", "model_paths"),
    "mattersim": ("mattersim.forcefield.MatterSimCalculator", "load_path"),
    "emt": ("ase.calculators.emt.EMT", None),
    "lj": ("ase.calculators.lj.LennardJones", None),
}
"""PFD-kit's names of ASE calculators: where they are, and their keyword for the model file, which emt and lj ignore."""
DEEPMD = ("dp", "deepmd")
FILES = {
    "vasp": {"incar": "template"},
    "abacus": {"input_file": "template"},
    "cp2k": {"inp_file": "template"},
}
POTENTIALS = {
    "vasp": {"pp_files": ("potcar_dir", "potcars")},
    "abacus": {"pp_files": ("pseudo_dir", "pseudopotentials"), "orb_files": ("orbital_dir", "orbitals")},
    "cp2k": {},
}
INPUTS, RUN = "fp.inputs_config", "fp.run_config"


def label(done: Translation, style: str) -> None:
    """[label] of a fine-tuning."""
    name = style.removeprefix("fpop_")
    if name in FILES:
        done.put("label.type", name)
        _program(done, name)
    elif name == "ase":
        _calculator(done, done.read(f"{RUN}.model_style", "label.type, label.options", "dp"))
    elif name == "deepmd":
        _deepmd(done, done.get(f"{RUN}.teacher_model_path"))
        done.read(f"{RUN}.teacher_model_path", "label.options.model")
    else:
        done.put("label.type", "offline", f"pfdhpc has no {style} of PFD-kit's kind: see pfdhpc schema label")
        done.put("label.options", dict(UNNAMED), "name the level of theory")
    done.read("fp.type", "label.type")


def _calculator(done: Translation, style: str) -> None:
    """Labels by an ASE calculator, which PFD-kit gives the model that explores as its model file."""
    if style in DEEPMD:
        _deepmd(done, None)
        return
    done.put("label.type", "ase")
    place, keyword = CALCULATORS.get(style, (f"{EDIT}.{style}", None))
    arguments = {**done.read(f"{RUN}.model_args", "label.options.arguments", {})}
    edit = "" if style in CALCULATORS else "the import path of the calculator"
    if keyword:
        arguments[keyword] = f"{EDIT}/model"
        edit = f"{keyword}: the model that labels; PFD-kit labels with the one that explores"
    done.put("label.options", {"calculator": place, **({"arguments": arguments} if arguments else {})}, edit)


def _deepmd(done: Translation, model: str | None) -> None:
    done.put("label.type", "deepmd")
    options = {"model": done.path(model) if model else f"{EDIT}/labels.pth"}
    done.put("label.options", options, "" if model else "the model that labels; PFD-kit labels with what explores")
    head = done.read(f"{RUN}.model_args.head", "label.options.branch")
    if head:
        options["branch"] = head


def _program(done: Translation, name: str) -> None:
    _launch(done, name)
    options: dict[str, Any] = {}
    for key, option in FILES[name].items():
        if done.get(f"{INPUTS}.{key}"):
            options[option] = done.path(done.read(f"{INPUTS}.{key}", f"label.options.{option}"))
    for key, (folder, table) in POTENTIALS[name].items():
        files: Mapping[str, str] = done.read(f"{INPUTS}.{key}", f"label.options.{table}", {})
        if files:
            options |= {folder: done.path("."), table: dict(files)}
    edit = "see pfdhpc schema label"
    spacing = done.read(f"{INPUTS}.kspacing", "label.options.kspacing")
    if name != "cp2k":
        options["kspacing"] = spacing or 0.2
        edit = edit if spacing else f"kspacing is not in the source: kpts, or a value of your own; {edit}"
    if done.get(f"{INPUTS}.kgamma", True):
        done.ignore(f"{INPUTS}.kgamma", "a mesh by kspacing is on Γ")
    else:
        done.lack(f"{INPUTS}.kgamma", "a mesh by kspacing is on Γ; label.options.kpts with koffset is not")
    done.put("label.options", options, edit)


def _launch(done: Translation, name: str) -> None:
    """How the program is started: the last command of a shell line; what is before it belongs into a file."""
    given = done.read(f"{RUN}.command", "label.launch.command")
    edit = "how the program is started here"
    if not given:
        done.put("label.launch", {"command": f"mpiexec -n {{ranks}} {name}"}, edit)
        return
    *before, command = re.split(r"\s*(?:&&|;)\s*", given)
    if before:
        edit += f"; put {' && '.join(before)} in a file: env_script"
    words = re.split(r"\s*[|<>]", command)[0].split()  # no shell here: the run keeps what is printed
    launch: dict[str, Any] = {}
    while words and re.fullmatch(r"\w+=\S*", words[0]):
        name, _, value = words.pop(0).partition("=")
        launch.setdefault("env", {})[name] = value
    launch = {"command": " ".join(words), **launch}
    processes = re.search(r"\s-(?:n|np|-ntasks)[ =](\d+)\b", launch["command"])
    if processes:
        launch["processes"] = int(processes[1])
    done.put("label.launch", launch, edit)


def teacher(done: Translation) -> None:
    """The model of a distillation: deepmd's, or an ASE calculator."""
    explores = done.get("exploration.config.calculator") or done.get("inputs.base_model_style") or "dp"
    labels = done.get(f"{RUN}.model_style", explores)
    if labels == explores:
        done.read(f"{RUN}.model_style", "the teacher: model")
    done.lack(f"{RUN}.model_style", "the teacher explores and labels: one model")
    done.read("inputs.base_model_style", "the teacher: model")
    done.read("exploration.config.calculator", "the teacher: model")
    if explores in DEEPMD:
        return
    place, keyword = CALCULATORS.get(explores, (f"{EDIT}.{explores}", "model"))
    done.put("model.calculator", place, "" if explores in CALCULATORS else "the import path of the calculator")
    if keyword:
        done.put("model.model_argument", keyword)
    else:
        done.values["model"].pop("checkpoint", None)
    _arguments(done)


def _arguments(done: Translation) -> None:
    """Keywords of the calculator: those it explores with; what it labels with otherwise is told."""
    where = "exploration.config"
    found = {k: v for k, v in done.get(where, {}).items() if k != "calculator" and not k.startswith("_")}
    found = found or done.get(f"{RUN}.model_args", {})
    for key in found.keys() & done.get(where, {}).keys():
        done.read(f"{where}.{key}", "model.arguments")
    if found == done.get(f"{RUN}.model_args"):
        done.read(f"{RUN}.model_args", "model.arguments")
    if found:
        done.put("model.arguments", dict(found))
