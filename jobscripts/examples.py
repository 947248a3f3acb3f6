"""``python jobscripts/examples.py``: write the examples beside this file anew, each with the command that makes it.

The first four are the jobs of DeepHyper's guide for Theta.  A test compares the files with what is rendered today.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from dhmpi import jobscript, submit

DIRECTORY = Path(__file__).parent / "examples"
HOME = Path("/projects/datascience/search")
PYTHON = "/projects/datascience/venv/bin/python"
POLYNOME = "-p dhmpi.benchmark.hps.polynome2.Problem -r dhmpi.benchmark.hps.polynome2.run"
SKIP = "-p dhmpi.benchmark.nas.pblp.problem_skip_co_0.Problem"
COMMANDS = {
    "theta-ambs-128-serial": f"hps TEST --name test {POLYNOME} --site theta -n 128 -q default -t 180 -A datascience"
    " -j serial",
    "theta-ambs-128-serial-4-per-node": f"hps TEST --name test {POLYNOME} --site theta -n 128 -q default -t 180"
    " -A datascience -j serial --node-packing-count 4 --num-evals-per-node 4",
    "theta-ppo-11-agents": f"nas ppo_test {SKIP} --search ppo --site theta -n 128 --num-agents 11 -q default -t 180"
    " -A datascience -j mpi --ent-coef 0.01 --noptepochs 10 --network ppo_lnlstm_128 --gamma 1.0 --lam 0.95"
    " --max-evals 1000000",
    "theta-evo": f"nas evo_test {SKIP} --search regevo --site theta -n 128 -q default -t 180 -A datascience -j mpi"
    " --max-evals 1000000",
    "polaris-horovod": f"nas horovod_test {SKIP} -r dhmpi.nas.run.horovod.run --search regevo --site polaris -n 33"
    " -q prod -t 06:00:00 -A datascience --num-nodes-per-eval 2 --num-ranks-per-node 4",
    "polaris-4-per-gpu": f"hps packed {POLYNOME} --site polaris -n 10 -q prod -t 3h -A datascience"
    " --num-evals-per-node 16 --setup 'module load conda'",
    "slurm-ambs": f"hps study {POLYNOME} --scheduler slurm --launcher openmpi -n 8 -t 02:00:00 --cores-per-node 64"
    " --num-evals-per-node 8 -q compute --env TF_CPP_MIN_LOG_LEVEL=2",
}


def prepared(name: str) -> submit.Submission:
    """Return what the command of an example would submit."""
    return submit.prepare(shlex.split(COMMANDS[name]), {}, PYTHON, HOME, "0123abcd")


def main() -> None:
    """Write all examples."""
    DIRECTORY.mkdir(exist_ok=True)
    for name in COMMANDS:
        (DIRECTORY / f"{name}.sh").write_text(jobscript.render(prepared(name).job))


if __name__ == "__main__":
    main()
