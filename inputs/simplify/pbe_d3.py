"""The second level of theory: the first one, which is a branch of the pre-trained model, plus D3 dispersion."""

from pathlib import Path

from ase.calculators.mixing import SumCalculator

MODEL = Path(__file__).resolve().parents[1] / "pretrained" / "dpa3_small.pt"


def pbe_d3(head="MPtrj_PBE", method="PBE", damping="d3bj"):
    """An ASE calculator: energy, forces and stress of both."""
    from deepmd.calculator import DP
    from dftd3.ase import DFTD3

    return SumCalculator([DP(str(MODEL), head=head), DFTD3(method=method, damping=damping)])
