#!/bin/bash -l
#PBS -N packed
#PBS -l walltime=03:00:00
#PBS -q prod
#PBS -A datascience
#PBS -j oe
#PBS -l select=10:system=polaris
#PBS -l place=scatter
#PBS -l filesystems=home:eagle
# Written by:
#   python -m dhmpi.submit hps packed -p dhmpi.benchmark.hps.polynome2.Problem -r dhmpi.benchmark.hps.polynome2.run --site polaris -n 10 -q prod -t 3h -A datascience --num-evals-per-node 16 --setup 'module load conda'
set -euo pipefail
cd -- /projects/datascience/search
set +u
module load conda
set -u
export OMP_NUM_THREADS=2
export DHMPI_GPUS=3,2,1,0
export DHMPI_GPU_VARIABLE=CUDA_VISIBLE_DEVICES
DHMPI_DEADLINE="$(date --date='+10620 seconds' +%s)"
export DHMPI_DEADLINE

# PBS gives no warning: SIGUSR1 comes from timeout, which then waits.
exec timeout --foreground --preserve-status --signal=USR1 10560 \
    /projects/datascience/venv/bin/python -m dhmpi.launch -n 160 \
    --mpiexec mpiexec \
    '--mpiexec-args=--ppn 16 --depth 2 --cpu-bind depth --envall' \
    --restarts 3 \
    ambs \
    --problem dhmpi.benchmark.hps.polynome2.Problem \
    --run dhmpi.benchmark.hps.polynome2.run \
    --workflow packed \
    --name packed \
    --log-dir /projects/datascience/search/dhmpi-runs/packed/packed_0123abcd \
    --resume \
    --num-evals-per-node 16 \
    --num-threads-per-rank 2
