"""Proximal policy optimisation of architectures: one synchronous learner whose batch is spread over agents.

All agents hold the same policy.  Each samples its part of a batch of episodes, and computes gradients as sums with
counts; ``reduce``, the only thing that an agent needs of the others, adds them up, and every agent then takes the same
step.  So A agents with g episodes each learn what one agent with A * g episodes learns.

It knows nothing of MPI, of evaluations, or of time; a batch may contain late episodes of older policies, because every
episode brings the log-probabilities and values of the policy that sampled it.  Start reading at :class:`Learner`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dhmpi.options import NETWORKS
from dhmpi.search.policy import Episodes, Policy

Reduce = Callable[[np.ndarray], np.ndarray]
"""Adds an array up over all agents: takes this agent's, returns the sum, the same on every agent."""

REWARD_STD = 0.25
"""Standard deviation of the first batch's rewards as the networks see them: about that of R2, accuracy and the like,
for which `cliprange`, and the common norm of both networks' gradients, were chosen."""

_CHUNK = 128  # episodes differentiated at once: what bounds the memory of an agent


@dataclass(frozen=True)
class Settings:
    """How to learn; the defaults are those of DeepHyper 0.1.

    Attributes
    ----------
    network : str
        One of :data:`dhmpi.options.NETWORKS`.
    gamma : float
        Discount of a reward one decision later, in [0, 1].
    lam : float
        Of generalised advantage estimation, in [0, 1]: 0 trusts the value network, 1 only rewards.
    ent_coef, vf_coef : float
        Weights of the entropy bonus and of the value loss, >= 0.
    cliprange : float
        How far the probability of a choice, relative to the policy that made it, may gain by moving, > 0; also how far
        a value may move.
    learning_rate : float
        Of Adam, > 0; see :func:`progress` for its decay.
    max_grad_norm : float
        A longer gradient is scaled down to this, > 0.
    noptepochs : int
        How often an update goes through its batch, >= 1.
    nminibatches : int
        Into how many parts it splits the batch, with a gradient step for each, >= 1.
    target_kl : float or None
        An update ends early once the policy is further than this from the one that sampled, > 0; None: never.
    failure_reward : float
        Reward of an evaluation that failed, or has returned no finite objective.
    lowest_reward, highest_reward : float
        Objectives beyond are clipped, as a single one of -1e9 would be all that the value network learns.  Within,
        their scale does not matter (:attr:`Learner.reward_std`).

    Raises
    ------
    ValueError
        If a setting is out of its range.
    """

    network: str = "ppo_lnlstm_128"
    gamma: float = 1.0
    lam: float = 0.95
    ent_coef: float = 0.01
    vf_coef: float = 0.5
    cliprange: float = 0.2
    learning_rate: float = 3e-4
    max_grad_norm: float = 0.5
    noptepochs: int = 10
    nminibatches: int = 1
    target_kl: float | None = None
    failure_reward: float = -1.0
    lowest_reward: float = -10.0
    highest_reward: float = 1000.0

    def __post_init__(self) -> None:
        if self.network not in NETWORKS:
            raise ValueError(f"network must be one of {', '.join(NETWORKS)}, got {self.network!r}")
        for name in ("gamma", "lam"):
            _require(name, getattr(self, name), "in [0, 1]", lambda x: 0 <= x <= 1)
        for name in ("ent_coef", "vf_coef"):
            _require(name, getattr(self, name), ">= 0 and finite", lambda x: 0 <= x < math.inf)
        for name in ("cliprange", "learning_rate", "max_grad_norm"):
            _require(name, getattr(self, name), "> 0 and finite", lambda x: 0 < x < math.inf)
        for name in ("noptepochs", "nminibatches"):
            _require(name, getattr(self, name), "an integer >= 1", lambda x: x == int(x) and x >= 1)
        if self.target_kl is not None:
            _require("target_kl", self.target_kl, "> 0", lambda x: x > 0)
        for name in ("lowest_reward", "highest_reward"):
            _require(name, getattr(self, name), "finite", math.isfinite)
        _require(
            "failure_reward",
            self.failure_reward,
            f"between the lowest reward, {self.lowest_reward}, and the highest, {self.highest_reward}",
            lambda x: self.lowest_reward <= x <= self.highest_reward,
        )


def _require(name: str, value: float, limits: str, holds: Callable[[float], bool]) -> None:
    if not holds(value):
        raise ValueError(f"{name} must be {limits}, got {value!r}")


@dataclass(frozen=True)
class Metrics:
    """What an update has done; the same on all agents.  Losses and the like are means over its gradient steps.

    Attributes
    ----------
    update : int
        Its number, from 0.
    n_episodes, n_gradients : int
        Episodes in the batch of all agents; gradient steps taken.
    policy_loss, value_loss : float
        Clipped surrogate objective, to be minimised; half the mean square error of the values, before `vf_coef`, for
        rewards as the networks see them.
    entropy : float
        Of the distribution over architectures along the batch's episodes, in nats.
    entropy_share : float
        The same divided by that of a uniform distribution; 0 if there is nothing to choose.
    kl : float
        How far the policy was from those that sampled the batch, in nats per decision.
    clip_fraction : float
        Part of the decisions whose ratio of probabilities was out of the clip range.
    explained_variance : float or None
        Part of the variance of returns that the values had foreseen; None if the returns do not vary.
    gradient_norm : float
        Before clipping.
    learning_rate : float
    """

    update: int
    n_episodes: int
    n_gradients: int
    policy_loss: float
    value_loss: float
    entropy: float
    entropy_share: float
    kl: float
    clip_fraction: float
    explained_variance: float | None
    gradient_norm: float
    learning_rate: float


def alone(array: np.ndarray) -> np.ndarray:
    """Reduce over one agent: return the array."""
    return array


def reward(objective: float | None, settings: Settings, worst: float = math.inf) -> float:
    """Return the reward of an objective: always finite, and within the range that the settings state.

    Parameters
    ----------
    objective : float or None
        None if the evaluation failed; what is not finite has failed too.
    settings : Settings
    worst : float, default infinite
        The lowest objective so far: a failure is never worth more, whatever the unit of the objective.
    """
    if objective is None or not math.isfinite(objective):
        value = min(settings.failure_reward, worst)
    else:
        value = float(objective)
    return min(max(value, settings.lowest_reward), settings.highest_reward)


def progress(n_finished: int, max_evals: int | None) -> float:
    """Return how much of the budget is used, in [0, 1]; 0 without a budget.

    The learning rate falls linearly with it, so without a budget it stays as it is.
    """
    return 0.0 if max_evals is None else min(n_finished / max(max_evals, 1), 1.0)


def summarise(choices: np.ndarray, rewards: np.ndarray) -> dict[str, float]:
    """Describe a batch of all agents: mean and largest reward, and how many architectures differ.

    Parameters
    ----------
    choices : ndarray of int, shape (n, n_decisions), n >= 1
    rewards : ndarray of shape (n,)
    """
    return {
        "n_episodes": len(choices),
        "reward_mean": float(np.mean(rewards)),
        "reward_max": float(np.max(rewards)),
        "n_distinct": len(np.unique(choices, axis=0)),
    }


def advantages(rewards: np.ndarray, values: np.ndarray, gamma: float, lam: float) -> np.ndarray:
    """Estimate how much better each choice was than expected, when only the last decision earns a reward.

    Parameters
    ----------
    rewards : ndarray of shape (n,)
    values : ndarray of shape (n, n_decisions)
        Reward expected before each decision.
    gamma, lam : float
        As in :class:`Settings`.

    Returns
    -------
    ndarray of shape (n, n_decisions)

    References
    ----------
    Schulman, Moritz, Levine, Jordan, Abbeel (2016), High-Dimensional Continuous Control Using Generalized Advantage
    Estimation, ICLR.
    """
    # delta_t = r_t + gamma V_{t+1} - V_t;  A_t = delta_t + gamma lam A_{t+1}
    result = np.empty_like(values)
    result[:, -1] = rewards - values[:, -1]
    for t in reversed(range(values.shape[1] - 1)):
        result[:, t] = gamma * values[:, t + 1] - values[:, t] + gamma * lam * result[:, t + 1]
    return result


class Adam:
    """Adam in the form of section 2 of its paper, as TensorFlow has it: epsilon is added before the bias correction.

    References
    ----------
    Kingma, Ba (2015), Adam: A Method for Stochastic Optimization, ICLR.
    """

    beta1, beta2, epsilon = 0.9, 0.999, 1e-5

    def __init__(self, n_parameters: int) -> None:
        self.mean = np.zeros(n_parameters)  # m
        self.square = np.zeros(n_parameters)  # v
        self.n_steps = 0  # t

    def step(self, parameters: np.ndarray, gradient: np.ndarray, learning_rate: float) -> None:
        """Change the parameters in place, so that what the gradient belongs to becomes less."""
        self.n_steps += 1
        self.mean += (1 - self.beta1) * (gradient - self.mean)
        self.square += (1 - self.beta2) * (gradient * gradient - self.square)
        rate = learning_rate * math.sqrt(1 - self.beta2**self.n_steps) / (1 - self.beta1**self.n_steps)
        parameters -= rate * self.mean / (np.sqrt(self.square) + self.epsilon)


@dataclass(frozen=True)
class _Batch:
    """This agent's episodes as the loss needs them; all but `choices` of shape (n, n_decisions)."""

    choices: np.ndarray
    log_probabilities: np.ndarray
    values: np.ndarray
    advantages: np.ndarray  # normalised over all agents
    returns: np.ndarray


class Learner:
    """A policy, the optimiser of its weights, and the update; the same on every agent.

    Nothing is drawn from a generator that lives on: the generator of an episode is
    ``numpy.random.default_rng([seed, update, slot])``, that of a split into minibatches follows from seed, update and
    epoch.  So there is no generator to save, and any number of agents can go on from a state.

    Parameters
    ----------
    n_options : sequence of int
        Options of each decision.
    settings : Settings
    seed : int
        Of every random choice, >= 0.
    agent : int, default 0
        Number of this agent, which only decides into which minibatches its episodes go.

    Attributes
    ----------
    policy : Policy
    n_updates : int
        Updates made so far, which is the number of the next one.
    reward_mean, reward_std : float
        Of the first batch whose rewards differ, all agents'; before it, 0 and 0.  The networks see rewards less the
        mean, divided by the standard deviation, times :data:`REWARD_STD`: a policy learns from per cent as well as
        from parts of one, and from 0.9 as well as from 0.0.

    References
    ----------
    Schulman, Wolski, Dhariwal, Radford, Klimov (2017), Proximal Policy Optimization Algorithms, arXiv:1707.06347.
    """

    def __init__(self, n_options: Sequence[int], settings: Settings, seed: int, agent: int = 0) -> None:
        self.settings = settings
        self.seed = seed
        self.agent = agent
        self.policy = Policy(n_options, settings.network, seed)
        self.adam = Adam(self.policy.parameters.size)
        self.n_updates = 0
        self.reward_mean = 0.0
        self.reward_std = 0.0

    def sample(self, slots: Iterable[int]) -> Episodes:
        """Sample the episodes of some slots of the next update's batch; a slot is a number that no other agent has."""
        return self.policy.act([np.random.default_rng([self.seed, self.n_updates, slot]) for slot in slots])

    def update(
        self, episodes: Episodes, rewards: Sequence[float] | np.ndarray, reduce: Reduce = alone, progress: float = 0.0
    ) -> Metrics:
        """Learn from a batch (collective over the agents).

        The number of episodes may differ between agents, and be 0 on some.  After an error in `reduce` the learner is
        undefined: restore an earlier state.

        Parameters
        ----------
        episodes : Episodes
            This agent's; of this policy or of older ones.
        rewards : sequence of float
            One for each episode, finite.
        reduce : callable
            See :data:`Reduce`; called equally often by all agents.
        progress : float, default 0
            Part of the budget that is used, in [0, 1], equal on all agents: the learning rate is multiplied by
            1 - progress.

        Raises
        ------
        ValueError
            If rewards are not finite or not one for each episode, or no agent has an episode.
        FloatingPointError
            If the gradient is not finite; on all agents alike, and nothing has been learned from it.
        """
        settings = self.settings
        if not 0 <= progress <= 1:
            raise ValueError(f"progress must be in [0, 1], got {progress!r}")
        learning_rate = settings.learning_rate * (1 - progress)
        batch, n_episodes, explained_variance = self._prepare(episodes, np.asarray(rewards, dtype=float), reduce)
        steps = self._descend(batch, learning_rate, reduce)
        _, policy_loss, value_loss, entropy, kl, clip_fraction, norm = (float(x) for x in np.mean(steps, axis=0))
        entropy *= self.policy.n_decisions
        self.n_updates += 1
        return Metrics(
            update=self.n_updates - 1,
            n_episodes=n_episodes,
            n_gradients=len(steps),
            policy_loss=policy_loss,
            value_loss=value_loss,
            entropy=entropy,
            entropy_share=entropy / self.policy.max_entropy if self.policy.max_entropy else 0.0,
            kl=kl,
            clip_fraction=clip_fraction,
            explained_variance=explained_variance,
            gradient_norm=norm,
            learning_rate=learning_rate,
        )

    def state(self) -> dict[str, np.ndarray]:
        """Return a copy of all that learning has changed, as arrays that ``numpy.savez`` stores without pickling."""
        return {
            "network": np.array(self.policy.network),
            "n_options": np.array(self.policy.n_options),
            "n_updates": np.array(self.n_updates),
            "reward_mean": np.array(self.reward_mean),
            "reward_std": np.array(self.reward_std),
            "parameters": self.policy.parameters.copy(),
            "adam_mean": self.adam.mean.copy(),
            "adam_square": self.adam.square.copy(),
            "adam_steps": np.array(self.adam.n_steps),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on exactly as the learner whose state this is.

        Raises
        ------
        ValueError
            If it is the state of another network or of other decisions.
        """
        network, n_options = str(state["network"]), tuple(int(n) for n in state["n_options"])
        if (network, n_options) != (self.policy.network, self.policy.n_options):
            raise ValueError(
                f"the state is of a {network} for decisions with {n_options} options, "
                f"not of a {self.policy.network} for {self.policy.n_options}"
            )
        self.policy.parameters[:] = state["parameters"]
        self.adam.mean[:] = state["adam_mean"]
        self.adam.square[:] = state["adam_square"]
        self.adam.n_steps = int(state["adam_steps"])
        self.n_updates = int(state["n_updates"])
        self.reward_mean = float(state["reward_mean"])
        self.reward_std = float(state["reward_std"])

    def fingerprint(self) -> str:
        """Return 16 hex digits that agents share only if their weights and optimisers are equal to the last bit."""
        numbers = (self.n_updates, self.adam.n_steps, self.reward_mean, self.reward_std)
        digest = hashlib.sha256(repr(numbers).encode())
        for array in (self.policy.parameters, self.adam.mean, self.adam.square):
            digest.update(array.tobytes())
        return digest.hexdigest()[:16]

    def _prepare(self, episodes: Episodes, rewards: np.ndarray, reduce: Reduce) -> tuple[_Batch, int, float | None]:
        """Return the batch, how many episodes all agents have together, and the explained variance."""
        if rewards.shape != (len(episodes),):
            raise ValueError(f"there must be one reward for each of {len(episodes)} episodes, got {rewards.shape}")
        if not np.isfinite(rewards).all():
            raise ValueError("rewards must be finite; reward() maps what is not")
        rewards = self._standardise(rewards, reduce)
        advantage = advantages(rewards, episodes.values, self.settings.gamma, self.settings.lam)
        returns = advantage + episodes.values
        totals = reduce(np.array([advantage.size, advantage.sum(), returns.sum()], dtype=float))
        n = float(totals[0])
        if n == 0:
            raise ValueError("no agent has an episode to learn from")
        mean, mean_return = totals[1:] / n
        squares = np.array([((advantage - mean) ** 2).sum(), ((returns - mean_return) ** 2).sum()])
        variance, variance_of_returns = (float(square) / n for square in reduce(squares))
        # What the values had not foreseen of the returns is the advantages.
        explained = 1 - variance / variance_of_returns if variance_of_returns > 0 else None
        advantage = (advantage - mean) / (math.sqrt(variance) + 1e-8)
        batch = _Batch(episodes.choices, episodes.log_probabilities, episodes.values, advantage, returns)
        return batch, round(n / self.policy.n_decisions), explained

    def _standardise(self, rewards: np.ndarray, reduce: Reduce) -> np.ndarray:
        """Return rewards as the networks see them, by the first batch whose rewards differ."""
        if not self.reward_std:
            n, total = reduce(np.array([len(rewards), rewards.sum()], dtype=float))
            if n == 0:
                raise ValueError("no agent has an episode to learn from")
            mean = float(total / n)
            std = math.sqrt(float(reduce(np.array([((rewards - mean) ** 2).sum()]))[0]) / n)
            if std <= 1e-12 * abs(mean):
                return rewards - mean  # all alike, but for rounding
            self.reward_mean, self.reward_std = mean, std
        return (rewards - self.reward_mean) * (REWARD_STD / self.reward_std)

    def _descend(self, batch: _Batch, learning_rate: float, reduce: Reduce) -> list[np.ndarray]:
        """Take the gradient steps of an update; return what each one's minibatch gave, and the norm of its gradient."""
        settings = self.settings
        steps: list[np.ndarray] = []
        for epoch in range(settings.noptepochs):
            for positions in self._minibatches(len(batch.choices), epoch):
                gradient, sums = np.split(reduce(self._sums(batch, positions)), [self.policy.parameters.size])
                if sums[0] == 0:
                    continue  # no agent has an episode in this part
                means = sums / sums[0]
                if settings.target_kl is not None and steps and means[_KL] > settings.target_kl:
                    return steps
                gradient /= sums[0]
                norm = float(np.linalg.norm(gradient))
                if not math.isfinite(norm):
                    raise FloatingPointError(f"update {self.n_updates} has a gradient of norm {norm}")
                gradient *= min(1.0, settings.max_grad_norm / max(norm, 1e-300))
                self.adam.step(self.policy.parameters, gradient, learning_rate)
                steps.append(np.append(means, norm))
        return steps

    def _minibatches(self, n: int, epoch: int) -> list[np.ndarray]:
        """Return which of `n` episodes belong to each minibatch; some may be empty.

        Every agent splits its own.  Where they cannot be split evenly, the larger parts of different agents go into
        different minibatches.
        """
        n_parts = self.settings.nminibatches
        if n_parts == 1:
            return [np.arange(n)]
        seed = np.random.SeedSequence(self.seed, spawn_key=(1, self.n_updates, epoch))
        parts = np.array_split(np.random.default_rng(seed).permutation(n), n_parts)
        return [parts[(i - self.agent * (n % n_parts)) % n_parts] for i in range(n_parts)]

    def _sums(self, batch: _Batch, positions: np.ndarray) -> np.ndarray:
        """Return the gradient of the loss summed over decisions, their number, and sums of what is reported."""
        # Equal architectures together, as a chunk computes each of its own once.
        positions = positions[np.lexsort(batch.choices[positions].T)]
        result = np.zeros(self.policy.parameters.size + _N_SUMS)
        for first in range(0, len(positions), _CHUNK):
            result += self._chunk_sums(batch, positions[first : first + _CHUNK])
        return result

    def _chunk_sums(self, batch: _Batch, positions: np.ndarray) -> np.ndarray:
        settings, eps = self.settings, self.settings.cliprange  # eps: how far one update should move the policy
        now = self.policy.evaluate(batch.choices[positions])
        advantage, returns, old_values = (a[positions] for a in (batch.advantages, batch.returns, batch.values))
        log_ratio = now.log_probabilities - batch.log_probabilities[positions]
        ratio = np.exp(log_ratio)
        # L_pi = max(-A r, -A clip(r, 1 - eps, 1 + eps)), of which the first moves with the policy
        free, clipped = -advantage * ratio, -advantage * np.clip(ratio, 1 - eps, 1 + eps)
        d_log_p = np.where(free >= clipped, free, 0.0)
        # L_v = max((V - R)^2, (V_old + clip(V - V_old, -eps, eps) - R)^2) / 2
        error = now.values - returns
        clipped_error = old_values + np.clip(now.values - old_values, -eps, eps) - returns
        moves = (error**2 >= clipped_error**2) | (np.abs(now.values - old_values) < eps)
        d_value = settings.vf_coef * np.where(moves, error, 0.0)
        d_entropy = np.full_like(ratio, -settings.ent_coef)
        sums = (
            ratio.size,
            np.maximum(free, clipped).sum(),
            0.5 * np.maximum(error**2, clipped_error**2).sum(),
            now.entropies.sum(),
            (ratio - 1 - log_ratio).sum(),  # KL(old || now), never negative, of little variance
            (np.abs(ratio - 1) > eps).sum(),
        )
        return np.concatenate([self.policy.gradient(now, d_log_p, d_entropy, d_value), sums])


_N_SUMS = 6  # count, policy loss, value loss, entropy, KL, clipped: behind the gradient in what agents reduce
_KL = 4
