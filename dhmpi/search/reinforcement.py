"""Reinforcement learning of architectures: a search whose proposals are the episodes of a policy.

An episode is one walk through all decisions of a space: a configuration.  The objectives of a batch of episodes teach
the policy (:mod:`dhmpi.search.ppo`), which then samples the next batch.  Like every search it knows nothing of MPI; the
agents that share the work of an update are behind :class:`dhmpi.search.base.Team`.  Start reading at
:class:`ReinforcementSearch`.
"""

from __future__ import annotations

import io
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np

from dhmpi.errors import OptionError, RunDirectoryError
from dhmpi.results import replace
from dhmpi.search.base import Search, Team
from dhmpi.search.policy import Episodes
from dhmpi.search.ppo import Learner, Metrics, Settings, progress, reward, summarise
from dhmpi.trials import Config, Proposal

ON_DUPLICATE = ("reuse", "re-evaluate")

Choices = tuple[int, ...]


class Alone:
    """A team of one agent."""

    def update(self, learner: Learner, episodes: Episodes, rewards: np.ndarray, progress: float) -> Metrics:
        return learner.update(episodes, rewards, progress=progress)


class Episode(NamedTuple):
    """One architecture as the policy has sampled it; see :class:`dhmpi.search.policy.Episodes`."""

    choices: Choices
    log_probabilities: np.ndarray
    values: np.ndarray


class ReinforcementSearch(Search):
    """Propose what a policy samples; learn from each batch of objectives.

    A batch is complete when a share of `batch_quorum` of it has come in; what comes later is learned from with the next
    one, by the log-probabilities that its own policy had.  As many episodes are sampled then as were learned from, so
    that with a smaller quorum nobody waits for the slowest of a batch.

    Parameters
    ----------
    options : sequence of sequence
        The values that each decision can take, by decision.
    names : sequence of str
        Of the decisions.
    seed : int
    settings : Settings
    episodes_per_update : int
        Size of a batch, of all agents together.
    batch_quorum : float, default 1
        In (0, 1].  Nobody waits for a batch as long as more of it than there are evaluators is not needed yet.
    on_duplicate : {"reuse", "re-evaluate"}, default "reuse"
        Whether an architecture that was evaluated before takes its objective from there.
    stop_on_convergence : int, default 100
        Stop after so many updates in a row whose batches held one architecture only, or took every objective from
        known ones; 0: never.
    max_evals : int, optional
        The learning rate falls to zero towards it; without it, it stays.
    checkpoint : Path, optional
        File that takes the policy after each update; a search that continues an earlier run begins there.

    Attributes
    ----------
    team : Team
        Whose agents learn together; this one alone, unless somebody puts another team here.

    Raises
    ------
    OptionError
        If an option makes no sense.
    """

    def __init__(
        self,
        options: Sequence[Sequence[Any]],
        names: Sequence[str],
        seed: int,
        *,
        settings: Settings,
        episodes_per_update: int,
        batch_quorum: float = 1.0,
        on_duplicate: str = "reuse",
        stop_on_convergence: int = 100,
        max_evals: int | None = None,
        checkpoint: Path | None = None,
    ) -> None:
        super().__init__(seed)
        if episodes_per_update < 1:
            raise OptionError(f"--episodes-per-update must be >= 1, got {episodes_per_update}")
        if not 0 < batch_quorum <= 1:
            raise OptionError(f"--batch-quorum must be in (0, 1], got {batch_quorum:g}")
        if on_duplicate not in ON_DUPLICATE:
            raise OptionError(f"--on-duplicate must be one of {', '.join(ON_DUPLICATE)}, got {on_duplicate!r}")
        self.team: Team = Alone()
        self.settings = settings
        self.size = math.prod(map(len, options))
        self.to_config: Callable[[Config], Config] = dict
        self.from_config: Callable[[Config], Config] = dict
        self._options = [list(values) for values in options]
        self._names = list(names)
        self._index = [{value: i for i, value in enumerate(values)} for values in self._options]
        self._learner = Learner([len(values) for values in options], settings, seed)
        self._n_batch = episodes_per_update
        self._quorum = batch_quorum
        self._reuses = on_duplicate == "reuse"
        self._stop_after = stop_on_convergence
        self._n_converged = 0  # updates in a row whose batch was one architecture, or known ones
        self._max_evals = max_evals
        self._checkpoint = checkpoint
        self._queue: deque[Episode] = deque()  # sampled, not proposed
        self._repeats: deque[tuple[Episode, float]] = deque()  # known by now, not proposed
        self._n_needed = 0  # episodes of the present batch that must have an objective before the next
        self._proposing: list[tuple[Episode, float | None]] = []  # of the answer in the making, with a known objective
        self._open: dict[int, Episode] = {}  # proposed and being evaluated
        self._settled: set[int] = set()  # proposed with a known objective: in `_ready`, or learned from
        self._n_reused = 0  # of the episodes that are learned from next
        self._ready: list[tuple[Episode, float | None]] = []  # with what came of it, not learned from
        self._worst = math.inf  # objective so far
        self._known: dict[Choices, float] = {}  # objective of each architecture
        self._waiting: dict[Choices, list[Episode]] = {}  # repeats of what is being evaluated, by what that is

    # -- what every search does ----------------------------------------------------------------------------------------

    def ask(self, n: int, replacing: Iterable[int] = ()) -> list[Proposal]:
        """Propose up to `n` episodes; fewer if the batch has no more: the next follows when this one is learned from.

        Nothing that was proposed is ever replaced.
        """
        self.notes, self.reused = [], {}
        proposals = super().ask(n)
        self.exhausted = False  # however few
        return proposals

    def drop(self, keys: Iterable[int]) -> None:
        for key in keys:
            episode = self._open.pop(key, None)
            self._settled.discard(key)
            if episode is not None:
                self._queue.extend([episode, *self._waiting.pop(episode.choices, ())])

    def pending(self) -> list[int]:
        return sorted([*self._open, *self._settled])

    def add(self, points: Sequence[tuple[int, Config]]) -> None:
        """Take points of users for pending; they are of no policy, so that nothing is learned from them."""
        self._settled.update(key for key, _ in points)

    def limit(self, max_evals: int) -> None:
        self._max_evals = max_evals

    def restore(
        self,
        finished: Sequence[tuple[int, Config, float | None]],
        pending: Sequence[tuple[int, Config]],
        n_asks: int,
    ) -> None:
        """Continue an earlier run from its last checkpoint; without one, with what is known, but a new policy.

        Raises
        ------
        RunDirectoryError
            If the checkpoint cannot be read, or is of another space or network.
        """
        first = self._load()
        unfinished = {key for key, _ in pending}
        configs = {**{key: config for key, config, _ in finished}, **dict(pending)}
        for key in sorted(self._open.keys() - configs.keys()):
            self._queue.append(self._open.pop(key))  # it was ahead when the run ended
        for key, config in sorted(configs.items()):
            episode = self._open.pop(key, None) if key < first else self._unqueue(self._choices(config))
            if episode is not None:
                self._open[key] = episode
            elif key in unfinished:
                self._settled.add(key)  # learned from already, or of a policy that is not known any more
        for key, config, objective in finished:
            if objective is not None:
                self._worst = min(self._worst, objective)
                if self._reuses:
                    self._known.setdefault(self._choices(config), objective)
            if key in self._open:
                self._take(key, objective)
        if self._reuses:
            for episode in self._open.values():
                self._waiting.setdefault(episode.choices, [])
        # Keys of the checkpoint that nobody has started are not given to others: it may be needed once more.
        self.next_key = max([*configs, first - 1]) + 1
        self.n_told, self.n_asks = len(finished), n_asks

    def _propose(self, n: int, replacing: frozenset[int], rng: np.random.Generator) -> list[Config]:
        if not self._queue and not self.stop and self._complete():
            self._next_batch()
        self._proposing = []
        while len(self._proposing) < n:
            if self._repeats:
                self._proposing.append(self._repeats.popleft())
            elif not self._queue:
                break
            else:
                self._consider(self._queue.popleft())
        return [self._config(episode.choices) for episode, _ in self._proposing]

    def _consider(self, episode: Episode) -> None:
        """Propose an episode, unless it repeats one that is being evaluated: then it waits for that."""
        choices = episode.choices
        if not self._reuses:
            self._proposing.append((episode, None))
        elif choices in self._known:
            self._n_reused += 1
            self._ready.append((episode, self._known[choices]))
            self._proposing.append((episode, self._known[choices]))
        elif choices in self._waiting:
            self._waiting[choices].append(episode)
        else:
            self._waiting[choices] = []
            self._proposing.append((episode, None))

    def _pend(self, proposals: Sequence[Proposal]) -> None:
        for (key, _), (episode, objective) in zip(proposals, self._proposing):
            if objective is None:
                self._open[key] = episode
            else:
                self._settled.add(key)
                self.reused[key] = objective
        self._proposing = []

    def _learn(self, results: Sequence[tuple[int, float | None]]) -> None:
        for key, objective in results:
            if key in self._settled:
                self._settled.discard(key)
            elif key in self._open:
                self._take(key, objective)

    def _take(self, key: int, objective: float | None) -> None:
        """Take in what came of an episode; those that wait for it have the same objective, if there is one."""
        episode = self._open.pop(key)
        self._ready.append((episode, objective))
        repeats = self._waiting.pop(episode.choices, [])
        if objective is None:
            self._queue.extend(repeats)  # a failure is not taken for granted
            return
        self._worst = min(self._worst, objective)
        if self._reuses:
            self._known[episode.choices] = objective
        self._n_reused += len(repeats)
        for repeat in repeats:
            self._ready.append((repeat, objective))
            self._repeats.append((repeat, objective))

    # -- batches -------------------------------------------------------------------------------------------------------

    def _complete(self) -> bool:
        """Return whether there is enough to learn from, or nothing to wait for."""
        if not self._n_needed:
            return True  # the beginning
        return bool(self._ready) and len(self._ready) >= min(self._n_needed, len(self._ready) + self._n_missing())

    def _n_missing(self) -> int:
        return len(self._open) + sum(map(len, self._waiting.values()))

    def _next_batch(self) -> None:
        """Learn from what is ready, and sample what is missing to a batch in flight; late episodes are part of it."""
        if self._n_needed:
            self._update()
        if self.stop:
            return
        began = time.perf_counter()
        sampled = self._learner.sample(range(max(1, self._n_batch - self._n_missing())))
        self._queue.extend(_episodes(sampled))
        self._n_needed = math.ceil(self._quorum * self._n_batch)
        if self.notes:
            self.notes[-1]["rollout_seconds"] = round(time.perf_counter() - began, 4)
        self._save()

    def _update(self) -> None:
        began = time.perf_counter()
        # In an order that does not depend on that of the answers, so that neither does the policy.
        ready = sorted(
            ((episode, reward(objective, self.settings, self._worst)) for episode, objective in self._ready),
            key=lambda item: (item[0].choices, item[1], item[0].log_probabilities.tolist()),
        )
        episodes, rewards = _joined([episode for episode, _ in ready]), np.array([value for _, value in ready])
        self._ready = []
        self.n_fits += 1
        metrics = self.team.update(self._learner, episodes, rewards, progress(self.n_told, self._max_evals))
        batch = summarise(episodes.choices, rewards)
        known_only = self._n_reused == len(rewards)
        if len(rewards) > 1 or known_only:  # one new episode alone says nothing
            self._n_converged = self._n_converged + 1 if batch["n_distinct"] == 1 or known_only else 0
        if 0 < self._stop_after <= self._n_converged:
            self.stop = (
                f"the policy has converged: one architecture, or known ones only, in each of {self._n_converged} "
                f"updates in a row"
            )
        seconds = round(time.perf_counter() - began, 4)
        known = {**asdict(metrics), **batch, "n_reused": self._n_reused}
        self._n_reused = 0
        self.notes.append({"e": "update", **known, "update_seconds": seconds})

    # -- configurations and episodes -----------------------------------------------------------------------------------

    def _config(self, choices: Choices) -> Config:
        return self.to_config({name: values[i] for name, values, i in zip(self._names, self._options, choices)})

    def _choices(self, config: Config) -> Choices:
        values = self.from_config(config)
        return tuple(index[values[name]] for name, index in zip(self._names, self._index))

    def _unqueue(self, choices: Choices) -> Episode | None:
        """Take the first sampled episode with some choices; equal ones of one policy are interchangeable.

        None if there is none, or if it repeats what was learned from before the checkpoint.
        """
        for i, (repeat, _) in enumerate(self._repeats):
            if repeat.choices == choices:
                del self._repeats[i]
                return None
        for i, episode in enumerate(self._queue):
            if episode.choices == choices:
                del self._queue[i]
                return episode
        return None

    # -- the checkpoint ------------------------------------------------------------------------------------------------

    def _save(self) -> None:
        """Write policy and episodes aside, then in the place of the last checkpoint.

        Raises
        ------
        RunDirectoryError
            If it cannot be written.
        """
        path = self._checkpoint
        if path is None:
            return
        late = [episode for waiting in self._waiting.values() for episode in waiting]
        groups = {
            "queue": [*self._queue, *late],
            "open": list(self._open.values()),
            "repeats": [episode for episode, _ in self._repeats],
        }
        content: dict[str, Any] = {f"learner_{name}": value for name, value in self._learner.state().items()}
        for name, group in groups.items():
            joined = _joined(group, len(self._names))
            content |= {
                f"{name}_choices": joined.choices,
                f"{name}_log_probabilities": joined.log_probabilities,
                f"{name}_values": joined.values,
            }
        content |= {
            "open_keys": np.array(list(self._open), dtype=int),
            "repeats_objectives": np.array([objective for _, objective in self._repeats]),
            "next_key": np.array(self.next_key),
            "n_converged": np.array(self._n_converged),
        }
        buffer = io.BytesIO()
        np.savez(buffer, **content)
        try:
            path.parent.mkdir(exist_ok=True)
            replace(path, buffer.getvalue())
        except OSError as error:
            raise RunDirectoryError(f"cannot write the checkpoint {path}: {error.strerror}") from error

    def _load(self) -> int:
        """Return to the checkpoint, if there is one; return the first key that it does not know."""
        path = self._checkpoint
        if path is None or not path.exists():
            return 0
        try:
            with np.load(path, allow_pickle=False) as content:
                arrays = dict(content)
            self._learner.restore(
                {name.removeprefix("learner_"): array for name, array in arrays.items() if name.startswith("learner_")}
            )
            groups = {
                name: _episodes(
                    Episodes(*(arrays[f"{name}_{part}"] for part in ("choices", "log_probabilities", "values")))
                )
                for name in ("queue", "open", "repeats")
            }
        except (OSError, EOFError, ValueError, KeyError, BadZipFile) as error:
            raise RunDirectoryError(f"the checkpoint {path} cannot be used: {error}; without it, --resume begins a new "
                                    f"policy with what is known") from error  # fmt: skip
        self._queue.extend(groups["queue"])
        self._open = dict(zip(arrays["open_keys"].tolist(), groups["open"]))
        self._repeats.extend(zip(groups["repeats"], arrays["repeats_objectives"].tolist()))
        self._n_converged = int(arrays["n_converged"])
        self._n_needed = math.ceil(self._quorum * self._n_batch)
        return int(arrays["next_key"])


def _episodes(episodes: Episodes) -> list[Episode]:
    return [
        Episode(tuple(choices), log_probabilities, values)
        for choices, log_probabilities, values in zip(
            episodes.choices.tolist(), episodes.log_probabilities, episodes.values
        )
    ]


def _joined(episodes: Sequence[Episode], n_decisions: int = 0) -> Episodes:
    """Return episodes as arrays, of shape (0, n_decisions) if there are none."""
    if not episodes:
        empty = np.empty((0, n_decisions))
        return Episodes(empty.astype(int), empty, empty)
    return Episodes(
        np.array([episode.choices for episode in episodes], dtype=int),
        np.array([episode.log_probabilities for episode in episodes]),
        np.array([episode.values for episode in episodes]),
    )
