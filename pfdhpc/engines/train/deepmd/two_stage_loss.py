"""Two-stage training: direct forces first, then those that are the gradient of the energy.

The recipe is that of the PET models (Bigi, Langer, Ceriotti, "The dark side of the forces"): a head on the
descriptor predicts forces as vectors. As long as only these and the energy are trained, nothing is differentiated
by the positions, and a step costs a fraction; the conservative stage that follows starts from weights that are
good already, and goes on training the head with a small weight.

Works for every deepmd descriptor with vectors per atom (its rotation matrix: se_e2_a, DPA-1, DPA-2, DPA-3). deepmd's
own fitting "direct_force_ener" is not open to its input any more, and its "dens" is for DPA-4 alone. The head
belongs to the loss: no model that leaves a training has it.

To be imported by functions only: it loads deepmd.
"""

from typing import Any

import torch
from deepmd.pt.loss import EnergyStdLoss
from deepmd.pt.loss.loss import TaskLoss
from deepmd.pt.utils import env
from deepmd.pt.utils.nlist import extend_input_and_build_neighbor_list

NAME = "pfdhpc_two_stage"
WIDTH = 64
"""Of the head's one hidden layer."""

Tensors = dict[str, torch.Tensor]


class Unsaved(torch.nn.Module):
    """In no checkpoint: those of deepmd, and its rules of fine-tuning, know models only."""

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return kwargs.get("destination", args[0] if args else {})

    def _load_from_state_dict(self, *args: Any) -> None:
        pass


class DirectHead(Unsaved):
    """Forces from a descriptor of n_in numbers and its n_vectors vectors: their sum with learned weights.

    Weights: one hidden layer, all random but from ``seed`` alone.
    """

    def __init__(self, n_in: int, n_vectors: int, seed: int):
        super().__init__()
        draws = torch.Generator("cpu").manual_seed(seed)
        shapes = (n_in, WIDTH), (WIDTH,), (WIDTH, n_vectors), (n_vectors,)
        for name, shape in zip(("inner", "shift", "outer", "constant"), shapes, strict=True):
            drawn = torch.randn(shape, generator=draws, dtype=torch.float64, device="cpu") / shape[0] ** 0.5
            self.register_parameter(name, torch.nn.Parameter(drawn.to(env.DEVICE)))

    def forward(self, descriptor: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        """(n_frames, n_atoms, n_in) and (n_frames, n_atoms, n_vectors, 3) to forces (n_frames, n_atoms, 3)."""
        weights = torch.tanh(descriptor.double() @ self.inner + self.shift) @ self.outer + self.constant
        return torch.einsum("fam,famx->fax", weights, vectors.double().reshape(*weights.shape, 3))


@TaskLoss.register(NAME)
class TwoStageLoss(Unsaved, EnergyStdLoss):
    """deepmd's energy loss; of direct forces for the first ``direct_steps`` steps, with their head after that."""

    def __init__(self, direct_steps: int, direct_weight: float, shape: tuple[int, int], seed: int, **energy_loss: Any):
        super().__init__(**energy_loss)
        self.head = DirectHead(*shape, seed)
        self.direct_steps, self.direct_weight, self.steps = direct_steps, direct_weight, 0

    @classmethod
    def get_loss(cls, loss_params: dict[str, Any]) -> "TwoStageLoss":
        """deepmd's way to make a loss of its parameters."""
        return cls(**{key: value for key, value in loss_params.items() if key != "type"})

    def forward(
        self, input_dict: Tensors, model: Any, label: Tensors, natoms: int, learning_rate: float, **options: Any
    ) -> tuple[Tensors, torch.Tensor, Tensors]:
        """Prediction, loss and errors of a batch, always the same ones; ``rmse_d``: of the direct forces."""
        if self.training:
            self.steps += 1
        if self.steps <= self.direct_steps:

            def directly(**inputs: Any) -> Tensors:
                return self._predict(model, inputs)

            predicted, loss, errors = super().forward(input_dict, directly, label, natoms, learning_rate, **options)
            kind = "mae" if self.loss_func == "mae" else "rmse"
            absent = [f"{kind}_f", *([f"{kind}_v"] if self.has_v else [])]
            direct = _rms(predicted["force"].detach(), label)
            return predicted, loss, {**errors, **dict.fromkeys(absent, torch.nan * direct), "rmse_d": direct}
        seen: list[Any] = []
        hook = model.get_descriptor().register_forward_hook(lambda module, inputs, output: seen.append(output))
        try:
            predicted, loss, errors = super().forward(input_dict, model, label, natoms, learning_rate, **options)
        finally:
            hook.remove()
        direct = _rms(self.head(*seen[-1][:2]), label)
        decay = learning_rate / self.starter_learning_rate
        weight = self.direct_weight * (self.limit_pref_f + (self.start_pref_f - self.limit_pref_f) * decay)
        return predicted, loss + weight * direct**2, {**errors, "rmse_d": direct.detach()}

    def _predict(self, model: Any, inputs: dict[str, Any]) -> Tensors:
        """Energy and direct forces, nothing differentiated by the positions."""
        coord, box, _, _, _ = model._input_type_cast(inputs["coord"], box=inputs["box"])
        reach = model.get_rcut(), model.get_sel()
        coord, atype, mapping, nlist = extend_input_and_build_neighbor_list(
            coord, inputs["atype"], *reach, mixed_types=True, box=box
        )
        nlist = model.format_nlist(coord, atype, nlist, extra_nlist_sort=model.need_sorted_nlist_for_lower())
        seen: list[Any] = []
        hook = model.get_descriptor().register_forward_hook(lambda module, inputs, output: seen.append(output))
        try:
            atomic = model.atomic_model.forward_common_atomic(coord, atype, nlist, mapping=mapping)
        finally:
            hook.remove()
        return {"energy": atomic["energy"].sum(dim=1).double(), "force": self.head(*seen[-1][:2])}


def _rms(forces: torch.Tensor, label: Tensors) -> torch.Tensor:
    return torch.mean((forces - label["force"].reshape(forces.shape)) ** 2).sqrt()


class Twice:
    """A learning rate that runs through its whole decay in each of the two stages."""

    def __init__(self, schedule: Any, first: int, steps: int):
        self._schedule, self._first, self._steps = schedule, first, steps
        self.start_lr = schedule.start_lr

    def value(self, step: int) -> float:
        if step < self._first:
            return self._schedule.value(step * self._steps // self._first)
        return self._schedule.value((step - self._first) * self._steps // max(1, self._steps - self._first))


def restart_learning_rate(trainer: Any) -> None:
    """Let the conservative stage of a training begin with the learning rate of the beginning."""
    trainer.lr_schedule = Twice(trainer.lr_schedule, trainer.loss.direct_steps, trainer.num_steps)
    trainer.scheduler = trainer._create_lr_scheduler(trainer.optimizer, trainer.lr_schedule, 0)


def two_staged(config: dict[str, Any], share: float, weight: float, seed: int) -> dict[str, Any]:
    """deepmd's normalised input with the loss of both stages in place of that of energies."""
    from deepmd.pt.train.training import get_model_for_wrapper

    descriptor = get_model_for_wrapper(config["model"]).get_descriptor()
    shape = descriptor.get_dim_out(), descriptor.get_dim_emb()
    total = config["training"]["numb_steps"]
    steps = min(round(share * total), total - 1)  # a model that explores has seen its own forces
    own = {"type": NAME, "direct_steps": steps, "direct_weight": weight, "shape": shape, "seed": seed % 2**32}
    return {**config, "loss": {**config["loss"], **own}}
