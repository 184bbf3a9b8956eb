"""The exceptions of pfdhpc and the exit codes they lead to."""

from collections.abc import Iterable, Mapping
from textwrap import shorten

EXIT_COMPLETE = 0
EXIT_BUG = 1
EXIT_BAD_INPUT = 2
EXIT_INCOMPLETE = 3


class InputError(ValueError):
    """One or more problems in what the user gave; nothing was started.

    Each problem is one line, ``section.key: what is wrong; what to do``; what cannot be printed in the names
    and values it repeats is escaped.
    """

    def __init__(self, problems: str | Iterable[str]):
        self.problems = [_printable(line) for line in ([problems] if isinstance(problems, str) else problems)]
        super().__init__("\n".join(self.problems))

    def about(self, keys: Mapping[str, str]) -> "InputError":
        """The same problems, told of other keys than those the lines begin with; of none where it is empty."""
        return InputError(_retold(line, keys) for line in self.problems)


def _retold(line: str, keys: Mapping[str, str]) -> str:
    key, _, rest = line.partition(": ")
    return ": ".join(filter(None, (keys[key], rest))) if key in keys else line


def reason(error: BaseException) -> str:
    """What a foreign exception says, as one line of bearable length, or what kind it is where it says nothing."""
    return shorten(" ".join(str(error).split()) or type(error).__name__, 240, placeholder=" ...")


def _printable(line: str) -> str:
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in " ".join(line.splitlines()))


class TaskError(RuntimeError):
    """A task failed for a reason that belongs to the task, not to the program (SCF, exploded MD, ...)."""


class LabelError(TaskError):
    """A frame could not be labelled; the message is the reason kept with the frame.

    ``killed`` is of a program of its own that did not end well: the number of the signal that ended it, 0 where
    none is known; None where no program ended badly.
    """

    def __init__(self, reason: str = "", killed: int | None = None):
        super().__init__(reason)
        self.killed = killed


class EngineLost(RuntimeError):
    """A team's engine is gone and cannot be had again: the team can do no more, others may do its work."""


class StoreError(OSError):
    """The run directory could not be read or written."""
