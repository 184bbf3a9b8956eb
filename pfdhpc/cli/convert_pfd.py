"""PFD-kit's fine-tuning and distillation inputs in terms of pfdhpc: the generation on ASE and the one on DPGEN2."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .convert import EDIT, UNNAMED, Translation

DISPATCH = "the whole run is one MPI job: no containers, no dispatching"
IGNORED = {
    **dict.fromkeys(
        (
            "name", "dflow_config", "dflow_s3_config", "default_step_config", "step_configs", "bohrium_config",
            "parallelism", "upload_python_packages", "upload_python_package",
        ),
        DISPATCH,
    ),
    "inputs.init_confs": "part of system",
    "inputs.type_map": "the checkpoint knows its elements",
    "inputs.mass_map": "masses are those of the elements",
    "inputs.init_data_prefix": "part of init.data",
    "inputs.base_model_style": "the checkpoint tells it",
    "task.init_fp": "init.frames says how many frames are labelled first",
    "task.init_train": "a first training follows the first labels",
    "task.init_ft": "a first training follows the first labels",
    "task.init_training": "a first training follows the first labels",
    "task.recursive": "trainings go on from the one before (train.start_from)",
    "task.skip_aimd": "[init.aimd] makes first frames by dynamics, if it is there",
    "train.type": "DeePMD-kit",
    "train.config": "DeePMD-kit, PyTorch, in process",
    "train.numb_models": "one model",
    "train.template_script.model": "the parameters are those of the checkpoint",
    "train.template_script": "the training input is made from [train]",
    "train.optional_files": "nothing reads them",
    "evaluate.model": "DeePMD-kit",
    "evaluate.max_sel": "PFD-kit does not read it",
    "select_confs.test_size": "PFD-kit does not read it",
    "exploration.test_set_config": "test.holdout says it",
    "exploration.fatal_at_max": "a run that ends at max_rounds says that it has not converged",
    "exploration.output_nopbc": "PFD-kit does not read it",
    "exploration.config": "LAMMPS with deepmd's pair style",
    "exploration.type": "LAMMPS with deepmd's pair style",
    "fp.run_config": "how the program is started: label.launch",
}  # fmt: skip
DISTILLING = {
    "fp.task_max": "of a distillation no label is paid for",
    "fp": "the teacher labels",
    "inference.model": "the teacher is [model]",
}
FINETUNING = {
    "fp.task_max": "select.max_sel says it",
    "inference.model": "the model that is trained explores",
}
LACKING = {
    "aimd": "[init.aimd] runs dynamics with the labeler's forces: steps, interval, temperatures",
    "init_fp": "[label] is the same for the first frames",
    "inputs.init_fp_confs": "init.frames labels altered copies of the structures; or label them before: init.data",
    "inputs.base_model_uri": "name a file: model.checkpoint",
    "exploration.adaptive": "[converge] holds for all new labels together",
}
MODELS = ("base_model_path", "teacher_model_path", "pretrain_model_path", "teacher_models_paths")
ENSEMBLES = {"npt": "npt-iso", "npt-a": "npt-aniso", "npt-t": "npt-tri"}
FILTERS = {"box_skewness": ("theta", "max_skew"), "box_length": ("length_ratio", "max_length_ratio")}


def newer(done: Translation) -> None:
    """The generation on ASE: 0.7 and later."""
    if "explore" in done.source:
        done.source["exploration"] = done.source.pop("explore")
    kind = done.get("task.type", "finetune")
    confs = done.get("inputs.init_confs", {})
    _begin(done, kind, confs)
    done.move("task.max_iter", "converge.max_rounds")
    _stages(done, {"dt": 2.0, "tau_t": 100.0, "tau_p": 500.0, "nsteps": 1000, "trj_freq": 100, "ens": "npt"}, 1.0)
    _entropy(done)
    _criteria(done, "evaluate.converge", done.get("evaluate.converge", {}))
    done.move("evaluate.test_size", "test.holdout", lambda size: size if size < 1 else None)
    for key in ("evaluate.head", "exploration.config.head", "train.config.head", "fp.run_config.model_args.head"):
        _branch(done, key)
    _finish(done, kind, done.get("fp.type", "ase"), done.get("fp.inputs_config", {}), done.get("fp.run_config", {}))


def older(done: Translation) -> None:
    """The generation on DPGEN2 and LAMMPS: up to 0.6."""
    kind = done.get("task.type", "finetune")
    _begin(done, kind, done.get("conf_generation.init_confs", {}))
    done.ignore("conf_generation.init_confs", "part of system")
    for key in ("max_numb_iter", "max_iter"):
        done.move(f"exploration.{key}", "converge.max_rounds")
    _perturbation(done)
    units = {"dt": 1e-3, "tau_t": 0.05, "tau_p": 0.5, "nsteps": 100, "trj_freq": 10, "ens": "nve"}
    _stages(done, units, 1000.0)
    _filters(done, "exploration.filter", done.get("exploration.filter", []))
    _criteria(done, "exploration.convergence", done.get("exploration.convergence", {}))
    if kind not in ("dist", "distillation"):
        done.put("select.method", "random", 'as that generation; "greedy" picks by entropy')
        done.put("select.max_sel", 100)
        done.move("fp.task_max", "select.max_sel")
    done.move("inference.max_force", "select.filter.max_force")
    _branch(done, "inference.model.head")
    inputs, run = done.get("fp.inputs_config", {}), done.get("fp.run_config", {})
    _finish(done, kind, done.get("fp.type", "vasp"), inputs, run)


def _begin(done: Translation, kind: str, confs: Mapping[str, Any]) -> None:
    distilling = kind in ("dist", "distillation")
    done.put("workflow", "distill" if distilling else "finetune")
    done.tell("task.type", "workflow")
    for key in MODELS:
        done.move(f"inputs.{key}", "model.checkpoint", lambda value: done.paths(value)[0])
    if "model" not in done.values:
        done.put("model.checkpoint", f"{EDIT}/pretrained.pt", "the pre-trained model")
    files = confs.get("confs_paths") or confs.get("files") or []
    files = done.paths(files, confs.get("prefix"))
    names = _names(files)
    done.values["system"] = [{"name": name, "structures": [path]} for name, path in zip(names, files, strict=True)]
    done.move("inputs.init_data_sys", "init.data", lambda value: done.paths(value, done.get("inputs.init_data_prefix")))


def _names(files: list[str]) -> list[str]:
    """A name for each file, from its own or, where these are the same, with its number."""
    stems = ["".join(c if c.isalnum() or c in "_.+-" else "-" for c in Path(path).stem) for path in files]
    return [f"{stem}-{place}" if stems.count(stem) > 1 else stem for place, stem in enumerate(stems)]


def _perturbation(done: Translation) -> None:
    """Of the first entry: pfdhpc perturbs each system in one way."""
    given = done.get("conf_generation.pert_generation", [])
    for entry in given[:1]:
        changes = {
            "count": entry.get("pert_num", 1),
            "strain": entry.get("cell_pert_fraction", 0.0),
            "displacement": entry.get("atom_pert_distance", 0.0),
        }
        repeat = entry.get("replicate", 1)
        for system in done.values["system"]:
            system["perturb"] = changes
            system["supercell"] = repeat if isinstance(repeat, list) else [repeat] * 3
        where = "system.perturb, system.supercell"
        done.tell("conf_generation.pert_generation[0]", f"{where}: of every system")
    done.lack("conf_generation.pert_generation", "a system is perturbed in one way; add a [[system]] for another")


def _stages(done: Translation, defaults: dict[str, Any], unit: float) -> None:
    """Exploration: settings of the first task group, temperatures and pressures of all. ``unit``: of times, in fs."""
    groups = [group for stage in done.get("exploration.stages", []) for group in stage]
    if not groups:
        return
    first = {**defaults, **groups[0]}
    ensemble = ENSEMBLES.get(first["ens"], first["ens"])
    done.put("explore.ensemble", ensemble)
    done.put("explore.timestep", first["dt"] * unit)
    done.put("explore.steps", first["nsteps"])
    done.put("explore.interval", first["trj_freq"])
    done.put("explore.temperatures", sorted({float(value) for group in groups for value in group.get("temps", [])}))
    done.put("explore.temperature_damping", first["tau_t"] * unit)
    if ensemble.startswith("npt"):
        pressures = sorted({float(value) for group in groups for value in group.get("press") or []})
        done.put("explore.pressures", pressures or [0.0])
        done.put("explore.pressure_damping", first["tau_p"] * unit)
    text = "explore: every structure at every temperature and pressure, in each round"
    if len(groups) > 1:
        text += "; steps, ensemble and time step of the first group, stages are not one after the other"
    done.tell("exploration.stages", text)


def _entropy(done: Translation) -> None:
    done.move("select_confs.max_sel", "select.max_sel")
    _filters(done, "select_confs.frame_filter", done.get("select_confs.frame_filter", []))
    if done.get("select_confs.h_filter") is None:
        done.put("select.method", "random", 'as without h_filter; "greedy" picks by entropy')
        return
    done.put("select.method", "pfd", 'PFD-kit\'s own; "greedy" (without chunk) avoids picking copies')
    done.move("select_confs.h_filter.chunk_size", "select.chunk")
    done.move("select_confs.h_filter.h", "select.bandwidth")
    done.ignore("select_confs.h_filter.batch_size", "chosen by the program")
    found = {"k": "neighbours", "cutoff": "cutoff"}
    table = {found[key]: done.get(f"select_confs.h_filter.{key}") for key in found}
    table = {key: value for key, value in table.items() if value is not None}
    for key, name in found.items():
        done.tell(f"select_confs.h_filter.{key}", f"select.descriptor.{name}")
    if table:
        done.put("select.descriptor", table)


def _filters(done: Translation, where: str, given: list[Mapping[str, Any]]) -> None:
    for place, entry in enumerate(given):
        kind = entry.get("type")
        if kind in FILTERS:
            key, name = FILTERS[kind]
            done.put(f"select.filter.{name}", entry.get(key, {"theta": 60.0, "length_ratio": 5.0}[key]))
            done.tell(f"{where}[{place}]", f"select.filter.{name}")
        elif kind == "distance":
            done.ignore(f"{where}[{place}]", "select.filter.min_distance_ratio does it, with covalent radii")


def _criteria(done: Translation, where: str, given: Mapping[str, Any]) -> None:
    kind = given.get("type")
    if kind is None:
        return
    name = "energy_rmse" if kind == "energy_rmse" else "force_rmse"
    done.put(f"converge.{name}", given.get("RMSE", 0.01))
    done.tell(f"{where}.type", f"converge.{name}, of the exploring model on labels it has not seen")
    done.tell(f"{where}.RMSE", f"converge.{name}")
    done.lack(f"{where}.conf_filter", "label.energy_outlier refuses labels far from the prediction")


def _branch(done: Translation, key: str) -> None:
    if done.get(key):
        done.move(key, "model.branch")


def _finish(done: Translation, kind: str, style: str, inputs: Mapping[str, Any], run: Mapping[str, Any]) -> None:
    distilling = done.values["workflow"] == "distill"
    _training(done, distilling)
    if not distilling:
        _label(done, style, inputs, run)
    for key, why in {**IGNORED, **(DISTILLING if distilling else FINETUNING)}.items():
        done.ignore(key, why)
    for key, why in LACKING.items():
        done.lack(key, why)


def _training(done: Translation, distilling: bool) -> None:
    words = shlex.split(str(done.get("train.config.finetune_args", "")))
    for flag in ("--model-branch", "--model_branch"):
        if flag in words[:-1]:
            done.put("model.branch", words[words.index(flag) + 1])
            done.tell("train.config.finetune_args", "model.branch")
    done.values.setdefault("train", {})
    script = _script(done, distilling)
    training, rate = script.get("training", {}), script.get("learning_rate", {})
    steps = training.get("numb_steps", training.get("stop_batch"))
    if steps:
        done.put("train.first_steps", steps)
        done.put("train.steps", steps)
    for key in ("start_lr", "stop_lr"):
        if key in rate:
            done.put(f"train.{key}", rate[key])
    loss = {key: value for key, value in script.get("loss", {}).items() if not key.startswith("_")}
    if loss:
        done.put("train.deepmd", {"loss": {"type": "ener", **loss}})
    if distilling:
        model = {key: value for key, value in script.get("model", {}).items() if key != "type_map" and key[0] != "_"}
        edit = "" if model else "no model in train.template_script"
        done.put("student", {"model": model} if model else {"preset": "se_e2_a"}, edit)


def _script(done: Translation, distilling: bool) -> Mapping[str, Any]:
    """DeePMD-kit's input, given inline or as a file."""
    given = done.get("train.template_script", {})
    if isinstance(given, Mapping):
        _tell_script(done, distilling)
        return given
    path = done.folder / (given[0] if isinstance(given, list) else given)
    if not path.is_file():
        done.lack("train.template_script", f"{path} is not there: set [train] yourself")
        return {}
    model = "its model in [student]" if distilling else "not its model: that is the checkpoint's"
    done.tell("train.template_script", f"its loss, steps and learning rates in [train]; {model}")
    return json.loads(path.read_text(encoding="utf-8"))


def _tell_script(done: Translation, distilling: bool) -> None:
    """What became of the parts of a script given inline."""
    where = "train.template_script"
    for key in ("numb_steps", "stop_batch"):
        done.tell(f"{where}.training.{key}", "train.first_steps, train.steps")
    for key in ("start_lr", "stop_lr"):
        done.tell(f"{where}.learning_rate.{key}", f"train.{key}")
    done.tell(f"{where}.loss", "train.deepmd.loss")
    if distilling:
        done.tell(f"{where}.model", "student.model")
        done.ignore(f"{where}.model.type_map", "the checkpoint knows its elements")


def _label(done: Translation, style: str, inputs: Mapping[str, Any], run: Mapping[str, Any]) -> None:
    name = style.removeprefix("fpop_")
    done.tell("fp.type", "label.type")
    if name not in ("vasp", "abacus", "cp2k"):
        done.put("label.type", "offline", f"pfdhpc has no {style} of PFD-kit's kind: see pfdhpc schema label")
        done.put("label.options", dict(UNNAMED), "name the level of theory")
        return
    done.put("label.type", name)
    command = run.get("command")
    done.put("label.launch", {"command": command or f"mpiexec -n {{ranks}} {name}"}, "how the program is started here")
    if command:
        done.tell("fp.run_config.command", "label.launch.command")
    options: dict[str, Any] = {}
    template = inputs.get("incar") or inputs.get("input_file") or inputs.get("template")
    if template:
        options["template"] = done.path(template)
    files = inputs.get("pp_files", {})
    if files and name != "cp2k":
        folder, table = ("potcar_dir", "potcars") if name == "vasp" else ("pseudo_dir", "pseudopotentials")
        options |= {folder: done.path("."), table: dict(files)}
    if name != "cp2k":
        options["kspacing"] = inputs.get("kspacing", 0.2)
    done.put("label.options", options, "see pfdhpc schema label")
    done.tell("fp.inputs_config", "label.options")
