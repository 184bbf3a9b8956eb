"""The program of a team that explores or labels, whichever it is asked for."""

from . import messages as m
from .explorer import ExplorerProgram
from .labeler import LabelerProgram


class FlexibleProgram:
    """Both programs on one rank, with their engines loaded; an order says which of them it is for."""

    def __init__(self, explorer: ExplorerProgram, labeler: LabelerProgram):
        self._explorer, self._labeler = explorer, labeler

    def ready(self, team: str) -> m.Ready:
        problems = (*self._explorer.ready(team).problems, *self._labeler.ready(team).problems)
        return m.Ready(team, problems)

    def handle(self, order: m.Order) -> m.Answer:
        exploring = isinstance(order, m.Explore | m.Scan | m.Select | m.Probe | m.Evaluate)
        return (self._explorer if exploring else self._labeler).handle(order)
