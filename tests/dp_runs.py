"""deepmd's own program, several runs of it from one process: ``python -m tests.dp_runs RUNS.json``.

The file holds ``[[folder, [argument, ...]], ...]``. deepmd is imported once, which costs 5 s, and every run is a fork
of that process, two at a time: nothing of one is left for the next. Output goes to ``folder/out``.
"""

import json
import os
import subprocess
import sys
from pathlib import Path


def start(runs, place):
    """Start ``[(folder, arguments), ...]`` in the background; the process ends with 0 if all did."""
    (place / "runs.json").write_text(json.dumps([[str(folder), list(map(str, args))] for folder, args in runs]))
    environment = {**os.environ, "NUM_WORKERS": "0", "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-m", "tests.dp_runs", str(place / "runs.json")]
    return subprocess.Popen(command, cwd=place, env=environment)


def _run(folder, arguments):
    from deepmd.main import main

    out = os.open(f"{folder}/out", os.O_CREAT | os.O_WRONLY)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.chdir(folder)
    main(arguments)


if __name__ == "__main__":
    import deepmd.pt.entrypoints.main  # noqa: F401

    failed, waiting, running = False, json.loads(Path(sys.argv[1]).read_text()), set()
    while waiting or running:
        while waiting and len(running) < 2:
            task = waiting.pop(0)
            child = os.fork()
            if child == 0:
                try:
                    _run(*task)
                    os._exit(0)
                finally:
                    os._exit(1)
            running.add(child)
        child, status = os.wait()
        running.discard(child)
        failed |= status != 0
    sys.exit(failed)
