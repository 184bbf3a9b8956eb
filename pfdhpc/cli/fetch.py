"""``pfdhpc fetch-model``: what ``dp pretrained download`` does, with a word for machines without internet."""

import argparse
import difflib
import logging
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from rich.table import Table

from ..errors import EXIT_COMPLETE, InputError
from ..log import console

PATIENCE = 5.0
"""Seconds in which a host must take a connection."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="a name from --list")
    parser.add_argument("--list", action="store_true", help="the models deepmd-kit knows")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="folder for the file; default: deepmd's cache")


def fetch(options: argparse.Namespace) -> int:
    """Download, or list; raises InputError for an unknown name and where there is no way out of this machine."""
    from deepmd.pretrained.download import DEFAULT_CACHE_DIR
    from deepmd.pretrained.registry import MODEL_REGISTRY

    if options.list:
        console.print(_table(MODEL_REGISTRY))
        return EXIT_COMPLETE
    if not options.name:
        raise InputError("fetch-model: name a model, or give --list to see them")
    if options.name not in MODEL_REGISTRY:
        near = difflib.get_close_matches(options.name, MODEL_REGISTRY, 3, 0.5)
        known = f"did you mean {' or '.join(near)}?" if near else f"known here: {', '.join(sorted(MODEL_REGISTRY))}"
        raise InputError(f"fetch-model: deepmd-kit knows no model {options.name!r}; {known}")
    path = _download(options.name, MODEL_REGISTRY[options.name], options.output or DEFAULT_CACHE_DIR)
    console.print(f"{path}", markup=False)
    if not frozen(options.name):
        console.print(
            f'{options.name} is a DPA-4: train.type = "dpa4" in the input, it explores with ASE', markup=False
        )
    console.print(f"next: pfdhpc init finetune --model {path} --from YOUR-STRUCTURES", markup=False)
    return EXIT_COMPLETE


def frozen(name: str) -> bool:
    """Whether a model of the registry freezes to what LAMMPS loads; a DPA-4 does not."""
    from ..engines.train.deepmd.checkpoint import COMPILED

    return not name.lower().replace("-", "").startswith(tuple(COMPILED))


def _table(registry: dict[str, Any]) -> Table:
    hosts = dict.fromkeys(host for facts in registry.values() for host in _hosts(facts["urls"]))
    table = Table(title="pre-trained models that deepmd-kit downloads", caption=f"from {', '.join(hosts)}")
    for name in ("name", "file", "for pfdhpc"):
        table.add_column(name)
    for name, facts in sorted(registry.items()):
        usable = "with LAMMPS" if frozen(name) else 'with ASE: train.type = "dpa4"'
        table.add_row(name, facts["filename"], usable)
    return table


def _hosts(urls: Sequence[str]) -> list[str]:
    return [urlsplit(url).hostname or "" for url in urls]


def _download(name: str, facts: dict[str, Any], folder: Path) -> Path:
    from deepmd.pretrained.download import download_model

    logger = logging.getLogger("pfdhpc.fetch")
    target = folder / facts["filename"]
    if not target.exists() and not reachable(_hosts(facts["urls"])):
        raise InputError(_no_internet(name, facts, target))
    try:
        return download_model(name, cache_dir=folder, logger=logger)
    except OSError as error:
        raise InputError(f"fetch-model: {target} cannot be written: {error.strerror or error}") from None
    except RuntimeError:  # every source failed
        raise InputError(_no_internet(name, facts, target)) from None


def reachable(hosts: Sequence[str]) -> bool:
    """Whether one of the hosts takes a connection; where a proxy is set, that is for the download to find out."""
    if "https" in getproxies():
        return True
    for host in hosts:
        try:
            socket.create_connection((host, 443), timeout=PATIENCE).close()
            return True
        except OSError:
            continue
    return False


def _no_internet(name: str, facts: dict[str, Any], target: Path) -> list[str]:
    """What to do instead, one line each."""
    return [
        f"fetch-model: {socket.gethostname()} does not reach {', '.join(_hosts(facts['urls']))}",
        f"  on a login node, or any machine with internet: pfdhpc fetch-model {name} -o {target.parent}",
        f"  or: curl -L -o {facts['filename']} '{facts['urls'][0]}'",
        f"  and copy the file to {target}; its sha256 is {facts['sha256']}",
        "  behind a proxy: export https_proxy=http://HOST:PORT",
    ]
