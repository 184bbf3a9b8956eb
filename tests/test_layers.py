"""Layers of the package: each imports only lower ones."""

import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "pfdhpc"
LAYERS = [
    {"errors", "units", "log", "lazy_imports", "__init__"},
    {"config", "data", "files", "published_models"},
    {"store", "parallel", "engines"},
    {"messages"},
    {"selection"},
    {"workflow"},
    {"start", "report"},
    {"roles"},
    {"job"},
    {"cli"},
    {"__main__"},
]
IMPURE = {"os", "time", "datetime", "pathlib", "shutil", "tempfile", "subprocess", "socket", "mpi4py", "h5py"}
"""What rules cannot depend on: clocks, files, processes, messages on their way."""


def level(part):
    return next(index for index, names in enumerate(LAYERS) if part in names)


def imports(path):
    """Dotted names inside the package that a file imports, at any depth."""
    here = ("pfdhpc", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else ()
            name = ".".join((*base, *([node.module] if node.module else [])))
            for alias in node.names:
                yield f"{name}.{alias.name}"
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def sources():
    return [(path, name) for path in PACKAGE.rglob("*.py") for name in imports(path) if name.startswith("pfdhpc.")]


def test_each_layer_imports_only_lower_ones_or_itself():
    wrong = []
    for path, name in sources():
        if path.parent == PACKAGE and path.stem == "__init__":
            continue  # the face of the package: what it offers is loaded when it is asked for
        mine = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        theirs = name.split(".")[1]
        if theirs.startswith("__version"):
            continue
        if theirs != mine and level(theirs) >= level(mine):
            wrong.append(f"{path.relative_to(PACKAGE)} imports {name}")
    assert not wrong


def test_rules_know_no_clock_no_path_no_mpi_and_no_hdf5():
    found = {
        f"{path.name} imports {name}"
        for path in (PACKAGE / "workflow").rglob("*.py")
        for name in imports(path)
        if name.split(".")[0] in IMPURE
    }
    assert not found


def test_only_one_file_names_the_world():
    named = [path.name for path in PACKAGE.rglob("*.py") if "COMM_WORLD" in path.read_text()]
    assert named == ["world.py"]


def test_starting_is_light():
    """The command and the coordinator never load torch, LAMMPS, deepmd, a DFT program or trees of neighbours."""
    heavy = "{'torch', 'lammps', 'deepmd', 'gpaw', 'matplotlib', 'dpdata', 'scipy.spatial'}"
    code = f"import sys, pfdhpc.cli.main, pfdhpc.job.job; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent)
    assert done.stdout.strip() == "[]", done.stderr


def test_threads_can_be_limited_before_numpy_is_there():
    """BLAS reads its thread count when numpy is imported, which must be after the input is read."""
    code = "import sys, pfdhpc.cli.main, pfdhpc.cli.commands; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent)
    assert done.stdout.strip() == "False", done.stderr
