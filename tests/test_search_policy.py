import subprocess
import sys

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from dhmpi.search.policy import NETWORKS, Episodes, Policy

N_OPTIONS = (3, 2, 1, 5, 2)


@pytest.fixture(autouse=True)
def one_thread():
    """Multiply these small matrices as an agent does."""
    with threadpool_limits(1):
        yield


def generators(n, update=0):
    return [np.random.default_rng([1, update, slot]) for slot in range(n)]


def rough(network, n_options=N_OPTIONS, seed=1):
    """Return a policy off its start, where biases are 0 and gains 1 and mistakes would hide."""
    policy = Policy(n_options, network, seed)
    policy.parameters += 0.1 * np.random.default_rng(seed).normal(size=policy.parameters.size)
    return policy


def reference(policy, choices):
    """Return log-probabilities, entropies and values of one architecture: the equations, one number after another."""
    w = policy.arrays
    n, n_units = policy.n_logits, policy.n_units

    def normalised(v, gain, bias):
        return gain * (v - v.mean()) / np.sqrt(v.var() + 1e-5) + bias

    h, c = np.zeros((2, n_units)), np.zeros((2, n_units))
    result = []
    for t, choice in enumerate(choices):
        x = np.zeros(n + len(choices))
        x[n + t] = 1
        if t > 0:
            x[choices[t - 1]] = 1
        for k in range(2):
            zx, zh = x @ w["Wx"][k], h[k] @ w["Wh"][k]
            if policy.normalised:
                zx = normalised(zx, w["gx"][k], w["bx"][k])
                zh = normalised(zh, w["gh"][k], w["bh"][k])
            i, f, o, u = np.split(zx + zh + w["b"][k], 4)
            i, f, o = (1 / (1 + np.exp(-gate)) for gate in (i, f, o))
            c[k] = f * c[k] + i * np.tanh(u)
            seen = normalised(c[k], w["gc"][k], w["bc"][k]) if policy.normalised else c[k]
            h[k] = o * np.tanh(seen)
        logits = (h[0] @ w["W_logits"] + w["b_logits"])[: policy.n_options[t]]
        p = np.exp(logits) / np.exp(logits).sum()
        result.append((np.log(p[choice]), -(p * np.log(p)).sum(), (h[1] @ w["W_value"])[0] + w["b_value"][0]))
    return np.array(result).T


@pytest.mark.parametrize("network", NETWORKS)
def test_the_network_is_the_one_of_the_equations(network):
    policy = rough(network)
    choices = policy.act(generators(4)).choices

    evaluation = policy.evaluate(choices)

    for row, arch in enumerate(choices):
        log_probabilities, entropies, values = reference(policy, arch)
        np.testing.assert_allclose(evaluation.log_probabilities[row], log_probabilities, rtol=1e-11, atol=1e-13)
        np.testing.assert_allclose(evaluation.entropies[row], entropies, rtol=1e-11, atol=1e-13)
        np.testing.assert_allclose(evaluation.values[row], values, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("network", NETWORKS)
def test_the_gradient_is_that_of_central_differences(network):
    policy = rough(network)
    rng = np.random.default_rng(2)
    choices = policy.act(generators(6)).choices[[0, 1, 2, 3, 4, 5, 0, 0, 2]]  # some more than once
    weights = rng.normal(size=(3, len(choices), len(N_OPTIONS)))

    def loss():
        now = policy.evaluate(choices)
        return sum((w * a).sum() for w, a in zip(weights, (now.log_probabilities, now.entropies, now.values)))

    gradient = policy.gradient(policy.evaluate(choices), *weights)

    start = 0
    for name, view in policy.arrays.items():
        for position in rng.integers(view.size, size=8):
            weight = view.reshape(-1)[position : position + 1]
            kept = weight[0]
            weight[0] = kept + 1e-5
            above = loss()
            weight[0] = kept - 1e-5
            below = loss()
            weight[0] = kept
            expected = (above - below) / 2e-5
            assert abs(gradient[start + position] - expected) <= 1e-6 * max(abs(expected), 1e-2), (name, position)
        start += view.size


def test_a_single_decision_has_a_gradient():
    policy = rough("ppo_lnlstm_32", (4,))
    choices = np.arange(4)[:, None]
    p = np.exp(policy.evaluate(choices).log_probabilities[:, 0])

    gradient = policy.gradient(policy.evaluate(choices), *np.stack([np.eye(4)[:, :1], *np.zeros((2, 4, 1))]))

    start = policy.parameters.size - 1 - policy.n_units - 4  # b_logits: d log p_0 / d logits = onehot - p
    np.testing.assert_allclose(gradient[start : start + 4], np.eye(4)[0] - p, atol=1e-13)


@pytest.mark.parametrize("network", NETWORKS)
def test_sampling_and_evaluating_agree(network):
    policy = rough(network)

    episodes = policy.act(generators(20))

    evaluation = policy.evaluate(episodes.choices)
    np.testing.assert_allclose(episodes.log_probabilities, evaluation.log_probabilities, atol=1e-13)
    np.testing.assert_allclose(episodes.values, evaluation.values, atol=1e-13)


def test_choices_come_as_often_as_they_are_probable():
    policy = rough("ppo_lstm_32", (3, 2), seed=3)
    policy.arrays["b_logits"][:] = [1.0, 0.0, -1.0]
    n = 4000

    choices = policy.act(generators(n)).choices

    every = np.array([(a, b) for a in range(3) for b in range(2)])
    expected = np.exp(policy.evaluate(every).log_probabilities.sum(axis=1))
    observed = np.array([(choices == arch).all(axis=1).mean() for arch in every])
    assert expected.sum() == pytest.approx(1)
    assert np.abs(observed - expected).max() < 4 * np.sqrt(0.25 / n)


def test_an_episode_depends_on_its_own_generator_only():
    policy = rough("ppo_lnlstm_32")

    together = policy.act(generators(12))

    for slot in (0, 5, 11):
        alone = policy.act([np.random.default_rng([1, 0, slot])])
        assert np.array_equal(alone.choices[0], together.choices[slot])


def test_every_option_of_a_new_policy_is_about_equally_probable():
    # Defect 4 of DeepHyper: options of decisions with few of them got unequal shares of the logits.
    policy = Policy((31, 2, 7, 1), "ppo_lnlstm_128", 1)

    choices = policy.act(generators(50)).choices

    expected = np.broadcast_to(-np.log([31, 2, 7, 1]), choices.shape)
    np.testing.assert_allclose(policy.evaluate(choices).log_probabilities, expected, atol=0.05)
    assert np.all(choices < (31, 2, 7, 1))


def test_options_that_a_decision_lacks_have_no_part_in_entropy_and_gradient():
    # Defect 4 as well: without masks, the entropy bonus feeds options that do not exist.
    policy = rough("ppo_lnlstm_32", (2, 5, 2))
    choices = policy.act(generators(30)).choices
    ones = np.ones(choices.shape)
    ones[:, 1] = 0  # the decision that has all five

    gradient = policy.gradient(policy.evaluate(choices), ones, ones, 0 * ones)

    assert np.all(policy.evaluate(choices).entropies <= np.log([2, 5, 2]) + 1e-12)
    start = policy.parameters.size - 1 - policy.n_units - 5  # b_logits
    assert np.all(gradient[start + 2 : start + 5] == 0)
    assert np.all(gradient[start : start + 2] != 0)


def test_an_episode_starts_anew():
    # Defect 3: the last observation of one episode was the first of the next.
    policy = rough("ppo_lnlstm_32")
    first = policy.act(generators(8))

    again = policy.act(generators(8))

    assert np.array_equal(first.choices, again.choices)
    assert np.array_equal(first.log_probabilities, again.log_probabilities)
    assert len(set(first.values[:, 0])) == 1  # before the first decision all are alike


def test_seeds_give_different_weights_and_the_same_seed_the_same():
    weights = [Policy(N_OPTIONS, "ppo_lstm_32", seed).parameters for seed in (1, 1, 2)]

    assert np.array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], weights[2])


def test_initial_weights_share_no_stream_with_an_episode():
    policy = Policy(N_OPTIONS, "ppo_lstm_32", 5)
    tall = np.random.default_rng([5, 0, 0]).standard_normal((128, policy.arrays["Wx"].shape[1]))
    q, r = np.linalg.qr(tall)

    assert not np.allclose(policy.arrays["Wx"][0], (q * np.sign(np.diag(r))).T)


@pytest.mark.parametrize("network", NETWORKS)
def test_parameters_are_one_vector_of_the_size_of_its_parts(network):
    policy = Policy((25, 2, 31), network, 1)
    h, n_inputs = policy.n_units, 31 + 3

    before = policy.evaluate(np.array([[1, 1, 1]])).values
    policy.parameters[-1] += 1.0  # the bias of the value

    per_network = 4 * h * (n_inputs + h + 1) + (18 * h if policy.normalised else 0)
    assert policy.parameters.size == 2 * per_network + (h + 1) * (31 + 1)
    np.testing.assert_allclose(policy.evaluate(np.array([[1, 1, 1]])).values, before + 1.0)


def test_initial_recurrent_weights_are_orthonormal():
    policy = Policy(N_OPTIONS, "ppo_lnlstm_64", 1)

    for k in range(2):
        for name in ("Wx", "Wh"):
            W = policy.arrays[name][k]
            np.testing.assert_allclose(W @ W.T, np.eye(len(W)), atol=1e-12)


def test_large_weights_overflow_nothing():
    policy = rough("ppo_lstm_32")
    policy.parameters *= 1e6
    choices = policy.act(generators(5)).choices

    with np.errstate(all="raise", under="ignore"):
        evaluation = policy.evaluate(choices)

    assert np.isfinite(evaluation.log_probabilities).all()


def test_nobody_has_no_episodes():
    policy = Policy(N_OPTIONS, "ppo_lnlstm_32", 1)
    nothing = np.zeros((0, len(N_OPTIONS)))

    episodes = policy.act([])

    assert len(episodes) == 0
    assert not policy.gradient(policy.evaluate(episodes.choices), nothing, nothing, nothing).any()


def test_episodes_are_taken_and_joined():
    episodes = Policy(N_OPTIONS, "ppo_lstm_32", 1).act(generators(4))

    joined = Episodes.join([episodes.take([2]), episodes.take([]), episodes.take([0, 1])])

    assert np.array_equal(joined.choices, episodes.choices[[2, 0, 1]])
    assert np.array_equal(joined.values, episodes.values[[2, 0, 1]])


def test_fingerprints_tell_policies_apart():
    policy = Policy(N_OPTIONS, "ppo_lstm_32", 1)
    before = policy.fingerprint()

    policy.parameters[3] = np.nextafter(policy.parameters[3], 1)

    assert len(before) == 16
    assert policy.fingerprint() != before
    assert Policy(N_OPTIONS, "ppo_lstm_32", 1).fingerprint() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (((), "ppo_lstm_32"), "nothing to decide"),
        (((2, 0), "ppo_lstm_32"), "needs an option"),
        (((2, 2), "ppo_gru_32"), "network must be one of ppo_lstm_32, .*, got 'ppo_gru_32'"),
    ],
)
def test_what_makes_no_policy_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        Policy(*arguments)


@pytest.mark.parametrize("choices", [[[0, 0]], [[3, 0, 0, 0, 0]], [[-1, 0, 0, 0, 0]], [0, 0, 0, 0, 0]])
def test_what_is_no_architecture_is_refused(choices):
    with pytest.raises(ValueError, match="choices must"):
        Policy(N_OPTIONS, "ppo_lstm_32", 1).evaluate(np.array(choices))


def test_learning_needs_numpy_only():
    script = (
        "import sys, dhmpi.search.ppo\n"
        "print(sorted({'tensorflow', 'keras', 'ConfigSpace', 'sklearn', 'scipy', 'mpi4py'} & set(sys.modules)))"
    )

    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)

    assert said.stdout.strip() == "[]"
