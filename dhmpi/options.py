"""What a user may ask for: frozen dataclasses whose field help is the text of ``--help``.

Nothing heavy is imported here, so that ``--help`` and a wrong option answer at once.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from dhmpi import __version__, chaos, external, stopping
from dhmpi.budget import Limits
from dhmpi.chaos import Chaos
from dhmpi.errors import OptionError
from dhmpi.mpi.layout import JOB_MODES
from dhmpi.stopping import STOPPERS, Stopper

EVALUATORS = ("process", "inline", "group")
SURROGATES = ("auto", "RF", "ET", "GBRT", "GP", "DUMMY")
LIARS = ("cl_min", "cl_mean", "cl_max")
ACQUISITIONS = ("UCB", "LCB", "EI", "PI", "gp_hedge")
TASK_DIRS = ("all", "failed", "none")
TRAINING = "dhmpi.nas.run.alpha.run"
"""The run function of architecture searches: trains the network that a configuration describes."""
NETWORKS = tuple(f"ppo_{cell}_{units}" for cell in ("lstm", "lnlstm") for units in (32, 64, 128))
"""Policies: the cell, and how many units it has."""
DIRECTIONS = ("maximize", "minimize")
LOG_LEVELS = ("debug", "info", "warning", "error")

Options = TypeVar("Options", bound="SearchOptions")


def option(
    default: Any,
    help: str,  # noqa: A002  the word argparse uses
    group: str,
    type: Callable[[str], Any] = str,  # noqa: A002
    choices: Sequence[str] | None = None,
    metavar: str | None = None,
    positional: bool = False,
) -> Any:
    """Return a dataclass field that is an option of the command line, or a word of it that is no option."""
    return field(
        default=default,
        metadata={
            "help": help,
            "group": group,
            "type": type,
            "choices": choices,
            "metavar": metavar,
            "positional": positional,
        },
    )


def _warm_start() -> Any:
    return option(
        (),
        "earlier evaluations to begin with: a run directory, its journal, a results.csv of dhmpi or DeepHyper, or "
        "Optuna's CSV export; may be repeated; spaces may differ as long as they share a hyperparameter",
        "how to search",
        metavar="FILE",
    )


def _warm_start_direction() -> Any:
    return option(
        None,
        "of the objectives in files of --warm-start, by default maximize; exports of Optuna need it",
        "how to search",
        choices=DIRECTIONS,
    )


@dataclass(frozen=True)
class SearchOptions:
    """Options of every search."""

    problem: str = option(
        "", "package.module.name of the problem, or a .py file that defines Problem", "what to search", metavar="NAME"
    )
    run: str = option(
        "",
        "package.module.name of the function to maximise, or a .py file that defines run; or a program as in "
        '"cmd:./solver {config} {result}", which reads its configuration from one JSON file and writes its objective '
        "into another",
        "what to search",
        metavar="NAME",
    )
    seed: int | None = option(
        None, "of every random choice; by default drawn, and recorded in run.json", "what to search", int, metavar="N"
    )

    max_evals: int = option(
        Limits.max_evals, "evaluations to start, exactly; failed ones count", "when to stop", int, metavar="N"
    )
    eval_timeout_minutes: float | None = option(
        None, "an evaluation that takes longer is killed; may be a fraction", "when to stop", float, metavar="MINUTES"
    )
    time_limit_minutes: float | None = option(
        None, "the run drains in time to end by then; may be a fraction", "when to stop", float, metavar="MINUTES"
    )
    target: float | None = option(None, "stop once an objective is at least this", "when to stop", float, metavar="Y")
    patience: int | None = option(
        None, "stop after N evaluations without a better objective", "when to stop", int, metavar="N"
    )
    max_failures: int | None = option(
        None,
        "stop after N failed evaluations in all; by default only when the first 50 all failed",
        "when to stop",
        int,
        metavar="N",
    )
    stopper: str | None = option(
        None,
        "end evaluations that are far behind others at the same step, judged by what they report with "
        "dhmpi.trial().report(step, value): median of the others, or asynchronous successive halving, which lets "
        "the best 1/F go on at each rung; the function must look at dhmpi.trial().should_stop()",
        "when to stop",
        choices=STOPPERS,
    )
    stopper_min_steps: int = option(
        1, "no evaluation is ended before this step; for halving, the first rung", "when to stop", int, metavar="N"
    )
    stopper_factor: int = option(
        4, "of halving: rungs are this factor apart, and at each the best 1/F go on", "when to stop", int, metavar="F"
    )
    grace_minutes: float = option(
        1.0,
        "minutes before the time limit, a tenth of it at most, and after SIGUSR1, in which running evaluations may "
        "finish while nothing new is started",
        "when to stop",
        float,
        metavar="MINUTES",
    )
    retries: int = option(
        2,
        "how often a trial whose evaluator was lost is given out again; a failed evaluation is not repeated",
        "when to stop",
        int,
        metavar="N",
    )

    log_dir: str | None = option(
        None,
        "run directory; by default dhmpi-runs/<workflow>/<name>_<8 hex digits>",
        "where results go",
        metavar="DIRECTORY",
    )
    name: str = option("", "of the run in the default run directory; by default the search's", "where results go")
    workflow: str = option("default", "groups runs in the default run directory", "where results go")
    resume: bool = option(
        False, "continue the run in --log-dir, or start it there if there is none yet", "where results go"
    )
    task_dirs: str = option(
        "all",
        "which evaluations keep their working directory task<N>_<id> and output",
        "where results go",
        choices=TASK_DIRS,
    )
    log_level: str = option("info", "of dhmpi.log", "where results go", choices=LOG_LEVELS)

    evaluator: str = option(
        "process",
        "process: in a watched child process; inline: in the rank itself, for functions of microseconds, "
        "without time or memory limits; group: by several ranks together, as many as a configuration says in num_ranks",
        "how to evaluate",
        choices=EVALUATORS,
    )
    job_mode: str = option(
        "compact",
        "compact: master and searcher take a rank each; serial: the master has the first node to itself; "
        "mpi: the searcher lives with the master",
        "how to evaluate",
        choices=JOB_MODES,
    )
    node_packing_count: int | None = option(
        None,
        "in job mode serial, the searcher takes 1/N of a node; by default one rank",
        "how to evaluate",
        int,
        metavar="N",
    )
    num_evals_per_node: int | None = option(
        None, "evaluators expected on each node; checked against the launcher's ranks", "how to evaluate", int,
        metavar="N",
    )  # fmt: skip
    num_ranks_per_eval: int | None = option(
        None,
        "ranks that evaluate a configuration together, with a communicator of their own, unless it says in num_ranks "
        "how many; more than 1: --evaluator group",
        "how to evaluate",
        int,
        metavar="K",
    )
    num_nodes_per_eval: int | None = option(
        None,
        "whole nodes that evaluate a configuration together, with all their ranks or those of --num-ranks-per-eval",
        "how to evaluate",
        int,
        metavar="N",
    )
    num_threads_per_rank: int | None = option(
        None,
        "threads of an evaluation (OMP_NUM_THREADS and its kin); by default the cores a rank may use",
        "how to evaluate",
        int,
        metavar="N",
    )
    wrap: str | None = option(
        None,
        'command around the evaluating process, which stands for {} in it, as in "numactl --localalloc {}"',
        "how to evaluate",
        metavar="COMMAND",
    )
    container: str | None = option(
        None,
        "image for apptainer exec, in which evaluations run; it must have python3 and dhmpi",
        "how to evaluate",
        metavar="IMAGE",
    )
    stage: str | None = option(
        None,
        "files and directories, code, data or a Python environment, with : between them, of which every node gets "
        "a copy on its own disk, sent over MPI; evaluations use the copies, and find them with dhmpi.staged(path)",
        "how to evaluate",
        metavar="PATHS",
    )
    stage_to: str | None = option(
        None,
        "directory on every node for copies, in which {host} stands for its name; by default that for temporary files",
        "how to evaluate",
        metavar="DIRECTORY",
    )
    keep_staged: bool = option(
        False, "leave copies on the nodes, so that the next launch there has them already", "how to evaluate"
    )
    max_rss: float | None = option(
        None,
        "MB; an evaluation whose processes use more is killed; of several ranks it is ended, and a rank that does not "
        "free the memory then ends",
        "how to evaluate",
        float,
        metavar="MB",
    )
    recycle_rss: float | None = option(
        None,
        "MB; the evaluating process is replaced between evaluations when it has grown beyond; not for evaluations of "
        "several ranks",
        "how to evaluate",
        float,
        metavar="MB",
    )

    quarantine_after: int = option(
        5,
        "a host where N evaluations have crashed, far more often than elsewhere, gets no new trials",
        "when things break",
        int,
        metavar="N",
    )
    silence_minutes: float = option(
        1.5,
        "minutes without a sign of life after which what a rank does is given to another",
        "when things break",
        float,
        metavar="MINUTES",
    )
    chaos: str | None = option(
        None,
        "faults on purpose, to rehearse: kill, hang, segv, slow are probabilities per evaluation, as in "
        "kill=0.01,hang=0.01,segv=0.01,slow=0.1x3; rank-kill=0.001,max-rank-kills=5 kills ranks",
        "when things break",
        metavar="FAULTS",
    )

    @property
    def faults(self) -> Chaos | None:
        """What goes wrong on purpose."""
        return None if self.chaos is None else chaos.parse(self.chaos)

    @property
    def grouped(self) -> bool:
        """Whether groups of ranks evaluate, on communicators of their own."""
        return self.evaluator == "group" or (self.num_ranks_per_eval or 1) > 1 or self.num_nodes_per_eval is not None

    @property
    def in_processes(self) -> bool:
        """Whether evaluations happen in child processes."""
        return self.evaluator == "process" and not self.grouped

    @property
    def silence(self) -> float:
        """Seconds."""
        return 60 * self.silence_minutes

    @property
    def evaluator_silence(self) -> float | None:
        """Seconds; None where an evaluation keeps its rank from giving signs of life, however long it takes."""
        return None if self.evaluator == "inline" else self.silence

    @property
    def limits(self) -> Limits:
        """What bounds the search, besides time."""
        return Limits(
            self.max_evals,
            self.retries,
            self.max_failures,
            self.target,
            self.patience,
            self.quarantine_after,
            screening=getattr(self, "screen_epochs", None) is not None,
        )

    @property
    def stopping(self) -> Stopper | None:
        """A new judge of which evaluations should end early, None if none should."""
        if self.stopper is None:
            return None
        return stopping.make(self.stopper, self.stopper_min_steps, self.stopper_factor)

    @property
    def wrapping(self) -> tuple[str, ...]:
        """Words of the command around the evaluating process, empty if there is none."""
        if self.container is not None:
            return ("apptainer", "exec", self.container, "{}")
        return () if self.wrap is None else tuple(shlex.split(self.wrap))

    @property
    def staging(self) -> tuple[str, ...]:
        """Paths of what is copied onto the nodes."""
        return () if self.stage is None else tuple(name for name in self.stage.split(os.pathsep) if name)

    @property
    def grace(self) -> float:
        """Seconds."""
        return 60 * self.grace_minutes

    @property
    def eval_timeout(self) -> float | None:
        """Seconds, None without a limit."""
        return None if self.eval_timeout_minutes is None else 60 * self.eval_timeout_minutes

    @property
    def time_limit(self) -> float | None:
        """Seconds, None without a limit."""
        return None if self.time_limit_minutes is None else 60 * self.time_limit_minutes

    def check(self) -> None:
        """Refuse what makes no sense.

        Raises
        ------
        OptionError
        """
        for name in ("problem", "run"):
            if not getattr(self, name):
                raise OptionError(f"--{name} is missing: give a package.module.name or a .py file")
        for name in ("max_evals", "patience", "max_failures", "node_packing_count", "num_evals_per_node",
                     "num_ranks_per_eval", "num_nodes_per_eval", "num_threads_per_rank",
                     "quarantine_after"):  # fmt: skip
            _at_least(self, name, 1)
        for name in ("eval_timeout_minutes", "time_limit_minutes", "max_rss", "recycle_rss", "silence_minutes"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise OptionError(f"{flag(name)} must be > 0, got {value:g}")
        _at_least(self, "retries", 0)
        _at_least(self, "stopper_min_steps", 1)
        _at_least(self, "stopper_factor", 2)
        if not 0 <= self.grace_minutes < float("inf"):
            raise OptionError(f"--grace-minutes must be >= 0, got {self.grace_minutes:g}")
        faults = self.faults
        if faults is not None and faults.hang and self.in_processes and self.eval_timeout is None:
            raise OptionError("--chaos hang needs --eval-timeout-minutes: what hangs would never end")
        if self.seed is not None:
            _at_least(self, "seed", 0)
        if self.target is not None and self.target != self.target:
            raise OptionError("--target must be a number, got nan")
        if not self.in_processes and faults is not None and (faults.kill or faults.hang or faults.segv or faults.slow):
            raise OptionError("--chaos with faults of evaluations needs --evaluator process: they hit the process")
        if self.grouped:
            self._check_groups()
        if self.evaluator == "inline":
            if self.stopper is not None:
                raise OptionError(
                    "--stopper needs --evaluator process: the rank itself hears nothing while it evaluates"
                )
            for name in ("eval_timeout_minutes", "max_rss", "recycle_rss"):
                if getattr(self, name) is not None:
                    raise OptionError(
                        f"{flag(name)} cannot be enforced with --evaluator inline, where the function runs in the rank "
                        f"itself: use --evaluator process"
                    )
        self._check_wrap()
        if self.stage is None and (self.stage_to is not None or self.keep_staged):
            raise OptionError("--stage-to and --keep-staged need --stage, which says what is copied")
        if self.stage is not None and not self.staging:
            raise OptionError("--stage names nothing to copy")
        if self.stage is not None and self.evaluator == "inline":
            raise OptionError("--stage needs --evaluator process or group: inline functions are those of the ranks")
        if external.is_external(self.run):
            external.Program(self.run)
            if self.evaluator == "inline":
                raise OptionError(
                    f"--run {external.PREFIX} needs --evaluator process: a program needs a directory and limits"
                )
        for name in ("name", "workflow"):
            value = getattr(self, name)
            if "/" in value or value in (".", "..") or "\0" in value or "\n" in value:
                raise OptionError(f"{flag(name)} becomes the name of a directory and cannot be {value!r}")
        if self.resume and self.log_dir is None:
            raise OptionError("--resume needs --log-dir, the run directory to continue")

    def _check_groups(self) -> None:
        if self.evaluator == "inline":
            raise OptionError("evaluations of several ranks need --evaluator group, got inline")
        if self.recycle_rss is not None:
            raise OptionError(
                "--recycle-rss cannot be used with evaluations of several ranks: they happen in the ranks themselves, "
                "and no rank can be replaced while others go on; --max-rss works"
            )
        k, nodes = self.num_ranks_per_eval, self.num_nodes_per_eval
        if k is not None and nodes is not None and k % nodes:
            raise OptionError(f"--num-ranks-per-eval {k} cannot be shared equally by --num-nodes-per-eval {nodes}")

    def _check_wrap(self) -> None:
        if self.wrap is None and self.container is None:
            return
        if self.wrap is not None and self.container is not None:
            raise OptionError("--container is a --wrap of its own: give one of the two")
        if not self.in_processes:
            raise OptionError("--wrap and --container need --evaluator process: elsewhere there is no process to wrap")
        try:
            words = self.wrapping
        except ValueError as error:
            raise OptionError(f"--wrap {self.wrap!r} is no command: {error}") from error
        if words.count("{}") != 1:
            raise OptionError(f"--wrap must have {{}} once, where the evaluating process stands, got {self.wrap!r}")


@dataclass(frozen=True)
class ModelOptions(SearchOptions):
    """Options of every search that has a model propose hyperparameters."""

    surrogate_model: str = option(
        "auto",
        "model of the objective; auto: the best by measurement, a Gaussian process (GP); DUMMY: none, random "
        "configurations",
        "how to search",
        choices=SURROGATES,
    )
    acq_func: str = option(
        "UCB",
        "what makes a candidate promising; LCB is another name of UCB here, since objectives are maximised",
        "how to search",
        choices=ACQUISITIONS,
    )
    kappa: float = option(
        1.96,
        "standard deviations that UCB adds to the mean of the most optimistic of ten proposals; larger explores more. "
        "It is drawn for every proposal, so that proposals made in parallel explore to different degrees",
        "how to search",
        float,
        metavar="K",
    )
    xi: float = option(0.01, "improvement that EI and PI take for none", "how to search", float, metavar="X")
    liar_strategy: str | None = option(
        None,
        "what the model believes of pending trials, named in maximised space: cl_max is optimistic (the best "
        "objective so far), cl_min pessimistic (DeepHyper changed what these names mean between its versions); by "
        "default what a Gaussian process expects of them, cl_max with forests",
        "how to search",
        choices=LIARS,
    )
    n_jobs: int = option(1, "cores for fitting the model; -1: all", "how to search", int, metavar="N")
    warm_start: tuple[str, ...] = _warm_start()
    warm_start_direction: str | None = _warm_start_direction()

    @property
    def model(self) -> dict[str, Any]:
        """How the model proposes, in the words of `dhmpi.search.chooser`."""
        names = ("surrogate_model", "liar_strategy", "acq_func", "kappa", "xi", "n_jobs")
        return {name: getattr(self, name) for name in names}

    @property
    def fits(self) -> bool:
        """Whether there is a model."""
        return self.surrogate_model != "DUMMY"

    def check(self) -> None:
        super().check()
        for name in ("kappa", "xi"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise OptionError(f"{flag(name)} must be >= 0, got {value:g}")
        if self.n_jobs != -1:
            _at_least(self, "n_jobs", 1)


@dataclass(frozen=True)
class AmbsOptions(ModelOptions):
    """Options of the asynchronous model-based search."""


@dataclass(frozen=True)
class ArchitectureOptions(SearchOptions):
    """Options of every search that is meant for architectures."""

    run: str = option(
        TRAINING,
        "package.module.name of the function to maximise, or a .py file that defines run; the default trains "
        'architectures; or a program as in "cmd:./solver {config} {result}"',
        "what to search",
        metavar="NAME",
    )


@dataclass(frozen=True)
class PpoOptions(ArchitectureOptions):
    """Options of reinforcement learning by proximal policy optimisation."""

    num_agents: int = option(
        1, "agents that share the work of teaching the policy; each has as many evaluators", "how to search", int,
        metavar="N",
    )  # fmt: skip
    num_nodes: int | None = option(
        None, "another name of --num-agents, from the times of one agent a node", "how to search", int, metavar="N"
    )
    spread_remainder: bool = option(
        False, "let some agents have one evaluator more, so that no rank is idle", "how to search"
    )
    episodes_per_update: int | None = option(
        None,
        "architectures sampled by one policy, of all agents together; by default 1.25 for each evaluator, or 1 with "
        "--batch-quorum 1",
        "how to search",
        int,
        metavar="N",
    )
    batch_quorum: float = option(
        0.2,
        "learn as soon as this share of a batch is evaluated; what is late is learned from with the next batch. "
        "With 1 all evaluators wait for the slowest, and runs can be repeated exactly",
        "how to search",
        float,
        metavar="SHARE",
    )
    on_duplicate: str = option(
        "reuse",
        "reuse: an architecture that was evaluated before has its objective at once, as a trial of status reused; "
        "re-evaluate: it is evaluated again, with another seed",
        "how to search",
        choices=("reuse", "re-evaluate"),
    )
    stop_on_convergence: int = option(
        100,
        "stop after K updates in a row from one architecture only, or from known ones only (--on-duplicate reuse); 0: "
        "never",
        "how to search",
        int,
        metavar="K",
    )
    network: str = option(
        "ppo_lnlstm_128",
        "policy: a recurrent network of so many units, with (lnlstm) or without (lstm) layer normalisation; the values "
        "have one of their own",
        "how to search",
        choices=NETWORKS,
    )
    gamma: float = option(1.0, "discount of rewards", "how to search", float, metavar="G")
    lam: float = option(0.95, "lambda of generalised advantage estimation", "how to search", float, metavar="L")
    ent_coef: float = option(0.01, "weight of the entropy bonus", "how to search", float, metavar="C")
    vf_coef: float = option(0.5, "weight of the value loss", "how to search", float, metavar="C")
    cliprange: float = option(0.2, "how far one update may move the policy", "how to search", float, metavar="EPS")
    learning_rate: float = option(
        3e-4, "of Adam; it falls linearly to zero over --max-evals", "how to search", float, metavar="R"
    )
    max_grad_norm: float = option(
        0.5, "longer gradients, of all agents together, are scaled down", "how to search", float, metavar="X"
    )
    noptepochs: int = option(10, "passes over a batch in an update", "how to search", int, metavar="N")
    nminibatches: int = option(1, "gradient steps in a pass", "how to search", int, metavar="N")
    target_kl: float | None = option(
        None, "end an update early once the policy has moved so far", "how to search", float, metavar="X"
    )
    failure_reward: float = option(
        -1.0, "reward of a failed evaluation, or the lowest so far if that is less", "how to search", float, metavar="R"
    )
    lowest_reward: float = option(-10.0, "lower objectives count as this", "how to search", float, metavar="R")

    @property
    def n_agents(self) -> int:
        return self.num_agents if self.num_nodes is None else self.num_nodes

    @property
    def settings(self) -> dict[str, Any]:
        """How to learn, in the words of `dhmpi.search.ppo.Settings`, which checks it."""
        names = ("network", "gamma", "lam", "ent_coef", "vf_coef", "cliprange", "learning_rate", "max_grad_norm",
                 "noptepochs", "nminibatches", "target_kl", "failure_reward", "lowest_reward")  # fmt: skip
        return {name: getattr(self, name) for name in names}

    def check(self) -> None:
        super().check()
        for name in ("num_agents", "num_nodes", "episodes_per_update", "noptepochs", "nminibatches"):
            _at_least(self, name, 1)
        _at_least(self, "stop_on_convergence", 0)
        if self.num_nodes is not None and self.num_agents not in (1, self.num_nodes):
            raise OptionError(f"--num-agents {self.num_agents} and --num-nodes {self.num_nodes} say the same: give one")
        if not 0 < self.batch_quorum <= 1:
            raise OptionError(f"--batch-quorum must be a share > 0 and <= 1, got {self.batch_quorum:g}")
        for name in ("gamma", "lam"):
            if not 0 <= getattr(self, name) <= 1:
                raise OptionError(f"{flag(name)} must be >= 0 and <= 1, got {getattr(self, name):g}")
        for name in ("ent_coef", "vf_coef"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise OptionError(f"{flag(name)} must be >= 0, got {getattr(self, name):g}")
        for name in ("cliprange", "learning_rate", "max_grad_norm", "target_kl"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise OptionError(f"{flag(name)} must be > 0, got {value:g}")


@dataclass(frozen=True)
class ScreeningOptions(ArchitectureOptions):
    """Options of every search that can evaluate briefly first."""

    screen_epochs: int | None = option(
        None,
        "first evaluate every configuration with num_epochs = E, and only the most promising as long as the problem "
        "says; both count as evaluations",
        "how to search",
        int,
        metavar="E",
    )
    promote: float = option(
        0.25,
        "share of the screened configurations that are evaluated in full",
        "how to search",
        float,
        metavar="SHARE",
    )

    @property
    def screening(self) -> dict[str, Any] | None:
        """What is screened, in the words of `dhmpi.search.build`."""
        return None if self.screen_epochs is None else {"epochs": self.screen_epochs, "promote": self.promote}

    def check(self) -> None:
        super().check()
        _at_least(self, "screen_epochs", 1)
        if not 0 < self.promote <= 1:
            raise OptionError(f"--promote must be a share > 0 and <= 1, got {self.promote:g}")


@dataclass(frozen=True)
class RandomOptions(ScreeningOptions):
    """Options of the random search, of architectures or hyperparameters."""

    num_nodes: int = option(
        1, "masters of the search; there is one, and all other ranks evaluate", "how to search", int, metavar="1"
    )

    def check(self) -> None:
        super().check()
        if self.num_nodes != 1:
            raise OptionError(f"--num-nodes must be 1, got {self.num_nodes}: one master serves all evaluators")


@dataclass(frozen=True)
class EvolutionOptions(ScreeningOptions):
    """Options of every search in which a population evolves."""

    population_size: int = option(
        100, "configurations told last, among which parents are chosen", "how to search", int, metavar="P"
    )
    sample_size: int = option(
        10, "random members of the population, the best of which is a parent", "how to search", int, metavar="S"
    )
    crossover: float = option(
        0.0, "chance that a child has two parents before it is mutated", "how to search", float, metavar="CHANCE"
    )
    unique: bool = option(
        False,
        "never evaluate twice; by default, without --screen-epochs, a child may be what was evaluated before, as in "
        "the paper, so that a noisy objective is sampled again where it is best",
        "how to search",
    )
    warm_start: tuple[str, ...] = _warm_start()
    warm_start_direction: str | None = _warm_start_direction()

    @property
    def evolution(self) -> dict[str, Any]:
        """How the population evolves, in the words of `dhmpi.search.evolution`."""
        return {name: getattr(self, name) for name in ("population_size", "sample_size", "crossover", "unique")}

    @property
    def repeats(self) -> bool:
        """Whether a configuration may be evaluated more than once."""
        return not self.unique and self.screening is None

    def check(self) -> None:
        super().check()
        for name in ("population_size", "sample_size"):
            _at_least(self, name, 1)
        if self.sample_size > self.population_size:
            raise OptionError(
                f"--sample-size must be at most --population-size, {self.population_size}, got {self.sample_size}"
            )
        if not 0 <= self.crossover <= 1:
            raise OptionError(f"--crossover must be a chance >= 0 and <= 1, got {self.crossover:g}")


@dataclass(frozen=True)
class RegevoOptions(EvolutionOptions, RandomOptions):
    """Options of regularized evolution."""


@dataclass(frozen=True)
class AgeboOptions(EvolutionOptions, ModelOptions):
    """Options of ageing evolution with Bayesian optimisation."""

    surrogate_model: str = option(
        "auto",
        "model of the objective by the hyperparameters; auto: a Gaussian process (GP); "
        "DUMMY: none, random hyperparameters",
        "how to search",
        choices=SURROGATES,
    )
    kappa: float = option(
        0.001,
        "standard deviations that UCB adds to the mean; larger explores more",
        "how to search",
        float,
        metavar="K",
    )
    xi: float = option(1e-6, "improvement that EI and PI take for none", "how to search", float, metavar="X")
    liar_strategy: str = option(
        "cl_min",
        "what the model believes of pending trials, named in maximised space: the pessimistic cl_min keeps a model "
        "that hardly explores from proposing the same hyperparameters for a whole batch",
        "how to search",
        choices=LIARS,
    )


def flag(name: str) -> str:
    """Return the command line's name of a field."""
    return "--" + name.replace("_", "-")


def _at_least(options: SearchOptions, name: str, least: int) -> None:
    value = getattr(options, name)
    if value is not None and value < least:
        raise OptionError(f"{flag(name)} must be >= {least}, got {value}")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise OptionError(f"{message} (see --help)")


def parser(cls: type[SearchOptions], prog: str, description: str) -> argparse.ArgumentParser:
    """Return the command line of a class of options."""
    result = _Parser(
        prog=prog, description=description, allow_abbrev=False, argument_default=argparse.SUPPRESS, add_help=True
    )
    result.add_argument("--version", action="version", version=f"dhmpi {__version__}")
    result.add_argument("--config", metavar="FILE", help="TOML file with options; those of the command line win")
    groups: dict[str, Any] = {}
    for item in _fields(cls):
        meta = item.metadata
        group = groups.get(meta["group"]) or groups.setdefault(meta["group"], result.add_argument_group(meta["group"]))
        text = meta["help"].replace("%", "%%")
        if meta["positional"]:
            result.add_argument(item.name, type=meta["type"], metavar=meta["metavar"], help=text)
            continue
        if item.default is False:
            group.add_argument(flag(item.name), action="store_true", help=text)
            continue
        if item.default == ():
            group.add_argument(flag(item.name), action="append", metavar=meta["metavar"], help=text)
            continue
        if item.default not in (None, ""):
            text += f" (default: {item.default})"
        group.add_argument(
            flag(item.name), type=meta["type"], choices=meta["choices"], metavar=meta["metavar"], help=text
        )
    return result


def parse(cls: type[Options], prog: str, description: str, arguments: Sequence[str] | None = None) -> Options:
    """Return the options that a command line, and perhaps a file named in it, ask for; checked.

    Raises
    ------
    OptionError
        With the sentence to show.
    """
    words = sys.argv[1:] if arguments is None else arguments
    if "--evaluator=balsam" in words or ("--evaluator", "balsam") in zip(words, words[1:]):
        raise OptionError(
            "--evaluator balsam is not needed: the ranks of this launch evaluate, without a database or a launcher; "
            "leave it out"
        )
    given = vars(parser(cls, prog, description).parse_args(_joined(words)))
    config = given.pop("config", None)
    values = {**(_from_file(cls, Path(config)) if config is not None else {}), **given}
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    options = cls(**values)
    options.check()
    return options


def _joined(words: Sequence[str]) -> list[str]:
    """Join an option and a negative number that follows: argparse takes -1e-3 for an option."""
    joined: list[str] = []
    for word in words:
        if (
            word.startswith("-")
            and joined
            and joined[-1].startswith("--")
            and "=" not in joined[-1]
            and _is_number(word)
        ):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _fields(cls: type[SearchOptions]) -> list[dataclasses.Field[Any]]:
    """Return the fields with those of one group together, the search's own group after the first."""
    fields = [item for item in dataclasses.fields(cls) if "group" in item.metadata]
    order = {group: position for position, group in enumerate(("what to search", "how to search"))}
    return sorted(fields, key=lambda item: order.get(item.metadata["group"], len(order)))


def _from_file(cls: type[SearchOptions], path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        content = tomllib.loads(path.read_text())
    except OSError as error:
        raise OptionError(f"cannot read --config {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise OptionError(f"--config {path} is no TOML: {error}") from error
    known = {item.name: item for item in _fields(cls)}
    values = {}
    for key, value in content.items():
        item = known.get(key.replace("-", "_"))
        if item is None:
            raise OptionError(f"--config {path} has an unknown option {key!r}")
        values[item.name] = _typed(item, value, path)
    return values


def _typed(item: dataclasses.Field[Any], value: Any, path: Path) -> Any:
    """Return a value of the file as the command line would have read it."""
    meta = item.metadata
    if item.default == ():
        if not isinstance(value, list) or not all(isinstance(part, str) for part in value):
            raise OptionError(f"{flag(item.name)} in --config {path} must be a list of strings, got {value!r}")
        return value
    expected = bool if item.default is False else meta["type"]
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not expected:
        raise OptionError(f"{flag(item.name)} in --config {path} must be {expected.__name__}, got {value!r}")
    if meta["choices"] and value not in meta["choices"]:
        raise OptionError(
            f"{flag(item.name)} in --config {path} must be one of {', '.join(meta['choices'])}, got {value!r}"
        )
    return value


def command_line(prog: str, options: SearchOptions, **changes: Any) -> str:
    """Return a command that asks for these options, with changes; what has its default is left out."""
    options = dataclasses.replace(options, **changes)
    words = ["python", "-m", prog]
    for item in _fields(type(options)):
        value = getattr(options, item.name)
        if item.metadata["positional"]:
            words.insert(3, str(value))
        elif value is True:
            words.append(flag(item.name))
        elif item.default == ():
            words += [word for part in value for word in (flag(item.name), part)]
        elif value != item.default:
            words += [flag(item.name), str(value)]
    return shlex.join(words)
