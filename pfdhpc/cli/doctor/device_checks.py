"""The checks of ``pfdhpc doctor`` on processors and GPUs."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .checks import FAIL, PAGE, WARN, Finding
from .machine import Site
from .probes import ERROR

CPU_ONLY = 'ranks.gpus = "none" runs everything on the processor meanwhile'


def driver(site: Site, compute: Callable[[], Mapping[str, str]]) -> Finding:
    """Whether the driver is new enough for the CUDA of torch, and torch computes on every GPU it sees.

    ``compute()`` gives what the probe of torch on the GPUs says; it is asked where there is a chance.
    """
    check = "CUDA driver"
    if site.broken_driver:
        remedy = f"the driver of this node does not work: tell who looks after it, or take another node; {CPU_ONLY}"
        return Finding(check, site.broken_driver, FAIL, remedy)
    if not site.gpus:
        return Finding(check, f"no GPU in use; torch is built for CUDA {site.wheels or '-'}")
    if not site.wheels:
        source = "conda install -c conda-forge 'pytorch=*=cuda*'" if site.conda else "pip install torch==2.11.0"
        return Finding(check, "torch is built for the processor only", FAIL, f"{source}; {CPU_ONLY}")
    if site.old_driver:
        found = f"is for CUDA {site.driver}, torch for {site.wheels}"
        newer = f"a driver for CUDA {site.wheels.split('.')[0]}, or conda's deepmd-kit for CUDA {site.driver}"
        return Finding(check, found, FAIL, f"{newer}; {CPU_ONLY}; {PAGE}")
    told = compute()
    if problem := told.get(ERROR):
        return Finding(check, problem, FAIL, f"nvidia-smi shows what is wrong with the card; {CPU_ONLY}; {PAGE}")
    if told.get("count", "0") == "0":
        found = f"torch sees no GPU (driver CUDA {site.driver or '?'}, torch {site.wheels})"
        return Finding(check, found, FAIL, f"nvidia-smi, and CUDA_VISIBLE_DEVICES; {CPU_ONLY}; {PAGE}")
    return Finding(check, f"CUDA {site.driver or '?'}, torch for {site.wheels}, computes on {told['count']}")


def gpus(facts: Sequence[Mapping[str, Any]]) -> Finding:
    """The GPUs each node's ranks see, and how many share one. ``facts``: host, gpus and cores of each rank."""
    lines, shared = [], False
    for host, count in Counter(fact["host"] for fact in facts).items():
        cards = [fact["gpus"] for fact in facts if fact["host"] == host]
        number = len({card for some in cards for card in some})
        shared |= bool(number) and count - 1 > number
        lines.append(f"{host}: {number or 'none'}" + (f" for {count} ranks" if count > 1 else ""))
    if not any(fact["gpus"] for fact in facts):
        return Finding("GPUs", "none visible: everything runs on the processor")
    if _bound(facts):
        remedy = "srun --gpu-bind=none: every rank must see all GPUs of its node, pfdhpc gives them out"
        return Finding("GPUs", "; ".join(lines) + ", each rank bound to its own", WARN, remedy)
    if shared:
        remedy = (
            "trainer and explorers take them first, one each; labelers then share: pfdhpc plan shows who;"
            " if the node has more, srun --gpu-bind=none lets every rank see all of them"
        )
        return Finding("GPUs", "; ".join(lines), WARN, remedy)
    return Finding("GPUs", "; ".join(lines))


def _bound(facts: Sequence[Mapping[str, Any]]) -> bool:
    """Whether ranks of one node see different GPUs."""
    seen: dict[str, set[tuple[str, ...]]] = {}
    for fact in facts:
        seen.setdefault(fact["host"], set()).add(tuple(fact["gpus"]))
    return any(len(cards) > 1 for cards in seen.values())


def cores(facts: Sequence[Mapping[str, Any]], threads: int) -> Finding:
    """Whether the cores that each node's ranks may use are enough for their threads."""
    lines, short = [], False
    for host, count in Counter(fact["host"] for fact in facts).items():
        allowed = {core for fact in facts if fact["host"] == host for core in fact["cores"]}
        short |= count * threads > len(allowed)
        lines.append(f"{host}: {_of(count, 'rank')} x {_of(threads, 'thread')} on {_of(len(allowed), 'core')}")
    if short:
        remedy = "fewer ranks or ranks.threads, or more --cpus-per-task: ranks that share a core slow each other down"
        return Finding("cores", "; ".join(lines), WARN, remedy)
    return Finding("cores", "; ".join(lines))


def _of(count: int, what: str) -> str:
    return f"{count} {what}" + "s" * (count != 1)
