"""[select]: which candidates are worth a label."""

from pydantic import Field

from .base import Section


class FilterSection(Section):
    """Unphysical candidates are dropped before the selection."""

    min_distance_ratio: float = Field(
        0.6, ge=0, description="closest pair over the sum of covalent radii, element by element; 0: off"
    )
    max_skew: float = Field(60.0, gt=0, lt=90, description="largest tilt of the cell from orthogonal, degrees")
    max_length_ratio: float = Field(5.0, gt=1, description="longest over shortest lattice vector")
    max_volume_ratio: float = Field(2.0, gt=1, description="volume over the start's volume, and its inverse")
    max_force: float = Field(50.0, gt=0, description="largest predicted force, eV/Å")


class SelectSection(Section):
    max_sel: int = Field(10, ge=1, description="frames labelled in a round, at most")
    min_gain: float = Field(
        0.0, description="nats; a frame that adds less is not labelled (0: it is covered by an equal environment)"
    )
    neighbours: int = Field(32, ge=2, description="k of the QUESTS descriptor")
    cutoff: float = Field(5.0, gt=0, description="cutoff of the QUESTS descriptor, Å")
    bandwidth: float = Field(0.015, gt=0, description="h of the kernel, 1/Å")
    patience: float = Field(600.0, gt=0, description="seconds the selection waits for a late explorer team")
    filter: FilterSection = FilterSection()
