"""``pfdhpc convert``: inputs of DP-GEN simplify and of both generations of PFD-kit."""

import json
import shutil
import tomllib
from pathlib import Path

import pytest
from ase.build import bulk
from ase.io import write

from pfdhpc.cli.convert.convert import input_text, read_source, toml, translated
from pfdhpc.cli.convert.pfd_kit_names import NEWER_ALIASES, OLDER_ALIASES
from pfdhpc.cli.convert.translation import IGNORED, LACKING, MAPPED, leaves
from pfdhpc.cli.main import main
from pfdhpc.config import load
from pfdhpc.errors import InputError

PRETRAINED = Path(__file__).parents[1] / "inputs" / "pretrained" / "dpa3_small.pt"
TUTORIAL = """
{
    "type_map": ["Ag", "Au"], "mass_map": [108, 196.967],
    "init_data_prefix": "", "init_data_sys": [],
    "pick_data": "collect",
# Use 'dp collect' to put all the data in one fold.
    "sys_batch_size": "auto",
    "training_iter0_model_path": "final/00.train/00[0-3]",
    "training_init_model": true,
    "numb_models": 4,
    "train_param": "input.json",
    "default_training_param": {
        "model": {
            "descriptor": {"type": "se_a", "trainable": false, "_comment": " that's all"},
            "fitting_net": {"neuron": [240, 240, 240], "trainable": [false, false, false, true]}
        },
        "learning_rate": {"type": "exp", "start_lr": 0.001, "stop_lr": 3.51e-8},
        "loss": {"start_pref_e": 100, "limit_pref_e": 100, "start_pref_f": 1, "limit_pref_f": 1, "_comment": ""},
        "training": {"systems": [], "stop_batch": 400000, "batch_size": 2, "seed": 1}
    },
    "fp_style": "vasp",
    "fp_skip_bad_box": "length_ratio:4;height_ratio:5",
    "fp_task_max": 100, "fp_task_min": 0,
    "fp_pp_path": "vasp_input", "fp_pp_files": ["POTCAR_Ag", "POTCAR_Au"], "fp_incar": "vasp_input/INCAR",
    "use_clusters": false, "labeled": false,
    "init_pick_number": 80, "iter_pick_number": 100,
    "e_trust_lo": 1e10, "e_trust_hi": 1e10, "f_trust_lo": 0.20, "f_trust_hi": 100.00,
    "_comment": " that's all ",
    "my_own_key": 3
}
"""
DPGEN = "\n".join(line for line in TUTORIAL.splitlines() if not line.startswith("#"))
NEW_PFD = {
    "name": "si-finetune",
    "task": {"type": "finetune", "max_iter": 4, "init_train": False},
    "inputs": {"base_model_path": "DPA2.pt", "init_confs": {"prefix": "confs", "confs_paths": ["si.extxyz"]}},
    "select_confs": {
        "max_sel": 60,
        "h_filter": {"chunk_size": 5, "k": 24, "cutoff": 4.5},
        "frame_filter": [{"type": "distance"}, {"type": "box_length", "length_ratio": 4.0}],
    },
    "evaluate": {"model": "dp", "head": "Domains_SemiCond", "test_size": 0.3,
                 "converge": {"type": "force_rmse", "RMSE": 0.06}},
    "train": {
        "type": "dp",
        "config": {"impl": "pytorch", "finetune_args": "--model-branch Domains_SemiCond"},
        "template_script": {"learning_rate": {"start_lr": 1e-3, "stop_lr": 1e-6}, "training": {"numb_steps": 10000}},
    },
    "fp": {
        "type": "vasp",
        "inputs_config": {"incar": "INCAR", "pp_files": {"Si": "POTCAR"}, "kspacing": 0.3},
        "run_config": {"command": "mpirun -n 32 vasp_std"},
    },
    "exploration": {
        "type": "ase",
        "config": {"calculator": "dp", "head": "Domains_SemiCond"},
        "stages": [[{"conf_idx": [0], "n_sample": 3, "temps": [500], "press": [1, 1000], "ens": "npt", "dt": 2,
                     "nsteps": 3000, "trj_freq": 20}]],
    },
}  # fmt: skip
OLD_PFD = {
    "task": {"type": "dist"},
    "inputs": {"type_map": ["Si"], "base_model_path": "teacher.pt"},
    "conf_generation": {
        "init_confs": {"fmt": "vasp/poscar", "confs_paths": ["confs/POSCAR", "more/POSCAR"]},
        "pert_generation": [{"atom_pert_distance": 0.1, "cell_pert_fraction": 0.03, "pert_num": 5, "replicate": 2}],
    },
    "exploration": {
        "type": "lmp",
        "max_numb_iter": 2,
        "convergence": {"type": "energy_rmse", "RMSE": 0.005},
        "stages": [[{"conf_idx": [0], "temps": [300, 900], "ens": "nvt", "dt": 0.002, "nsteps": 5000, "trj_freq": 50}]],
    },
    "train": {"type": "dp", "template_script": "student.json"},
    "inference": {"max_force": 10},
}


def converted(folder, source, *options):
    """The loaded result, its text, and what became of each key."""
    path = folder / "given.json"
    path.write_text(source if isinstance(source, str) else json.dumps(source))
    assert main(["convert", str(path), "-o", str(folder / "input.toml"), *options]) == 0
    done = translated(read_source(path), folder, folder)
    fates = {key: (fate, text) for key, fate, text in done.told()}
    return load(folder / "input.toml"), (folder / "input.toml").read_text(), fates


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")


def test_the_tutorial_of_dpgen(tmp_path):
    touch(tmp_path, "final/00.train/000/model.ckpt.pt", "final/00.train/001/model.ckpt.pt")
    config, text, fates = converted(tmp_path, TUTORIAL)
    assert (config.workflow, config.pool.models, config.pool.init_pick) == ("simplify", 4, 80)
    assert config.model.checkpoint == tmp_path / "final/00.train/000/model.ckpt.pt"
    select, train = config.select, config.train
    assert (select.method, select.max_sel, select.trust_lo, select.trust_hi) == ("random", 100, 0.2, 100.0)
    assert select.filter.max_length_ratio == 4.0 and config.pool.trust_energy_lo is None
    assert train.freeze == ["descriptor", *(f"fitting_net.layers.{n}" for n in range(3))]
    assert (train.first_steps, train.steps, train.batch_size, train.stop_lr) == (400000, 400000, 2, 3.51e-8)
    assert config.label.options["potcars"] == {"Ag": "POTCAR_Ag", "Au": "POTCAR_Au"}
    assert "# EDIT: how the program is started here" in text


def test_every_key_is_told(tmp_path, capsys):
    touch(tmp_path, "final/00.train/000/model.ckpt.pt")
    _, _, fates = converted(tmp_path, TUTORIAL)
    kinds = {key: fate for key, (fate, _) in fates.items()}
    assert kinds["iter_pick_number"] == kinds["default_training_param.model.descriptor.trainable"] == MAPPED
    assert kinds["fp_task_max"] == kinds["mass_map"] == kinds["e_trust_lo"] == kinds["_comment"] == IGNORED
    assert kinds["my_own_key"] == kinds["fp_skip_bad_box"] == LACKING
    assert all(text for _, text in fates.values())
    shown = capsys.readouterr().out
    assert "my_own_key" in shown and "no equivalent" in shown and "next: pfdhpc check" in shown
    assert "made from [train]" in shown


def test_a_labelled_pool_passes_the_whole_check(tmp_path, capsys):
    source = json.loads(DPGEN)
    source |= {"labeled": True, "pick_data": ["pool.extxyz"], "training_iter0_model_path": "parent"}
    source["default_training_param"]["loss"] |= {"start_pref_v": 0.9, "limit_pref_v": 0.1}
    (tmp_path / "parent").mkdir()
    shutil.copy(PRETRAINED, tmp_path / "parent" / "model.ckpt.pt")
    atoms = bulk("Ag", cubic=True)
    write(tmp_path / "pool.extxyz", [labelled(atoms, strain) for strain in (0.98, 1.0, 1.02)])
    converted(tmp_path, source)
    path = tmp_path / "input.toml"
    path.write_text(path.read_text().replace("[model]\n", '[model]\nbranch = "MPtrj_PBE"\n'))
    capsys.readouterr()
    assert main(["check", str(path)]) == 0, capsys.readouterr().out


def labelled(atoms, strain):
    from ase.calculators.emt import EMT

    found = atoms.copy()
    found.set_cell(atoms.cell * strain, scale_atoms=True)
    found.calc = EMT()
    found.get_forces()
    return found


def test_the_newer_generation_of_pfd_kit(tmp_path):
    touch(tmp_path, "DPA2.pt", "confs/si.extxyz", "INCAR", "POTCAR")
    config, text, fates = converted(tmp_path, NEW_PFD)
    assert config.workflow == "finetune" and config.model.branch == "Domains_SemiCond"
    assert [system.name for system in config.system] == ["si"]
    assert (config.select.method, config.select.max_sel, config.select.chunk) == ("pfd", 60, 5)
    assert (config.select.descriptor.neighbours, config.select.filter.max_length_ratio) == (24, 4.0)
    explore = config.explore
    assert (explore.ensemble, explore.timestep, explore.steps, explore.interval) == ("npt-iso", 2.0, 3000, 20)
    assert (explore.temperatures, explore.pressures) == ([500.0], [1.0, 1000.0])
    assert (config.converge.force_rmse, config.converge.max_rounds, config.test.holdout) == (0.06, 4, 0.3)
    assert config.label.options["kspacing"] == 0.3 and config.label.launch.command == "mpirun -n 32 vasp_std"
    assert (config.train.steps, config.train.stop_lr) == (10000, 1e-6)
    assert fates["name"][0] == IGNORED and fates["exploration.stages[0][0].dt"] == (MAPPED, "explore.timestep")
    assert config.train.start_from == "parent" and config.init.frames == 0  # every round from the given model
    assert "starts from 3 of the frames of this file" in text


def test_the_older_generation_of_pfd_kit(tmp_path):
    touch(tmp_path, "teacher.pt", "confs/POSCAR", "more/POSCAR")
    student = {"descriptor": {"type": "se_e2_a", "sel": [60], "rcut": 6.0}, "fitting_net": {"neuron": [8]}}
    script = {"model": {"type_map": ["Si"], **student}, "training": {"numb_steps": 600}}
    (tmp_path / "student.json").write_text(json.dumps(script))
    config, _, fates = converted(tmp_path, OLD_PFD)
    assert config.workflow == "distill" and config.student.model == student and config.train.steps == 600
    assert [system.structures[0].parent.name for system in config.system] == ["confs"]  # conf_idx leaves out the other
    assert not config.student.warm_start
    assert config.system[0].perturb.count == 5 and config.system[0].supercell == (2, 2, 2)
    explore = config.explore
    assert (explore.timestep, explore.temperature_damping, explore.temperatures) == (2.0, 50.0, [300.0, 900.0])
    assert config.converge.energy_rmse == 0.005 and config.select.filter.max_force == 10
    assert fates["conf_generation.pert_generation[0].pert_num"][0] == MAPPED


@pytest.mark.parametrize(
    "text, problem",
    [
        ("{", "cannot be read as JSON"),
        ('["a"]', "not a table"),
        ('{"jobs": 1}', "neither an input of DP-GEN simplify"),
        ('{"pick_data": 3}', "not of the kind"),
    ],
)
def test_what_is_no_such_input_is_told(tmp_path, capsys, text, problem):
    (tmp_path / "given.json").write_text(text)
    assert main(["convert", str(tmp_path / "given.json")]) == 2
    assert problem in capsys.readouterr().err
    with pytest.raises(InputError):
        translated(read_source(tmp_path / "given.json"), tmp_path, tmp_path)


def test_nothing_is_overwritten_unasked_and_the_terminal_will_do(tmp_path, capsys):
    touch(tmp_path, "DPA2.pt", "confs/si.extxyz")
    converted(tmp_path, NEW_PFD)
    assert main(["convert", str(tmp_path / "given.json"), "-o", str(tmp_path / "input.toml")]) == 2
    assert "is there already" in capsys.readouterr().err
    converted(tmp_path, NEW_PFD, "--force")
    capsys.readouterr()
    assert main(["convert", str(tmp_path / "given.json")]) == 0
    assert capsys.readouterr().out.startswith("# Made by pfdhpc convert from given.json")


def test_filters_of_the_older_generation_are_kept_side_by_side(tmp_path):
    touch(tmp_path, "teacher.pt", "confs/POSCAR", "more/POSCAR", "student.json")
    (tmp_path / "student.json").write_text("{}")
    filters = [{"type": "box_skewness", "theta": 40.0}, {"type": "box_length", "length_ratio": 3.0}]
    config, _, _ = converted(tmp_path, {**OLD_PFD, "exploration": {**OLD_PFD["exploration"], "filter": filters}})
    found = config.select.filter
    assert (found.max_skew, found.max_length_ratio, found.max_force) == (40.0, 3.0, 10)


def test_a_finetuning_is_not_told_what_holds_for_a_distillation(tmp_path):
    touch(tmp_path, "DPA2.pt", "confs/si.extxyz", "INCAR", "POTCAR")
    script = {"model": {"type": "dpa3"}, "training": {"numb_steps": 7, "disp_freq": 1}, "loss": {"start_pref_e": 1}}
    train, fp = {**NEW_PFD["train"], "template_script": script}, {**NEW_PFD["fp"], "task_max": 3, "own": 1}
    _, _, fates = converted(tmp_path, {**NEW_PFD, "train": train, "fp": fp})
    where = "train.template_script"
    assert fates[f"{where}.model.type"] == (
        IGNORED,
        "the parameters are those of the checkpoint (train.use_pretrain_script)",
    )
    assert fates[f"{where}.training.numb_steps"][0] == fates[f"{where}.loss.start_pref_e"][0] == MAPPED
    assert fates[f"{where}.training.disp_freq"][0] == IGNORED and fates["fp.own"][0] == LACKING
    assert fates["fp.task_max"][0] == LACKING  # read up to 0.6 only
    taught = translated({**OLD_PFD, "fp": {"own": 1}, "train": {"template_script": script}}, tmp_path, tmp_path)
    fates = {key: (fate, text) for key, fate, text in taught.told()}
    assert fates["fp.own"] == (IGNORED, "the teacher labels") and fates[f"{where}.model.type"][0] == MAPPED


@pytest.mark.parametrize(
    "source",
    [{**OLD_PFD, "task": {"type": "ft"}, "fp": {"type": "gaussian"}}, {**json.loads(DPGEN), "fp_style": "gaussian"}],
)
def test_the_level_of_labels_made_elsewhere_is_asked_for(tmp_path, capsys, source):
    touch(tmp_path, "teacher.pt", "confs/POSCAR", "final/00.train/000/model.ckpt.pt")
    (tmp_path / "given.json").write_text(json.dumps(source))
    assert main(["convert", str(tmp_path / "given.json"), "-o", str(tmp_path / "input.toml")]) == 0
    assert "# EDIT: name the level of theory" in (tmp_path / "input.toml").read_text()
    assert main(["check", str(tmp_path / "input.toml")]) == 2
    assert 'label.options.level: still "EDIT-ME"' in capsys.readouterr().err


def test_values_are_written_exactly():
    given = {"é": None, "ü": float("nan"), "x": [1, None, -float("inf")], "e": {"n": None}}
    assert tomllib.loads(f"a = {toml(given)}")["a"]["x"] == [1, -float("inf")]
    assert toml(given) == '{ "ü" = nan, x = [1, -inf], e = {} }'
    assert toml({"a b": [1, 2.5e-8, True], "c": 'x"y'}) == '{ "a b" = [1, 2.5e-08, true], c = "x\\"y" }'


OLD_GROUP = {"conf_idx": [0], "n_sample": 1, "temps": [500], "press": [20000], "ens": "npt", "dt": 0.002,
             "nsteps": 400, "trj_freq": 40, "type": "lmp-md"}  # fmt: skip
OLD_FT = {
    "task": {"type": "finetune", "init_training": False, "recursive": False},
    "inputs": {"base_model_path": "dpa3.pt", "base_model_style": "dp", "init_data_prefix": "d", "init_data_sys": ["a"]},
    "conf_generation": {
        "init_confs": {"prefix": "./", "fmt": "vasp/poscar", "confs_paths": ["si.vasp", "ge.vasp"]},
        "pert_generation": {"pert_num": 4, "cell_pert_fraction": 0.02, "atom_pert_distance": 0.1, "replicate": 2},
    },
    "exploration": {
        "type": "lmp", "max_numb_iter": 2, "convergence": {"type": "force_rmse", "RMSE": 0.05},
        "filter": [{"type": "box_length", "length_ratio": 4.0}], "stages": [[OLD_GROUP]],
    },
    "inference": {"head": "MPtrj_PBE", "max_force": 9.0},
    "fp": {"type": "vasp", "task_max": 10, "run_config": {"command": "mpirun -n 4 vasp_std"},
           "inputs_config": {"incar": "INCAR", "pp_files": {"Si": "POTCAR"}, "kspacing": 0.3}},
    "train": {"type": "dp", "config": {"impl": "pytorch"},
              "template_script": {"training": {"numb_steps": 700}, "loss": {"start_pref_e": 0.5},
                                  "learning_rate": {"start_lr": 2e-3, "stop_lr": 1e-6}}},
}  # fmt: skip


def made(source, folder):
    """What comes out, without the keys that nothing became of."""
    done = translated(source, folder, folder)
    return done, input_text(done, "x").partition("\n# Keys without")[0]


def with_value(tree, path, value, name=None):
    """A copy with the leaf at ``path`` changed, or called ``name``, or removed where ``value`` is ...."""
    copy = json.loads(json.dumps(tree))
    *inner, last = [int(p[1:-1]) if p[0] == "[" else p for p in path.replace("[", ".[").split(".")]
    at = copy
    for part in inner:
        at = at[part]
    if name is not None:
        copy_items = [(name if key == last else key, item) for key, item in at.items()]
        at.clear()
        at.update(copy_items)
    elif value is ...:
        del at[last]
    else:
        at[last] = value
    return copy


@pytest.mark.parametrize(
    "source, aliases", [(OLD_FT, OLDER_ALIASES), (OLD_PFD, OLDER_ALIASES), (NEW_PFD, NEWER_ALIASES)]
)
def test_any_alias_of_a_key_gives_the_same(tmp_path, source, aliases):
    """Each by itself: dargs takes the first of a key's names that is there."""
    _, text = made(source, tmp_path)
    tried = set()
    for place, table in aliases.items():
        where = place.replace("[]", "[0]")
        for key, others in table.items():
            path = f"{where}.{key}" if where else key
            if translated(source, tmp_path, tmp_path).get(path) is None:
                continue
            for other in others:
                aliased = with_value(source, path, None, name=other)
                done, found = made(aliased, tmp_path)
                assert found == text, path
                assert any(other in row[0].replace("[0]", "").split(".") for row in done.told()), "told by its own name"
                tried.add(other)
    assert {"explore", "pretrain_model_path", "files"} <= tried
    if aliases is OLDER_ALIASES:
        assert {"sys_idx", "Ts", "ensemble", "t_freq", "traj_freq", "confs", "init_configurations", "max_iter",
                "converge_config", "configurations"} <= tried  # fmt: skip


def changed(value):
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value * 2 if value else 1
    if isinstance(value, list):
        return [changed(item) for item in value] if value else value
    return {"finetune": "dist", "npt": "nvt", "force_rmse": "energy_rmse"}.get(value, f"{value}x")


WORDS = ("fmt", "type", "n_sample", "impl", "calculator", "base_model_style", "init_training", "init_train", "conf_idx")
"""Keys whose few values are tried elsewhere."""


@pytest.mark.parametrize("source", [OLD_FT, OLD_PFD, NEW_PFD, json.loads(DPGEN)], ids=["old", "dist", "new", "dpgen"])
def test_a_mapped_key_matters_and_an_unknown_one_shows(tmp_path, source):
    """Nothing is mapped that was not read: another value gives another result."""
    source = {**source}
    done, text = made(source, tmp_path)
    fates = {key: fate for key, fate, _ in done.told()}
    for path, value in leaves(source):
        if fates[path] == MAPPED and path.rpartition(".")[2] not in WORDS:
            try:
                other = made(with_value(source, path, changed(value)), tmp_path)[1]
            except InputError:
                continue
            assert other != text, f"{path} is told to be mapped"
    for path in {path.rpartition(".")[0] for path, _ in leaves(source)}:
        spoilt = with_value(source, f"{path}.my_own_key" if path else "my_own_key", 7)
        told = {key: (fate, why) for key, fate, why in translated(spoilt, tmp_path, tmp_path).told()}
        key = f"{path}.my_own_key" if path else "my_own_key"
        assert key in told, path
        passed_on = told[key][0] == MAPPED and "my_own_key" in made(spoilt, tmp_path)[1]
        assert told[key][0] == LACKING or passed_on or ".model." in key, (key, told[key])


def test_as_much_is_explored_as_there(tmp_path):
    """n_sample starts of each structure that is chosen; where that cannot be, both numbers are told."""
    structures = [bulk("Si", cubic=True), bulk("Ge", cubic=True)]
    for name, atoms in zip(("si.vasp", "ge.vasp"), structures, strict=True):
        write(tmp_path / name, atoms, format="vasp")
    group = {**OLD_GROUP, "n_sample": 3, "temps": [300, 900]}
    done, _ = made({**OLD_FT, "exploration": {**OLD_FT["exploration"], "stages": [[group]]}}, tmp_path)
    assert [system["name"] for system in done.values["system"]] == ["si"]
    assert done.values["system"][0]["perturb"]["count"] == 3 and "explore.steps" not in done.edits
    assert ("conf_generation.init_confs.confs_paths", MAPPED, "system.structures; not ge.vasp: in no conf_idx") in (
        done.told()
    )
    other = {**group, "conf_idx": [1], "temps": [600], "nsteps": 800, "pka_e": 5.0}
    done, text = made({**OLD_FT, "exploration": {**OLD_FT["exploration"], "stages": [[group, other]]}}, tmp_path)
    assert done.edits["explore.steps"].startswith("18 trajectories a round here, 9 by PFD-kit")
    told = {key: (fate, why) for key, fate, why in done.told()}
    assert told["exploration.stages[0][1].nsteps"][0] == told["exploration.stages[0][1].pka_e"][0] == LACKING
    assert told["exploration.stages[0][1].dt"][0] == MAPPED and "400" in told["exploration.stages[0][1].nsteps"][1]
    with pytest.raises(InputError, match="conf_idx"):
        made({**OLD_FT, "exploration": {"stages": [[{**group, "conf_idx": [2]}]]}}, tmp_path)


def test_starts_of_a_file_with_several_frames(tmp_path):
    touch(tmp_path, "confs/none")
    frames = [bulk("Si", cubic=True) for _ in range(2)]
    write(tmp_path / "confs/si.extxyz", frames)
    group = NEW_PFD["exploration"]["stages"][0][0]
    for sample, count, said in ((2, None, False), (4, 2, False), (1, None, True)):
        stages = [[{**group, "n_sample": sample}]]
        done, _ = made({**NEW_PFD, "exploration": {**NEW_PFD["exploration"], "stages": stages}}, tmp_path)
        assert (done.values["system"][0]["perturb"] or {}).get("count") == count
        assert ("system[0].structures" in done.edits) == said and ("explore.steps" in done.edits) == said


def test_each_structure_is_altered_as_its_own_entry_says(tmp_path):
    entries = [
        {"pert_num": 5, "cell_pert_fraction": 0.03},
        {"conf_idx": [1], "pert_num": 2, "replicate": 2, "orig": True},
    ]
    group = {**OLD_GROUP, "conf_idx": [0, 1]}
    del group["n_sample"]
    source = {**OLD_FT, "conf_generation": {**OLD_FT["conf_generation"], "pert_generation": entries}}
    done, _ = made({**source, "exploration": {**OLD_FT["exploration"], "stages": [[group]]}}, tmp_path)
    first, second = done.values["system"]
    assert (first["perturb"]["count"], first["perturb"]["strain"], "supercell" in first) == (5, 0.03, False)
    assert (second["perturb"]["count"], second["supercell"]) == (2, [2, 2, 2])
    assert done.edits["explore.steps"].startswith("7 trajectories a round here, 8 by PFD-kit")
    assert ("conf_generation.pert_generation[1].orig", LACKING) in [row[:2] for row in done.told()]


@pytest.mark.parametrize(
    "ens, given, damping", [("nvt", "nvt", 200.0), ("npt", "npt-iso", 100.0), ("NPT", "npt-iso", 100.0)]
)
def test_the_thermostat_of_the_newer_generation(tmp_path, ens, given, damping):
    """NoseHooverChainNVT gets tau_t time steps, NPTBerendsen tau_t fs (pfd/exploration/md/ase.py)."""
    group = {**NEW_PFD["exploration"]["stages"][0][0], "ens": ens, "tau_t": 100}
    done, _ = made({**NEW_PFD, "exploration": {**NEW_PFD["exploration"], "stages": [[group]]}}, tmp_path)
    assert done.values["explore"]["ensemble"] == given
    assert done.values["explore"]["temperature_damping"] == damping


@pytest.mark.parametrize(
    "style, calculator, keyword",
    [("mace", "mace.calculators.MACECalculator", "model_paths"), ("emt", "ase.calculators.emt.EMT", None)],
)
def test_a_teacher_that_is_a_calculator(tmp_path, style, calculator, keyword):
    fp = {"type": "ase", "run_config": {"style": style, "model_args": {"device": "cpu"}}}
    explore = {**NEW_PFD["exploration"], "config": {"calc": style, "device": "cpu"}}
    source = {**NEW_PFD, "task": {"type": "dist"}, "fp": fp, "exploration": explore}
    done, _ = made(source, tmp_path)
    model = done.values["model"]
    assert (model["calculator"], model.get("model_argument"), model["arguments"]) == (
        calculator,
        keyword,
        {"device": "cpu"},
    )
    assert ("checkpoint" in model) == (keyword is not None) and "branch" not in model


def test_labels_by_an_ase_calculator(tmp_path):
    fp = {"type": "ase", "run_config": {"model_style": "lj", "model_args": {"sigma": 2.0}}}
    done, _ = made({**NEW_PFD, "fp": fp}, tmp_path)
    options = {"calculator": "ase.calculators.lj.LennardJones", "arguments": {"sigma": 2.0}}
    assert done.values["label"] == {"type": "ase", "options": options}
    done, _ = made({**NEW_PFD, "fp": {"type": "ase"}}, tmp_path)
    assert done.values["label"]["type"] == "deepmd" and "the model that labels" in done.edits["label.options"]


def test_two_branches_are_told(tmp_path):
    source = with_value(NEW_PFD, "exploration.config.head", "Other")
    done, _ = made(source, tmp_path)
    assert done.values["model"]["branch"] == "Domains_SemiCond" and "Other" in done.edits["model.branch"]


def test_a_shell_line_becomes_one_command(tmp_path):
    command = "source oneapi/setvars.sh && OMP_NUM_THREADS=2 mpirun -n 32 vasp_std | tee log"
    fp = {**NEW_PFD["fp"], "run_config": {"command": command}}
    done, _ = made({**NEW_PFD, "fp": fp}, tmp_path)
    launch = {"command": "mpirun -n 32 vasp_std", "env": {"OMP_NUM_THREADS": "2"}, "processes": 32}
    assert done.values["label"]["launch"] == launch and "source oneapi/setvars.sh" in done.edits["label.launch"]


def test_the_first_releases_keep_the_dynamics_of_a_group_in_a_table(tmp_path):
    group = {
        "conf_idx": [0],
        "n_sample": 1,
        "exploration": {k: v for k, v in OLD_GROUP.items() if k not in ("conf_idx", "n_sample")},
    }
    source = {**OLD_FT, "exploration": {**OLD_FT["exploration"], "stages": [[group]]}}
    done, text = made(source, tmp_path)
    assert text == made(OLD_FT, tmp_path)[1]
    assert ("exploration.stages[0][0].exploration.dt", MAPPED, "explore.timestep") in done.told()


def test_reuse_counts_only_where_dpgen_reads_it(tmp_path):
    source = {**json.loads(DPGEN), "training_reuse_stop_batch": 9, "training_reuse_start_lr": 1e-4}
    done, _ = made(source, tmp_path)
    assert done.values["train"]["steps"] == 400000 and done.values["train"]["start_lr"] == 1e-3
    done, _ = made({**source, "training_reuse_iter": 1, "training_reuse_old_ratio": 0.9}, tmp_path)
    train = done.values["train"]
    assert (train["first_steps"], train["steps"], train["start_lr"], train["new_fraction"]) == (400000, 9, 1e-4, 0.1)
    assert ("default_training_param.learning_rate.start_lr", LACKING) in [row[:2] for row in done.told()]


def test_what_has_no_place_is_in_the_file_too(tmp_path, capsys):
    (tmp_path / "given.json").write_text(json.dumps({**OLD_FT, "my_own_key": 1}))
    assert main(["convert", str(tmp_path / "given.json")]) == 0
    assert "\n# my_own_key: unknown" in capsys.readouterr().out


def test_ramps_to_zero_are_left_to_settle(tmp_path):
    """They count in DeePMD-kit with TensorFlow, which these programs were written for, not with PyTorch."""
    for loss, words in (
        ({"start_pref_v": 0.9}, "limit_pref_v: one is 0"),
        ({"start_pref_e": 0, "limit_pref_e": 0}, None),
    ):
        done, text = made(with_value(OLD_FT, "train.template_script.loss", loss), tmp_path)
        assert (
            (words in done.edits["train.deepmd.loss"] and words in text) if words else "deepmd.loss" not in done.edits
        )
