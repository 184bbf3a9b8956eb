"""Tiny pre-trained models, built with fixed random weights in well under a second, nothing trained."""

from copy import deepcopy
from pathlib import Path

DESCRIPTORS = {
    "se_e2_a": {
        "type": "se_e2_a",
        "rcut": 4.5,
        "rcut_smth": 0.5,
        "neuron": [4, 8],
        "axis_neuron": 2,
        "type_one_side": True,
        "precision": "float64",
        "seed": 1,
    },
    "dpa1": {
        "type": "se_atten_v2",
        "rcut": 4.5,
        "rcut_smth": 0.5,
        "sel": 60,
        "neuron": [4, 8],
        "axis_neuron": 2,
        "tebd_dim": 4,
        "attn_layer": 0,
        "precision": "float64",
        "seed": 1,
    },
    "dpa3": {
        "type": "dpa3",
        "repflow": {
            "n_dim": 8,
            "e_dim": 4,
            "a_dim": 4,
            "nlayers": 1,
            "e_rcut": 4.5,
            "e_rcut_smth": 3.5,
            "e_sel": 60,
            "a_rcut": 3.0,
            "a_rcut_smth": 2.0,
            "a_sel": 20,
        },
        "precision": "float64",
        "seed": 1,
    },
    "dpa4": {
        "type": "dpa4",
        "rcut": 4.5,
        "sel": 20,
        "channels": 8,
        "n_radial": 4,
        "lmax": 1,
        "mmax": 1,
        "n_blocks": 1,
        "precision": "float64",
        "seed": 1,
    },
}


def tiny_checkpoint(folder, type_map=("Si", "C"), branches=None, descriptor="se_e2_a") -> Path:
    """A deepmd checkpoint ``folder/tiny.pt``; with ``branches=("a", "b")`` a multi-task one.

    The branches share the descriptor and differ in the fitting net. ``descriptor``: one of ``DESCRIPTORS``.
    """
    import torch
    from deepmd.pt.train.training import get_model_for_wrapper
    from deepmd.pt.train.wrapper import ModelWrapper

    single = [_params(type_map, descriptor, seed) for seed in range(1, 1 + len(branches or "x"))]
    params = {"model_dict": dict(zip(branches, single, strict=True))} if branches else single[0]
    model = get_model_for_wrapper(params)
    for index, part in enumerate(model.values() if branches else [model]):
        bias = torch.arange(1, 1 + len(type_map), dtype=torch.float64) * -(index + 1.5)
        part.set_out_bias(bias.reshape(part.get_out_bias().shape).to(part.get_out_bias()))
    path = Path(folder) / "tiny.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": ModelWrapper(model, model_params=params).state_dict()}, path)
    return path


def frozen(checkpoint, folder, branch=None) -> Path:
    """The checkpoint as a TorchScript file ``folder/<name>.pth``, what LAMMPS reads."""
    from deepmd.pt.entrypoints.main import freeze

    Path(folder).mkdir(parents=True, exist_ok=True)
    path = Path(folder) / f"{Path(checkpoint).stem}.pth"
    freeze(str(checkpoint), str(path), head=branch)
    return path


def _params(type_map, descriptor, seed) -> dict:
    """Parameters as deepmd itself stores them: every default filled in."""
    from deepmd.utils.argcheck import normalize

    section = deepcopy(DESCRIPTORS[descriptor])
    if descriptor == "se_e2_a":
        section["sel"] = [40] * len(type_map)
    model = {
        "type_map": list(type_map),
        "descriptor": section,
        "fitting_net": {"neuron": [8, 8], "precision": "float64", "seed": seed},
    }
    if descriptor == "dpa4":
        model["type"], model["fitting_net"]["type"] = "dpa4", "dpa4_ener"
    training = {"training_data": {"systems": ["none"]}, "numb_steps": 1}
    return normalize({"model": model, "loss": {"type": "ener"}, "training": training})["model"]
