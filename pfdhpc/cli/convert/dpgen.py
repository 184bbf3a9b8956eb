"""DP-GEN's ``simplify.json`` in terms of pfdhpc: schema of DP-GEN 0.13, and the keys of its 2022 tutorial."""

from pathlib import Path
from typing import Any

from .deepmd_input import script
from .translation import EDIT, UNNAMED, Translation

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
    "fp_task_max": "has no effect in simplify: iter_pick_number counts",
    "fp_task_min": "every label is trained on",
    "fp_accurate_threshold": "has no effect in simplify",
    "fp_accurate_soft_threshold": "has no effect in simplify",
    "train_backend": "PyTorch",
    "dp_train_skip_neighbor_stat": "neighbours are counted when that is needed",
    "one_h5": "frames are kept in HDF5",
    "train_param": "the training input is made from [train]",
    "training_reuse_iter": "every training goes on from the one before (train.start_from)",
    "training_init_model": "that is how trainings begin (train.start_from)",
    "training_init_frozen_model": "give the model as model.checkpoint",
    "training_finetune_model": "give the model as model.checkpoint",
    "init_data_prefix": "no init_data_sys to begin with it",
    "sys_configs_prefix": "no molecular dynamics is run",
    "sys_format": "no molecular dynamics is run",
    "fp_pp_path": "no fp_pp_files to be in it",
    "ratio_failed": "labels that fail are kept apart, and the run goes on",
    "model_devi_activation_func": "the parameters are those of the checkpoint",
}
ALIASES = {
    "": {
        "training_reuse_numb_steps": ("training_reuse_stop_batch",),
        "model_devi_f_trust_lo": ("f_trust_lo",),
        "model_devi_f_trust_hi": ("f_trust_hi",),
        "model_devi_e_trust_lo": ("e_trust_lo",),
        "model_devi_e_trust_hi": ("e_trust_hi",),
    }
}
"""Of its schema, and the names of its 2022 tutorial."""
REUSE = ("numb_steps", "start_lr", "old_ratio", "start_pref_e", "start_pref_f")
LACKING = {
    "srtab_file_path": "no tabulated short-range potential",
    "fp_params": "see pfdhpc schema label",
    "user_fp_params": "see pfdhpc schema label",
    "fp_kpt_file": "label.options.kpts or kspacing",
    "k_points": "label.options.kpts or kspacing",
    "fp_dpks_descriptor": "no DeePKS",
    "fp_aniso_kspacing": "label.options.kpts, one mesh for all frames",
    "cvasp": "a label that fails is tried again as label.retries say",
    "fp_cluster_vacuum": "frames are labelled as they are",
    "use_ele_temp": "no electronic temperature among the frames",
    **dict.fromkeys(
        (
            "cluster_cutoff",
            "cluster_cutoff_hard",
            "cluster_minify",
            "keywords",
            "multiplicity",
            "charge",
            "basis_set",
            "keywords_high_multiplicity",
            "fragment_guesses",
            "nproc",
            "input_fmt",
            "input_fn",
            "output_fmt",
            "output_fn",
        ),
        "of a program that pfdhpc has no labeler for",
    ),
    "training_reuse_start_pref_e": "the loss is train.deepmd.loss in all trainings",
    "training_reuse_start_pref_f": "the loss is train.deepmd.loss in all trainings",
    "dp_compress": "models of a committee are not compressed",
    "fp_skip_bad_box": "only length_ratio (select.filter.max_length_ratio); see select.filter",
}
PROGRAMS = {"vasp": "vasp", "abacus": "abacus", "cp2k": "cp2k", "pwscf": "qe"}


def simplify(done: Translation) -> None:
    """The whole input."""
    done.program = "simplify.json of DP-GEN"
    done.rename(ALIASES)
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
    key = "training_iter0_model_path" if done.get("training_iter0_model_path") else "training_finetune_model"
    given = done.read(key, "model.checkpoint: the first one, from which all members start", [])
    given = [given] if isinstance(given, str) else given
    found = [path for text in given for path in _checkpoints(done.folder, text)]
    if found:
        done.put("model.checkpoint", str(found[0]))
        return
    done.put("model.checkpoint", f"{EDIT}/model.ckpt.pt", f"the checkpoint of {', '.join(given) or 'your model'}")


def _checkpoints(folder: Path, text: str) -> list[Path]:
    """Model files at a path or glob, or in the folders it names."""
    path = Path(text)
    root, pattern = (Path("/"), str(path.relative_to("/"))) if path.is_absolute() else (folder, text)
    places = sorted(root.glob(pattern))
    inner = [found for place in places if place.is_dir() for found in sorted(place.glob("*.p[bt]*"))]
    return [place for place in places if place.is_file()] + [item for item in inner if item.is_file()]


def _pool(done: Translation) -> None:
    given = done.paths(done.read("pick_data", "pool.data", []))
    groups = [path for path in given if "#" in path]
    edit = f"all of the file is read, not only {', '.join(groups)}" if groups else "" if given else "no pick_data"
    done.put("pool.data", [path.partition("#")[0] for path in given] or [f"{EDIT}/pool.extxyz"], edit)
    done.move("numb_models", "pool.models")
    done.move("init_pick_number", "pool.init_pick")
    done.put("select.method", "random", 'as DP-GEN; "greedy" picks by entropy')
    done.move("iter_pick_number", "select.max_sel")
    for kind, target in (("f", "select.trust"), ("e", "pool.trust_energy")):
        for side in ("lo", "hi"):
            _level(done, f"model_devi_{kind}_trust_{side}", f"{target}_{side}")
    _errors(done)
    if done.get("init_data_sys"):
        prefix = done.read("init_data_prefix", "part of init.data")
        done.move("init_data_sys", "init.data", lambda value: done.paths(value, prefix))
    done.ignore("init_data_sys", "none: the first labels are those of pool.init_pick")
    _bad_boxes(done)


def _level(done: Translation, key: str, target: str) -> None:
    if _bound(done.get(key, OFF)) is None:
        done.ignore(key, "none, as it is without it")
    else:
        done.move(key, target, float)


def _errors(done: Translation) -> None:
    """``pool.true_error`` looks at errors by the same levels as at deviations."""
    for kind, target in (("f", "select.trust"), ("e", "pool.trust_energy")):
        for side in ("lo", "hi"):
            key = f"true_error_{kind}_trust_{side}"
            level = _bound(done.get(key, OFF))
            if level is None:
                done.ignore(key, "none, as it is without it")
            elif not done.get("labeled"):
                done.ignore(key, "the pool has no labels to compare with (labeled)")
            else:
                done.put("pool.true_error", True)
                if level == _bound(done.get(f"model_devi_{kind}_trust_{side}", OFF)):
                    done.read(key, f"pool.true_error, {target}_{side}")
                done.lack(key, f"pool.true_error takes {target}_{side}")


def _bad_boxes(done: Translation) -> None:
    """Of its four measures of a bad box, one is among the filters."""
    ratio = dict(item.split(":") for item in str(done.get("fp_skip_bad_box", "")).split(";") if ":" in item)
    if "length_ratio" in ratio:
        done.put("select.filter", {"max_length_ratio": float(ratio["length_ratio"])})
    if set(ratio) == {"length_ratio"}:
        done.read("fp_skip_bad_box", "select.filter.max_length_ratio")
    done.lack("fp_skip_bad_box", "only length_ratio (select.filter.max_length_ratio); see select.filter")


def _bound(value: float) -> float | None:
    return float(value) if value < OFF else None


def _train(done: Translation) -> None:
    old = "default_training_param"
    done.values.setdefault("train", {})
    frozen = _frozen(done)
    if frozen:
        done.put("train.freeze", frozen)
    for net in ("descriptor", "fitting_net"):
        done.read(f"{old}.model.{net}.trainable", "train.freeze")
    _reuse(done)
    script(done, old)
    _reused(done)


def _reuse(done: Translation) -> None:
    """What counts from iteration ``training_reuse_iter`` on, which pfdhpc has from the second training on."""
    if done.get("training_reuse_iter") is None:
        for key in REUSE:
            done.ignore(f"training_reuse_{key}", "DP-GEN reads it only with training_reuse_iter")
        return
    done.read("training_reuse_iter", "train.start_from: every training goes on from the one before")
    done.put("train.start_from", "previous")
    ratio = done.get("training_reuse_old_ratio")
    if isinstance(ratio, int | float):
        done.move("training_reuse_old_ratio", "train.new_fraction", lambda x: round(1 - x, 12))
    done.lack("training_reuse_old_ratio", "train.new_fraction is a share: of the batches, that of the new frames")


def _reused(done: Translation) -> None:
    """The later trainings' own steps and learning rate, once those of the first one are there."""
    if done.get("training_reuse_iter") is not None:
        done.move("training_reuse_numb_steps", "train.steps")
        if done.get("training_reuse_start_lr") is not None:
            rate = "default_training_param.learning_rate.start_lr"
            done.fates.pop(rate, None)
            done.lack(rate, "train.start_lr is one for all trainings: training_reuse_start_lr is taken")
            done.move("training_reuse_start_lr", "train.start_lr")


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
        edit = "" if done.get("labeled") else "the source has neither labels (labeled) nor a program (fp_style)"
        done.put("pool.labeled", True, edit)
        done.read("labeled", "pool.labeled")
        if style == "none":
            done.read("fp_style", "pool.labeled")
        done.ignore("fp_style", "the pool has labels")
        return
    done.read("labeled", "pool.labeled")
    done.read("fp_style", "label.type")
    name = PROGRAMS.get(style)
    if name is None:
        done.put("label.type", "offline", f"pfdhpc has no {style}: labels made elsewhere are exchanged as files")
        done.put("label.options", dict(UNNAMED), "name the level of theory")
        return
    done.put("label.type", name)
    command = {"vasp": "vasp_std", "qe": "pw.x", "cp2k": "cp2k.psmp"}.get(name, name)
    done.put("label.launch", {"command": f"mpiexec -n {{ranks}} {command}"}, "how the program is started here")
    options, edit = _options(done, name)
    done.put("label.options", options, edit)


TEMPLATES = {"vasp": "fp_incar", "abacus": "fp_incar", "cp2k": "external_input_path"}
TABLES = {
    "vasp": {"fp_pp_files": ("potcar_dir", "potcars")},
    "qe": {"fp_pp_files": ("pseudo_dir", "pseudopotentials")},
    "abacus": {"fp_pp_files": ("pseudo_dir", "pseudopotentials"), "fp_orb_files": ("orbital_dir", "orbitals")},
}


def _options(done: Translation, name: str) -> tuple[dict[str, Any], str]:
    """``label.options``, and what is left to settle there."""
    options: dict[str, Any] = {}
    template = done.read(TEMPLATES.get(name, "-"), "label.options.template")
    if template:
        options["template"] = done.path(template)
    for key, (folder, table) in TABLES.get(name, {}).items():
        if done.get(key):
            elements = done.read("type_map", f"label.options.{table}: the elements of the files", [])
            prefix = done.read("fp_pp_path", f"label.options.{folder}", ".")
            options |= {folder: done.path(prefix), table: dict(zip(elements, done.get(key), strict=False))}
            done.read(key, f"label.options.{table}")
    return _numbers(done, name, options)


def _numbers(done: Translation, name: str, options: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """k-points and parameters. DP-GEN's are in the INCAR, or a number in 1/Å with the 2π (pwscf), 1/bohr (abacus)."""
    edit = "see pfdhpc schema label"
    if name == "vasp":
        return options, f"KSPACING and KGAMMA are those of the INCAR; {edit}"
    if name == "cp2k":
        return options, edit
    params = done.read("user_fp_params", "label.options.input", {}) or {}
    params = {key: value for key, value in params.items() if not key.startswith("_")}
    where = "user_fp_params" if params else "fp_params"
    spacing = params.pop("kspacing", None) if name == "qe" else None
    spacing = spacing or (done.read("fp_params.kspacing", "label.options.kspacing") if name == "qe" else None)
    if params:
        options["input"] = params
    if name == "abacus" and "kspacing" in params:
        return options, f"kspacing of the input is in 1/bohr, as ABACUS has it; {edit}"
    options["kspacing"] = spacing or 0.2
    return options, edit if spacing else f"kspacing is not in {where}: kpts, or a value of your own; {edit}"
