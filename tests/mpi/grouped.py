"""Evaluations of several ranks, some of them nasty; which, the configuration says."""

import os
import signal
import socket
import time

import dhmpi

NASTY = {int(id_): mode for mode, _, id_ in (w.partition("@") for w in os.environ.get("GROUPED", "").split(",")) if id_}
kept = []
SECONDS = float(os.environ.get("GROUPED_SECONDS", "0.01"))


def keep_apart(group):
    """Have MPI not come back with the communicator of a group, in any of its members."""
    from dhmpi.mpi.teams import Teams

    get = Teams.get

    def get_or_wait(self, ranks, number, damaged=False):
        if number == group:
            time.sleep(1000)
        return get(self, ranks, number, damaged)

    Teams.get = get_or_wait


RANK = os.environ.get("OMPI_COMM_WORLD_RANK", os.environ.get("PMI_RANK", ""))
if RANK and RANK in os.environ.get("NEVER_COMES", "").split(","):
    while True:
        try:
            time.sleep(1000)
        except BaseException:
            if "STUBBORN" not in os.environ:
                raise
if "APART" in os.environ and "OMPI_COMM_WORLD_RANK" in os.environ:
    keep_apart(int(os.environ["APART"]))


def __getattr__(name):
    """Make the problem where it is asked for: it takes long to import what it needs."""
    if name not in ("Problem", "MixedProblem"):
        raise AttributeError(name)
    from dhmpi.problem import HpProblem

    problem = HpProblem()
    problem.add_hyperparameter((0.0, 1.0), "x")
    problem.add_hyperparameter((0, 10**6), "n")
    if name == "MixedProblem":
        problem.add_hyperparameter([1, 2, 4], "num_ranks")
    return problem


def run(config, comm):
    """Return the sum of x over the group, which all of it must compute together."""
    trial = dhmpi.trial()
    assert trial.comm is comm
    assert comm.allgather(socket.gethostname()) == list(trial.hosts)
    print(f"trial {trial.id} on rank {comm.rank} of {comm.size}")
    if trial.id in NASTY and trial.attempt == 0:
        nasty(NASTY[trial.id], comm)
    time.sleep(SECONDS)
    total = comm.allreduce(config["x"])
    hosts = ",".join(sorted(set(trial.hosts)))
    return {"objective": total / comm.size - 1e-7 * config["n"], "size": comm.size, "hosts": hosts}


def nasty(mode, comm):
    last = comm.rank == comm.size - 1
    if mode == "raise" and last:
        raise ValueError("no luck")
    if mode == "unequal":
        raise ValueError("no luck here either") if last else RuntimeError("another reason")
    if (mode == "die" and last) or (mode == "leader dies" and comm.rank == 0):
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGKILL)
    if mode in ("eat", "keep") and last:
        much = b"x" * (500 << 20)
        if mode == "keep":
            kept.append(much)
        time.sleep(1000)
    if mode == "hang" and last:
        time.sleep(1000)
    while mode == "ignore" and last:
        try:
            time.sleep(1000)
        except BaseException as error:
            print(f"ignored {type(error).__name__}")
    comm.allreduce(1)  # without the last one the others wait for ever
