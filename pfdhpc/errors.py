"""The exceptions of pfdhpc and the exit codes they lead to."""

from collections.abc import Iterable

EXIT_COMPLETE = 0
EXIT_BUG = 1
EXIT_BAD_INPUT = 2
EXIT_INCOMPLETE = 3


class InputError(ValueError):
    """One or more problems in what the user gave; nothing was started.

    Each problem is one line, ``section.key: what is wrong; what to do``.
    """

    def __init__(self, problems: str | Iterable[str]):
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class TaskError(RuntimeError):
    """A task failed for a reason that belongs to the task, not to the program (SCF, exploded MD, ...)."""


class LabelError(TaskError):
    """A frame could not be labelled; the message is the reason kept with the frame."""


class StoreError(OSError):
    """The run directory could not be read or written."""
