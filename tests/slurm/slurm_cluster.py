"""A real Slurm of one node, all of it in one directory: munged, slurmctld, slurmd with a configuration of their own.

Nothing of the machine's own configuration is read or written.  ``install.sh`` installs Debian's packages; slurmd has
to be root, and so the user.
"""

import os
import secrets
import shutil
import socket
import subprocess
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "squeue", "scancel")
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
N_CPUS = 8

CONFIGURATION = """\
ClusterName=dhmpi
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={directory}/munge.socket
SlurmctldPort={controller_port}
SlurmdPort={node_port}
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd.pid
SlurmctldLogFile={directory}/slurmctld.log
SlurmdLogFile={directory}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin={task_plugin}
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
MpiDefault=none
ReturnToService=2
KillWait=5
MinJobAge=3600
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing():
    """Return the programs that are not installed."""
    return [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]


class Cluster:
    """A Slurm; `stop` it.

    Parameters
    ----------
    directory : Path
    n_cpus : int, default 8
        Of the node, whatever the machine has.
    task_plugin : str, default "task/none"
        With "task/affinity" ranks are bound to the cores that they ask for; the machine must have as many.
    """

    def __init__(self, directory: Path, n_cpus: int = N_CPUS, task_plugin: str = "task/none") -> None:
        self.directory = directory
        self._daemons: list[subprocess.Popen[bytes]] = []
        for name in ("state", "spool"):
            (directory / name).mkdir(parents=True)
        directory.chmod(0o755)  # munge wants nobody else to write there
        host = socket.gethostname().partition(".")[0]
        controller_port, node_port = _free_ports(2)
        (directory / "slurm.conf").write_text(
            CONFIGURATION.format(
                host=host,
                directory=directory,
                controller_port=controller_port,
                node_port=node_port,
                cpus=n_cpus,
                task_plugin=task_plugin,
            )
        )
        self.environment = {"SLURM_CONF": str(directory / "slurm.conf"), "PATH": PATH}
        key = directory / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        try:
            self._start(
                "munged", "--foreground", "--force", f"--socket={directory}/munge.socket", f"--key-file={key}",
                f"--pid-file={directory}/munged.pid", f"--log-file={directory}/munged.log",
                f"--seed-file={directory}/munged.seed",
            )  # fmt: skip
            _wait(lambda: (directory / "munge.socket").exists(), "munged", directory)
            self._start("slurmctld", "-D", "-i")
            self._start("slurmd", "-D", "-N", host)
            _wait(lambda: self.ask("sinfo", "-h", "-o", "%t").strip() == "idle", "the node", directory)
        except BaseException:
            self.stop()
            raise

    def ask(self, *words: str) -> str:
        """Return what a command of Slurm prints."""
        return subprocess.run(
            words, env={**os.environ, **self.environment}, capture_output=True, text=True, timeout=60, check=False
        ).stdout

    def state(self, job: str) -> str:
        """Return the state of a job, such as RUNNING, COMPLETED or TIMEOUT."""
        return self.fields(job).get("JobState", "")

    def fields(self, job: str) -> dict[str, str]:
        """Return what Slurm knows of a job."""
        words = self.ask("scontrol", "show", "job", job).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def stop(self) -> None:
        """End all jobs and daemons."""
        if len(self._daemons) > 1:
            self.ask("scancel", "--user", "root")
            time.sleep(1)
        for daemon in reversed(self._daemons):
            daemon.terminate()
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def _start(self, *words: str) -> None:
        with (self.directory / f"{words[0]}.out").open("wb") as out:
            self._daemons.append(
                subprocess.Popen(
                    words,
                    env={**os.environ, **self.environment},
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )


def _free_ports(n):
    sockets = [socket.socket() for _ in range(n)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _wait(condition, what, directory, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            logs = "\n".join(
                f"{path.name}: {path.read_text(errors='replace')[-2000:]}" for path in sorted(directory.glob("*.log"))
            )
            raise TimeoutError(f"{what} does not come up\n{logs}")
        time.sleep(0.2)


def ended(cluster, job):
    return cluster.state(job) not in ("", "PENDING", "RUNNING", "COMPLETING", "CONFIGURING")


def output(directory):
    return "\n".join(path.read_text(errors="replace") for path in sorted((directory / "jobs").glob("*.out")))
