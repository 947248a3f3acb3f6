#!/bin/bash -l
#PBS -N horovod_test
#PBS -l walltime=06:00:00
#PBS -q prod
#PBS -A datascience
#PBS -j oe
#PBS -l select=33:system=polaris
#PBS -l place=scatter
#PBS -l filesystems=home:eagle
# Written by:
#   python -m dhmpi.submit nas horovod_test -p dhmpi.benchmark.nas.pblp.problem_skip_co_0.Problem -r dhmpi.nas.run.horovod.run --search regevo --site polaris -n 33 -q prod -t 06:00:00 -A datascience --num-nodes-per-eval 2 --num-ranks-per-node 4
set -euo pipefail
cd -- /projects/datascience/search
export OMP_NUM_THREADS=8
export DHMPI_GPUS=3,2,1,0
export DHMPI_GPU_VARIABLE=CUDA_VISIBLE_DEVICES
DHMPI_DEADLINE="$(date --date='+21420 seconds' +%s)"
export DHMPI_DEADLINE

# PBS gives no warning: SIGUSR1 comes from timeout, which then waits.
exec timeout --foreground --preserve-status --signal=USR1 21360 \
    /projects/datascience/venv/bin/python -m dhmpi.launch -n 132 \
    --mpiexec mpiexec \
    '--mpiexec-args=--ppn 4 --depth 8 --cpu-bind depth --envall' \
    --restarts 3 \
    regevo \
    --problem dhmpi.benchmark.nas.pblp.problem_skip_co_0.Problem \
    --run dhmpi.nas.run.horovod.run \
    --workflow horovod_test \
    --name horovod_test \
    --log-dir /projects/datascience/search/dhmpi-runs/horovod_test/horovod_test_0123abcd \
    --resume \
    --num-ranks-per-eval 8 \
    --num-threads-per-rank 8
