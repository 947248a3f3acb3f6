#!/bin/bash -l
#SBATCH --job-name=study
#SBATCH --nodes=8
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=02:00:00
#SBATCH --partition=compute
#SBATCH --signal=B:USR1@180
#SBATCH --requeue
#SBATCH --open-mode=append
# Written by:
#   python -m dhmpi.submit hps study -p dhmpi.benchmark.hps.polynome2.Problem -r dhmpi.benchmark.hps.polynome2.run --scheduler slurm --launcher openmpi -n 8 -t 02:00:00 --cores-per-node 64 --num-evals-per-node 8 -q compute --env TF_CPP_MIN_LOG_LEVEL=2
set -euo pipefail
cd -- /projects/datascience/search
export OMP_NUM_THREADS=8
export TF_CPP_MIN_LOG_LEVEL=2
DHMPI_DEADLINE="$(date --date='+7080 seconds' +%s)"
export DHMPI_DEADLINE

# Slurm's warning, SIGUSR1, goes to this process.
exec /projects/datascience/venv/bin/python -m dhmpi.launch -n 64 \
    '--mpiexec-args=--map-by ppr:8:node:PE=8 --bind-to core' \
    --restarts 3 \
    ambs \
    --problem dhmpi.benchmark.hps.polynome2.Problem \
    --run dhmpi.benchmark.hps.polynome2.run \
    --workflow study \
    --name study \
    --log-dir /projects/datascience/search/dhmpi-runs/study/study_0123abcd \
    --resume \
    --num-evals-per-node 8 \
    --num-threads-per-rank 8
