"""PFD-kit's structures and exploration stages as [[system]] and [explore]: the same starts, as many of each."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .translation import EDIT, Translation

STAGES = "exploration.stages"
ENSEMBLES = {
    "nve": "nve", "nvt": "nvt", "npt": "npt-iso", "npt-i": "npt-iso", "npt-iso": "npt-iso",
    "npt-a": "npt-aniso", "npt-aniso": "npt-aniso", "npt-t": "npt-tri", "npt-tri": "npt-tri",
}  # fmt: skip
OLDER = {"ens": "nve", "dt": 1e-3, "nsteps": 100, "trj_freq": 10, "tau_t": 0.05, "tau_p": 0.5}
NEWER = {"ens": "npt", "dt": 2.0, "nsteps": 1000, "trj_freq": 100, "tau_t": 100.0, "tau_p": 500.0}
"""PFD-kit's own defaults; times in ps (LAMMPS, up to 0.6) and in fs (ASE)."""
SHARED = {
    "ens": "ensemble", "dt": "timestep", "nsteps": "steps", "trj_freq": "interval",
    "tau_t": "temperature_damping", "tau_p": "pressure_damping",
}  # fmt: skip
UNFIT = {
    "no_pbc": (False, "a frame is as periodic as its file says; LAMMPS here needs three periodic directions"),
    "pka_e": (None, "no primary knock-on atoms: initial velocities are thermal"),
    "neidelay": (None, "the neighbour list is rebuilt when it must be"),
    "use_clusters": (False, "no deviation of single atoms"),
    "relative_f_epsilon": (None, "deviations are absolute"),
    "relative_v_epsilon": (None, "deviations are absolute"),
    "type": ("lmp-md", "the keys of [explore] say how: a LAMMPS script of one's own is not read"),
}
"""Keys of a task group by the value that asks for nothing, with why any other has no equivalent."""


def stages(done: Translation, where: str, older: bool) -> None:
    """[[system]] from the structures at ``where``, and [explore] from the groups of all stages.

    A group explores ``n_sample`` starts of each structure file of its ``conf_idx`` at each of its temperatures and
    pressures; pfdhpc every start of every system at all of them. Where that is not as much, it is left to settle.
    """
    groups = task_groups(done)
    if done.get("exploration.type", "lmp").startswith("calypso"):
        for key in ("exploration.type", STAGES):
            done.lack(key, "no structure search here, only molecular dynamics: [explore]")
        groups = {}
    if groups:
        done.read("exploration.type", "explore: molecular dynamics")
    samples = {place: n for group in reversed(groups) for place, n in _chosen(done, group, older).items()}
    _systems(done, where, samples, older)
    if not groups:
        done.put("explore.temperatures", [300.0], "no molecular dynamics in the source: set [explore]")
        return
    _settings(done, list(groups), 1000.0 if older else 1.0, OLDER if older else NEWER)
    _amount(done, groups, older)


def task_groups(done: Translation) -> dict[str, int]:
    """The path of every task group, with the number of its stage."""
    section = "exploration" if done.get("exploration") else "explore"
    found = done.get(f"{section}.stages", [])
    return {f"{section}.stages[{i}][{j}]": i for i, stage in enumerate(found) for j, _ in enumerate(stage)}


def _chosen(done: Translation, group: str, older: bool) -> dict[int, int | None]:
    """By index of a structure file: how many starts the group takes of it, None for all there are."""
    number = done.read(f"{group}.n_sample", "system.perturb.count: starts of each structure")
    text = "which structures become a [[system]]"
    return {int(place): number for place in done.read(f"{group}.conf_idx", text, [])}


def _systems(done: Translation, where: str, samples: Mapping[int, int | None], older: bool) -> None:
    prefix = done.read(f"{where}.prefix", "part of system.structures")
    files = done.read(f"{where}.confs_paths", "system.structures", [])
    files = done.paths(files, prefix)
    if done.get(f"{where}.fmt"):
        done.read(f"{where}.fmt", "system.structures: ASE tells the format from the file itself")
    unfit = sorted(place for place in samples if not 0 <= place < len(files))
    if unfit and files:
        raise ValueError(f"{STAGES}: conf_idx {unfit} where there are {len(files)} structure files")
    kept = {place: path for place, path in enumerate(files) if place in samples or not samples}
    if len(kept) < len(files):
        left = [Path(path).name for place, path in enumerate(files) if place not in kept]
        done.read(f"{where}.confs_paths", f"system.structures; not {', '.join(left)}: in no conf_idx")
    done.values["system"] = []
    changes = _perturbations(done, len(files)) if older else {}
    for name, (place, path) in zip(_names(list(kept.values())), kept.items(), strict=True):
        done.values["system"].append({"name": name, "structures": [path], **changes.get(place, (None, {}))[1]})
        if place in changes:
            _copies(done, changes[place][0], samples.get(place))
        _count(done, len(done.values["system"]) - 1, samples.get(place), older)
    if not files:
        done.values["system"] = [{"name": "material", "structures": [f"{EDIT}/structure.extxyz"]}]
        done.edits["system[0].structures"] = "no structure files in the source"


def _names(files: list[str]) -> list[str]:
    """A name for each file, from its own or, where these are the same, with its number."""
    stems = ["".join(c if c.isascii() and (c.isalnum() or c in "_.+-") else "-" for c in Path(p).stem) for p in files]
    return [f"{stem}-{place}" if stems.count(stem) > 1 else stem for place, stem in enumerate(stems)]


def _copies(done: Translation, key: str, sample: int | None) -> None:
    if sample is None:
        done.read(f"{key}.pert_num", "system.perturb.count")
    else:
        done.ignore(f"{key}.pert_num", "n_sample says from how many of them a round starts: system.perturb.count")


def _perturbations(done: Translation, files: int) -> dict[int, tuple[str, dict[str, Any]]]:
    """How each structure file is altered, by its index: as the last entry that names it says, else as the first.

    With the path of that entry.
    """
    where = "conf_generation.pert_generation"
    given = done.get(where, [])
    keys = [f"{where}[{n}]" for n in range(len(given))] if isinstance(given, list) else [where]
    found = {place: keys[0] for place in range(files) if keys}
    for key in keys:
        named = done.read(f"{key}.conf_idx", "system.perturb: of the systems named", "default")
        for place in range(files) if named == "default" else named:
            found[place] = key
    return {place: (key, _perturbation(done, key)) for place, key in found.items()}


def _perturbation(done: Translation, key: str) -> dict[str, Any]:
    """A system's own keys from one entry."""
    changes = {
        "count": done.get(f"{key}.pert_num", 1),
        "strain": done.read(f"{key}.cell_pert_fraction", "system.perturb.strain", 0.0),
        "displacement": done.read(f"{key}.atom_pert_distance", "system.perturb.displacement", 0.0),
    }
    repeat = done.read(f"{key}.replicate", "system.supercell", 1)
    if done.get(f"{key}.orig"):
        done.lack(f"{key}.orig", "every start of a system is altered, or none; add a [[system]] without perturb")
    done.ignore(f"{key}.orig", "every start is altered")
    found = {"supercell": repeat if isinstance(repeat, list) else [repeat] * 3} if repeat != 1 else {}
    return {**found, "perturb": changes}


def _count(done: Translation, number: int, sample: int | None, older: bool) -> None:
    """Starts of one system: ``sample`` of its copies, or of the frames of its file."""
    system = done.values["system"][number]
    frames = 1 if older else frames_of(Path(system["structures"][0]), done.target)
    perturb = system.get("perturb", {})
    if "strain" in perturb and not perturb["strain"] and not perturb["displacement"]:
        perturb = {"count": perturb["count"]} if (sample or perturb["count"]) > 1 else {}
    if sample is not None and frames is not None and (perturb or sample > frames):
        perturb = {**perturb, "count": -(-sample // frames)}
    system["perturb"] = perturb or None
    if sample is not None and (frames is None or sample < frames):
        text = f"PFD-kit starts from {sample} of the frames of this file a round, in turn; here from each one in it"
        done.edits[f"system[{number}].structures"] = text


def frames_of(path: Path, folder: Path) -> int | None:
    """How many frames a structure file holds; None where that cannot be seen."""
    import ase.io

    try:
        return len(ase.io.read(folder / path, index=":", parallel=False))
    except Exception:  # ASE's readers raise all kinds; `pfdhpc check` tells what is wrong with the file
        return None


def _settings(done: Translation, groups: list[str], unit: float, defaults: Mapping[str, Any]) -> None:
    """[explore] from the first group; whatever a later one has otherwise is told."""
    first = groups[0]
    values = {key: done.get(f"{first}.{key}", default) for key, default in defaults.items()}
    temperatures, pressures = _ramps(done, groups, "temps"), _ramps(done, groups, "press")
    name = str(values["ens"]).lower()
    ensemble = ENSEMBLES.get(name, "nvt")
    edit = "" if name in ENSEMBLES else f"{name} is no ensemble here: not molecular dynamics, or unknown"
    done.put("explore.ensemble", ensemble, edit)
    for key in ("dt", "tau_t", *(["tau_p"] if ensemble.startswith("npt") else [])):
        scale = unit * values["dt"] if key == "tau_t" and unit == 1.0 and ensemble == "nvt" else unit
        done.put(f"explore.{SHARED[key]}", round(values[key] * scale, 9))
    done.put("explore.steps", values["nsteps"])
    done.put("explore.interval", values["trj_freq"])
    done.put("explore.temperatures", temperatures or [300.0], "" if temperatures else "no temps in the source")
    if ensemble.startswith("npt"):
        done.put("explore.pressures", pressures or [0.0], "" if pressures else "npt, but no press in the source")
    for group in groups:
        _tell_group(done, group, values, ensemble)


def _ramps(done: Translation, groups: list[str], key: str) -> list[float]:
    return sorted({float(value) for group in groups for value in done.get(f"{group}.{key}") or []})


def _tell_group(done: Translation, group: str, values: Mapping[str, Any], ensemble: str) -> None:
    """What became of each key of one group, those of the first group being in ``values``."""
    constant = not ensemble.startswith("npt")
    done.read(f"{group}.temps", "explore.temperatures")
    for key in ("press", "tau_p") if constant else ():
        done.ignore(f"{group}.{key}", f"nothing in {ensemble} has it")
    if not constant:
        done.read(f"{group}.press", "explore.pressures, bar")
    for key, (nothing, why) in UNFIT.items():
        given = done.get(f"{group}.{key}")
        if given in (nothing, None, "lmp-npt"):
            done.ignore(f"{group}.{key}", "molecular dynamics, periodic, one model: as here")
        else:
            done.lack(f"{group}.{key}", why)
    for key, value in values.items():
        given = done.get(f"{group}.{key}", value)
        if key == "ens" and str(given).lower() not in ENSEMBLES:
            done.lack(f"{group}.{key}", "no such ensemble here")
        elif given == value and not (constant and key == "tau_p"):
            done.read(f"{group}.{key}", f"explore.{SHARED[key]}")
        elif given != value:
            done.lack(f"{group}.{key}", f"explore.{SHARED[key]} is one for all: {value} of the first group is taken")


def _amount(done: Translation, groups: Mapping[str, int], older: bool) -> None:
    """Leave to settle what is not explored as much as by PFD-kit."""
    explore, systems = done.values["explore"], done.values["system"]
    samples = [n for group in groups for n in _chosen(done, group, older).values()]
    starts = sum(_starts(system, done.target, older, max((n or 1 for n in samples), default=1)) for system in systems)
    here = starts * len(explore["temperatures"]) * len(explore.get("pressures", [0.0]))
    theirs: dict[int, int] = {}
    for group, stage in groups.items():
        samples = _chosen(done, group, older)
        count = sum(_of(done, place, n) for place, n in samples.items())
        conditions = len(done.get(f"{group}.temps", [])) * max(1, len(done.get(f"{group}.press", [])))
        theirs[stage] = theirs.get(stage, 0) + count * conditions
    if set(theirs.values()) != {here}:
        listed = ", then ".join(str(theirs[stage]) for stage in sorted(theirs))
        text = f"{here} trajectories a round here, {listed} by PFD-kit: fewer systems, temperatures, pressures or steps"
        done.edits["explore.steps"] = text if here > max(theirs.values()) else text.replace("fewer", "more")


def _of(done: Translation, place: int, sample: int | None) -> int:
    """Starts PFD-kit takes of one structure file in a round."""
    if sample is not None:
        return sample
    given = done.get("conf_generation.pert_generation", [])
    found = given if isinstance(given, list) else [given]
    entry = next((item for item in reversed(found) if place in _named(item)), found[0] if found else {})
    return entry.get("pert_num", 1) + bool(entry.get("orig"))


def _named(entry: Mapping[str, Any]) -> Any:
    named = entry.get("conf_idx", "default")
    return range(10**9) if named == "default" else named


def _starts(system: Mapping[str, Any], folder: Path, older: bool, unseen: int) -> int:
    """Starts of one system here; of a file that cannot be read ``unseen``."""
    frames = 1 if older else frames_of(Path(system["structures"][0]), folder) or unseen
    return frames * ((system.get("perturb") or {}).get("count") or 1)
