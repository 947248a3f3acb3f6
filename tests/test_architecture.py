"""Who may import whom: read from the sources, so that the layers stay what the README says."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "dhmpi"
LAYERS = (
    (
        "errors",
        "names",
        "trials",
        "frames",
        "platform",
        "chaos",
        "stopping",
        "steering",
        "mpi.environment",
        "evaluate.result",
        "evaluate.reports",
        "staging",
    ),
    ("problem", "load", "external", "journal", "results", "budget", "rundirectory", "timeline", "runs"),
    ("csvfiles", "warmstart"),
    ("mpi.layout", "mpi.protocol", "mpi.wait", "options"),
    ("search", "evaluate", "mpi", "nas"),
    ("roles",),
    ("launch", "restarts", "check", "rerun", "sites", "plan", "jobscript", "submit", "importable"),
    (
        "tables",
        "ls",
        "doctor",
        "diagnosis",
        "watch",
        "steer",
        "analytics",
        "commands",
        "completion",
        "__main__",
        "nas.show",
        "nas.run.build_horovod",
    ),
    ("costs", "durations", "standin"),
    ("ambs", "regevo", "agebo", "random", "ppo", "nas.post", "nas.summary", "replay", "simulate"),
)
TOOLS = (
    *("ambs", "regevo", "agebo", "random", "ppo", "nas.post", "launch", "check", "replay", "rerun", "plan", "submit"),
    *("ls", "doctor", "watch", "steer", "analytics", "commands", "completion", "simulate"),
    "nas.run.build_horovod",
)
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if "benchmark" not in path.parts)


def name_of(path):
    parts = list(path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def layer_of(module):
    matches = [
        (len(prefix), number)
        for number, layer in enumerate(LAYERS)
        for prefix in layer
        if module == prefix or module.startswith(prefix + ".")
    ]
    return max(matches)[1] if matches else None


@functools.cache
def nodes_of(path):
    return tuple(ast.walk(ast.parse(path.read_text())))


@functools.cache
def imports(path):
    found = []
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(found)


def ours(path):
    known = {name_of(other) for other in MODULES}
    for name in imports(path):
        if name.startswith("dhmpi.") and name[6:] in known and name[6:]:
            yield name[6:]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_imports_its_own_layer_or_a_lower_one(path):
    module = name_of(path)
    if module == "":
        return  # the package itself hands out the context of an evaluation

    own = layer_of(module)

    assert own is not None, f"{module} is in no layer"
    for other in ours(path):
        assert layer_of(other) <= own, f"{module} imports {other}"


def test_few_modules_touch_mpi():
    users = {name_of(path) for path in MODULES if any(name.split(".")[0] == "mpi4py" for name in imports(path))}

    assert users == {"mpi.world", "mpi.post", "mpi.stage", "mpi.teams", "mpi.interruptible", "mpi.examine", "launch"}


def test_one_module_names_comm_world():
    users = {name_of(path) for path in MODULES if "COMM_WORLD" in _code(path)}

    assert users == {"mpi.world"}


def test_nobody_imports_the_standard_random():
    for path in PACKAGE.rglob("*.py"):
        assert "random" not in imports(path), path


@pytest.mark.parametrize("package", ["search", "evaluate"])
def test_searches_and_evaluations_know_no_mpi(package):
    for path in (PACKAGE / package).rglob("*.py"):
        assert not any(name.startswith(("mpi4py", "dhmpi.mpi")) for name in imports(path)), path


def test_help_imports_nothing_heavy():
    script = (
        "import contextlib, io, runpy, sys\n"
        "heavy = {'numpy', 'sklearn', 'scipy', 'tensorflow', 'keras', 'ConfigSpace', 'mpi4py.MPI', 'rich'}\n"
        f"for module in {TOOLS}:\n"
        "    sys.argv = ['x', '--help']\n"
        "    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
        "        runpy.run_module('dhmpi.' + module, run_name='__main__')\n"
        "    print(module, *sorted(heavy & set(sys.modules)))\n"
    )

    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)

    # One process for all of them: what is heavy is there from the first that imports it.
    assert said.stdout.splitlines() == list(TOOLS)


def _code(path):
    """Return the names that the code uses, without docstrings and comments."""
    return {node.attr for node in nodes_of(path) if isinstance(node, ast.Attribute)} | {
        node.id for node in nodes_of(path) if isinstance(node, ast.Name)
    }
