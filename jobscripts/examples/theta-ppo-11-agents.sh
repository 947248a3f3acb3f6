#!/bin/bash -l
#COBALT -n 128
#COBALT -t 03:00:00
#COBALT -q default
#COBALT -A datascience
#COBALT --jobname ppo_test
# Written by:
#   python -m dhmpi.submit nas ppo_test -p dhmpi.benchmark.nas.pblp.problem_skip_co_0.Problem --search ppo --site theta -n 128 --num-agents 11 -q default -t 180 -A datascience -j mpi --ent-coef 0.01 --noptepochs 10 --network ppo_lnlstm_128 --gamma 1.0 --lam 0.95 --max-evals 1000000
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
    ppo \
    --problem dhmpi.benchmark.nas.pblp.problem_skip_co_0.Problem \
    --run dhmpi.nas.run.alpha.run \
    --workflow ppo_test \
    --name ppo_test \
    --log-dir /projects/datascience/search/dhmpi-runs/ppo_test/ppo_test_0123abcd \
    --resume \
    --job-mode mpi \
    --num-threads-per-rank 64 \
    --num-agents 11 \
    --ent-coef 0.01 \
    --noptepochs 10 \
    --network ppo_lnlstm_128 \
    --gamma 1.0 \
    --lam 0.95 \
    --max-evals 1000000
