#!/bin/bash -l
#PBS -N @{job_name}
#PBS -l walltime=@{walltime}
#PBS -q @{queue}
#PBS -A @{account}
#PBS -j oe
#PBS @{directives}
# Written by:
#   @{command}
set -euo pipefail
cd -- @{working_directory}
@{setup}
@{environment}
DHMPI_DEADLINE="$(date --date='+@{run_seconds} seconds' +%s)"
export DHMPI_DEADLINE

# PBS gives no warning: SIGUSR1 comes from timeout, which then waits.
exec timeout --foreground --preserve-status --signal=USR1 @{warn_seconds} \
    @{python} -m dhmpi.launch @{launch} \
    @{search}
