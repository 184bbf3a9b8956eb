"""Where the ranks of a team are, and what of it a program they start is told and given."""

import os
import shlex
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Places:
    """Of all ranks of a team, in their order.

    ``hosts`` are the nodes, by their names without a domain, as batch systems know them; ``gpus`` the devices, each
    once; ``cores`` those of the first rank's node that the team is bound to.
    """

    hosts: tuple[str, ...]
    gpus: tuple[str, ...] = ()
    cores: frozenset[int] = frozenset()

    def nodes(self) -> dict[str, int]:
        """The ranks on each node, in the order of the first ones."""
        return {host: self.hosts.count(host) for host in dict.fromkeys(self.hosts)}

    def command(self, text: str, processes: int, hostfile: Path) -> list[str]:
        """The words of ``label.launch.command`` with its placeholders filled in.

        ``hostfile`` is what {hostfile} stands for; it is written if it is asked for, a line for every rank, which all
        launchers read.
        """
        if "{hostfile}" in text:
            hostfile.write_text("".join(f"{host}\n" for host in self.hosts))
        found = self.nodes()
        values = {
            "ranks": processes,
            "nodes": ",".join(found),
            "n_nodes": len(found),
            "hosts": ",".join(f"{host}:{count}" for host, count in found.items()),
            "hostfile": hostfile,
        }
        return [_filled(word, values) for word in shlex.split(text)]


def _filled(word: str, values: dict[str, Any]) -> str:
    for name, value in values.items():
        word = word.replace(f"{{{name}}}", str(value))
    return word


def places_of(comm: Any) -> Places:
    """Of a team (None: this rank alone); all of its ranks call it."""
    mine = (_host(comm), os.environ.get("CUDA_VISIBLE_DEVICES", ""), os.sched_getaffinity(0))
    everyone = [mine] if comm is None else comm.allgather(mine)
    hosts = tuple(host for host, _, _ in everyone)
    gpus = dict.fromkeys(name for _, text, _ in everyone for name in text.split(",") if name)
    cores = frozenset().union(*(cores for host, _, cores in everyone if host == hosts[0]))
    return Places(hosts, tuple(gpus), cores)


def _host(comm: Any) -> str:
    """This node's name."""
    if comm is None:
        return socket.gethostname().split(".")[0]
    from mpi4py import MPI

    return MPI.Get_processor_name().split(".")[0]
