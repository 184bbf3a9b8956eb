"""PFD-kit's fine-tuning and distillation inputs in terms of pfdhpc: the generation on ASE and the one on DPGEN2."""

import json
import shlex
from collections.abc import Mapping
from typing import Any

from ...errors import InputError
from .deepmd_input import script
from .exploration import stages, task_groups
from .labels import DEEPMD, label, teacher
from .pfd_kit_names import DISTILLING, IGNORED, LACKING, NEWER_ALIASES, OLDER_ALIASES
from .translation import EDIT, Translation

KINDS = {"finetune": "finetune", "ft": "finetune", "dist": "distill", "distillation": "distill"}
FILTERS = {"box_skewness": ("theta", "max_skew", 60.0), "box_length": ("length_ratio", "max_length_ratio", 5.0)}
SCRIPT = "train.template_script"
HEADS = {
    "finetune": (
        "train.config.head", f"{SCRIPT}.model.finetune_head", "exploration.config.head",
        "exploration.config.model_frozen_head", "inference.model.head", "inference.head", "evaluate.head",
    ),
    "distill": (
        "exploration.config.head", "exploration.config.model_frozen_head", "fp.run_config.model_args.head",
        "inference.model.head", "inference.head",
    ),
}  # fmt: skip
"""Where the branch of the model is named, the first one that counts first."""


def newer(done: Translation) -> None:
    """The generation on ASE: 0.7 and later."""
    done.program = "PFD-kit 0.7 to 0.10"
    done.rename(NEWER_ALIASES)
    _begin(done)
    stages(done, "inputs.init_confs", older=False)
    _rounds(done, "task.max_iter", 1)
    _entropy(done)
    _criteria(done, "evaluate.converge")
    why = "a number of frames; test.holdout is a share"
    done.move("evaluate.test_size", "test.holdout", lambda size: size if size < 1 else None, why)
    _finish(done, done.get("fp.type", "ase"))


def older(done: Translation) -> None:
    """The generation on DPGEN2 and LAMMPS: up to 0.6."""
    done.program = "PFD-kit 0.6 and earlier"
    for place in task_groups(done):
        done.hoist(place, "exploration")  # 0.1 has the molecular dynamics of a group in a table of its own
    done.rename(OLDER_ALIASES)
    _begin(done)
    stages(done, "conf_generation.init_confs", older=True)
    _rounds(done, "exploration.max_numb_iter", 10)
    _filters(done, "exploration.filter")
    _criteria(done, "exploration.convergence")
    if done.values["workflow"] == "finetune":
        done.put("select.method", "random", 'as that generation; "greedy" picks by entropy')
        done.put("select.max_sel", 100)
        done.move("fp.task_max", "select.max_sel")
    done.move("inference.max_force", "select.filter.max_force")
    _finish(done, done.get("fp.type", "vasp"))


def _begin(done: Translation) -> None:
    """The workflow, its model, the labels that are there."""
    kind = done.read("task.type", "workflow", "finetune")
    if kind not in KINDS:
        raise InputError(f"convert: task.type: {kind!r} is no task of pfdhpc; known are {', '.join(KINDS)}")
    done.put("workflow", KINDS[kind])
    given = done.read("inputs.base_model_path", "model.checkpoint")
    given = given or done.read("train.init_models_paths", "model.checkpoint")  # up to 0.1.1
    models = done.paths(given) if given else []
    edit = "the pre-trained model" if not models else "one model; the source names several" if models[1:] else ""
    done.put("model.checkpoint", models[0] if models else f"{EDIT}/pretrained.pt", edit)
    _script(done)
    if KINDS[kind] == "distill":
        teacher(done)
    else:
        _explorer(done)
    if done.get("inputs.init_data_sys"):
        prefix = done.read("inputs.init_data_prefix", "part of init.data")
        done.move("inputs.init_data_sys", "init.data", lambda value: done.paths(value, prefix))


def _explorer(done: Translation) -> None:
    """Of a fine-tuning: the model that is trained explores and is tested, of DeePMD-kit's kind."""
    done.ignore("inputs.base_model_style", "the checkpoint tells it")
    style = done.get("train.type", "dp")
    if style in DEEPMD:
        done.read("train.type", "train.type: deepmd")
    else:
        done.lack("train.type", "[train] trains DeePMD-kit's models, or metatrain's (train.type)")
        done.put("model.checkpoint", f"{EDIT}/pretrained.pt", f"a model of DeePMD-kit; nothing here trains {style}")
    given = done.get("exploration.config.calculator", "dp")
    if given in DEEPMD:
        done.ignore("exploration.config.calculator", "the model that is trained explores")
    else:
        done.lack("exploration.config.calculator", "the model that is trained explores")


def _script(done: Translation) -> None:
    """Put DeePMD-kit's input, where it is a file, into the source, so that its keys are told too."""
    given = done.get(SCRIPT, {})
    if isinstance(given, Mapping):
        return
    if isinstance(given, list):
        given = given[0]
    path = done.folder / given
    if not path.is_file():
        done.lack(SCRIPT, f"{path} is not there: set [train] yourself")
        return
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise InputError(f"convert: {path}: not a table of keys")
    done.source["train"]["template_script"] = found
    done.names[SCRIPT] = f"template_script ({given})"


def _rounds(done: Translation, key: str, default: int) -> None:
    done.put("converge.max_rounds", done.read(key, "converge.max_rounds", default))


def _entropy(done: Translation) -> None:
    done.move("select_confs.max_sel", "select.max_sel")
    _filters(done, "select_confs.frame_filter")
    where = "select_confs.h_filter"
    if done.get(where) is None:
        done.put("select.method", "random", 'as without h_filter; "greedy" picks by entropy')
        return
    done.put("select.method", "pfd", 'PFD-kit\'s own; "greedy" (without chunk) avoids picking copies')
    done.move(f"{where}.chunk_size", "select.chunk")
    done.move(f"{where}.h", "select.bandwidth")
    done.move(f"{where}.k", "select.descriptor.neighbours")
    done.move(f"{where}.cutoff", "select.descriptor.cutoff")


def _filters(done: Translation, where: str) -> None:
    for place, entry in enumerate(done.get(where, [])):
        key, kind = f"{where}[{place}]", entry.get("type")
        if kind in FILTERS:
            option, name, default = FILTERS[kind]
            done.read(f"{key}.type", f"select.filter.{name}")
            done.put(f"select.filter.{name}", done.read(f"{key}.{option}", f"select.filter.{name}", default))
        elif kind == "distance":
            done.ignore(f"{key}.type", "select.filter.min_distance_ratio does it, with covalent radii")
            for option in ("safe_dist_ratio", "custom_safe_dist"):
                done.lack(f"{key}.{option}", "select.filter.min_distance_ratio is in parts of the covalent radii")
        else:
            done.lack(key, "no such filter: see pfdhpc schema select.filter")


def _criteria(done: Translation, where: str) -> None:
    """What ends a run; PFD-kit's threshold is 0.01 (eV/atom or eV/Å) unless it is given."""
    kind = done.get(f"{where}.type")
    if kind is None:
        done.ignore(where, "no criterion")
        return
    name = {"energy_rmse": "energy_rmse", "force_rmse": "force_rmse", "force_rmse_idv": "force_rmse"}.get(kind)
    if name is None:
        done.lack(f"{where}.type", "[converge] has force_rmse, energy_rmse and virial_rmse")
        return
    done.read(f"{where}.type", f"converge.{name}, of the exploring model on labels it has not seen")
    done.put(f"converge.{name}", done.read(f"{where}.RMSE", f"converge.{name}", 0.01))
    done.lack(f"{where}.conf_filter", "label.energy_outlier refuses labels far from the prediction")
    done.lack(f"{where}.adaptive", "[converge] holds for all new labels together")


def _branch(done: Translation) -> None:
    """The branch of the model, where the source names it; where it names two, the first of HEADS is taken."""
    found = {key: done.get(key) for key in HEADS[done.values["workflow"]] if isinstance(done.get(key), str)}
    words = shlex.split(str(done.get("train.config.finetune_args", "")))
    for flag in ("--model-branch", "--model_branch"):
        if flag in words[:-1] and done.values["workflow"] == "finetune":
            found = {"train.config.finetune_args": words[words.index(flag) + 1], **found}
    if not found or "calculator" in done.values["model"]:
        return
    branch, others = next(iter(found.values())), sorted({*found.values()})
    done.put("model.branch", branch, f"the source names {', '.join(others)}" if others[1:] else "")
    for key, given in found.items():
        if given == branch:
            done.read(key, "model.branch")
        else:
            done.lack(key, f"{branch} of {next(iter(found))} is taken: model.branch")


def _finish(done: Translation, style: str) -> None:
    distilling = done.values["workflow"] == "distill"
    _branch(done)
    done.values.setdefault("train", {})
    script(done, SCRIPT, distilling)
    if distilling:
        if done.get("train.type", "dp") in DEEPMD:
            done.read("train.type", "student")
        done.lack("train.type", "a student is one of DeePMD-kit's models")
        done.values["student"]["warm_start"] = False  # as PFD-kit: every student from scratch
    else:
        _first(done)
        label(done, style)
    _inference(done, distilling)
    for key, why in {**(DISTILLING if distilling else {}), **IGNORED}.items():
        done.ignore(key, why)
    for key, why in LACKING.items():
        done.lack(key, why)


def _first(done: Translation) -> None:
    """How a fine-tuning begins and goes on: PFD-kit's rounds start from the pre-trained model, unless recursive."""
    recursive = done.read("task.recursive", "train.start_from", False)
    done.put("train.start_from", "previous" if recursive else "parent")
    given = [key for key in ("init_fp", "init_train", "init_training") if done.get(f"task.{key}") is not None]
    for key in given:
        done.read(f"task.{key}", "init.frames")
    if any(done.get(f"task.{key}") for key in given):
        done.put("init.frames", 8, "altered copies of the structures labelled and trained on first")
    else:
        done.put("init.frames", 0, "8 would label and train on altered copies of the structures first")


def _inference(done: Translation, distilling: bool) -> None:
    style: Any = done.get("inference.model", {})
    kind = style.get("type") if isinstance(style, Mapping) else style
    key = "inference.model.type" if isinstance(style, Mapping) else "inference.model"
    why = "the teacher is [model]" if distilling else "the model that is trained explores"
    if kind:
        done.ignore(key, f"{why}; PFD-kit does not read it")
