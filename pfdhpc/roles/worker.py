"""What every rank but the coordinator does: take an order, do it, answer."""

import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

from .. import messages as m
from ..engines.label.launch.exit_reason import Wish, never
from ..errors import EngineLost, InputError, TaskError
from ..lazy_imports import many_imports
from ..parallel.channel import Channel
from ..parallel.layout import COORDINATOR, Team
from ..parallel.ledger import WAIT, ledger


class Program(Protocol):
    """What a role can do."""

    def ready(self, team: str) -> m.Ready:
        """Problems of the input that this role can see; heavy imports happen here."""

    def handle(self, order: m.Order) -> m.Answer:
        """Carry out an order. A TaskError is a failure of the task; anything else is a bug."""


def lead(team: Team, program: Program, channel: Channel, members: Channel) -> int:
    """The leader's loop: orders come from the coordinator and are shared with the team.

    Returns the exit code of the job; so do the other loops here.
    """
    channel.send(COORDINATOR, start(team, program))
    while True:
        order = _next(channel)
        with ledger().during("talk"):
            for member in range(1, len(team.ranks)):
                members.send(member, order)
        if isinstance(order, m.Shutdown):
            members.flush(5.0)
            channel.flush(5.0)
            return order.code
        answer = work(team, program, order)
        with ledger().during("talk"):
            channel.send(COORDINATOR, answer)


def _next(channel: Channel) -> m.Order:
    with ledger().during(WAIT):
        return channel.receive()[1]


def follow(team: Team, program: Program, members: Channel) -> int:
    """The other ranks of a team do what the leader does; their answers are the leader's."""
    with many_imports():
        program.ready(team.name)
    while True:
        order = _next(members)
        if isinstance(order, m.Shutdown):
            return order.code
        with suppress(TaskError, InputError), ledger().during(order.kind):
            program.handle(order)  # the leader reports what fails


def start(team: Team, program: Program) -> m.Ready | m.Crashed:
    try:
        with many_imports():
            return program.ready(team.name)
    except Exception:
        return m.Crashed(team.name, "start", traceback.format_exc())


def work(team: Team, program: Program, order: m.Order) -> m.Answer | m.Crashed:
    """Do one order; whatever happens becomes a message."""
    started = time.monotonic()
    try:
        with ledger().during(order.kind):
            return program.handle(order)
    except TaskError as error:
        return m.Failed(order.order_id, time.monotonic() - started, str(error))
    except InputError as error:
        return m.Failed(order.order_id, time.monotonic() - started, "; ".join(error.problems), fatal=True)
    except EngineLost as error:
        return m.Resigned(order.order_id, time.monotonic() - started, str(error))
    except Exception:
        return m.Crashed(team.name, order.order_id, traceback.format_exc())


def answerer(team: Team, program: Program) -> Callable[[m.Order], m.Answer | m.Crashed | None]:
    """What answers a team's orders when all roles take turns in one process."""
    return lambda order: None if isinstance(order, m.Shutdown | m.CallOff) else work(team, program, order)


def rest(channel: Channel) -> int:
    """A rank without a role sleeps until the job ends."""
    while not isinstance(order := _next(channel), m.Shutdown):
        pass
    return order.code


def make_program(
    team: Team, config: Any, folder: Any, comm: Any, peers: Channel, spawner: Any = None, called_off: Wish = never
) -> Program:
    """The program of a team's role. ``spawner`` starts child processes, where the input wants them.

    ``called_off`` tells the leader, in the middle of an order, that it is not wanted any more.
    """
    if team.role == "trainer":
        from .trainer import TrainerProgram

        return TrainerProgram(config, folder, comm, spawner)
    if team.role == "flexible":
        both = [replace(team, role=role) for role in ("explorer", "labeler")]
        return FlexibleProgram(*(make_program(part, config, folder, comm, peers, spawner, called_off) for part in both))
    if team.role == "explorer":
        from .explorer import ExplorerProgram

        return ExplorerProgram(config, folder, team.name, peers, spawner)
    if config.label.type == "offline":
        from .offline_labeler import OfflineProgram

        return OfflineProgram(config, comm)
    from .labeler import LabelerProgram

    return LabelerProgram(config, comm, spawner, called_off)


class FlexibleProgram:
    """Both programs on one rank, with their engines loaded; an order says which of them it is for."""

    def __init__(self, explorer: Program, labeler: Program):
        self._explorer, self._labeler = explorer, labeler

    def ready(self, team: str) -> m.Ready:
        problems = (*self._explorer.ready(team).problems, *self._labeler.ready(team).problems)
        return m.Ready(team, problems)

    def handle(self, order: m.Order) -> m.Answer:
        exploring = isinstance(order, m.Explore | m.Scan | m.Select | m.Probe | m.Evaluate)
        return (self._explorer if exploring else self._labeler).handle(order)
