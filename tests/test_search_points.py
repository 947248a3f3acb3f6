"""Points of users, in the process of the search: what fits, what is known, what every search does with them."""

import pytest

from dhmpi.search.host import Host

PROBLEM = """
from dhmpi.problem import HpProblem

Problem = HpProblem()
Problem.add_hyperparameter((0.0, 1.0), "x")
Problem.add_hyperparameter((1, 9), "n")
Problem.add_hyperparameter(["a", "b"], "kind")
"""
CHOICES = """
from dhmpi.problem import HpProblem

Problem = HpProblem()
Problem.add_hyperparameter(["a", "b"], "d0")
Problem.add_hyperparameter([1, 2, 3], "d1")
"""
POINT = {"x": 0.5, "n": 3, "kind": "a"}
SPECS = {
    "random": {"search": "random"},
    "regevo": {"search": "regevo", "options": {"population_size": 4, "sample_size": 2}},
    "ambs": {"search": "ambs", "options": {"surrogate_model": "RF"}},
    "screened": {"search": "regevo", "screening": {"epochs": 1}},
}


@pytest.fixture
def make(tmp_path):
    """Return a function that builds a search in a host."""

    def call(spec, source=PROBLEM):
        path = tmp_path / "study.py"
        path.write_text(source)
        host = Host()
        common = {"problem": str(path), "seed": 1, "n_evaluators": 2, "max_evals": 40}
        assert "ready" in host.handle({"build": {**common, **spec}})
        return host

    return call


def check(host, *points, as_text=False):
    return host.handle({"check": {"order": "o", "points": list(points), "as_text": as_text}})["checked"]


def ask(host, n=3, replacing=()):
    return host.handle({"ask": {"n": n, "replacing": list(replacing)}})["asked"]


@pytest.mark.parametrize(
    ("point", "as_text"),
    [({"x": "0.5", "n": "3", "kind": "a"}, True), (POINT, False), ({"x": 0.5, "n": 3.0, "kind": "a"}, False)],
)
def test_a_point_that_fits_comes_back_as_it_is_evaluated(make, point, as_text):
    checked = check(make(SPECS["random"]), point, as_text=as_text)

    assert checked == {"order": "o", "configs": [POINT], "n_known": 0, "reason": ""}
    assert isinstance(checked["configs"][0]["n"], int)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"x": 2.0}, "the point has x = 2.0, which is no number in [0.0, 1.0]"),
        ({"kind": "c"}, "the point has kind = 'c', which is none of its choices"),
        ({"y": 1}, "the point names 'y', but the space has"),
        ({"n": True}, "the point has n = True, which is no integer"),
    ],
)
def test_a_point_that_does_not_fit_is_refused_with_the_reason(make, change, reason):
    host = make(SPECS["random"])

    assert check(host, {**POINT, **change})["reason"].startswith(reason)
    assert check(host, POINT, {**POINT, **change})["reason"].startswith(f"point 1: {reason}")


def test_points_of_a_list_are_refused(make):
    host = make({"search": "listed", "options": {"configs": [POINT]}})

    assert check(host, POINT)["reason"] == "the search evaluates what it was given and nothing else"


@pytest.mark.parametrize("name", SPECS)
def test_points_are_pending_told_and_never_proposed(make, name):
    host = make(SPECS[name])
    first = ask(host)

    host.handle({"add": [[-1, POINT], [-2, {**POINT, "n": 4}]]})
    second = ask(host, 20)
    assert check(host, POINT)["n_known"] == 1
    host.handle({"tell": [[-1, 1.0], [first["proposals"][0][0], 0.5]]})
    host.handle({"drop": [-2]})
    third = ask(host, 20)

    assert set(second["pending"]) == {-2, -1, *(key for key, _ in first["proposals"])}
    assert third["told"] == 2
    assert not {-1, -2} & set(third["pending"])
    assert POINT not in [config for asked in (second, third) for _, config in asked["proposals"]]
    assert check(host, POINT)["n_known"] == 1
    keys = [key for asked in (first, second, third) for key, _ in asked["proposals"]]
    assert keys == list(range(43))


@pytest.mark.parametrize("name", SPECS)
def test_a_restored_search_knows_the_points(make, name):
    host = make(SPECS[name])

    host.handle({"restore": {"finished": [[-1, POINT, 1.0]], "pending": [[-2, {**POINT, "n": 4}]], "n_asks": 3}})
    asked = ask(host)

    assert asked["pending"] == [-2]
    assert [key for key, _ in asked["proposals"]] == [0, 1, 2]
    assert check(host, POINT, {**POINT, "n": 4})["n_known"] == 2


def test_a_policy_learns_nothing_from_points(make):
    host = make({"search": "ppo", "options": {"episodes_per_update": 2}}, CHOICES)
    point = {"d0": "a", "d1": 2}

    (config,) = check(host, {"d0": "a", "d1": "2"}, as_text=True)["configs"]
    host.handle({"add": [[-1, config]]})
    first = ask(host, 2)
    host.handle({"tell": [[-1, 9.0], *([key, 1.0] for key, _ in first["proposals"])]})
    second = ask(host, 2)

    assert config == point
    assert -1 in first["pending"]
    assert -1 not in second["pending"]
    assert [note["e"] for note in second["notes"]] == ["update"]
    assert second["notes"][0]["n_episodes"] == 2


def test_a_changed_limit_is_no_mistake(make):
    for spec in SPECS.values():
        assert make(spec).handle({"limit": 90}) is None
