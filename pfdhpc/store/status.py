"""``status.json``: what job scripts and other shells see of a run."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from ..errors import StoreError
from ..files import publish

NAME = "status.json"


def write_status(directory: Path, state: str, reason: str, progress: float, **extra: Any) -> None:
    """Replace the status in one step; raises StoreError.

    ``state``: running | incomplete | complete | failed.
    """
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    status = {"state": state, "reason": reason, "progress": progress, "updated": now, **extra}
    publish(Path(directory) / NAME, (json.dumps(status, indent=1) + "\n").encode())


def read_status(directory: Path) -> dict[str, Any] | None:
    """The status as last written, None if there is none; raises StoreError when it cannot be read."""
    path = Path(directory) / NAME
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read: {error}") from None
