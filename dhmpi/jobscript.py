"""The text of a job script: a pure function of a job.

The templates, ``dhmpi/jobscripts/<scheduler>.sh``, hold placeholders like ``@{nodes}`` and compute nothing; what goes
into them is worked out here.  Whatever a user has typed is quoted for the shell, or has been refused before.
"""

from __future__ import annotations

import math
import re
import shlex
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from dhmpi.errors import SiteError
from dhmpi.mpi.environment import GPU_CHOICE_VARIABLE, GPUS_VARIABLE
from dhmpi.plan import Plan
from dhmpi.sites import PLACEHOLDERS, Launcher, Site

TEMPLATES = "jobscripts"
PREFIXES = {"cobalt": "#COBALT", "pbs": "#PBS", "slurm": "#SBATCH"}
GRACE_SECONDS = 60.0
"""Between the warning and the time at which the run has to have ended; a tenth of the walltime at most."""
MAX_JOB_NAME = 15
"""Characters; older PBS takes no more."""
_PLACEHOLDER = re.compile(r"@\{(\w+)\}")


@dataclass(frozen=True)
class Job:
    """A search, and where and how long it runs.

    Attributes
    ----------
    site : Site
    launcher : Launcher
    plan : Plan
    search : str
        Module of the search under dhmpi.
    arguments : sequence of str
        Of the search.
    name : str
        For the scheduler's list.
    minutes : float
        Walltime.
    working_directory : str
        Where it was submitted, absolute.
    python : str
        Interpreter, absolute.
    command : sequence of str
        That wrote the script.
    queue, account : str
        Empty if the scheduler shall choose.
    environment : mapping of str to str
    setup : sequence of str
        Shell commands before the launch.
    restarts : int
        How often a job that dies is resumed inside the allocation.
    """

    site: Site
    launcher: Launcher
    plan: Plan
    search: str
    arguments: Sequence[str]
    name: str
    minutes: float
    working_directory: str
    python: str
    command: Sequence[str]
    queue: str
    account: str
    environment: Mapping[str, str]
    setup: Sequence[str]
    restarts: int


def render(job: Job) -> str:
    """Return the script of a job.

    Raises
    ------
    SiteError
        If the site's lines need a number that is unknown.
    """
    site, plan = job.site, job.plan
    seconds = 60 * job.minutes
    margin = min(60 * site.margin_minutes, seconds / 10)
    grace = min(GRACE_SECONDS, seconds / 10)
    setup = [f"module load {shlex.quote(module)}" for module in site.modules] + list(job.setup)
    values = {
        "nodes": str(plan.request.nodes),
        "ranks_per_node": str(plan.ranks_per_node),
        "cpus": str(_numbers(job).get("cpus", "")),
        "walltime": clock(seconds),
        "run_seconds": str(math.floor(seconds - margin)),
        "warn_seconds": str(math.floor(seconds - margin - grace)),
        "warn_before": str(math.ceil(margin + grace)),
        "queue_option": site.queue_option,
        "queue": job.queue,
        "account": job.account,
        "job_name": job_name(job.name),
        "directives": f"\n{PREFIXES.get(site.scheduler, '#')} ".join(_filled(job, line) for line in site.directives),
        "command": shlex.join(job.command),
        "working_directory": shlex.quote(job.working_directory),
        # What modules run is not always written for `set -u`.
        "setup": "\n".join(["set +u", *setup, "set -u"]) if setup else "",
        "environment": "\n".join(
            f"export {name}={shlex.quote(value)}" for name, value in _environment(job).items()
        ),
        "python": shlex.quote(job.python),
        "launch": _lines(_launch(job)),
        "search": _lines([job.search, *job.arguments]),
    }  # fmt: skip
    return fill(template(site.scheduler), values)


def template(scheduler: str) -> str:
    """Return the template of a scheduler."""
    return resources.files("dhmpi").joinpath(f"{TEMPLATES}/{scheduler}.sh").read_text()


def fill(text: str, values: Mapping[str, str]) -> str:
    """Return a template with its placeholders replaced, without the lines whose placeholder has nothing to say.

    >>> fill("#PBS -q @{queue}\\n#PBS -A @{account}\\n", {"queue": "", "account": "mine"})
    '#PBS -A mine\\n'
    """
    lines = [line for line in text.splitlines() if all(values[name] for name in _PLACEHOLDER.findall(line))]
    return "\n".join(_PLACEHOLDER.sub(lambda match: values[match[1]], line) for line in lines) + "\n"


def clock(seconds: float) -> str:
    """Return a time as schedulers read it, rounded up.

    >>> clock(90 * 60)
    '01:30:00'
    """
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest:02d}"


def job_name(name: str) -> str:
    """Return a name that every scheduler takes: it only labels the job.

    >>> job_name("my $(search)")
    'my___search_'
    """
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", name)
    return (plain if plain[:1].isalpha() else f"run_{plain}")[:MAX_JOB_NAME]


def _environment(job: Job) -> dict[str, str]:
    """Return what the script exports; the user's own wins."""
    plan = job.plan
    threads = {} if plan.threads is None else {"OMP_NUM_THREADS": str(plan.threads)}
    gpus = {GPUS_VARIABLE: ",".join(plan.node.gpus), GPU_CHOICE_VARIABLE: job.site.gpu_variable}
    return {**threads, **(gpus if plan.node.gpus else {}), **job.site.environment, **job.environment}


def _launch(job: Job) -> list[str]:
    """Return the options of dhmpi.launch."""
    launcher = job.launcher
    options = _filled(job, launcher.bound if launcher.bound and job.plan.depth is not None else launcher.options)
    words = ["-n", str(job.plan.n_ranks)]
    if launcher.executable:
        words += ["--mpiexec", launcher.executable]
    if options:
        words.append(f"--mpiexec-args={options}")
    return [*words, "--restarts", str(job.restarts)]


def _numbers(job: Job) -> dict[str, int]:
    """Return what the lines of a site may name, as far as it is known."""
    plan, site = job.plan, job.site
    known = {
        "nodes": plan.request.nodes,
        "ranks": plan.n_ranks,
        "ranks_per_node": plan.ranks_per_node,
        "threads_per_core": site.threads_per_core,
        "cores": plan.node.n_cores,
        "depth": plan.depth,
        "cpus": None if plan.depth is None else plan.depth * site.threads_per_core,
    }
    return {name: number for name, number in known.items() if number is not None}


def _filled(job: Job, line: str) -> str:
    """Return a line of the site with its numbers."""
    try:
        return string.Template(line).substitute(_numbers(job))
    except KeyError as error:
        if error.args[0] in PLACEHOLDERS:
            raise SiteError(
                f"the site {job.site.name} does not say how many cores a node has: give --cores-per-node"
            ) from None
        raise SiteError(
            f"the site {job.site.name} names ${error.args[0]} in {line!r}; there are {', '.join(PLACEHOLDERS)}"
        ) from None
    except ValueError as error:
        raise SiteError(f"the site {job.site.name} has a stray $ in {line!r}") from error


def _lines(words: Sequence[str]) -> str:
    """Return words for the shell, each option on a line of its own."""
    lines: list[list[str]] = [[]]
    for word in words:
        if word.startswith("--"):
            lines.append([])
        lines[-1].append(word)
    return " \\\n    ".join(shlex.join(line) for line in lines if line)
