"""A whole run in one process in seconds: EMT explores, Lennard-Jones labels, and a lab double trains.

Only the trainer is a double: it "trains" by writing files. Explorer, labeler, selection, store,
coordinator and channels are the real ones.
"""

import json
import threading
import time
from functools import partial
from pathlib import Path

from ase.build import bulk
from ase.io import write

from pfdhpc import messages as m
from pfdhpc.config import dump, parse
from pfdhpc.data import Label
from pfdhpc.engines.label.launch.exit_reason import never
from pfdhpc.engines.label.level_of_theory import levels_of
from pfdhpc.parallel.channel import InlineChannel, local_channels
from pfdhpc.parallel.layout import TRAINER, plan_layout
from pfdhpc.report.snapshot import Listener
from pfdhpc.roles import worker
from pfdhpc.roles.cancellable_channel import CancellableChannel
from pfdhpc.roles.coordinator import Coordinator
from pfdhpc.roles.run_context import RunContext
from pfdhpc.roles.stopping import Stopping
from pfdhpc.store.run_directory import RunFolder


def make_config(base: Path, **changes):
    """Copper: EMT dynamics, labels by another potential, so that there are errors to see."""
    base.mkdir(parents=True, exist_ok=True)
    write(base / "cu.vasp", bulk("Cu", cubic=True), format="vasp")
    (base / "parent.pt").write_text("parent")
    values = {
        "workflow": "finetune",
        "model": {"checkpoint": "parent.pt"},
        "system": [{"name": "Cu", "structures": ["cu.vasp"], "perturb": {"count": 3}}],
        "init": {"frames": 4},
        "explore": {
            "engine": "ase",
            "options": {"calculator": "ase.calculators.emt.EMT"},
            "ensemble": "langevin",
            "steps": 20,
            "interval": 5,
            "temperatures": [600.0],
        },
        "select": {"max_sel": 3, "min_gain": -100.0},
        "label": {
            "type": "ase",
            "options": {
                "calculator": "ase.calculators.lj.LennardJones",
                "arguments": {"sigma": 2.3, "epsilon": 0.4, "rc": 6.0},
            },
        },
        "train": {},
        "test": {"holdout": 0.25, "validation": 0.0},
        "converge": {"max_rounds": 2},
    }
    for key, value in changes.items():
        values[key] = {**values.get(key, {}), **value} if isinstance(value, dict) else value
    return parse(values, base)


STARTING = threading.Lock()
"""Teams start one after another: Python 3.11 cannot parse source in two threads at a time."""


class ToyTrainer:
    """Answers a trainer's orders with small files; a model's content is the history that made it."""

    def __init__(self, folder: RunFolder):
        self.folder = folder
        self.records = {}
        self.orders = []

    def ready(self, team):
        return m.Ready(team, (), ("Cu",))

    def handle(self, order):
        self.orders.append(order)
        if isinstance(order, m.ImportParent):
            return m.Imported(order.order_id, 0.1, self._publish(0, "parent"))
        self.records.update((record.label_id, record) for record in order.records)
        if isinstance(order, m.Train):
            ids = (*order.old_ids, *order.new_ids, *order.validation_ids)
            assert all(key in self.records for key in ids)
            text = json.dumps([order.parent.digest, ids, order.seed])
            return m.Trained(order.order_id, 0.1, self._publish(order.version, text), 1, 0.1, member=order.member)
        labels = [self.records[key].label for key in order.test_ids]
        worse = tuple(Label(item.energy, item.forces + 0.2, item.virial) for item in labels)
        better = tuple(Label(item.energy, item.forces + 0.05, item.virial) for item in labels)
        return m.Evaluated(order.order_id, 0.1, order.test_ids, worse, better)

    def _publish(self, version, text):
        path = self.folder.scratch("toy") / f"{version}-{threading.get_ident()}.pt"  # teams train side by side
        path.write_text(text)
        return m.ModelRef(version, self.folder.publish(path, path))


def bare(kind, order_id):
    """An order of some kind without its content, where only its being under way counts."""
    order = object.__new__(kind)
    object.__setattr__(order, "order_id", order_id)
    return order


class Deaf:
    """A team that does what it is asked but comes late to every selection."""

    def __init__(self, program):
        self.program = program
        self.ready = program.ready

    def handle(self, order):
        if isinstance(order, m.Select):
            time.sleep(2.0)
        return self.program.handle(order)


class ToyRun:
    """One job in one process. ``threads`` gives each team a thread of its own; otherwise all take turns."""

    def __init__(self, config, size=4, threads=False, changed=(), deaf="", spawner=None):
        self.config = config
        self.deaf, self.spawner = deaf, spawner
        self.folder = RunFolder(config.run.directory)
        self.layout = plan_layout(config.ranks, size)
        self.lines = []
        self.events = []
        self.trainers = []
        self.stopping = Stopping()
        make = self._threaded if threads else self._inline
        self._threads = []
        self.context = RunContext(
            config,
            self.folder,
            self.layout,
            make(),
            self.stopping,
            levels_of(config.label),
            {"input": dump(config)},
            changed,
            Listener(self._event, self.lines.append),
        )
        self.coordinator = Coordinator(self.context)

    @property
    def state(self):
        return self.coordinator.state

    @property
    def store(self):
        return self.context.store

    def run(self):
        try:
            return self.coordinator.run()
        finally:
            self.coordinator.dismiss(0)
            for thread in self._threads:
                thread.join(10)

    def stop_after(self, n_answers):
        """Ask for a stop, as a signal would, once so many answers have come."""
        self._limit = n_answers
        return self

    _limit = None

    def _event(self, before, after, message):
        self.events.append(type(message).__name__)
        if self._limit is not None and len(self.events) >= self._limit:
            self.stopping.reason = lambda: "the test wants it"

    def _program(self, team, peers, called_off=never):
        if team.role == TRAINER:
            self.trainer = ToyTrainer(self.folder)
            self.trainers.append(self.trainer)
            return self.trainer
        program = worker.make_program(team, self.config, self.folder, None, peers, self.spawner, called_off)
        return Deaf(program) if team.name == self.deaf else program

    def _inline(self):
        handlers = {}
        channel = InlineChannel(handlers)
        called_off = partial(self.stopping.called_off, self.config.run.grace)
        for team in self.layout.teams:
            program = self._program(team, channel, called_off)
            handlers[team.leader] = worker.answerer(team, program)
            channel.greet(team.leader, worker.start(team, program))
        return channel

    def _threaded(self):
        orders, peers = local_channels(self.layout.world_size), local_channels(self.layout.world_size)
        for team in self.layout.teams:
            ear = CancellableChannel(orders[team.leader])
            program = self._program(team, peers[team.leader], ear.called_off)
            program.ready = partial(_one_by_one, program.ready)
            arguments = (team, program, ear, local_channels(1)[0])
            self._threads.append(threading.Thread(target=worker.lead, args=arguments, daemon=True))
            self._threads[-1].start()
        return orders[0]


def _one_by_one(ready, team):
    with STARTING:
        return ready(team)
