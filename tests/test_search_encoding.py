"""The bridge between configurations and rows of the unit cube."""

from __future__ import annotations

import itertools
import json
import math

import ConfigSpace
import numpy as np
import pytest
from ConfigSpace.hyperparameters import BetaIntegerHyperparameter, NormalFloatHyperparameter
from hypothesis import given, settings
from hypothesis import strategies as st

from dhmpi.errors import ProblemError
from dhmpi.search.encoding import Encoding


def nested():
    """`c` hangs on `b`, which hangs on `a`, all added in the wrong order; with an OR and a relation."""
    space = ConfigSpace.ConfigurationSpace()
    c = ConfigSpace.UniformIntegerHyperparameter("c", 0, 3)
    b = ConfigSpace.CategoricalHyperparameter("b", ["p", "q", "r"])
    a = ConfigSpace.OrdinalHyperparameter("a", [1, 2, 4, 8])
    d = ConfigSpace.UniformFloatHyperparameter("d", 0.5, 2.0)
    space.add(c, b, a, d)
    space.add(ConfigSpace.InCondition(c, b, ["q", "r"]))
    space.add(ConfigSpace.GreaterThanCondition(b, a, 1))
    space.add(
        ConfigSpace.OrConjunction(ConfigSpace.EqualsCondition(d, c, 2), ConfigSpace.InCondition(d, b, ["p", "r"]))
    )
    space.add(ConfigSpace.ForbiddenEqualsRelation(a, c))
    return space


def brute_force(space):
    """Return all configurations of a space without floats, by ConfigSpace's own check."""
    values = [
        range(hp.lower, hp.upper + 1) if hasattr(hp, "lower") else getattr(hp, "choices", getattr(hp, "sequence", ()))
        for hp in space.values()
    ]
    found = []
    for combination in itertools.product(*[[None, *choices] for choices in values]):
        config = {name: value for name, value in zip(space, combination) if value is not None}
        try:
            ConfigSpace.Configuration(space, values=config)
        except ValueError:
            continue
        found.append(config)
    return found


def frozen(config):
    return tuple(sorted(config.items()))


@pytest.mark.parametrize("seed", range(3))
def test_samples_of_a_nested_conditional_space_are_valid(seed):
    space = nested()
    encoding = Encoding(space)

    configs = encoding.decode(encoding.sample(np.random.default_rng(seed), 300))

    for config in configs:
        ConfigSpace.Configuration(space, values=config)
    assert len({frozenset(config) for config in configs}) > 3


def test_mutants_and_crossovers_are_valid():
    space = nested()
    encoding = Encoding(space)
    rng = np.random.default_rng(0)
    rows = encoding.sample(rng, 200)

    children = np.concatenate([encoding.mutate(rows, 0.1, 0.5, rng), encoding.cross(rows, rows[::-1], rng)])

    assert len(children) > 300
    for config in encoding.decode(children):
        ConfigSpace.Configuration(space, values=config)


def test_a_mutant_differs_only_a_little_in_numbers():
    encoding = Encoding(ConfigSpace.ConfigurationSpace({f"e{i}": (0.0, 1.0) for i in range(20)}))
    rng = np.random.default_rng(0)
    rows = encoding.sample(rng, 500)

    change = encoding.mutate(rows, 0.02, 0.2, rng) - rows

    assert 0.015 < np.std(change[change != 0]) < 0.025
    assert 3 < np.mean(np.sum(change != 0, axis=1)) < 6


def test_equal_configurations_have_equal_rows_also_after_json():
    encoding = Encoding(nested())
    rows = encoding.sample(np.random.default_rng(0), 500)

    configs = json.loads(json.dumps(encoding.decode(rows)))

    assert encoding.encode(configs).tobytes() == rows.tobytes()
    assert [encoding.identity(config) for config in configs] == encoding.identities(rows)


@given(
    low=st.floats(-1e12, 1e12),
    width=st.floats(1e-3, 1e12),
    log=st.booleans(),
    integer=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=80, deadline=None)
def test_numbers_stay_in_their_bounds_and_survive_the_round_trip(low, width, log, integer, seed):
    low = abs(low) + 1e-3 if log else low
    low, high = (math.ceil(low), math.ceil(low) + math.ceil(width)) if integer else (low, low + width)
    kind = ConfigSpace.UniformIntegerHyperparameter if integer else ConfigSpace.UniformFloatHyperparameter
    space = ConfigSpace.ConfigurationSpace()
    try:
        space.add(kind("x", low, high, log=log))
    except ValueError:  # ConfigSpace rounds to nine decimals: nothing was left between the bounds
        return
    hp, encoding = space["x"], Encoding(space)

    rows = encoding.place(np.concatenate([[[0.0], [1 - 2**-53]], np.random.default_rng(seed).random((50, 1))]))
    values = [config["x"] for config in encoding.decode(rows)]

    assert all(type(value) is (int if integer else float) for value in values)
    assert all(hp.lower <= value <= hp.upper for value in values)
    again = encoding.decode(encoding.encode([{"x": value} for value in values]))
    assert np.allclose([config["x"] for config in again], values, rtol=1e-9, atol=2**-40 * (hp.upper - hp.lower))
    if integer:
        assert [config["x"] for config in again] == values


def test_integers_and_choices_are_equally_likely():
    encoding = Encoding(ConfigSpace.ConfigurationSpace({"n": (3, 6), "kind": ["a", "b", "c"]}))

    configs = encoding.decode(encoding.sample(np.random.default_rng(0), 12_000))

    for name, values in (("n", (3, 4, 5, 6)), ("kind", "abc")):
        shares = [sum(config[name] == value for config in configs) / 12_000 for value in values]
        assert np.allclose(shares, 1 / len(values), atol=0.02)


def test_samples_follow_the_priors_of_the_space():
    space = ConfigSpace.ConfigurationSpace()
    space.add(
        NormalFloatHyperparameter("x", mu=2.0, sigma=1.0, lower=-10.0, upper=10.0),
        BetaIntegerHyperparameter("n", alpha=4, beta=2, lower=0, upper=9),
        ConfigSpace.CategoricalHyperparameter("kind", ["a", "b"], weights=[0.9, 0.1]),
    )
    encoding = Encoding(space)

    configs = encoding.decode(encoding.sample(np.random.default_rng(0), 20_000))
    expected = space["n"].sample_value(20_000, seed=np.random.RandomState(1))

    assert abs(np.mean([config["x"] for config in configs]) - 2) < 0.05
    assert abs(np.std([config["x"] for config in configs]) - 1) < 0.05
    assert abs(np.mean([config["n"] for config in configs]) - np.mean(expected)) < 0.1
    assert abs(np.mean([config["kind"] == "a" for config in configs]) - 0.9) < 0.02


def test_enumerates_a_conditional_space_with_clauses_completely():
    space = nested()
    space = ConfigSpace.ConfigurationSpace()
    a = ConfigSpace.OrdinalHyperparameter("a", [1, 2, 4, 8])
    b = ConfigSpace.CategoricalHyperparameter("b", ["p", "q", "r"])
    c = ConfigSpace.UniformIntegerHyperparameter("c", 0, 3)
    d = ConfigSpace.CategoricalHyperparameter("d", [True, False])
    space.add(a, b, c, d)
    space.add(ConfigSpace.GreaterThanCondition(b, a, 1), ConfigSpace.EqualsCondition(c, b, "q"))
    space.add(ConfigSpace.ForbiddenEqualsRelation(a, c))
    encoding = Encoding(space)

    configs = encoding.decode(encoding.enumerated)

    assert {frozen(config) for config in configs} == {frozen(config) for config in brute_force(space)}
    assert encoding.size == len(configs)


def test_size():
    def size(**hyperparameters):
        return Encoding(ConfigSpace.ConfigurationSpace(hyperparameters)).size

    assert size(n=(1, 10), kind=["a", "b"]) == 20
    assert size(n=(1, 10), x=(0.0, 1.0)) == math.inf
    assert size(n=(1, 10**9), m=(1, 10**9)) == 10**18
    assert Encoding(nested()).size == math.inf


def test_a_conditional_space_is_counted_although_its_grid_is_huge():
    space = ConfigSpace.ConfigurationSpace({"model": [f"m{i}" for i in range(20)]})
    for i in range(20):
        child = ConfigSpace.UniformIntegerHyperparameter(f"n{i}", 1, 50)
        space.add(child)
        space.add(ConfigSpace.EqualsCondition(child, space["model"], f"m{i}"))

    assert Encoding(space).size == 20 * 50


def test_finds_the_needles_that_clauses_leave():
    space = ConfigSpace.ConfigurationSpace()
    space.add(ConfigSpace.UniformIntegerHyperparameter(name, 0, 999, default_value=499) for name in "ab")
    space.add(ConfigSpace.ForbiddenInClause(space["a"], list(range(1, 499)) + list(range(500, 1000))))
    space.add(ConfigSpace.ForbiddenInClause(space["b"], list(range(499)) + list(range(500, 1000))))
    encoding = Encoding(space)

    configs = encoding.decode(encoding.sample(np.random.default_rng(0), 20))

    assert {frozen(config) for config in configs} == {(("a", 0), ("b", 499)), (("a", 499), ("b", 499))}


def test_features_are_scaled_one_hot_and_imputed():
    space = ConfigSpace.ConfigurationSpace({"kind": ["a", "b", "c"], "n": (0, 4), "fixed": 1})
    rate = ConfigSpace.UniformFloatHyperparameter("rate", 0.01, 1.0, log=True)
    size = ConfigSpace.OrdinalHyperparameter("size", ["s", "m", "l"])
    space.add(rate, size)
    space.add(ConfigSpace.EqualsCondition(rate, space["kind"], "a"))
    encoding = Encoding(space)
    configs = [
        {"kind": "a", "n": 4, "fixed": 1, "size": "m", "rate": 0.1},
        {"kind": "c", "n": 1, "fixed": 1, "size": "l"},
    ]

    features = dict(zip(("a", "b", "c", "n", "size", "rate"), encoding.features(encoding.encode(configs)).T))

    assert [name for name in encoding.names if name != "fixed"] == ["kind", "n", "size", "rate"]
    assert encoding.groups.tolist() == [0, 0, 0, 1, 2, 3]
    expected = {"a": [0.7, 0], "b": [0, 0], "c": [0, 0.7], "n": [1, 0.25], "size": [0.5, 1], "rate": [0.5, 0.5]}
    assert {name: np.round(column, 9).tolist() for name, column in features.items()} == expected


def test_activity_says_what_is_active():
    encoding = Encoding(nested())
    configs = [{"a": 1}, {"a": 8, "b": "p", "d": 1.0}] if False else [{"a": 8, "b": "p", "d": 1.0}]

    activity = encoding.activity(encoding.encode(configs))

    assert [name for name, active in zip(encoding.names, activity[0]) if active] == ["a", "b", "d"]


def test_native_gives_the_types_of_proposals():
    encoding = Encoding(ConfigSpace.ConfigurationSpace({"x": (0.0, 9.0), "n": (1, 9), "flag": [True, False]}))

    config = encoding.native({"n": np.int64(3), "flag": np.bool_(True), "x": 3})

    assert {name: (type(value), value) for name, value in config.items()} == {
        "x": (float, 3.0),
        "n": (int, 3),
        "flag": (bool, True),
    }


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"x": 11.0}, "no configuration of the space"),
        ({}, "no configuration of the space"),
        ({"x": 1.0, "y": 2}, "unknown hyperparameter.*y"),
    ],
)
def test_a_configuration_outside_the_space_is_refused_in_a_sentence(config, words):
    encoding = Encoding(ConfigSpace.ConfigurationSpace({"x": (0.0, 9.0)}))

    with pytest.raises(ProblemError, match=words) as error:
        encoding.native(config)

    assert "\n" not in str(error.value)


def test_an_empty_space_and_an_odd_choice_are_refused():
    with pytest.raises(ProblemError, match="no hyperparameters"):
        Encoding(ConfigSpace.ConfigurationSpace())
    with pytest.raises(ProblemError, match=r"'kind' has the choice \(1, 2\) of type tuple"):
        Encoding(ConfigSpace.ConfigurationSpace({"kind": [(1, 2), (3, 4)]}))


def test_mixed_choices_keep_their_types():
    encoding = Encoding(ConfigSpace.ConfigurationSpace({"kind": [1, 2.5, "a", None]}))

    values = {(type(config["kind"]), config["kind"]) for config in encoding.decode(encoding.enumerated)}

    assert values == {(int, 1), (float, 2.5), (str, "a"), (type(None), None)}
