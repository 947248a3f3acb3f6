"""What a run function may return, and how ends of processes are put into words."""

import json
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dhmpi.evaluate.result import MAX_METRICS_BYTES, check, describe_exit


@pytest.mark.parametrize(
    "returned",
    [2.0, 2, np.float32(2), np.int64(2), np.array(2.0), np.array([2.0]), Decimal(2), {"objective": np.float64(2)}],
)
def test_a_number_in_any_disguise_is_a_python_float(returned):
    objective, metrics = check(returned)

    assert type(objective) is float
    assert objective == 2.0
    assert metrics == {}


def test_metrics_become_plain_values():
    returned = {"objective": 1, "n": np.int32(3), "loss": np.float32(0.5), "ok": np.bool_(True), "s": "x", "none": None}

    objective, metrics = check(returned)

    assert objective == 1.0
    assert metrics == {"n": 3, "loss": 0.5, "ok": True, "s": "x", "none": None}
    assert [type(value) for value in metrics.values()] == [int, float, bool, str, type(None)]


def test_a_metric_that_diverged_is_empty():
    assert check({"objective": 1.0, "a": float("nan"), "b": float("-inf")})[1] == {"a": None, "b": None}


class _Hostile:
    def __float__(self):
        raise SystemError("no")

    def __repr__(self):
        raise SystemError("no")

    def __sizeof__(self):
        raise SystemError("no")


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (None, "returned None"),
        (True, "returned True"),
        (np.bool_(True), "bool"),
        (float("nan"), "returned nan"),
        (float("-inf"), "returned -inf"),
        (np.float64("inf"), "returned inf"),
        (10**400, "bits"),
        ("0.5", "the string '0.5'"),
        ("x" * 1000, "1000 characters"),
        (1j, "complex"),
        (np.zeros(3), "ndarray"),
        (bytes(5_000_000), "bytes (5 MB)"),
        ([1.0], "list"),
        (_Hostile(), "_Hostile"),
        ({}, "without 'objective'"),
        ({"accuracy": 1.0}, "without 'objective'"),
        ({"objective": None}, "as 'objective' None"),
        ({"objective": 1.0, 3: 1}, "names must be strings"),
        ({"objective": 1.0, "": 1}, "names must be strings"),
        ({"objective": 1.0, "history": [1, 2]}, "'history' is an object of type list"),
        ({"objective": 1.0, "x": _Hostile()}, "'x' is an object of type _Hostile"),
        ({"objective": 1.0, "x": 1 << 2000}, "an integer of 2001 bits"),
        ({"objective": 1.0, "x": "y" * 100_000}, "metrics must be numbers or short strings"),
        ({"objective": 1.0, "x": "\0" * 20_000}, "metrics must be numbers or short strings"),
        ({"objective": 1.0, "x" * 100_000: 1}, "metrics must be numbers or short strings"),
    ],
)
def test_anything_else_is_refused_in_one_sentence(returned, words):
    with pytest.raises(ValueError) as refusal:
        check(returned)

    message = str(refusal.value)
    assert words in message
    assert "\n" not in message
    assert len(message) < 300


def test_many_small_metrics_are_too_much_together():
    with pytest.raises(ValueError, match="64 KB"):
        check({"objective": 1.0, **{f"metric{i}": i for i in range(10_000)}})


_TEXT = st.text(alphabet='ab\n"\0\u00e9\ud800\U0001f600')


@given(st.dictionaries(_TEXT.filter(bool), st.floats() | _TEXT | st.integers() | st.none()))
def test_what_is_accepted_is_json_within_the_limit(metrics):
    objective, plain = check({**metrics, "objective": 0.0})

    text = json.dumps(plain, allow_nan=False)
    text.encode()
    assert json.loads(text) == plain
    assert len(text) <= MAX_METRICS_BYTES
    assert objective == 0.0


@pytest.mark.parametrize(
    ("code", "words"),
    [(0, "exited with code 0"), (3, "code 3"), (-11, "11 (SIGSEGV"), (-9, "out of memory"), (-63, "signal 63")],
)
def test_an_exit_is_put_into_words(code, words):
    assert words in describe_exit(code)
