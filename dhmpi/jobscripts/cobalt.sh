#!/bin/bash -l
#COBALT -n @{nodes}
#COBALT -t @{walltime}
#COBALT -q @{queue}
#COBALT -A @{account}
#COBALT --jobname @{job_name}
#COBALT @{directives}
# Written by:
#   @{command}
set -euo pipefail
cd -- @{working_directory}
@{setup}
@{environment}
DHMPI_DEADLINE="$(date --date='+@{run_seconds} seconds' +%s)"
export DHMPI_DEADLINE

# Cobalt gives no warning: SIGUSR1 comes from timeout, which then waits.
exec timeout --foreground --preserve-status --signal=USR1 @{warn_seconds} \
    @{python} -m dhmpi.launch @{launch} \
    @{search}
