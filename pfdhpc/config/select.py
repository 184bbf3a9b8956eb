"""[select]: which candidates are worth a label."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from .base import Section

Positive = Annotated[float, Field(gt=0)]


class FilterSection(Section):
    """Unphysical candidates are dropped before the selection."""

    min_distance_ratio: float = Field(
        0.6, ge=0, description="closest pair over the sum of covalent radii, element by element; 0: off"
    )
    max_skew: float = Field(60.0, gt=0, lt=90, description="largest tilt of the cell from orthogonal, degrees")
    max_length_ratio: float = Field(5.0, gt=1, description="longest over shortest lattice vector")
    max_volume_ratio: float = Field(2.0, gt=1, description="volume over the start's volume, and its inverse")
    max_force: float = Field(50.0, gt=0, description="largest predicted force, eV/Å")


class DescriptorSection(Section):
    """How an atomic environment is described (:mod:`pfdhpc.selection.quests`)."""

    type: Literal["chemistry", "quests", "model"] = Field(
        "chemistry", description="QUESTS with the species of the atoms, without them, or the current model's own"
    )
    neighbours: int = Field(32, ge=2, description="k of the QUESTS descriptor")
    cutoff: float = Field(5.0, gt=0, description="cutoff of the QUESTS descriptor, Å")
    smoothing: float = Field(
        0.02, ge=0, description="half-width in Å of the blend where the k-th shell is cut; 0: as in the quests program"
    )
    species_weight: float = Field(0.1, gt=0, description="how much species count against distances (chemistry)")
    precision: Literal["float64", "float32"] = Field("float64", description="in which descriptors are made and kept")

    @model_validator(mode="after")
    def _consistent(self):
        problems = []
        if self.type == "model":
            unread = self.model_fields_set - {"type"}
            problems = [f'{key}: type = "model" takes what the model itself has; leave it out' for key in unread]
        elif self.type == "quests" and "species_weight" in self.model_fields_set:
            problems = ['species_weight: type = "quests" does not tell species apart; only type = "chemistry" does']
        if problems:
            raise ValueError("\n".join(sorted(problems)))
        return self


class SelectSection(Section):
    """Which candidates of a round are worth a label."""

    method: Literal["greedy", "pfd", "random"] = Field(
        "greedy", description="one by one by what each adds; PFD-kit's chunks; or by chance, to compare with"
    )
    max_sel: int = Field(10, ge=1, description="frames labelled in a round, at most")
    min_gain: float = Field(
        0.0, description="nats; greedy: a frame that adds less is not labelled (0: an equal environment covers it)"
    )
    score: Literal["neutral", "sum"] = Field(
        "neutral", description="of a frame: the mean of its average and largest δH, or the sum over its atoms"
    )
    chunk: int = Field(
        10, ge=1, description="frames method pfd picks at a time; in `pfdhpc select` the last chunk may exceed max_sel"
    )
    quotas: dict[str, Annotated[int, Field(ge=0)]] = Field(
        {}, description="frames of a system in a round, at most, by its name"
    )
    trust_lo: Positive | Literal["adaptive"] | None = Field(
        None, description="committee force deviation in eV/Å below which a frame is accurate and not picked"
    )
    trust_hi: Positive | Literal["adaptive"] | None = Field(
        None, description="deviation in eV/Å above which it has failed and is not picked; adaptive: see the README"
    )
    descriptor: DescriptorSection = DescriptorSection()
    bandwidth: Positive | Literal["density", "spread"] = Field(
        0.015, description="h of the kernel, 1/Å; density: from the volume per atom; spread: from the descriptors"
    )
    blocks: int = Field(
        64, ge=1, description="parts the reference is cut into; a rank holds its share and up to three others at a time"
    )
    patience: float = Field(600.0, gt=0, description="seconds the selection waits for a late explorer team")
    filter: FilterSection = FilterSection()

    @model_validator(mode="before")
    @classmethod
    def _implied(cls, values: Any) -> Any:
        """What a choice means for keys that are not given."""
        if not isinstance(values, dict):
            return values
        values = dict(values)
        descriptor = values.get("descriptor", {})
        if values.get("method") == "pfd":
            values.setdefault("score", "sum")
            if isinstance(descriptor, dict) and descriptor.get("type") != "model":
                values["descriptor"] = descriptor = {"type": "quests", "smoothing": 0.0, **descriptor}
        if isinstance(descriptor, dict) and descriptor.get("type") == "model":
            values.setdefault("bandwidth", "spread")
        return values

    @model_validator(mode="after")
    def _consistent(self):
        problems = []
        if self.method == "pfd" and self.score != "sum":
            problems.append('score: method = "pfd" adds up the atoms; use score = "sum", or method = "greedy"')
        if self.method != "pfd" and "chunk" in self.model_fields_set:
            problems.append(f'chunk: method = "{self.method}" picks frames one by one; only method = "pfd" has chunks')
        if self.method == "pfd" and self.quotas:
            problems.append('quotas: method = "pfd" has none; use method = "greedy"')
        if self.method == "random":
            given = sorted({"min_gain", "score"} & self.model_fields_set)
            problems += [f'{key}: method = "random" compares nothing to pick; leave it out' for key in given]
        elif self.method == "pfd" and "min_gain" in self.model_fields_set:
            problems.append('min_gain: method = "pfd" picks up to max_sel whatever they add; only "greedy" has it')
        lo, hi = self.trust_lo, self.trust_hi
        if isinstance(lo, float) and isinstance(hi, float) and lo >= hi:
            problems.append(f"trust_lo: {lo:g} is not below trust_hi {hi:g}: no frame could be picked")
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def unread_in_a_run(self) -> list[str]:
        """Problems with keys that only `pfdhpc select`, which tells entropies, reads with method random."""
        given = {"descriptor", "bandwidth"} & self.model_fields_set if self.method == "random" else set()
        return [f'select.{key}: method = "random" describes nothing in a run; leave it out' for key in sorted(given)]
