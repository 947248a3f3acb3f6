"""The bundled architecture searches: their spaces, their data, and that what they promise is true."""

import importlib
import subprocess
import sys

import numpy as np
import pytest

from dhmpi.errors import ProblemError
from dhmpi.load import load_problem, load_run

PACKAGE = "dhmpi.benchmark.nas"
SPACES = {
    "digits_dense": (17, 9**5 * 2**12),
    "digits_joint": (17, 9**5 * 2**12),
    "digits_conv": (9, 8**5 * 2**4),
    "diabetes_dense": (9, 9**3 * 2**6),
    "friedman1": (13, 9**4 * 2**9),
    "linearReg": (10, 11**10),
    "polynome2Reg": (9, 31**3 * 2**6),
    "pblp.problem_skip_co_0": (37, 25**10 * 2**27),
    "combo_synthetic": (13, 13**12 * 9),
    "sst_pod_lstm": (14, 8_605_184),
    "toy.surrogate": (14, 8_605_184),
}
"""Numbers of decisions and architectures."""
HYPERPARAMETERS = {"digits_joint": ["learning_rate", "batch_size", "num_ranks"]}
WITH_DATA = tuple(name for name in SPACES if name != "toy.surrogate")


@pytest.fixture(autouse=True)
def _made_up_series(monkeypatch):
    monkeypatch.delenv("DHMPI_SST_POD", raising=False)


def problem_of(name):
    return load_problem(f"{PACKAGE}.{name}.Problem")


def module_of(name):
    problem_of(name)
    return importlib.import_module(f"{PACKAGE}.{name}")


def arrays(side):
    """Return inputs or outputs as a list of arrays."""
    return side if isinstance(side, list) else [side]


def rows(pair):
    """Return the samples of a part, inputs and outputs, as a set of bytes."""
    columns = [np.asarray(x).reshape(len(x), -1) for side in pair for x in arrays(side)]
    return {row.tobytes() for row in np.concatenate(columns, axis=1)}


@pytest.mark.parametrize("name", SPACES)
def test_the_space_has_the_decisions_and_the_size_promised(name):
    space = problem_of(name).architecture_space

    assert (len(space.decisions), space.size) == SPACES[name]


@pytest.mark.parametrize("name", SPACES)
def test_the_problem_is_complete(name):
    problem = problem_of(name)

    problem.check()

    assert problem.columns == ["arch_seq", *HYPERPARAMETERS.get(name, [])]
    assert set(problem.ineffective()) <= {"num_ranks"}  # which says who trains, not how


@pytest.mark.parametrize("name", SPACES)
def test_equal_seeds_draw_equal_architectures(name):
    space = problem_of(name).architecture_space

    draws = [[space.random(np.random.default_rng(seed)) for _ in range(3)] for seed in (1, 1, 2)]

    assert draws[0] == draws[1] != draws[2]


def test_problems_are_found_without_tensorflow_and_without_loading_data():
    program = (
        f"import importlib, sys\n"
        f"for name in {list(SPACES)!r}:\n"
        f"    _ = importlib.import_module('{PACKAGE}.' + name).Problem.architecture_space\n"
        f"print(sorted({{'tensorflow', 'keras', 'mpi4py', 'sklearn'}} & sys.modules.keys()))"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)

    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", WITH_DATA)
def test_data_come_in_three_parts_that_fit_the_space(name):
    problem = problem_of(name)
    data, space = problem.data, problem.architecture_space

    assert data.input_shapes == space.input_shapes
    assert data.output_shapes == space.output_shapes
    assert data.test is not None
    assert len(data.train) > len(data.valid)
    assert min(len(data.valid), len(data.test)) >= 70


@pytest.mark.parametrize("name", WITH_DATA)
def test_data_are_the_same_every_time(name):
    load = module_of(name).load_data

    for first, second in zip(load(), load()):
        for side in (0, 1):
            for x, y in zip(arrays(first[side]), arrays(second[side])):
                np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("name", WITH_DATA)
def test_no_sample_is_in_two_parts(name):
    train, valid, test = map(rows, module_of(name).load_data())

    assert not train & valid
    assert not train & test
    assert not valid & test


@pytest.mark.parametrize("name", ["digits_dense", "digits_conv"])
def test_digits_are_equally_shared(name):
    for _, labels in module_of(name).load_data():
        shares = labels.mean(axis=0)

        assert set(np.unique(labels)) == {0, 1}
        assert (labels.sum(axis=1) == 1).all()
        assert np.abs(shares - 0.1).max() < 0.01


def test_cells_choose_alike_and_narrow_layers_are_their_own():
    space = problem_of("digits_conv").architecture_space
    names = [decision.name for decision in space.decisions]

    steps = [step for step in space.resolve([2] + [0] * (len(names) - 1)).steps if step.operation.name == "Conv2D"]

    assert not any(name.startswith("again") for name in names)
    assert [(step.node, step.operation.get("filters")) for step in steps] == [
        ("stem", 8),
        ("normal_op0", 8),
        ("again_op0", 16),
    ]
    assert len({step.layer for step in steps}) == 3


def test_both_drugs_pass_through_the_same_layers():
    space = problem_of("combo_synthetic").architecture_space
    arch = [4 if decision.name.startswith("drug") else 0 for decision in space.decisions]

    steps = [step for step in space.resolve(arch).steps if step.node.startswith("drug")]

    assert len(steps) == 6
    assert len({step.layer for step in steps}) == 3


def test_cells_and_drugs_come_from_one_stock():
    parts = module_of("combo_synthetic").load_data()

    cells, first, second = ({row.tobytes() for X, _ in parts for row in X[i]} for i in range(3))

    assert len(cells) == 60
    assert len(first) == len(first | second) == 100


def test_friedmans_function_leaves_the_noise():
    for X, y in module_of("friedman1").load_data():
        x = X.T
        told = 10 * np.sin(np.pi * x[0] * x[1]) + 20 * (x[2] - 0.5) ** 2 + 10 * x[3] + 5 * x[4]

        assert np.std(y[:, 0] - told) == pytest.approx(1, abs=0.1)


def test_regressions_are_of_the_functions_they_are_named_after():
    for X, y in module_of("linearReg").load_data():
        np.testing.assert_allclose(y[:, 0], X.sum(axis=1))
        assert 1 <= X.min() < X.max() <= 100
    for X, y in module_of("polynome2Reg").load_data():
        np.testing.assert_allclose(y[:, 0], -(X**2).sum(axis=1))
        assert -50 <= X.min() < X.max() <= 50


def test_boundary_layer_profiles_are_physical():
    pblp = module_of("pblp.problem_skip_co_0")
    low, high = np.array(list(pblp.INPUTS.values())).T
    calm = dict(zip(pblp.INPUTS, (low + high) / 2))
    calm.update(stability=0.0, wind_direction=0.0, boundary_layer_height=2000.0, entrainment_depth=30.0, coriolis=0.0)

    u, v, temperature, humidity = pblp.profiles(np.array([list(calm.values())])).reshape(4, len(pblp.LEVELS))
    layer = pblp.LEVELS <= 0.1 * 2000
    logarithm = calm["friction_velocity"] / 0.4 * (np.log(pblp.LEVELS) - calm["log_roughness"])

    np.testing.assert_allclose(u[layer], logarithm[layer])
    np.testing.assert_allclose(v[layer], 0, atol=1e-9)
    assert (np.diff(temperature) > 0).all()
    assert (np.diff(humidity) <= 0).all()
    assert humidity[-1] < humidity[0] == pytest.approx(calm["surface_humidity"])


# --- The POD-LSTM problem


def test_windows_run_backwards_into_the_past_and_forwards_into_the_future():
    weeks = np.arange(20.0)[:, None] * np.ones(5)

    X, y = module_of("sst_pod_lstm").windows(weeks)

    assert X.shape == y.shape == (5, 8, 5)
    assert X[0, :, 0].tolist() == [7, 6, 5, 4, 3, 2, 1, 0]
    assert y[0, :, 0].tolist() == [8, 9, 10, 11, 12, 13, 14, 15]
    assert y[-1, -1, 0] == 19


def test_no_week_is_seen_by_two_parts():
    parts = [
        {row.tobytes() for side in pair for row in side.reshape(-1, 5)}
        for pair in module_of("sst_pod_lstm").load_data()
    ]

    assert [len(part) for part in parts] == [341, 86, 1487]
    assert len(set.union(*parts)) == 427 + 1487


def test_weeks_are_scaled_by_those_that_train():
    (X, y), (valid_X, _), (test_X, _) = module_of("sst_pod_lstm").load_data()

    seen = np.concatenate([X.reshape(-1, 5), y.reshape(-1, 5)])

    np.testing.assert_allclose(seen.min(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(seen.max(axis=0), 1)
    assert test_X.max() > 1
    assert valid_X.shape == (71, 8, 5)


def test_the_oldest_weeks_are_blurred_most():
    pod = module_of("sst_pod_lstm")
    X, y = pod.blur(np.zeros((1000, 8, 5)), np.zeros((1000, 8, 5)), np.random.default_rng(0), noise=0.7)

    spread = X.std(axis=(0, 2)) / pod.SMALL

    np.testing.assert_allclose(spread, 0.7 * np.arange(8) / 7, rtol=0.1)
    assert not y.any()


def test_predictions_come_back_in_the_units_of_the_data():
    data, (_, _, (_, y)) = problem_of("sst_pod_lstm").data, module_of("sst_pod_lstm").load_data()

    np.testing.assert_allclose(data.train.outputs[0].std(axis=(0, 1)), module_of("sst_pod_lstm").SMALL, rtol=1e-4)
    np.testing.assert_allclose(data.restore(data.test.outputs)[0], y, atol=1e-5)


def test_the_synthetic_field_can_be_foretold_but_not_by_standing_still():
    from sklearn.linear_model import Ridge

    from dhmpi.nas.metrics import r2

    (X, y), _, (test_X, test_y) = module_of("sst_pod_lstm").load_data()

    still = r2(test_y, np.repeat(test_X[:, :1], 8, axis=1))
    ridge = Ridge(0.01).fit(X.reshape(len(X), -1), y.reshape(len(y), -1)).predict(test_X.reshape(len(test_X), -1))

    assert still < 0.7
    assert 0.9 < r2(test_y.reshape(len(test_y), -1), ridge) < 0.999


def test_the_real_series_is_read_from_the_directory_named(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    real = [rng.normal(size=(5, n)) for n in (427, 1487)]
    for name, part in zip(("True_Train.npy", "True_Test.npy"), real):
        np.save(tmp_path / name, part)
    monkeypatch.setenv("DHMPI_SST_POD", str(tmp_path))

    known, later = module_of("sst_pod_lstm").series()

    np.testing.assert_array_equal(known, real[0].T)
    np.testing.assert_array_equal(later, real[1].T)


def test_a_directory_without_the_series_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("DHMPI_SST_POD", str(tmp_path))

    with pytest.raises(
        ProblemError, match=r"DHMPI_SST_POD must name a directory with True_Train.npy and True_Test.npy"
    ):
        module_of("sst_pod_lstm").series()


def test_a_series_of_another_length_is_said(tmp_path):
    np.save(tmp_path / "True_Train.npy", np.zeros((5, 400)))

    with pytest.raises(ProblemError, match=r"must have the shape \(5, 427\), it has \(5, 400\)"):
        module_of("sst_pod_lstm").series(tmp_path)


# --- The surrogate


def some_architectures(n, seed=0):
    """Draw architectures from raw bits, which are the same for ever."""
    n_options = module_of("toy.surrogate").N_OPTIONS
    bits = np.random.PCG64(seed).random_raw(n * len(n_options)).reshape(n, -1)
    return (bits % np.array(n_options, dtype=np.uint64)).astype(int)


def test_the_surrogate_has_the_space_of_the_problem_that_it_stands_for():
    ours, theirs = (problem_of(name).architecture_space for name in ("toy.surrogate", "sst_pod_lstm"))

    assert ours.n_options == module_of("toy.surrogate").N_OPTIONS
    assert ours.fingerprint() == theirs.fingerprint()


def test_the_surrogate_has_the_scale_promised():
    found = module_of("toy.surrogate").rewards(some_architectures(20_000))

    assert found.mean() == pytest.approx(0.41)
    assert found.max() == pytest.approx(1.0)
    assert np.quantile(found, 0.99) == pytest.approx(0.746, abs=0.001)


def test_the_surrogate_is_the_same_for_ever():
    found = module_of("toy.surrogate").rewards(some_architectures(3))

    np.testing.assert_allclose(found, [0.42620166, 0.43482931, 0.43800243], atol=1e-8)


def test_the_surrogate_has_the_optimum_that_it_names():
    surrogate = module_of("toy.surrogate")
    total = np.zeros(surrogate.N_OPTIONS)
    for decisions, table in surrogate.terms():
        shape = [n if i in decisions else 1 for i, n in enumerate(surrogate.N_OPTIONS)]
        total += table.reshape(shape)
    total = surrogate.SHIFT + surrogate.SCALE * total
    most_luck = surrogate.SCALE * surrogate.LUCK * 3**0.5

    candidates = np.argwhere(total > surrogate.OPTIMUM - most_luck)

    assert 1 <= len(candidates) < 100
    assert surrogate.rewards(candidates).max() == pytest.approx(surrogate.OPTIMUM, abs=1e-12)


def test_an_evaluation_is_an_entry_of_all_rewards_and_needs_numpy_only():
    archs = some_architectures(5)
    run = load_run(f"{PACKAGE}.toy.surrogate.run")
    program = (
        f"import sys; from {PACKAGE}.toy.surrogate import run; run({{'arch_seq': [0] * 14}})\n"
        "print(sorted({'ConfigSpace', 'scipy', 'sklearn', 'tensorflow', 'mpi4py', 'rich'} & sys.modules.keys()))"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)

    assert [run({"arch_seq": arch.tolist()}) for arch in archs] == module_of("toy.surrogate").rewards(archs).tolist()
    assert done.stdout == "[]\n"


def test_one_mutation_changes_the_reward_a_little():
    surrogate, rng = module_of("toy.surrogate"), np.random.default_rng(0)
    space = problem_of("toy.surrogate").architecture_space
    archs = some_architectures(500)

    mutants = np.array([space.mutate(arch, rng) for arch in archs])
    unrelated = some_architectures(500, seed=1)

    near, far = (np.abs(surrogate.rewards(archs) - surrogate.rewards(other)).mean() for other in (mutants, unrelated))
    assert 0.02 < near < 0.6 * far


# --- Training


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", WITH_DATA)
def test_a_random_architecture_is_built(name):
    space = problem_of(name).architecture_space

    network = space.build(space.random(np.random.default_rng(0)), seed=0)

    assert [tuple(x.shape[1:]) for x in network.inputs] == list(space.input_shapes)
    assert [tuple(y.shape[1:]) for y in network.outputs] == list(space.output_shapes)


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", ["digits_dense", "digits_conv", "combo_synthetic", "sst_pod_lstm"])
def test_an_epoch_teaches_something(name):
    from dhmpi.nas.training import train

    problem = problem_of(name)
    arch = [1] + [0] * (len(problem.architecture_space.decisions) - 1)

    found = train(problem, {"arch_seq": arch, "num_epochs": 1}, seed=0)

    assert found["epochs"] == 1
    assert np.isfinite(found["objective"])
