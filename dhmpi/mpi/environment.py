"""What the launcher and the terminal say in the environment; the only place that reads those variables.  No mpi4py."""

from __future__ import annotations

import math
import os
import sys

from dhmpi.errors import OptionError

RANK_VARIABLES = ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PALS_RANKID", "PMI_RANK", "ALPS_APP_PE")
SIZE_VARIABLES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PALS_SIZE", "SLURM_STEP_NUM_TASKS")
JOB_VARIABLES = ("COBALT_JOBID", "PBS_JOBID", "SLURM_JOB_ID")
FAULT_TOLERANCE_VARIABLE = "OMPI_MCA_mpi_ft_enable"
"""Set by ``mpiexec --with-ft ulfm``."""
DEADLINE_VARIABLES = ("DHMPI_DEADLINE", "SLURM_JOB_END_TIME")
"""Seconds since the epoch at which the job is ended; job scripts export the first."""
GPUS_VARIABLE = "DHMPI_GPUS"
"""Names of a node's GPUs with commas between them, nearest to its first cores first; job scripts export it."""
GPU_CHOICE_VARIABLE = "DHMPI_GPU_VARIABLE"
"""Name of the variable that says which GPUs a process may use; job scripts export it."""
TERMINAL_VARIABLE = "DHMPI_TERMINAL"


def launcher_rank() -> int:
    """Return the rank that the launcher gave this process, 0 without a launcher."""
    rank = _number(RANK_VARIABLES)
    if rank is None and "SLURM_STEP_NUM_TASKS" in os.environ:  # a plain sbatch script has SLURM_PROCID too
        rank = _number(("SLURM_PROCID",))
    return rank or 0


def launcher_size() -> int | None:
    """Return the number of processes that the launcher started, None without a launcher.

    ``SLURM_NTASKS`` says nothing: it is there in a batch script that has launched nothing yet.
    """
    return _number(SIZE_VARIABLES)


def job_id() -> str | None:
    """Return the scheduler's name of the job, None outside of one."""
    return next((os.environ[name] for name in JOB_VARIABLES if name in os.environ), None)


def job_deadline() -> float | None:
    """Return when the scheduler ends the job, in seconds since the epoch; None if nobody says.

    Raises
    ------
    OptionError
        If the variable that is ours to read holds no time.  A scheduler's own that holds none says nothing.
    """
    ours, *schedulers = DEADLINE_VARIABLES
    if ours in os.environ:
        at = _time(os.environ[ours])
        if at is None:
            raise OptionError(f"{ours} must be a time in seconds since the epoch, got {os.environ[ours]!r}")
        return at
    return next((at for name in schedulers if (at := _time(os.environ.get(name, ""))) is not None), None)


def gpus() -> tuple[str, ...]:
    """Return the names of this node's GPUs, as the job script gives them."""
    return tuple(name for name in os.environ.get(GPUS_VARIABLE, "").split(",") if name)


def gpu_variable() -> str:
    """Return the name of the variable that says which GPUs a process may use."""
    return os.environ.get(GPU_CHOICE_VARIABLE) or "CUDA_VISIBLE_DEVICES"


def fault_tolerant() -> bool:
    """Return whether the launcher lets the other ranks live when one of them ends (Open MPI's ULFM)."""
    return os.environ.get(FAULT_TOLERANCE_VARIABLE) == "1"


def in_terminal() -> bool:
    """Return whether a person watches the output in a terminal.

    Under a launcher stdout does not tell (Open MPI gives each rank a terminal of its own); ``dhmpi.launch`` says it.
    """
    said = os.environ.get(TERMINAL_VARIABLE)
    if said is not None:
        return said == "1"
    return launcher_size() is None and sys.stdout.isatty()


def _time(text: str) -> float | None:
    """Return what a text says in seconds, None if that is no finite number."""
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) else None


def _number(names: tuple[str, ...]) -> int | None:
    return next((int(os.environ[name]) for name in names if os.environ.get(name, "").isdigit()), None)
