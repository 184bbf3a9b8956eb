"""Commands of the program in processes that have never seen deepmd, so that no import of one helps another."""

import json
import subprocess
import sys
from pathlib import Path

SERVER = """
import json, os, sys, traceback
import torch, ase.io, pfdhpc.cli.main as program

assert not any(name.split(".")[0] == "deepmd" for name in sys.modules)
folder, commands = json.loads(sys.stdin.read())
running = set()
for number, words in enumerate(commands):
    if len(running) == 2:
        running.discard(os.wait()[0])
    child = os.fork()
    if child:
        running.add(child)
        continue
    out = os.open(f"{folder}/{number}.out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1)
    os.dup2(out, 2)
    code = 99
    try:
        code = exec(words[1]) or 0 if words[0] == "-c" else program.main(words)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    with open(f"{folder}/{number}.rc", "w") as file:
        file.write(str(code))
    os._exit(0)
while running:
    running.discard(os.wait()[0])
"""
"""Forks for each command: torch is loaded once, deepmd by none but the commands."""


def run_fresh(commands: dict[str, list[str]], folder: Path) -> dict[str, tuple[int, str]]:
    """Exit code and output by name of ``pfdhpc WORDS``, or of Python's ``-c CODE`` (99: it raised)."""
    given = json.dumps([str(folder), [[str(word) for word in words] for words in commands.values()]])
    done = subprocess.run([sys.executable, "-c", SERVER], input=given, text=True, capture_output=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return {
        name: (int((folder / f"{number}.rc").read_text()), " ".join((folder / f"{number}.out").read_text().split()))
        for number, name in enumerate(commands)
    }
