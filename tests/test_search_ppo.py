import math
import subprocess
import sys
import threading

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from dhmpi.search.policy import Episodes
from dhmpi.search.ppo import Adam, Learner, Settings, advantages, progress, reward, summarise

N_OPTIONS = (3, 2, 4, 1, 5, 2)
SMALL = Settings(network="ppo_lnlstm_32", noptepochs=3)


@pytest.fixture(autouse=True)
def one_thread():
    """Multiply these small matrices as an agent does."""
    with threadpool_limits(1):
        yield


def rewards_of(choices):
    """Return a reward without ties: the part of decisions with the last option, and a little of everything else."""
    choices = np.asarray(choices)
    return (choices == np.array(N_OPTIONS) - 1).mean(axis=1) + 0.01 * np.sin(choices @ np.arange(1, 1 + len(N_OPTIONS)))


def standardised(rewards):
    return 0.25 * (rewards - np.mean(rewards)) / np.std(rewards)


class Agents:
    """Agents in threads, whose sums are exact: the order in which they are added cannot matter."""

    def __init__(self, sizes, settings, seed=1, n_options=N_OPTIONS):
        self.sizes = sizes
        self.learners = [Learner(n_options, settings, seed, agent) for agent in range(len(sizes))]
        self.metrics = [None] * len(sizes)
        self._parts = [None] * len(sizes)
        self._sum = None
        self._barrier = threading.Barrier(len(sizes), action=self._add, timeout=60)

    def _add(self):
        self._sum = np.array([math.fsum(column) for column in np.stack(self._parts).T.tolist()])

    def sample(self):
        bounds = np.cumsum([0, *self.sizes])
        return [learner.sample(range(*bounds[k : k + 2])) for k, learner in enumerate(self.learners)]

    def update(self, batches, rewards=rewards_of):
        """Update all agents together; raise what the first of them has raised."""
        errors = [None] * len(batches)

        def run(agent):
            def reduce(array):
                self._parts[agent] = array.copy()
                self._barrier.wait()
                return self._sum.copy()

            try:
                with threadpool_limits(1):
                    batch = batches[agent]
                    self.metrics[agent] = self.learners[agent].update(batch, rewards(batch.choices), reduce)
            except Exception as error:
                errors[agent] = error
                self._barrier.abort()

        threads = [threading.Thread(target=run, args=(agent,)) for agent in range(len(batches))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for error in errors:
            if error is not None and not isinstance(error, threading.BrokenBarrierError):
                raise error


def loss_of(learner, episodes, rewards):
    """Return the loss of the first gradient step, written down as in the paper."""
    s = learner.settings
    a = advantages(standardised(rewards), episodes.values, s.gamma, s.lam)
    returns = a + episodes.values
    a = (a - a.mean()) / (a.std() + 1e-8)
    now = learner.policy.evaluate(episodes.choices)
    r = np.exp(now.log_probabilities - episodes.log_probabilities)
    surrogate = np.minimum(a * r, a * np.clip(r, 1 - s.cliprange, 1 + s.cliprange))
    v = episodes.values + np.clip(now.values - episodes.values, -s.cliprange, s.cliprange)
    squares = np.maximum((now.values - returns) ** 2, (v - returns) ** 2)
    return -surrogate.mean() - s.ent_coef * now.entropies.mean() + s.vf_coef * 0.5 * squares.mean()


def later(settings, n=12, seed=1):
    """Return a learner, and episodes of an earlier policy, far enough away that ratios and values are clipped."""
    learner = Learner(N_OPTIONS, settings, seed)
    episodes = learner.sample(range(n))
    rng = np.random.default_rng(seed)
    learner.policy.parameters += 0.2 * rng.normal(size=learner.policy.parameters.size)
    return learner, episodes


def gradient_of(learner, episodes, rewards):
    """Return the averaged gradient of the first step: what the only agent gives to be reduced."""
    given = []

    def reduce(array):
        given.append(array.copy())
        return array

    learner.update(episodes, rewards, reduce)
    n = learner.policy.parameters.size
    sums = next(array for array in given if len(array) > n)
    return sums[:n] / sums[n]


def step_of(learner, before):
    return learner.policy.parameters - before


@pytest.mark.parametrize("sizes", [(4, 4, 4), (7, 1, 4), (0, 12)])
@pytest.mark.parametrize("network", ["ppo_lstm_32", "ppo_lnlstm_32"])
def test_agents_together_learn_what_one_agent_learns(sizes, network):
    settings = Settings(network=network, noptepochs=3)
    many, one = Agents(sizes, settings), Agents((12,), settings)

    for update in range(5):
        batches, (batch,) = many.sample(), one.sample()
        assert np.array_equal(Episodes.join(batches).choices, batch.choices)
        many.update(batches)
        one.update([batch])
        expected = one.learners[0].policy.parameters
        for learner in many.learners:
            assert np.array_equal(learner.policy.parameters, many.learners[0].policy.parameters)
            np.testing.assert_allclose(learner.policy.parameters, expected, rtol=0, atol=1e-10 if update == 0 else 1e-7)

    assert many.metrics[0].n_episodes == 12
    assert many.metrics[0] == many.metrics[-1]
    assert many.metrics[0].policy_loss == pytest.approx(one.metrics[0].policy_loss, abs=1e-8)
    assert many.metrics[0].explained_variance == pytest.approx(one.metrics[0].explained_variance, abs=1e-8)


@pytest.mark.parametrize("sizes", [(5, 5, 5), (1, 1, 1), (3, 0, 8)])
def test_agents_stay_the_same_with_minibatches(sizes):
    agents = Agents(sizes, Settings(network="ppo_lstm_32", noptepochs=2, nminibatches=4))

    for _ in range(2):
        agents.update(agents.sample())

    assert len({learner.fingerprint() for learner in agents.learners}) == 1


def test_minibatches_hold_every_episode_once_and_each_epoch_anew():
    learner = Learner(N_OPTIONS, Settings(network="ppo_lstm_32", nminibatches=4), 1)

    first, second = (learner._minibatches(10, epoch) for epoch in (0, 1))

    assert sorted(np.concatenate(first)) == list(range(10))
    assert sorted(len(part) for part in first) == [2, 2, 3, 3]
    assert not np.array_equal(np.concatenate(first), np.concatenate(second))


def test_larger_parts_of_agents_go_into_different_minibatches():
    settings = Settings(network="ppo_lstm_32", nminibatches=4)

    sizes = [[len(part) for part in Learner(N_OPTIONS, settings, 1, agent)._minibatches(1, 0)] for agent in range(4)]

    assert np.array_equal(np.sum(sizes, axis=0), [1, 1, 1, 1])


def test_a_minibatch_that_nobody_fills_takes_no_step():
    learner = Learner(N_OPTIONS, Settings(network="ppo_lstm_32", noptepochs=2, nminibatches=4), 1)
    batch = learner.sample(range(3))

    metrics = learner.update(batch, rewards_of(batch.choices))

    assert metrics.n_gradients == 2 * 3


@pytest.mark.parametrize("network", ["ppo_lstm_32", "ppo_lnlstm_32"])
def test_the_gradient_of_the_loss_is_that_of_central_differences(network):
    settings = Settings(network=network, noptepochs=1, cliprange=0.1, ent_coef=0.05, gamma=0.97)
    learner, episodes = later(settings)
    rewards = rewards_of(episodes.choices)
    kept = learner.policy.parameters.copy()
    now = learner.policy.evaluate(episodes.choices)
    ratio = np.exp(now.log_probabilities - episodes.log_probabilities)
    assert 0.1 < (np.abs(ratio - 1) > 0.1).mean() < 0.9
    assert 0.1 < (np.abs(now.values - episodes.values) > 0.1).mean() < 1

    gradient = gradient_of(learner, episodes, rewards)

    parameters = learner.policy.parameters
    for position in np.random.default_rng(1).integers(parameters.size, size=60):
        parameters[:] = kept
        parameters[position] += 1e-5
        above = loss_of(learner, episodes, rewards)
        parameters[position] -= 2e-5
        expected = (above - loss_of(learner, episodes, rewards)) / 2e-5
        assert abs(gradient[position] - expected) <= 1e-6 * max(abs(expected), 1e-2), position


def test_losses_are_reported_as_in_the_paper():
    settings = Settings(network="ppo_lnlstm_32", noptepochs=1, cliprange=0.1)
    learner, episodes = later(settings)
    rewards = rewards_of(episodes.choices)
    expected = loss_of(learner, episodes, rewards)

    metrics = learner.update(episodes, rewards)

    per_decision = metrics.entropy / len(N_OPTIONS)
    loss = metrics.policy_loss + settings.vf_coef * metrics.value_loss - settings.ent_coef * per_decision
    assert loss == pytest.approx(expected, rel=1e-12)


def test_equal_architectures_count_as_often_as_they_were_sampled():
    learner, episodes = later(Settings(network="ppo_lnlstm_32", noptepochs=1), n=6)
    often = episodes.take([0, 0, 0, 0, 1, 2, 3, 3])
    rewards = rewards_of(often.choices)
    parameters = learner.policy.parameters.copy()

    gradient = gradient_of(learner, often, rewards)

    learner.policy.parameters[:] = parameters
    direction = gradient / np.linalg.norm(gradient)
    learner.policy.parameters += 1e-5 * direction
    above = loss_of(learner, often, rewards)
    learner.policy.parameters -= 2e-5 * direction
    slope = (above - loss_of(learner, often, rewards)) / 2e-5
    assert slope == pytest.approx(np.linalg.norm(gradient), rel=1e-6)


def test_a_batch_larger_than_a_chunk_has_the_gradient_of_its_parts():
    settings = Settings(network="ppo_lstm_32", noptepochs=1)
    batch = Learner(N_OPTIONS, settings, 1).sample(range(300))
    rewards = rewards_of(batch.choices)

    whole = gradient_of(Learner(N_OPTIONS, settings, 1), batch, rewards)

    agents = Agents((100, 100, 100), settings)
    agents.update(agents.sample())
    alone = Learner(N_OPTIONS, settings, 1)
    alone.update(batch, rewards)
    assert np.abs(whole).max() > 1e-4
    np.testing.assert_allclose(agents.learners[0].policy.parameters, alone.policy.parameters, rtol=0, atol=1e-10)


def test_agents_sample_different_episodes():
    # Defect 1 of DeepHyper: with a seed, all agents drew the same numbers and trained the same networks.
    agents = Agents((6, 6), Settings(network="ppo_lstm_32"), n_options=(7,) * 10)

    first, second = agents.sample()

    assert len(np.unique(np.concatenate([first.choices, second.choices]), axis=0)) == 12


def test_updates_sample_different_episodes_and_seeds_too():
    learner = Learner((7,) * 10, Settings(network="ppo_lstm_32"), 1)
    before = learner.sample(range(5))
    kept = learner.state()
    learner.n_updates = 1

    after, other = learner.sample(range(5)), Learner((7,) * 10, Settings(network="ppo_lstm_32"), 2)

    assert np.array_equal(kept["parameters"], learner.policy.parameters)
    assert not np.array_equal(before.choices, after.choices)
    assert not np.array_equal(before.choices, other.sample(range(5)).choices)


@pytest.mark.parametrize("objective", [None, math.nan, math.inf, -math.inf])
def test_failures_have_a_finite_reward(objective):
    # Defect 2: a crashed evaluation's -3.4e38 went into the loss.
    assert reward(objective, Settings()) == -1.0
    assert reward(objective, Settings(failure_reward=-3.0)) == -3.0


def test_a_failure_is_never_worth_more_than_a_success():
    settings = Settings(failure_reward=-1.0, lowest_reward=-100.0)

    assert reward(None, settings, worst=-7.5) == -7.5
    assert reward(None, settings, worst=0.3) == -1.0
    assert reward(math.nan, settings, worst=-1e9) == -100.0


def test_rewards_stay_in_the_range_stated():
    settings = Settings(lowest_reward=-5.0, highest_reward=2.0)

    assert [reward(y, settings) for y in (-1e300, -5.5, 0.25, 2, 1e300)] == [-5.0, -5.0, 0.25, 2.0, 2.0]


@pytest.mark.parametrize(("factor", "offset"), [(100.0, 0.0), (0.01, 0.0), (1.0, 50.0), (-2.0, -7.0)])
def test_the_scale_of_rewards_does_not_matter(factor, offset):
    weights = []
    for scale, shift in ((math.copysign(1.0, factor), 0.0), (factor, offset)):
        learner = Learner(N_OPTIONS, SMALL, 1)
        for _ in range(2):
            batch = learner.sample(range(8))
            learner.update(batch, scale * rewards_of(batch.choices) + shift)
        weights.append(learner.policy.parameters)

    np.testing.assert_allclose(weights[1], weights[0], rtol=0, atol=1e-8)


def test_the_scale_of_rewards_is_that_of_the_first_batch_in_which_they_differ():
    learner = Learner(N_OPTIONS, SMALL, 1)
    seen = []

    for rewards in ([-1.0] * 4, [0.0, 1.0, 2.0, 3.0], [50.0, 60.0, 70.0, 80.0]):
        learner.update(learner.sample(range(4)), rewards)
        seen.append((learner.reward_mean, learner.reward_std))

    assert seen == [(0.0, 0.0), (1.5, math.sqrt(1.25)), (1.5, math.sqrt(1.25))]


def test_a_batch_of_failures_only_is_survived():
    learner = Learner(N_OPTIONS, SMALL, 1)
    batch = learner.sample(range(6))

    metrics = learner.update(batch, [reward(None, learner.settings)] * 6)

    assert np.isfinite(learner.policy.parameters).all()
    assert math.isfinite(metrics.value_loss)


@pytest.mark.parametrize("rewards", [[0.0, math.nan, 0.0], [0.0, -math.inf, 0.0], [0.0, 0.0]])
def test_rewards_that_are_none_are_refused(rewards):
    learner = Learner(N_OPTIONS, SMALL, 1)
    batch = learner.sample(range(3))
    before = learner.fingerprint()

    with pytest.raises(ValueError, match="rewards must be finite|one reward for each of 3 episodes"):
        learner.update(batch, rewards)

    assert learner.fingerprint() == before


def test_without_a_budget_the_learning_rate_stays():
    # Defect 5: without max_evals the learning rate was NaN.
    assert progress(500, None) == 0.0
    assert progress(0, 0) == 0.0

    learner = Learner(N_OPTIONS, SMALL, 1)
    batch = learner.sample(range(4))
    metrics = learner.update(batch, rewards_of(batch.choices), progress=progress(500, None))

    assert metrics.learning_rate == 3e-4
    assert np.isfinite(learner.policy.parameters).all()


def test_the_learning_rate_falls_with_the_budget():
    learner = Learner(N_OPTIONS, SMALL, 1)
    batch = learner.sample(range(4))

    metrics = learner.update(batch, rewards_of(batch.choices), progress=progress(250, 1000))

    assert metrics.learning_rate == pytest.approx(3e-4 * 0.75)
    assert progress(2000, 1000) == 1.0
    with pytest.raises(ValueError, match=r"progress must be in \[0, 1\], got 2"):
        learner.update(batch, rewards_of(batch.choices), progress=2)


def test_unequal_groups_weigh_by_their_episodes():
    # Defect 8: the mean of the agents' gradients assumed groups of equal size.
    agents, one = Agents((9, 1), SMALL), Agents((10,), SMALL)

    agents.update(agents.sample())
    one.update(one.sample())

    expected = one.learners[0].policy.parameters
    np.testing.assert_allclose(agents.learners[1].policy.parameters, expected, rtol=0, atol=1e-10)


def test_advantages_are_those_of_the_definition():
    values = np.array([[0.1, 0.4, 0.2]])
    gamma, lam = 0.9, 0.8
    deltas = [0.9 * 0.4 - 0.1, 0.9 * 0.2 - 0.4, 1.0 - 0.2]

    result = advantages(np.array([1.0]), values, gamma, lam)

    expected = [sum((gamma * lam) ** (k - t) * deltas[k] for k in range(t, 3)) for t in range(3)]
    np.testing.assert_allclose(result, [expected])


def test_with_lambda_one_the_advantage_is_reward_minus_value():
    values = np.array([[0.1, 0.4, 0.2], [0.0, 0.0, 0.3]])

    result = advantages(np.array([1.0, -1.0]), values, 1.0, 1.0)

    np.testing.assert_allclose(result, [[0.9, 0.6, 0.8], [-1.0, -1.0, -1.3]])


def test_the_gradient_is_clipped_after_averaging():
    steps = []
    for max_grad_norm in (1e-3, 1e9):
        learner = Learner(N_OPTIONS, Settings(network="ppo_lstm_32", noptepochs=1, max_grad_norm=max_grad_norm), 1)
        batch = learner.sample(range(10))
        metrics = learner.update(batch, rewards_of(batch.choices))
        steps.append((metrics.gradient_norm, np.linalg.norm(learner.adam.mean) / 0.1))

    assert steps[0][0] == steps[1][0] > 1e-3
    assert steps[0][1] == pytest.approx(1e-3)
    assert steps[1][1] == pytest.approx(steps[1][0])


def test_adam_is_that_of_its_paper():
    adam, parameters = Adam(2), np.array([1.0, -1.0])
    m = v = np.zeros(2)
    expected = parameters.copy()
    for t, gradient in enumerate(([1.0, -2.0], [0.5, 3.0], [-1.0, 1e-6]), start=1):
        g = np.array(gradient)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        expected -= 0.01 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (np.sqrt(v) + 1e-5)

        adam.step(parameters, g, 0.01)

    np.testing.assert_allclose(parameters, expected, rtol=1e-12)


def test_late_episodes_of_an_older_policy_are_clipped():
    learner = Learner(N_OPTIONS, Settings(network="ppo_lstm_32", noptepochs=5, learning_rate=5e-2), 1)
    first = learner.sample(range(12))
    in_time, late = first.take(range(8)), first.take(range(8, 12))
    learner.update(in_time, rewards_of(in_time.choices))
    batch = Episodes.join([late, learner.sample(range(8))])
    ratio = np.exp(learner.policy.evaluate(late.choices).log_probabilities - late.log_probabilities)
    clipped = (np.abs(ratio - 1) > 0.2).sum()
    learner.settings = Settings(network="ppo_lstm_32", noptepochs=1)

    metrics = learner.update(batch, rewards_of(batch.choices))

    assert clipped > 0
    assert metrics.clip_fraction == pytest.approx(clipped / batch.choices.size)
    assert metrics.kl > 0


def test_a_target_ends_the_update_early_but_not_before_its_first_step():
    taken = {}
    for target_kl in (None, 1e-3, 1e-300):
        settings = Settings(network="ppo_lstm_32", noptepochs=10, learning_rate=1e-2, target_kl=target_kl)
        agents = Agents((5, 7), settings)
        agents.update(agents.sample())
        taken[target_kl] = agents.metrics[0].n_gradients
        assert agents.metrics[0] == agents.metrics[1]

    assert taken[None] == 10
    assert 1 < taken[1e-3] < 10
    assert taken[1e-300] <= 2  # after the first step the policy has moved


def test_nobody_has_an_episode():
    agents = Agents((0, 0), SMALL)

    with pytest.raises(ValueError, match="no agent has an episode"):
        agents.update(agents.sample())


def test_a_gradient_that_is_not_finite_changes_nothing():
    learner = Learner(N_OPTIONS, SMALL, 1)
    batch = learner.sample(range(3))
    before = learner.policy.fingerprint()

    with pytest.raises(FloatingPointError, match="update 0 has a gradient of norm nan"):
        learner.update(batch, rewards_of(batch.choices), lambda array: array * (math.nan if len(array) > 9 else 1))

    assert learner.policy.fingerprint() == before


def test_metrics_say_how_far_the_policy_has_converged():
    learner = Learner(N_OPTIONS, Settings(network="ppo_lstm_32", noptepochs=1), 1)
    batch = learner.sample(range(10))
    rewards = rewards_of(batch.choices)

    metrics = learner.update(batch, rewards)

    assert 0.99 < metrics.entropy_share <= 1  # a new policy is almost uniform
    assert metrics.entropy == pytest.approx(metrics.entropy_share * np.log(N_OPTIONS).sum())
    assert metrics.kl == pytest.approx(0, abs=1e-12)
    assert metrics.clip_fraction == 0
    returns = advantages(standardised(rewards), batch.values, 1.0, 0.95) + batch.values
    foreseen = 1 - np.var(returns - batch.values) / np.var(returns)
    assert metrics.explained_variance == pytest.approx(foreseen)
    assert (metrics.update, learner.n_updates) == (0, 1)


def test_batches_are_summarised():
    choices = np.array([[0, 1], [0, 1], [2, 1]])

    assert summarise(choices, np.array([1.0, 1.0, 4.0])) == {
        "n_episodes": 3,
        "reward_mean": 2.0,
        "reward_max": 4.0,
        "n_distinct": 2,
    }


def test_nothing_to_choose_is_nothing_to_learn():
    learner = Learner((1, 1), Settings(network="ppo_lstm_32", noptepochs=2), 1)
    batch = learner.sample(range(4))

    metrics = learner.update(batch, [0.5] * 4)

    assert not batch.choices.any()
    assert metrics.entropy_share == 0.0
    assert np.isfinite(learner.policy.parameters).all()


def test_going_on_from_a_checkpoint_is_not_having_stopped(tmp_path):
    def learn(learner, n):
        for _ in range(n):
            batch = learner.sample(range(6))
            learner.update(batch, rewards_of(batch.choices))

    straight = Learner(N_OPTIONS, SMALL, 1)
    learn(straight, 4)
    stopped = Learner(N_OPTIONS, SMALL, 1)
    learn(stopped, 2)

    np.savez(tmp_path / "checkpoint.npz", **stopped.state())
    resumed = Learner(N_OPTIONS, SMALL, 1)
    with np.load(tmp_path / "checkpoint.npz", allow_pickle=False) as state:
        resumed.restore(state)
    learn(resumed, 2)

    assert resumed.n_updates == 4
    assert resumed.fingerprint() == straight.fingerprint()


def test_a_state_is_a_copy():
    learner = Learner(N_OPTIONS, SMALL, 1)
    state, before = learner.state(), learner.fingerprint()
    batch = learner.sample(range(4))
    learner.update(batch, rewards_of(batch.choices))

    learner.restore(state)

    assert learner.fingerprint() == before
    assert np.array_equal(learner.sample(range(4)).choices, batch.choices)


def test_a_state_of_another_policy_is_refused():
    state = Learner(N_OPTIONS, Settings(network="ppo_lstm_32"), 1).state()

    with pytest.raises(ValueError, match="the state is of a ppo_lstm_32 .*, not of a ppo_lnlstm_32"):
        Learner(N_OPTIONS, SMALL, 1).restore(state)
    with pytest.raises(ValueError, match=r"decisions with \(3, 2, 4, 1, 5, 2\) options"):
        Learner((3, 2), Settings(network="ppo_lstm_32"), 1).restore(state)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"network": "lstm"}, "network must be one of"),
        ({"gamma": 1.5}, r"gamma must be in \[0, 1\], got 1.5"),
        ({"lam": -0.1}, r"lam must be in \[0, 1\]"),
        ({"ent_coef": math.nan}, "ent_coef must be >= 0"),
        ({"cliprange": 0.0}, "cliprange must be > 0"),
        ({"learning_rate": math.inf}, "learning_rate must be > 0 and finite"),
        ({"noptepochs": 0}, "noptepochs must be an integer >= 1"),
        ({"nminibatches": 1.5}, "nminibatches must be an integer >= 1"),
        ({"target_kl": 0.0}, "target_kl must be > 0"),
        ({"lowest_reward": -math.inf}, "lowest_reward must be finite"),
        ({"failure_reward": -11.0}, "failure_reward must be between the lowest reward, -10.0, and the highest"),
        ({"failure_reward": math.nan}, "failure_reward must be between"),
    ],
)
def test_settings_out_of_range_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        Settings(**change)


@pytest.mark.parametrize("network", ["ppo_lstm_32", "ppo_lnlstm_32"])
def test_it_learns(network):
    learner = Learner(N_OPTIONS, Settings(network=network, learning_rate=3e-3), 1)
    means = []

    for _ in range(16):
        batch = learner.sample(range(32))
        means.append(rewards_of(batch.choices).mean())
        metrics = learner.update(batch, rewards_of(batch.choices))

    assert means[0] < 0.6  # a sixth of the decisions has no choice, the others get 1/2, 1/3, ... right
    assert means[-1] > 0.9
    assert metrics.entropy_share < 0.5


GRADIENT_TAPE = """
import sys
import numpy as np
import tensorflow as tf
from dhmpi.search.ppo import Settings
sys.path.insert(0, sys.argv[1])
from test_search_ppo import N_OPTIONS, advantages, gradient_of, later, rewards_of, standardised

for network in ("ppo_lstm_32", "ppo_lnlstm_64"):
    s = Settings(network=network, noptepochs=1, cliprange=0.1, ent_coef=0.05)
    learner, episodes = later(s)
    rewards = rewards_of(episodes.choices)
    policy = learner.policy
    w = {name: tf.Variable(array) for name, array in policy.arrays.items()}
    a = advantages(standardised(rewards), episodes.values, s.gamma, s.lam)
    returns = a + episodes.values
    a = (a - a.mean()) / (a.std() + 1e-8)
    n, T = episodes.choices.shape
    A, H = policy.n_logits, policy.n_units

    def normalised(v, gain, bias):
        mean, variance = tf.nn.moments(v, [-1], keepdims=True)
        return gain * (v - mean) / tf.sqrt(variance + 1e-5) + bias

    def outputs(k):
        c = h = tf.zeros((n, H), tf.float64)
        for t in range(T):
            x = np.zeros((n, A + T))
            x[:, A + t] = 1
            if t:
                x[np.arange(n), episodes.choices[:, t - 1]] = 1
            zx, zh = tf.constant(x) @ w["Wx"][k], h @ w["Wh"][k]
            if policy.normalised:
                zx = normalised(zx, w["gx"][k], w["bx"][k])
                zh = normalised(zh, w["gh"][k], w["bh"][k])
            i, f, o, u = tf.split(zx + zh + w["b"][k], 4, axis=1)
            c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(u)
            h = tf.sigmoid(o) * tf.tanh(normalised(c, w["gc"][k], w["bc"][k]) if policy.normalised else c)
            yield t, h

    with tf.GradientTape() as tape:
        loss = 0.0
        for t, h in outputs(0):
            valid = policy.n_options[t]
            log_p = tf.nn.log_softmax((h @ w["W_logits"] + w["b_logits"])[:, :valid])
            chosen = tf.gather(log_p, episodes.choices[:, t], axis=1, batch_dims=1)
            r = tf.exp(chosen - episodes.log_probabilities[:, t])
            surrogate = tf.minimum(a[:, t] * r, a[:, t] * tf.clip_by_value(r, 1 - s.cliprange, 1 + s.cliprange))
            entropy = -tf.reduce_sum(tf.exp(log_p) * log_p, axis=1)
            loss -= tf.reduce_sum(surrogate + s.ent_coef * entropy) / (n * T)
        for t, h in outputs(1):
            v = (h @ w["W_value"] + w["b_value"])[:, 0]
            old = episodes.values[:, t]
            clipped = old + tf.clip_by_value(v - old, -s.cliprange, s.cliprange)
            squares = tf.maximum((v - returns[:, t]) ** 2, (clipped - returns[:, t]) ** 2)
            loss += s.vf_coef * 0.5 * tf.reduce_sum(squares) / (n * T)
    derivatives = tape.gradient(loss, list(w.values()))
    expected = np.concatenate([tf.convert_to_tensor(d).numpy().ravel() for d in derivatives])
    gradient = gradient_of(learner, episodes, rewards)
    print(network, np.abs(gradient - expected).max() / np.abs(expected).max())
"""


@pytest.mark.tensorflow
def test_the_gradient_is_that_of_tensorflow(request):
    command = [sys.executable, "-c", GRADIENT_TAPE, str(request.path.parent)]

    said = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)

    assert said.returncode == 0, said.stderr
    errors = {line.split()[0]: float(line.split()[1]) for line in said.stdout.splitlines()}
    assert set(errors) == {"ppo_lstm_32", "ppo_lnlstm_64"}
    assert max(errors.values()) < 1e-10
