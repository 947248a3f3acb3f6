"""Stand-ins for schedulers and launchers that have no free server: ``python standins.py NAME words...``.

Each takes the documented options and refuses others, checks that they fit the machine, and then does the work: a
scheduler runs the script, in an environment as bare as its own would be, a launcher runs the ranks with a real mpiexec.
"""

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path


def state():
    """Return the directory with machine.json, where a job is noted as <id>.json."""
    return Path(os.environ["STANDINS"])


def machine():
    return json.loads((state() / "machine.json").read_text())


class Strict(argparse.ArgumentParser):
    def __init__(self, name):
        super().__init__(prog=name, allow_abbrev=False, add_help=False, conflict_handler="error")

    def error(self, message):
        sys.exit(f"{self.prog}: {message}")


def directives(script, prefix):
    """Return the words after a prefix in the lines before the first command, as schedulers read them."""
    text = script.read_text()
    assert text.startswith("#!"), "no script"
    words = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        if line.startswith(f"{prefix} "):
            words += shlex.split(line.removeprefix(prefix))
    return words


def seconds(clock):
    match = re.fullmatch(r"(\d+):([0-5]\d):([0-5]\d)", clock)
    assert match, clock
    hours, minutes, rest = map(int, match.groups())
    return 3600 * hours + 60 * minutes + rest


def run_job(job_id, script, environment, output, limit, cwd, note):
    """Run a script as a job: killed at its limit."""
    began = time.time()
    with output.open("ab") as stream:
        process = subprocess.Popen(
            [str(script)], cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT
        )
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            process.kill()
            code = "walltime"
    note |= {"code": code, "seconds": time.time() - began, "script": str(script), "cwd": str(Path.cwd())}
    (state() / f"{job_id}.json").write_text(json.dumps(note))


def bare(**more):
    """Return the environment of a login, without what this process has."""
    kept = {name: os.environ[name] for name in ("HOME", "STANDINS", "DHMPI_TEST_LAUNCH") if name in os.environ}
    return {"PATH": f"{state() / 'bin'}:/usr/bin:/bin", **kept, **more}


def next_id():
    return str(4000 + len(list(state().glob("[0-9]*.json"))))


def check_dependency(job_id):
    assert (state() / f"{job_id}.json").exists(), f"no job {job_id}"


def cobalt_qsub(words):
    command = Strict("qsub")
    command.add_argument("--dependencies")
    command.add_argument("script", type=Path)
    given = command.parse_args(words)
    head = Strict("#COBALT")
    head.add_argument("-n", type=int, required=True)
    head.add_argument("-t", required=True)
    head.add_argument("-q", required=True)
    head.add_argument("-A", required=True)
    head.add_argument("--jobname")
    head.add_argument("--attrs")
    asked = head.parse_args(directives(given.script, "#COBALT"))
    if given.dependencies:
        check_dependency(given.dependencies)
    job_id = next_id()
    environment = bare(COBALT_JOBID=job_id, COBALT_JOBSIZE=str(asked.n), COBALT_PARTNAME=f"0-{asked.n - 1}")
    note = {"nodes": asked.n, "after": given.dependencies, "queue": asked.q, "account": asked.A}
    run_job(job_id, given.script, environment, Path(f"{job_id}.output"), seconds(asked.t), Path.cwd(), note)
    print(job_id)


def pbs_qsub(words):
    command = Strict("qsub")
    command.add_argument("-W")
    command.add_argument("script", type=Path)
    given = command.parse_args(words)
    head = Strict("#PBS")
    head.add_argument("-N", required=True)
    head.add_argument("-l", action="append", required=True)
    head.add_argument("-q", required=True)
    head.add_argument("-A", required=True)
    head.add_argument("-j", choices=["oe"])
    asked = head.parse_args(directives(given.script, "#PBS"))
    assert re.fullmatch(r"[A-Za-z][\w.-]{0,14}", asked.N), asked.N
    resources = dict(item.split("=", 1) for item in asked.l)
    assert set(resources) <= {"select", "walltime", "place", "filesystems"}, resources
    match = re.fullmatch(r"(\d+)(:system=polaris)?", resources["select"])
    assert match, resources
    if given.W:
        kind, _, job = given.W.removeprefix("depend=").partition(":")
        assert kind == "afterany"
        check_dependency(job)
    job_id = f"{next_id()}.server"
    environment = bare(PBS_JOBID=job_id, PBS_O_WORKDIR=str(Path.cwd()), PBS_NODEFILE="/dev/null")
    note = {"nodes": int(match[1]), "after": given.W, "queue": asked.q, "account": asked.A}
    output = Path(f"{asked.N}.o{job_id.partition('.')[0]}")
    run_job(job_id, given.script, environment, output, seconds(resources["walltime"]), environment["HOME"], note)
    print(job_id)


def sbatch(words):
    command = Strict("sbatch")
    command.add_argument("--parsable", action="store_true", required=True)
    command.add_argument("--dependency")
    command.add_argument("script", type=Path)
    given = command.parse_args(words)
    head = Strict("#SBATCH")
    for option in ("--job-name", "--nodes", "--ntasks-per-node", "--time", "--qos", "--account", "--signal"):
        head.add_argument(option, required=True)
    for option in ("--cpus-per-task", "--open-mode", "--constraint", "--gpus-per-node"):
        head.add_argument(option)
    head.add_argument("--requeue", action="store_true")
    head.add_argument("--exclusive", action="store_true")
    asked = head.parse_args(directives(given.script, "#SBATCH"))
    assert re.fullmatch(r"B:USR1@\d+", asked.signal)
    job_id, limit = next_id(), seconds(asked.time)
    environment = {
        **os.environ,
        "SLURM_JOB_ID": job_id,
        "SLURM_JOB_NUM_NODES": asked.nodes,
        "SLURM_NTASKS": str(int(asked.nodes) * int(asked.ntasks_per_node)),
        "SLURM_JOB_END_TIME": str(int(time.time()) + limit),
    }
    note = {"nodes": int(asked.nodes), "after": given.dependency, "queue": asked.qos, "account": asked.account}
    run_job(job_id, given.script, environment, Path(f"slurm-{job_id}.out"), limit, Path.cwd(), note)
    print(job_id)


def launch(n, per_node, nodes, program, **environment):
    """Become the real mpiexec."""
    assert n == per_node * nodes, f"{n} ranks are not {per_node} on each of {nodes} nodes"
    # The real one would look for the scheduler that there is not.
    others = {name: value for name, value in os.environ.items() if not name.startswith(("COBALT_", "PBS_", "SLURM_"))}
    rooted = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    words = [machine()["mpiexec"], "--oversubscribe", "--bind-to", "none", "-n", str(n), *program]
    os.execve(words[0], words, {**others, **rooted, **environment})


def aprun(words):
    if words == ["--version"]:
        print("aprun (ALPS) 6.6.67")
        return
    command = Strict("aprun")
    command.add_argument("-n", type=int, required=True)
    command.add_argument("-N", type=int, required=True)
    command.add_argument("-d", type=int, required=True)
    command.add_argument("-j", type=int, required=True)
    command.add_argument("-cc", required=True, choices=["depth"])
    command.add_argument("program", nargs=argparse.REMAINDER)
    given = command.parse_args(words)
    assert given.N * given.d <= machine()["cores"] * given.j, "more threads than the node has"
    assert os.environ["OMP_NUM_THREADS"] == str(given.d // given.j)
    launch(given.n, given.N, int(os.environ["COBALT_JOBSIZE"]), given.program)


def pals_mpiexec(words):
    if words == ["--version"]:
        print("mpiexec version 1.2.12 (PALS)")
        return
    command = Strict("mpiexec")
    command.add_argument("-n", type=int, required=True)
    command.add_argument("--ppn", type=int, required=True)
    command.add_argument("--depth", type=int, required=True)
    command.add_argument("--cpu-bind", required=True, choices=["depth"])
    command.add_argument("--envall", action="store_true")
    command.add_argument("program", nargs=argparse.REMAINDER)
    given = command.parse_args(words)
    assert given.ppn * given.depth <= machine()["cores"], "more threads than the node has"
    launch(given.n, given.ppn, given.n // given.ppn, given.program)


def srun(words):
    if words == ["--version"]:
        print("slurm 23.11.4")
        return
    command = Strict("srun")
    command.add_argument("-n", type=int, required=True)
    command.add_argument("--ntasks-per-node", type=int, required=True)
    command.add_argument("-c", type=int, required=True)
    command.add_argument("--cpu-bind", required=True, choices=["cores"])
    command.add_argument("program", nargs=argparse.REMAINDER)
    given = command.parse_args(words)
    assert given.ntasks_per_node * given.c <= machine()["cores"] * 2, "more threads than the node has"
    nodes = int(os.environ["SLURM_JOB_NUM_NODES"])
    launch(given.n, given.ntasks_per_node, nodes, given.program, SLURM_STEP_NUM_TASKS=str(given.n))


STANDINS = {
    "cobalt": {"qsub": cobalt_qsub, "aprun": aprun},
    "pbs": {"qsub": pbs_qsub, "mpiexec": pals_mpiexec},
    "slurm": {"sbatch": sbatch, "srun": srun},
}

if __name__ == "__main__":
    STANDINS[machine()["scheduler"]][sys.argv[1]](sys.argv[2:])
