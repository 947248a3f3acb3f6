#!/bin/bash -l
#SBATCH --job-name=@{job_name}
#SBATCH --nodes=@{nodes}
#SBATCH --ntasks-per-node=@{ranks_per_node}
#SBATCH --cpus-per-task=@{cpus}
#SBATCH --time=@{walltime}
#SBATCH @{queue_option}=@{queue}
#SBATCH --account=@{account}
#SBATCH --signal=B:USR1@@{warn_before}
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH @{directives}
# Written by:
#   @{command}
set -euo pipefail
cd -- @{working_directory}
@{setup}
@{environment}
DHMPI_DEADLINE="$(date --date='+@{run_seconds} seconds' +%s)"
export DHMPI_DEADLINE

# Slurm's warning, SIGUSR1, goes to this process.
exec @{python} -m dhmpi.launch @{launch} \
    @{search}
