#!/bin/bash
# Written by:
#   @{command}
set -euo pipefail
cd -- @{working_directory}
@{setup}
@{environment}
DHMPI_DEADLINE="$(@{python} -c 'import sys, time; print(time.time() + float(sys.argv[1]))' @{run_seconds})"
export DHMPI_DEADLINE

exec @{python} -m dhmpi.launch @{launch} \
    @{search}
