#!/usr/bin/env bash
# Install Debian's Slurm and munge, if they are not there; the test starts its own daemons.
set -euo pipefail
PATH="$PATH:/usr/sbin"
for program in munged slurmctld slurmd sbatch; do
    command -v "$program" > /dev/null && continue
    apt-get update --quiet=2
    DEBIAN_FRONTEND=noninteractive apt-get install --quiet=2 --yes --no-install-recommends \
        munge slurmctld slurmd slurm-client
    break
done
