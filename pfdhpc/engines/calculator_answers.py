"""What an ASE calculator is asked for: the energy its forces are derivatives of, and no answer that is incomplete."""

from collections.abc import Iterator
from typing import Any

from ase.calculators.mixing import LinearCombinationCalculator

from ..errors import LabelError

EQUAL = 1e-6
"""eV by which free energy and energy may differ and be the same: no occupations are smeared."""
WITHOUT_ENERGY = ("ForceQMMM", "ForceConstantCalculator")
"""Calculators of ASE that give forces and 0 as energy."""
WITHOUT_STRESS = ("vdWTkatchenko09prl",)
"""Those that give the stress of the calculator they correct, uncorrected."""


def consistent_energy(atoms: Any) -> float:
    """The energy (eV) that the forces of the calculator of ``atoms`` are derivatives of; to be called after they are.

    With smeared occupations it is the free energy, electronic entropy included (Wentzcovitch, Martins & Allen,
    Phys. Rev. B 45 (1992) 11372), which ASE calls ``free_energy``; its ``energy`` is extrapolated to zero width.
    Raises LabelError where the free energy of a part is lost.
    """
    return _energy(atoms.calc, atoms)


def check_answers(calculator: Any, virial: bool) -> None:
    """Raise LabelError for a calculator, or a part, without the energy (with ``virial``, the stress) of its forces."""
    for part in (calculator, *parts(calculator)):
        name = type(part).__name__
        if name in WITHOUT_ENERGY:
            raise LabelError(f"{name} gives forces without their energy, which it says is 0: it cannot label")
        if name == "Dftb" and any(key.startswith("Hamiltonian_Filling") for key in part.parameters):
            raise LabelError(
                "Dftb reads the energy without the entropy of Hamiltonian_Filling, of which its forces are"
            )
        if virial and name in WITHOUT_STRESS:
            raise LabelError(f"{name} gives the stress without its correction; set label.virial = false")


def parts(calculator: Any) -> Iterator[Any]:
    """The calculators that a calculator holds, and those they hold: of ASE's sums, of wrappers, of QM/MM."""
    seen = {id(calculator)}
    waiting = [calculator]
    while waiting:
        for part in _held(waiting.pop()):
            if id(part) not in seen:
                seen.add(id(part))
                waiting.append(part)
                yield part


def _energy(calculator: Any, atoms: Any) -> float:
    if "free_energy" in getattr(calculator, "implemented_properties", ()):
        return calculator.get_potential_energy(atoms, force_consistent=True)
    energy = calculator.get_potential_energy(atoms)
    results = getattr(calculator, "results", {})
    if "free_energy" in results:  # dispersion programs give it and do not list it
        return results["free_energy"]
    if isinstance(calculator, LinearCombinationCalculator):
        return energy + _lost_by_sum(calculator.mixer, atoms)
    if lost := [part for part in parts(calculator) if _is_smeared(part)]:
        name, part = type(calculator).__name__, type(lost[0]).__name__
        raise LabelError(
            f"{name} gives no free energy, and its forces are of that of {part}, which is not its energy: let {name} "
            f'set results["free_energy"], add calculators by ase.calculators.mixing, or take {part} without smearing'
        )
    return energy


def _lost_by_sum(mixer: Any, atoms: Any) -> float:
    """Free energy less energy (eV) of a sum, which has the properties that all of its parts list, and no others."""
    differences = [_energy(part, atoms) - part.get_potential_energy(atoms) for part in mixer.calcs]
    return sum(weight * value for weight, value in zip(mixer.weights, differences, strict=True))


def _is_smeared(calculator: Any) -> bool:
    """Whether the free energy it gave last is not its energy."""
    results = calculator.results
    return {"energy", "free_energy"} <= results.keys() and abs(results["free_energy"] - results["energy"]) > EQUAL


def _held(calculator: Any) -> Iterator[Any]:
    if isinstance(calculator, LinearCombinationCalculator):
        yield from calculator.mixer.calcs
        return
    for value in getattr(calculator, "__dict__", {}).values():
        several = value.values() if isinstance(value, dict) else value
        for one in several if isinstance(several, list | tuple | type({}.values())) else (value,):
            if hasattr(one, "get_potential_energy") and isinstance(getattr(one, "results", None), dict):
                yield one
