#!/bin/bash -l
#COBALT -n 128
#COBALT -t 03:00:00
#COBALT -q default
#COBALT -A datascience
#COBALT --jobname test
# Written by:
#   python -m dhmpi.submit hps TEST --name test -p dhmpi.benchmark.hps.polynome2.Problem -r dhmpi.benchmark.hps.polynome2.run --site theta -n 128 -q default -t 180 -A datascience -j serial
set -euo pipefail
cd -- /projects/datascience/search
export OMP_NUM_THREADS=64
export PMI_NO_FORK=1
export MPICH_GNI_FORK_MODE=FULLCOPY
DHMPI_DEADLINE="$(date --date='+10620 seconds' +%s)"
export DHMPI_DEADLINE

# Cobalt gives no warning: SIGUSR1 comes from timeout, which then waits.
exec timeout --foreground --preserve-status --signal=USR1 10560 \
    /projects/datascience/venv/bin/python -m dhmpi.launch -n 128 \
    --mpiexec aprun \
    '--mpiexec-args=-N 1 -d 64 -j 1 -cc depth' \
    --restarts 3 \
    ambs \
    --problem dhmpi.benchmark.hps.polynome2.Problem \
    --run dhmpi.benchmark.hps.polynome2.run \
    --workflow TEST \
    --name test \
    --log-dir /projects/datascience/search/dhmpi-runs/TEST/test_0123abcd \
    --resume \
    --job-mode serial \
    --num-threads-per-rank 64
