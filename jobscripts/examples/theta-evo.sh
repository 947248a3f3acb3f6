#!/bin/bash -l
#COBALT -n 128
#COBALT -t 03:00:00
#COBALT -q default
#COBALT -A datascience
#COBALT --jobname evo_test
# Written by:
#   python -m dhmpi.submit nas evo_test -p dhmpi.benchmark.nas.pblp.problem_skip_co_0.Problem --search regevo --site theta -n 128 -q default -t 180 -A datascience -j mpi --max-evals 1000000
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
    regevo \
    --problem dhmpi.benchmark.nas.pblp.problem_skip_co_0.Problem \
    --run dhmpi.nas.run.alpha.run \
    --workflow evo_test \
    --name evo_test \
    --log-dir /projects/datascience/search/dhmpi-runs/evo_test/evo_test_0123abcd \
    --resume \
    --job-mode mpi \
    --num-threads-per-rank 64 \
    --max-evals 1000000
