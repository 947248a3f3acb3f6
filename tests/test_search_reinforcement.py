"""A policy as a search: batches, repeats, late episodes, checkpoints."""

from collections import Counter

import numpy as np
import pytest

from dhmpi.budget import Limits
from dhmpi.errors import OptionError, RunDirectoryError
from dhmpi.roles.virtual import simulate
from dhmpi.search.ppo import Settings
from dhmpi.search.reinforcement import ReinforcementSearch

OPTIONS = [[0, 1, 2], ["a", "b"], [True, False], [0, 1, 2, 3]]
NAMES = ["width", "kind", "skip", "depth"]
N = 8


def search(seed=1, n=N, network="ppo_lstm_32", learning_rate=3e-4, **options):
    settings = Settings(network=network, learning_rate=learning_rate, noptepochs=2)
    return ReinforcementSearch(OPTIONS, NAMES, seed, settings=settings, episodes_per_update=n, **options)


def objective(config):
    return config["width"] + (config["kind"] == "b") + config["skip"] - 0.5 * config["depth"]


def batch(s):
    """Return all proposals of a batch."""
    proposals = []
    while asked := s.ask(3):
        proposals += asked
    return proposals


def play(s, n_batches):
    """Evaluate some batches; return their configurations."""
    seen = []
    for _ in range(n_batches):
        proposals = batch(s)
        seen.append([config for _, config in proposals])
        s.tell([(key, objective(config)) for key, config in proposals])
    return seen


def test_a_batch_is_proposed_and_then_waited_for():
    s = search(on_duplicate="re-evaluate")

    first = batch(s)

    assert len(first) == N
    assert s.ask(5) == []
    assert not s.exhausted
    s.tell([(key, 1.0) for key, _ in first[:-1]])
    assert s.ask(5) == []
    s.tell([(first[-1].key, 1.0)])
    assert len(batch(s)) == N


def test_configurations_are_of_the_space_and_plain():
    configs = [config for config_batch in play(search(), 3) for config in config_batch]

    for config in configs:
        assert list(config) == NAMES
        for name, values in zip(NAMES, OPTIONS):
            assert config[name] in values
            assert type(config[name]) in {type(value) for value in values}


def test_the_same_seed_and_answers_give_the_same_episodes():
    assert play(search(), 4) == play(search(), 4)
    assert play(search(seed=2), 1) != play(search(), 1)


def test_no_two_episodes_of_a_batch_are_drawn_alike():
    s = search(n=40, on_duplicate="re-evaluate")

    counts = Counter(tuple(config.values()) for _, config in batch(s))

    assert len(counts) > 20  # of 48 configurations; a common generator would give one


def test_it_learns():
    s = search(n=32, learning_rate=1e-2, on_duplicate="re-evaluate")

    batches = play(s, 25)

    means = [np.mean([objective(config) for config in configs]) for configs in batches]
    assert means[-1] > means[0] + 1.5  # the best is 4, the mean of all 1.25


def test_what_is_known_is_reused():
    s = search(n=48)
    first = batch(s)
    assert len({tuple(config.values()) for _, config in first}) == len(
        first
    )  # repeats wait for the first of their kind
    s.tell([(key, objective(config)) for key, config in first])

    repeats = s.ask(1000)

    known = {key: objective(config) for key, config in repeats if key in s.reused}
    assert s.reused == known
    assert len(known) >= 48 - len(first)
    s.tell(list(s.reused.items()))  # as the master answers: nothing is learned twice
    assert s.notes[0]["n_episodes"] == 48
    assert s.notes[0]["n_reused"] == 48 - len(first)


def test_a_failed_configuration_is_not_taken_for_known():
    s = search(n=48)
    first = batch(s)
    s.tell([(key, None) for key, _ in first])

    again = s.ask(1000)

    assert len(again) > 0
    assert not s.reused


def test_failures_are_learned_from_as_bad():
    s = search(on_duplicate="re-evaluate")

    s.tell([(key, None) for key, _ in batch(s)])
    s.ask(1)

    assert s.notes[0]["reward_mean"] == s.settings.failure_reward


def test_with_a_quorum_the_late_join_the_next_batch():
    s = search(batch_quorum=0.75, on_duplicate="re-evaluate")
    first = batch(s)

    s.tell([(key, 1.0) for key, _ in first[:6]])
    second = batch(s)

    assert s.n_told == 6
    assert len(second) == 6  # with the two that are late, one batch is in flight
    s.tell([(key, 1.0) for key, _ in first[6:]])
    s.tell([(key, 1.0) for key, _ in second[:4]])
    s.ask(1)
    assert s.notes[0]["n_episodes"] == 6


def test_in_virtual_time_a_quorum_keeps_evaluators_busier():
    def duration(config, rng):
        return float(rng.lognormal(0.0, 0.8))

    def utilisation(quorum):
        s = search(n=16, batch_quorum=quorum, on_duplicate="re-evaluate")
        run = simulate(s, Limits(320), 16, objective, duration)
        assert len(run.outcomes) == 320
        return run.utilisation

    assert utilisation(0.75) > utilisation(1.0) + 0.1


def test_the_budget_counts_what_is_reused():
    run = simulate(search(n=16), Limits(150), 16, objective)

    statuses = Counter(outcome.status.value for outcome, _ in run.outcomes)
    assert sum(statuses.values()) == 150
    assert statuses["reused"] > 50
    assert statuses["done"] <= 48  # all that there is
    assert {trial.id for _, trial in run.outcomes} == set(range(150))


def test_a_policy_that_has_converged_may_stop():
    s = search(n=16, learning_rate=0.05, stop_on_convergence=2)

    run = simulate(s, Limits(10_000), 16, objective)

    assert "the policy has converged" in run.reason
    assert len(run.outcomes) < 10_000


@pytest.mark.parametrize(("after", "stops"), [(20, True), (0, False)])
def test_a_policy_that_samples_known_architectures_only_may_stop(after, stops):
    """In a space of 48 all are known soon, long before the policy has settled for one."""
    s = search(n=4, stop_on_convergence=after)

    run = simulate(s, Limits(2000), 4, objective)

    assert ("known ones only, in each of 20 updates in a row" in run.reason) == stops
    assert (len(run.outcomes) < 2000) == stops


def test_batches_of_one_episode_are_no_convergence():
    s = search(n=1, stop_on_convergence=2, on_duplicate="re-evaluate")

    batches = play(s, 6)

    assert len({tuple(config.values()) for configs in batches for config in configs}) > 1
    assert not s.stop


# -- going on --------------------------------------------------------------------------------------------------------


def resumed(path, told, pending, **options):
    s = search(checkpoint=path, **options)
    s.restore(told, pending, 100)
    return s


@pytest.mark.parametrize("on_duplicate", ["reuse", "re-evaluate"])
def test_from_a_checkpoint_it_goes_on_as_if_nothing_had_happened(tmp_path, on_duplicate):
    def episodes(s, n):
        """Return the rewards that each of the next updates learns from."""
        seen = []
        while len(seen) < n:
            proposals = s.ask(1000)
            seen += [(note["reward_mean"], note["policy_loss"]) for note in s.notes]
            s.tell([(key, objective(config)) for key, config in proposals])
        return seen

    whole = episodes(search(on_duplicate=on_duplicate), 6)
    s = search(checkpoint=tmp_path / "c" / "ppo.npz", on_duplicate=on_duplicate)
    history = []
    updates = 0
    while updates < 3:
        proposals = s.ask(1000)
        updates += len(s.notes)
        done = [(key, config, objective(config)) for key, config in proposals]
        if updates < 3:
            history += done
            s.tell([(key, y) for key, _, y in done])
    half = len(proposals) // 2  # killed in the middle of a batch
    history += done[:half]
    unfinished = [(key, config) for key, config, _ in done[half:]]

    s = resumed(tmp_path / "c" / "ppo.npz", history, unfinished, on_duplicate=on_duplicate)
    s.tell([(key, objective(config)) for key, config in unfinished])

    assert episodes(s, 3) == whole[3:]


def test_what_was_ahead_is_proposed_again(tmp_path):
    s = search(checkpoint=tmp_path / "ppo.npz", on_duplicate="re-evaluate")
    first = batch(s)

    s = resumed(tmp_path / "ppo.npz", [], first[:3], on_duplicate="re-evaluate")

    assert s.pending() == [key for key, _ in first[:3]]
    again = batch(s)
    assert [config for _, config in again] == [config for _, config in first[3:]]
    assert min(key for key, _ in again) > max(key for key, _ in first[:3])


def test_what_was_ahead_gives_its_key_to_no_other(tmp_path):
    options = {"n": 24, "batch_quorum": 0.5}
    s = search(checkpoint=tmp_path / "ppo.npz", **options)
    first = batch(s)
    history = [(key, config, objective(config)) for key, config in first[:12]]
    s.tell([(key, y) for key, _, y in history])
    s.ask(1)  # learns, and writes the checkpoint, while the others are ahead

    s = resumed(tmp_path / "ppo.npz", history, [], **options)
    again = s.ask(5)
    history += [(key, config, objective(config)) for key, config in again]
    s = resumed(tmp_path / "ppo.npz", history, [], **options)  # from the same checkpoint once more

    assert min(key for key, _ in again) > max(key for key, _ in first)
    configs = dict(s.ask(1000))
    assert s.reused
    assert all(y == objective(configs[key]) for key, y in s.reused.items())


def test_without_a_checkpoint_what_is_known_is_not_evaluated_again(tmp_path):
    s = search(n=48)
    first = batch(s)
    history = [(key, config, objective(config)) for key, config in first]

    s = resumed(tmp_path / "none.npz", history, [], n=48)
    proposals = s.ask(1000)

    assert len(s.reused) == len(proposals) == 48
    assert all(config in [config for _, config in first] for _, config in proposals)


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    batch(search(checkpoint=tmp_path / "ppo.npz"))

    with pytest.raises(RunDirectoryError, match="cannot be used: the state is of a ppo_lstm_32"):
        resumed(tmp_path / "ppo.npz", [], [], network="ppo_lstm_64")


@pytest.mark.parametrize("content", [b"", b"PK nonsense", b"PK\x03\x04 that ends too soon"])
def test_a_broken_checkpoint_is_refused(tmp_path, content):
    (tmp_path / "ppo.npz").write_bytes(content)

    with pytest.raises(RunDirectoryError, match="cannot be used"):
        resumed(tmp_path / "ppo.npz", [], [])


@pytest.mark.parametrize(
    "options", [{"n": 0}, {"batch_quorum": 0.0}, {"batch_quorum": 1.5}, {"on_duplicate": "forget"}]
)
def test_nonsense_is_refused(options):
    with pytest.raises(OptionError, match="must be"):
        search(**options)
