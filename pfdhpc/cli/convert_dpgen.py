"""DP-GEN's ``simplify.json`` in terms of pfdhpc: schema of DP-GEN 0.13, and the keys of its 2022 tutorial."""

from pathlib import Path
from typing import Any

from .convert import EDIT, UNNAMED, Translation

OFF = 1e9
"""DP-GEN's way to say that a bound is none: 1e10."""
IGNORED = {
    "type_map": "the checkpoint knows its elements",
    "mass_map": "no molecular dynamics is run",
    "sys_configs": "no molecular dynamics is run",
    "sys_batch_size": "train.batch_size says it",
    "init_batch_size": "train.batch_size says it",
    "use_clusters": "frames are labelled as they are",
    "shuffle_poscar": "frames are labelled as they are",
    "use_ele_temp": "no electronic temperature among the frames",
    "fp_task_max": "has no effect in simplify: iter_pick_number counts",
    "fp_task_min": "every label is trained on",
    "fp_accurate_threshold": "has no effect in simplify",
    "fp_accurate_soft_threshold": "has no effect in simplify",
    "ratio_failed": "labels that fail are kept apart, and the run goes on",
    "train_backend": "PyTorch",
    "dp_train_skip_neighbor_stat": "neighbours are counted when that is needed",
    "one_h5": "frames are kept in HDF5",
    "train_param": "the training input is made from [train]",
    "training_reuse_iter": "every training goes on from the one before (train.start_from)",
    "training_init_model": "that is how trainings begin (train.start_from)",
    "training_init_frozen_model": "give the model as model.checkpoint",
    "training_finetune_model": "give the model as model.checkpoint",
    "default_training_param.model": "the parameters are those of the checkpoint (train.use_pretrain_script)",
    "default_training_param.training": "files and seeds are the run's own",
    "default_training_param.learning_rate": "it decays exponentially within each training",
    "init_data_prefix": "part of init.data",
    "fp_pp_path": "part of label.options",
    "model_devi_activation_func": "the parameters are those of the checkpoint",
}
LACKING = {
    "dp_compress": "models of a committee are not compressed",
    "fp_skip_bad_box": "only length_ratio (select.filter.max_length_ratio); see select.filter",
    "true_error_f_trust_lo": "pool.true_error takes select.trust_lo",
    "true_error_f_trust_hi": "pool.true_error takes select.trust_hi",
    "true_error_e_trust_lo": "pool.true_error takes pool.trust_energy_lo",
    "true_error_e_trust_hi": "pool.true_error takes pool.trust_energy_hi",
}
PROGRAMS = {"vasp": "vasp", "abacus": "abacus", "cp2k": "cp2k", "pwscf": "qe"}


def simplify(done: Translation) -> None:
    """The whole input."""
    done.put("workflow", "simplify")
    _model(done)
    _pool(done)
    _train(done)
    _label(done)
    for key, why in IGNORED.items():
        done.ignore(key, why)
    for key, why in LACKING.items():
        done.lack(key, why)


def _model(done: Translation) -> None:
    given = done.get("training_iter0_model_path") or done.get("training_finetune_model")
    given = [given] if isinstance(given, str) else given or []
    key = "training_iter0_model_path" if done.get("training_iter0_model_path") else "training_finetune_model"
    found = [path for text in given for path in _checkpoints(done.folder, text)]
    if found:
        done.put("model.checkpoint", str(found[0]))
        done.tell(key, "model.checkpoint: the first one, from which all members start")
        return
    done.put("model.checkpoint", f"{EDIT}/model.ckpt.pt", f"the checkpoint of {', '.join(given) or 'your model'}")
    done.tell(key, "model.checkpoint")


def _checkpoints(folder: Path, text: str) -> list[Path]:
    """Model files at a path or glob, or in the folders it names."""
    path = Path(text)
    root, pattern = (Path("/"), str(path.relative_to("/"))) if path.is_absolute() else (folder, text)
    places = sorted(root.glob(pattern))
    inner = [found for place in places if place.is_dir() for found in sorted(place.glob("*.p[bt]*"))]
    return [place for place in places if place.is_file()] + [item for item in inner if item.is_file()]


def _pool(done: Translation) -> None:
    done.move("pick_data", "pool.data", lambda value: [path.partition("#")[0] for path in done.paths(value)])
    done.move("numb_models", "pool.models")
    done.move("init_pick_number", "pool.init_pick")
    done.put("select.method", "random", 'as DP-GEN; "greedy" picks by entropy')
    done.move("iter_pick_number", "select.max_sel")
    for old in ("f_trust", "model_devi_f_trust"):
        done.move(f"{old}_lo", "select.trust_lo", _bound)
        done.move(f"{old}_hi", "select.trust_hi", _bound)
    for old in ("e_trust", "model_devi_e_trust"):
        done.move(f"{old}_lo", "pool.trust_energy_lo", _bound)
        done.move(f"{old}_hi", "pool.trust_energy_hi", _bound)
    if done.get("labeled") and any(_bound(done.get(f"true_error_{kind}_trust_lo", OFF)) for kind in "fe"):
        done.put("pool.true_error", True)
    done.move("init_data_sys", "init.data", lambda value: done.paths(value, done.get("init_data_prefix")) or None)
    ratio = dict(item.split(":") for item in str(done.get("fp_skip_bad_box", "")).split(";") if ":" in item)
    if "length_ratio" in ratio:
        done.put("select.filter", {"max_length_ratio": float(ratio["length_ratio"])})


def _bound(value: float) -> float | None:
    return float(value) if value < OFF else None


def _train(done: Translation) -> None:
    done.values.setdefault("train", {})
    old = "default_training_param"
    frozen = _frozen(done)
    if frozen:
        done.put("train.freeze", frozen)
        for net in ("descriptor", "fitting_net"):
            if done.get(f"{old}.model.{net}.trainable") is not None:
                done.tell(f"{old}.model.{net}.trainable", "train.freeze")
    for key in ("stop_batch", "numb_steps"):
        done.move(f"{old}.training.{key}", "train.first_steps")
        done.move(f"{old}.training.{key}", "train.steps")
    done.move(f"{old}.training.batch_size", "train.batch_size", lambda size: size if isinstance(size, int) else None)
    done.move(f"{old}.learning_rate.start_lr", "train.start_lr")
    done.move(f"{old}.learning_rate.stop_lr", "train.stop_lr")
    done.move("training_reuse_numb_steps", "train.steps")
    done.move("training_reuse_start_lr", "train.start_lr")
    done.move("training_reuse_old_ratio", "train.new_fraction", lambda x: None if isinstance(x, str) else 1 - x)
    loss = {key: value for key, value in done.get(f"{old}.loss", {}).items() if not key.startswith("_")}
    if loss:
        done.put("train.deepmd", {"loss": {"type": "ener", **loss}})
        done.tell(f"{old}.loss", "train.deepmd.loss")


def _frozen(done: Translation) -> list[str]:
    """DP-GEN's flags as ``train.freeze``; a list has one for each layer of the fitting net."""
    model = done.get("default_training_param.model", {})
    found = ["descriptor"] if model.get("descriptor", {}).get("trainable") is False else []
    flags = model.get("fitting_net", {}).get("trainable", True)
    if flags is False:
        found.append("fitting_net")
    if isinstance(flags, list):
        found += [f"fitting_net.layers.{number}" for number, flag in enumerate(flags) if not flag]
    return found


def _label(done: Translation) -> None:
    style = done.get("fp_style", "none")
    if done.get("labeled") or style == "none":
        done.put("pool.labeled", True)
        done.tell("labeled", "pool.labeled")
        done.tell("fp_style", "pool.labeled")
        return
    done.tell("labeled", "pool.labeled")
    done.tell("fp_style", "label.type")
    name = PROGRAMS.get(style)
    if name is None:
        done.put("label.type", "offline", f"pfdhpc has no {style}: labels made elsewhere are exchanged as files")
        done.put("label.options", dict(UNNAMED), "name the level of theory")
        return
    done.put("label.type", name)
    command = {"vasp": "vasp_std", "qe": "pw.x", "cp2k": "cp2k.psmp"}.get(name, name)
    done.put("label.launch", {"command": f"mpiexec -n {{ranks}} {command}"}, "how the program is started here")
    done.put("label.options", _options(done, name), "see pfdhpc schema label")


def _options(done: Translation, name: str) -> dict[str, Any]:
    template = done.get("fp_incar") or done.get("external_input_path")
    options: dict[str, Any] = {}
    if template:
        options["template"] = done.path(template)
        done.tell("fp_incar" if done.get("fp_incar") else "external_input_path", "label.options.template")
    files = dict(zip(done.get("type_map", []), done.get("fp_pp_files", []), strict=False))
    if files and name != "cp2k":
        folder, table = ("potcar_dir", "potcars") if name == "vasp" else ("pseudo_dir", "pseudopotentials")
        options |= {folder: done.path(done.get("fp_pp_path", ".")), table: files}
        done.tell("fp_pp_files", f"label.options.{table}")
    params = done.get("user_fp_params") or done.get("fp_params")
    if name in ("qe", "abacus") and isinstance(params, dict) and "user_fp_params" in done.source:
        options["input"] = params
        done.tell("user_fp_params", "label.options.input")
    return options if name == "cp2k" else {**options, "kspacing": 0.2}
