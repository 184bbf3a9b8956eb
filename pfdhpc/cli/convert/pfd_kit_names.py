"""PFD-kit's keys: their other names, and those that have no counterpart here. Read in its releases 0.0.3 to 0.10.11."""

MODEL = {
    "base_model_path": ("teacher_model_path", "pretrain_model_path", "teacher_models_paths"),
    "base_model_uri": ("teacher_model_uri", "pretrain_model_uri"),
    "base_model_style": ("teacher_model_style", "teacher_stype", "teacher_models_stype"),
}
TOP = {
    "exploration": ("explore",),
    "conf_generation": ("configurations", "configuration"),
    "upload_python_packages": ("upload_python_package",),
}
FILES = {"confs_paths": ("files",)}
OLDER_ALIASES = {
    "": TOP,
    "inputs": MODEL,
    "conf_generation": {"init_confs": ("confs", "init_configurations")},
    "conf_generation.init_confs": FILES,
    "train": {"init_models_paths": ("training_iter0_model_path",)},
    "train.config": {"impl": ("backend",), "init_model_numb_steps": ("init_model_stop_batch",)},
    "exploration": {
        "max_numb_iter": ("max_iter",),
        "convergence": ("converge_config",),
        "test_set_config": ("test_set",),
    },
    "exploration.stages[][]": {
        "conf_idx": ("sys_idx",),
        "temps": ("Ts",),
        "press": ("Ps",),
        "ens": ("ensemble",),
        "trj_freq": ("t_freq", "traj_freq"),
        "lmp_template_fname": ("lmp_template", "lmp"),
        "plm_template_fname": ("plm_template", "plm"),
    },
}
NEWER_ALIASES = {
    "": TOP,
    "inputs": MODEL,
    "inputs.init_confs": FILES,
    "inputs.init_fp_confs": FILES,
    "train.config": {"impl": ("backend",)},
    "fp.run_config": {"model_style": ("style", "model")},
    "exploration": {"test_set_config": ("test_set",)},
    "exploration.config": {"calculator": ("calc",)},
}
"""Of the newer generation (0.7 and later) a task group has no aliases: ``Ts`` or ``ensemble`` is unknown to it."""

DISPATCH = "the whole run is one MPI job: no containers, no dispatching"
PROGRAM = "DeePMD-kit, PyTorch, in process"
FREE = "masses are those of the elements"
IGNORED = {
    **dict.fromkeys(
        (
            "name", "dflow_config", "dflow_s3_config", "default_step_config", "step_configs", "bohrium_config",
            "parallelism", "upload_python_packages",
        ),
        DISPATCH,
    ),
    "inputs.type_map": "the checkpoint knows its elements",
    "inputs.mass_map": FREE,
    "inputs.init_data_prefix": "no init_data_sys to begin with it",
    "inputs.init_confs.fmt": "ASE tells the format",
    "inputs.init_fp_confs.fmt": "ASE tells the format",
    "inputs.init_fp_confs.prefix": "part of init_fp_confs",
    "conf_generation.init_confs.type": "files, as PFD-kit reads them whatever it says",
    "task.init_ft": "PFD-kit does not read it",
    "task.skip_aimd": "[init.aimd] makes first frames by dynamics, if it is there",
    **dict.fromkeys((f"train.config.{key}" for key in ("command", "impl", "mixed_type", "multitask")), PROGRAM),
    "train.config.finetune_mode": "PFD-kit sets it by task.type",
    "train.numb_models": "one model",
    "train.optional_files": "nothing reads them",
    "evaluate.model": "the model that is trained",
    "evaluate.max_sel": "PFD-kit does not select by it",
    "select_confs.test_size": "PFD-kit does not read it",
    "select_confs.h_filter.batch_size": "chosen by the program",
    "exploration.test_set_config": "test.holdout is the share of the labels that never trains",
    "exploration.fatal_at_max": "a run that ends at max_rounds says that it has not converged",
    "exploration.output_nopbc": "PFD-kit does not read it",
    "exploration.config.command": "LAMMPS runs in the ranks",
    "exploration.config.extra_output_files": DISPATCH,
    "fp.extra_output_files": DISPATCH,
    "fp.inputs_config.batch_size": "PFD-kit does not read it",
    "fp.run_config.out": DISPATCH,
    "fp.run_config.log": DISPATCH,
}  # fmt: skip
DISTILLING = {
    "fp": "the teacher labels",
    "init_fp": "the teacher labels",
    "aimd": "the teacher labels",
    "evaluate.head": "of the student, which has one",
    "train.config": "a student is trained from scratch",
    "task.init_fp": "PFD-kit does not read it in a distillation",
    "task.init_train": "PFD-kit does not read it in a distillation",
    "task.init_training": "PFD-kit does not read it in a distillation",
    "task.recursive": "PFD-kit does not read it in a distillation",
}
POLICY = "each training begins as train.start_from says, with [train] as it is"
LACKING = {
    "aimd": "[init.aimd] runs dynamics with the labeler's forces: steps, interval, temperatures",
    "init_fp": "[label] is the same for the first frames",
    "fp.task_max": "[select] decides, by max_sel",
    "fp.inputs_config": "see pfdhpc schema label",
    "fp.run_config": "see pfdhpc schema label",
    "inputs.init_fp_confs.confs_paths": "label them before and give them as init.data",
    "inputs.init_fp_confs.confs_uri": "name files: label them before and give them as init.data",
    "inputs.init_confs.confs_uri": "name files: system.structures",
    "conf_generation.init_confs.confs_uri": "name files: system.structures",
    "inputs.base_model_uri": "name a file: model.checkpoint",
    "inputs.init_data_uri": "name files: init.data",
    **dict.fromkeys(
        (f"inputs.valid_data_{key}" for key in ("prefix", "sys", "uri")), "test.data takes labels that never train"
    ),
    **dict.fromkeys(("train.init_models_paths", "train.init_models_uri"), "model.checkpoint is where training begins"),
    "train.config.train_args": "dp train is not called; what it would change is set in [train]",
    "train.config.split_last_iter_valid_ratio": "test.validation is the share for validation",
    **{
        f"train.config.init_model_{key}": POLICY
        for key in (
            "policy", "old_ratio", "numb_steps", "start_lr", "start_pref_e", "start_pref_f", "start_pref_v",
            "with_finetune",
        )
    },
    "train.config": "of a trainer that there is not here, or unknown",
    "evaluate": "a keyword of PFD-kit's calculator, or unknown",
    "exploration.config": "a keyword of PFD-kit's calculator, or unknown",
    "exploration.adaptive": "[converge] holds for all new labels together",
    "exploration.config.teacher_model_path": "model.checkpoint is the model that explores",
    "exploration.config.shuffle_models": "one model explores",
    "exploration.config.use_ele_temp": "no electronic temperature among the frames",
    "exploration.config.model_devi_group_size": "no structure search here",
    "exploration.config.run_calypso_command": "no structure search here",
    "exploration.config.run_opt_command": "no structure search here",
}  # fmt: skip
