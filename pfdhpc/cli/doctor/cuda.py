"""The CUDA of the driver and of torch, found without loading either."""

import re
import subprocess
from importlib.util import find_spec
from pathlib import Path


def cuda_of_torch() -> str:
    """The CUDA version torch is built for, without importing it; empty for none."""
    spec = find_spec("torch")
    path = Path(spec.origin).with_name("version.py") if spec and spec.origin else None
    found = re.search(r"^cuda.*= '([\d.]+)'", path.read_text() if path and path.is_file() else "", re.MULTILINE)
    return found[1] if found else ""


def cuda_of_driver(smi: str) -> str:
    """The newest CUDA the driver knows, from what nvidia-smi prints; empty where it does not tell."""
    found = re.search(r"CUDA Version:\s*([\d.]+)", smi)
    return found[1] if found else ""


def too_old(driver: str, wheels: str) -> bool:
    """Whether a driver's CUDA is of an older major version, which no minor-version compatibility bridges."""
    return bool(driver and wheels) and int(driver.split(".")[0]) < int(wheels.split(".")[0])


def output(*command: str) -> str:
    """Both streams of a command; nothing where it cannot run."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr
