"""Job scripts: what the templates may hold, examples, quoting, and what a script does when it runs."""

import doctest
import importlib.util
import json
import re
import shlex
import shutil
import signal
import string
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dhmpi import jobscript, sites, submit
from dhmpi.errors import SiteError
from dhmpi.launch import PROGRAMS
from dhmpi.options import flag

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "jobscripts"
TEMPLATES = ROOT / "dhmpi" / "jobscripts"
PROBLEM = "-p dhmpi.benchmark.hps.polynome2.Problem -r dhmpi.benchmark.hps.polynome2.run"
SHELLCHECK = shutil.which("shellcheck") or shutil.which("shellcheck", path=str(Path(sys.executable).parent))


def examples():
    spec = importlib.util.spec_from_file_location("dhmpi_examples", EXAMPLES / "examples.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rendered(words, here=Path("/home/me/my study"), python=sys.executable, environment=None):
    words = shlex.split(words) if isinstance(words, str) else words
    return jobscript.render(submit.prepare(words, environment or {}, python, here, "0123abcd").job)


def every_site():
    for name in sites.names():
        for launcher in sites.load(name).launchers:
            nodes = 1 if name == "local" else 128
            yield f"hps study {PROBLEM} --site {name} --launcher {launcher} -n {nodes} -t 60 -A p --cores-per-node 32"


@pytest.mark.parametrize("path", sorted(TEMPLATES.glob("*.sh")), ids=lambda path: path.stem)
def test_templates_compute_nothing(path):
    text = path.read_text()

    assert "$((" not in text
    assert not re.search(r"@\{\w+\}\s*[-*/+%]\s*\d|\d\s*[-*/+%]\s*@\{", text.replace("'+@{run_seconds} seconds'", ""))
    assert set(re.findall(r"@\{([^}]*)\}", text)) <= {
        "nodes", "ranks_per_node", "cpus", "walltime", "run_seconds", "warn_seconds", "warn_before", "queue_option",
        "queue", "account", "job_name", "directives", "command", "working_directory", "setup", "environment", "python",
        "launch", "search",
    }  # fmt: skip


def test_the_templates_are_at_the_top_level_too():
    assert (EXAMPLES / "templates").resolve() == TEMPLATES


def test_all_data_is_part_of_the_package():
    shipped = re.search(r"^dhmpi = (\[.*\])$", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    found = {path for pattern in json.loads(shipped[1]) for path in (ROOT / "dhmpi").glob(pattern)}

    files = {path for path in (ROOT / "dhmpi").rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert found == files
    assert {*TEMPLATES.iterdir(), *(ROOT / "dhmpi" / "sites").glob("*.toml")} <= files
    assert {path.stem for path in TEMPLATES.iterdir()} == set(sites.SCHEDULERS)


@pytest.mark.parametrize("name", examples().COMMANDS)
def test_examples_are_what_is_rendered_today(name):
    module = examples()

    assert (module.DIRECTORY / f"{name}.sh").read_text() == jobscript.render(module.prepared(name).job), (
        "run: python jobscripts/examples.py"
    )


def test_no_example_is_left_over():
    module = examples()

    assert {path.stem for path in module.DIRECTORY.iterdir()} == set(module.COMMANDS)


@pytest.mark.parametrize("name", examples().COMMANDS)
def test_the_searches_take_the_options_of_the_examples(name):
    job = examples().prepared(name).job
    if job.search not in PROGRAMS or importlib.util.find_spec(f"dhmpi.{job.search}") is None:
        pytest.skip(f"there is no search {job.search} yet")
    known = {flag(item) for item in importlib.import_module(f"dhmpi.{job.search}").PROGRAM.options.__dataclass_fields__}
    missing = {word for word in job.arguments if word.startswith("--")} - known
    if missing:
        pytest.skip(f"{job.search} has no {', '.join(sorted(missing))} yet")

    submit.check_search(job)


def test_an_example_holds_the_guides_numbers():
    script = (EXAMPLES / "examples" / "theta-ambs-128-serial-4-per-node.sh").read_text()

    assert "#COBALT -n 128" in script
    assert "#COBALT -t 03:00:00" in script
    assert "-m dhmpi.launch -n 512" in script
    assert "-N 4 -d 16 -j 1 -cc depth" in script


@pytest.mark.parametrize("words", list(every_site()), ids=lambda words: " ".join(words.split()[7:10:2]))
def test_every_script_is_good_bash(words, tmp_path):
    script = tmp_path / "job.sh"
    script.write_text(rendered(words + " --env 'A=b c' --setup 'module load x' --kappa 1.5"))

    assert "@{" not in script.read_text()
    subprocess.run(["bash", "-n", script], check=True, timeout=60)
    if SHELLCHECK:
        done = subprocess.run([SHELLCHECK, script], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout


def test_lines_without_something_to_say_are_left_out():
    script = rendered(f"hps study {PROBLEM} --scheduler cobalt -n 4 -t 60")

    assert "#COBALT -q" not in script
    assert "#COBALT -A" not in script
    assert "export" in script


def test_directives_come_before_the_first_command():
    for words in every_site():
        lines = rendered(words).splitlines()
        first = next(i for i, line in enumerate(lines) if not line.startswith("#"))

        assert not any(re.match(r"#(SBATCH|PBS|COBALT)", line) for line in lines[first:]), words


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        ("--scheduler pbs --cores-per-node 32 -n 4 --ranks-per-node 2", ["#PBS -l select=4:ncpus=32:mpiprocs=2"]),
        ("--site polaris -n 10 -A p", ["#PBS -l select=10:system=polaris", "#PBS -q prod"]),
        ("--site perlmutter -n 4 -A p", ["#SBATCH --qos=regular", "#SBATCH --cpus-per-task=128", "-c 128"]),
        (
            "--site frontier -n 4 -A p --num-evals-per-node 8",
            ["DHMPI_GPU_VARIABLE=ROCR_VISIBLE_DEVICES", "-c 7"],
        ),
        ("--scheduler slurm -n 4", ["--map-by ppr:1:node --bind-to none"]),
        ("--scheduler slurm -n 4 --launcher mpich --num-threads-per-rank 8", ["-ppn 1 -bind-to core:8"]),
        ("--scheduler slurm -n 4 --restarts 0 --env DHMPI_X=1", ["--restarts 0", "export DHMPI_X=1"]),
    ],
)
def test_each_site_says_its_own(words, lines):
    script = rendered(f"hps study {PROBLEM} -t 60 {words}")

    for line in lines:
        assert line in script


def test_times_leave_a_margin():
    script = rendered(f"hps study {PROBLEM} --site theta -n 128 -t 180 -A p")

    assert f"+{180 * 60 - 180} seconds" in script
    assert f"--signal=USR1 {180 * 60 - 180 - 60}" in script


@pytest.mark.parametrize(
    ("minutes", "text"), [("90", "01:30:00"), ("1:30:00", "01:30:00"), ("6h", "06:00:00"), ("2d", "48:00:00"),
                          ("0.5", "00:00:30"), ("00:00:01", "00:00:01")],
)  # fmt: skip
def test_walltimes_are_written_as_clocks(minutes, text):
    assert f"#SBATCH --time={text}\n" in rendered(f"hps study {PROBLEM} --scheduler slurm -n 4 -t {minutes}")


def test_a_number_that_the_site_does_not_know():
    with pytest.raises(SiteError, match="does not say how many cores a node has: give --cores-per-node"):
        rendered(f"hps study {PROBLEM} --scheduler pbs -n 4 -t 60")


ECHO = """\
import json, os, sys
if sys.argv[1] == "-c":
    print(4e9)
else:
    print(json.dumps({"words": sys.argv[1:], "cwd": os.getcwd(), "env": dict(os.environ)}))
"""


def stub(directory, text):
    """Make something that a script takes for its Python."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "py thon"
    path.write_text(f"#!{sys.executable}\n{text}")
    path.chmod(0o755)
    return str(path)


def executed(script, directory, timeout=60):
    path = directory / "job.sh"
    path.write_text(script)
    return subprocess.run(["bash", path], capture_output=True, text=True, timeout=timeout, check=False)


PRINTABLE = st.text(st.sampled_from(string.printable.strip() + " äß$`'\"\\!*?~;&|<>(){}[]#@"), min_size=1, max_size=20)


@pytest.mark.parametrize("scheduler", ["cobalt", "pbs", "slurm", "local"])
@given(name=PRINTABLE, value=PRINTABLE, word=PRINTABLE)
@example(name="$(touch evil)", value="`touch evil`", word="'; touch evil; '")
@example(name='"; touch evil #', value="$X\\", word="@{python} & touch evil")
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_users_type_arrives_as_typed_and_is_never_executed(tmp_path_factory, scheduler, name, value, word):
    directory = tmp_path_factory.mktemp("it's $(touch evil) here")
    name = name.replace("/", "_").strip(".- ") or "x"
    nodes = ["-n", "1" if scheduler == "local" else "4"]
    words = [
        *("hps", "study", "-p", "a.b", "-r", "c.d", "-t", "60", "--scheduler", scheduler, "--cores-per-node", "4"),
        *nodes, f"--name={name}", f"--env=X={value}", f"--more={word}",
    ]  # fmt: skip

    done = executed(rendered(words, directory, stub(directory / "bin", ECHO)), directory)

    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["words"][said["words"].index("--name") + 1] == name
    assert said["words"][-1] == f"--more={word}"
    assert said["env"]["X"] == value
    assert said["cwd"] == str(directory)
    assert sorted(entry.name for entry in directory.iterdir()) == ["bin", "job.sh"]


@pytest.mark.parametrize("scheduler", ["cobalt", "pbs", "slurm", "local"])
def test_a_script_ends_with_the_status_of_the_search(tmp_path, scheduler):
    python = stub(tmp_path, "import sys\nprint(4e9)\nsys.exit(0 if sys.argv[1] == '-c' else 75)")
    words = f"hps study {PROBLEM} -t 60 --scheduler {scheduler} --cores-per-node 4 -n 1"

    assert executed(rendered(words, tmp_path, python), tmp_path).returncode == 75


@pytest.mark.parametrize("scheduler", ["cobalt", "pbs", "slurm", "local"])
def test_a_script_stops_at_a_setup_that_fails(tmp_path, scheduler):
    python = stub(tmp_path, "print('the search runs')")
    words = f"hps study {PROBLEM} -t 60 --scheduler {scheduler} --cores-per-node 4 -n 1 --setup false"

    done = executed(rendered(words, tmp_path, python), tmp_path)

    assert done.returncode != 0
    assert "the search runs" not in done.stdout


@pytest.mark.parametrize("scheduler", ["cobalt", "pbs"])
def test_the_run_is_warned_and_its_status_kept(tmp_path, scheduler):
    waits = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGUSR1, lambda *_: sys.exit(7))\n"
        "time.sleep(30)\n"
    )  # fmt: skip
    words = f"hps study {PROBLEM} -t 00:00:03 --scheduler {scheduler} --cores-per-node 4 -n 1"

    assert executed(rendered(words, tmp_path, stub(tmp_path, waits)), tmp_path).returncode == 7


def test_a_signal_to_the_script_reaches_the_launch(tmp_path):
    waits = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGUSR1, lambda *_: sys.exit(9))\n"
        "print('waiting', flush=True)\n"
        "time.sleep(30)\n"
    )  # fmt: skip
    path = tmp_path / "job.sh"
    path.write_text(rendered(f"hps study {PROBLEM} -t 60 --scheduler slurm -n 1", tmp_path, stub(tmp_path, waits)))

    process = subprocess.Popen(["bash", path], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGUSR1)

    assert process.wait(30) == 9


def test_the_deadline_is_told(tmp_path):
    python = stub(tmp_path, ECHO)

    done = executed(rendered(f"hps study {PROBLEM} -t 60 --scheduler slurm -n 1", tmp_path, python), tmp_path)

    now = float(subprocess.run(["date", "+%s"], capture_output=True, text=True, check=True).stdout)
    assert abs(float(json.loads(done.stdout)["env"]["DHMPI_DEADLINE"]) - (now + 3600 - 120)) < 30


def test_examples_in_docstrings():
    assert doctest.testmod(jobscript).failed == 0
    assert doctest.testmod(submit).failed == 0
