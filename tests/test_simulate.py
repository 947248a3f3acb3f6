"""Simulations: what they report, charge and refuse."""

import json
import math
import re

import numpy as np
import pytest

from dhmpi import costs, durations, simulate
from dhmpi.budget import Limits
from dhmpi.errors import OptionError
from dhmpi.options import AmbsOptions
from dhmpi.problem import HpProblem
from dhmpi.roles import virtual
from dhmpi.search.model_based import ModelBasedSearch
from dhmpi.search.uniform import UniformSearch

POLYNOME2 = ("--problem", "dhmpi.benchmark.hps.polynome2.Problem")
RUN = ("--run", "dhmpi.benchmark.hps.polynome2.run")


def call(capsys, *words):
    code = simulate.main(list(map(str, words)))
    out, err = capsys.readouterr()
    return code, out, err


def simulated(capsys, *words):
    code, out, err = call(capsys, *words, "--json")
    assert code == 0, err
    return json.loads(out)


def entry(search="random", **changes):
    """Return costs of 1 s for a fit and 10 ms for a proposal, whatever is known."""
    values = {
        "search": search,
        "options": {},
        "n_hyperparameters": 10,
        "points": (1,),
        "fits": ((1.0,),) if search == "ambs" else ((),),
        "ask": (0.01,),
        "proposal": (0.01,),
    }
    n = len(changes.get("points", (1,)))
    values["growth"] = (0.02,) * n
    return costs.Entry(**{**values, **changes})


@pytest.fixture
def priced(tmp_path):
    """Return a function that writes a file of costs."""

    def write(*entries):
        path = tmp_path / "costs.json"
        costs.Costs(entries, "").write(path)
        return path

    return write


# -- what is reported --------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_simulation(capsys):
    words = ("--search", "regevo", "--evaluators", 50, "--duration", "lognormal:60,0.5", "--max-evals", 300, *POLYNOME2)

    first, second, other = (simulated(capsys, *words, *RUN, "--seed", seed) for seed in (3, 3, 4))

    for content in (first, second, other):
        for report in content["simulations"]:
            del report["wall_seconds"], report["searcher"]["seconds_here"]
    assert first == second
    assert first["simulations"][0]["best"] != other["simulations"][0]["best"]


def test_every_second_of_an_evaluator_is_accounted_for():
    problem = HpProblem()
    problem.add_hyperparameter((0.0, 1.0), "x")

    run = virtual.simulate(
        UniformSearch(problem.space, 1), Limits(10_000), 64, lambda config: config["x"],
        lambda config, rng: float(rng.exponential(5.0)), latency=0.01, ask_seconds=lambda n_told, n: 0.2,
        time_limit=60.0,
    )  # fmt: skip

    known = run.busy_seconds + run.cancelled_seconds + run.waiting_seconds + run.draining_seconds
    on_their_way = 2 * 0.01 * (len(run.outcomes) + 64)  # two messages for each evaluation
    assert known == pytest.approx(64 * run.seconds, abs=on_their_way)
    assert math.fsum(end - begin for begin, end in run.waits) == pytest.approx(run.waiting_seconds)
    assert run.first_waiting_seconds >= 64 * 0.2


def test_a_time_limit_ends_the_run_and_cancels_what_lasts():
    problem = HpProblem()
    problem.add_hyperparameter((0.0, 1.0), "x")

    run = virtual.simulate(
        UniformSearch(problem.space, 1), Limits(10_000), 8, lambda config: config["x"],
        lambda config, rng: float(rng.uniform(5, 30)), time_limit=100.0,
    )  # fmt: skip

    assert run.seconds == pytest.approx(100.0, abs=0.01)
    assert "time limit" in run.reason
    assert run.cancelled_seconds > 0
    assert run.utilisation < run.utilisation_in_flight


def test_an_evaluation_beyond_its_limit_is_a_timeout(capsys):
    content = simulated(
        capsys, "--search", "random", "--evaluators", 4, "--duration", "uniform:30,90", "--max-evals", 60,
        "--eval-timeout-minutes", 1, *POLYNOME2, *RUN,
    )  # fmt: skip

    (report,) = content["simulations"]
    assert 15 < report["failed"] < 45
    assert report["finished"] == 60


def test_what_lasts_is_tried_elsewhere_too_and_counted_once():
    problem = HpProblem()
    problem.add_hyperparameter((0.0, 1.0), "x")
    lasts = iter([1.0] * 19 + [500.0] + [1.0] * 100)

    run = virtual.simulate(
        UniformSearch(problem.space, 1), Limits(20), 4, lambda config: config["x"], lambda config, rng: next(lasts)
    )

    assert len(run.outcomes) == 20
    assert any(event.get("copy") for event in run.events)
    assert run.cancelled_seconds > 0


@pytest.mark.parametrize(
    ("seconds", "last"),
    [("0.01", r"0:00:00\.10\d"), ("1", r"0:00:10\.\d"), ("10", "0:01:40")],
    ids=["brief", "short", "long"],
)
def test_the_rows_of_a_short_run_have_different_times(capsys, seconds, last):
    _, out, _ = call(
        capsys, "--search", "random", "--evaluators", 2, "--duration", f"constant:{seconds}", "--max-evals", 20,
        "--latency", 0, "--dispatch", 0, *POLYNOME2,
    )  # fmt: skip

    lines = out.splitlines()
    titles = next(i for i, line in enumerate(lines) if line.startswith("time "))
    times = [line.split()[0] for line in lines[titles + 1 :][: simulate.N_ROWS]]
    assert len(set(times)) == simulate.N_ROWS
    assert re.fullmatch(last, times[-1])


def test_several_sizes_are_compared(capsys):
    code, out, _ = call(
        capsys, "--search", "random", "--evaluators", "4,16", "--duration", "constant:60", "--max-evals", 64,
        *POLYNOME2,
    )  # fmt: skip

    assert code == 0
    lines = out.splitlines()
    titles = next(line for line in lines if line.startswith("evaluators"))
    assert titles.split()[:3] == ["evaluators", "finished", "best"]
    assert [line.split()[0] for line in lines[lines.index(titles) + 1 :][:2]] == ["4", "16"]
    assert "16 evaluators: one searcher keeps up" in out


def test_it_is_drawn(capsys, tmp_path):
    path = tmp_path / "plot.svg"

    code, out, _ = call(
        capsys, "--search", "random", "--evaluators", 4, "--duration", "constant:60", "--max-evals", 20, *POLYNOME2,
        "-o", path,
    )  # fmt: skip

    assert code == 0
    assert "utilisation 1" in out
    assert "<svg" in path.read_text()


@pytest.fixture
def function(tmp_path):
    """Return a function that writes a module with a run function, and returns the words of a short simulation of it."""

    def write(source):
        path = tmp_path / f"function_{tmp_path.name}.py"
        path.write_text(source)
        words = ("--search", "random", "--evaluators", 2, "--duration", "constant:1", "--max-evals", 3, *POLYNOME2)
        return (*words, "--run", path)

    return write


def test_a_function_is_prepared_before_the_simulation(capsys, function):
    words = function(
        "from dhmpi import trial\nstate = {}\n"
        "def run(config):\n    return state['n']\n"
        "run.prepare = lambda: state.update(n=len(trial().problem.hyperparameter_names))\n"
    )

    (report,) = simulated(capsys, *words)["simulations"]

    assert (report["failed"], report["best"]) == (0, 10.0)


def test_what_a_function_prints_is_not_shown(capfd, function):
    words = function(
        "import os, sys\n"
        "def say(n):\n"
        "    print('heard')\n"
        "    print('heard', file=sys.stderr)\n"
        "    os.system('echo heard')\n"
        "say(0)\n"
        "def run(config):\n    say(1)\n    return 1\n"
        "run.prepare = lambda: say(2)\n"
    )

    code, out, err = call(capfd, *words)

    assert (code, err) == (0, "")
    assert "best objective 1," in out
    assert "heard" not in out


# -- what is charged ---------------------------------------------------------------------------------------------------


def test_evaluators_wait_for_a_searcher_that_is_too_slow(capsys, priced):
    """10 ms a proposal serve 100 evaluations a second; 1,000 evaluators of 5 s need 200."""
    words = ("--search", "random", "--duration", "constant:5", "--max-evals", 5000, *POLYNOME2, "--costs")

    content = simulated(capsys, "--evaluators", "200,1000", *words, priced(entry()))

    few, many = content["simulations"]
    assert few["keeps_up"]
    assert not many["keeps_up"]
    assert few["waiting"] - few["waiting_for_the_first"] < 0.01
    assert many["waiting"] > 0.4
    assert many["searcher"]["load"] > 0.85
    assert "does not keep up with 1000 evaluators" in many["advice"][0]
    assert "it serves about 4" in many["advice"][0]  # of 500, without the beginning and the end


def test_fits_are_charged_and_named_in_advice(capsys, priced):
    content = simulated(
        capsys, "--evaluators", 8, "--duration", "constant:0.6", "--max-evals", 60, *POLYNOME2, *RUN,
        "--costs", priced(entry("ambs", fits=((10.0,),))),
    )  # fmt: skip

    (report,) = content["simulations"]
    assert report["searcher"]["fits"] > 0
    assert report["searcher"]["seconds"] >= 10.0 * report["searcher"]["fits"]
    assert any(sentence.startswith("fits are ") for sentence in report["advice"])


def test_a_stand_in_is_charged_what_the_search_would_be(capsys, priced):
    """It proposes at random and fits whenever there are 2 % more trials, after a design of one for each evaluator."""
    words = ("--evaluators", 16, "--duration", "constant:10", "--max-evals", 400, *POLYNOME2, "--stand-in")

    content = simulated(capsys, *words, "--costs", priced(entry("ambs")))

    (report,) = content["simulations"]
    assert report["finished"] == 400
    assert 5 < report["searcher"]["fits"] < 200
    expected = report["searcher"]["fits"] * 1.0 + report["searcher"]["proposals"] * 0.01
    assert report["searcher"]["seconds"] == pytest.approx(expected, rel=0.05)
    assert report["wall_seconds"] < expected


def test_a_model_based_search_counts_its_fits():
    problem = HpProblem()
    problem.add_hyperparameter((0.0, 1.0), "x")
    search = ModelBasedSearch(problem.space, 1, n_evaluators=2, max_evals=40, surrogate_model="ET")

    for _ in range(6):
        search.tell([(key, config["x"]) for key, config in search.ask(2)])

    assert 1 <= search.n_fits <= 5


def test_costs_between_two_points_lie_between_their_costs():
    found = entry("ambs", points=(10, 1000), fits=((1.0, 3.0), (100.0, 300.0)), ask=(0.1, 0.1), proposal=(0.0, 0.0))

    assert found.charge(10, 1, range(0)) == pytest.approx(0.1)
    assert found.charge(100, 1, range(1)) == pytest.approx(0.1 + 10.0)
    assert found.charge(100, 1, range(1, 2)) == pytest.approx(0.1 + 30.0)
    assert found.charge(10_000, 1, range(2, 3)) == pytest.approx(0.1 + 1000.0)  # it goes on as it rose
    assert found.fit(1) == pytest.approx(2.0)


def test_the_nearest_costs_are_taken_and_the_difference_named():
    known = costs.Costs(
        [entry("ambs", n_hyperparameters=n, options={"surrogate_model": "ET"}) for n in (5, 20)], "a file"
    )

    found, differs = known.find("ambs", {"surrogate_model": "GP"}, 100)

    assert found.n_hyperparameters == 20
    assert differs == "surrogate-model ET instead of GP, 20 hyperparameters instead of 100"


def test_costs_that_come_with_the_package_know_every_search_and_say_where_they_are_from():
    known = costs.Costs.read()

    assert {item.search for item in known.entries} >= {"ambs", "regevo", "random", "ppo"}
    for item in known.entries:
        assert item.machine
        assert {"dhmpi", "python", "numpy", "scikit-learn"} <= item.versions.keys()


def test_what_is_measured_is_kept_and_charged(capsys, tmp_path):
    path = tmp_path / "costs.json"
    words = ("--search", "random", "--evaluators", 4, "--duration", "constant:60", "--max-evals", 20, *POLYNOME2)

    code, _, err = call(capsys, *words, "--costs", "measure", "--keep-costs", path)
    content = simulated(capsys, *words, "--costs", path)

    assert code == 0
    assert "measured: random, 1000 points" in err
    (kept,) = costs.Costs.read(path).entries
    assert (kept.search, kept.n_hyperparameters) == ("random", 10)
    assert content["simulations"][0]["searcher"]["costs"].startswith(str(path))


def test_a_search_that_fits_is_measured_where_it_has_few_and_many_points():
    from dhmpi.ambs import spec

    options = AmbsOptions(surrogate_model="ET")
    about = {"problem": POLYNOME2[1], "seed": 1, "n_evaluators": 10, "max_evals": 40}

    found = costs.measure({**spec(options), **about}, 12)

    assert found.points == (10, 12)
    assert found.fits[-1]
    assert min(found.fits[-1]) > 0
    assert found.options["surrogate_model"] == "ET"


def test_toml_is_read_too(tmp_path):
    path = tmp_path / "costs.toml"
    path.write_text(
        'format = 1\n[[costs]]\nsearch = "random"\nn_hyperparameters = 3\npoints = [1]\nfits = [[]]\n'
        "ask = [0.5]\nproposal = [0.25]\ngrowth = [0.0]\n[costs.options]\n"
    )

    (found,) = costs.Costs.read(path).entries

    assert found.charge(1, 3, range(0)) == pytest.approx(1.0)


# -- durations ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "mean"),
    [
        ("constant:60", 60.0),
        ("uniform:10,30", 20.0),
        ("normal:60,20", 60.0),
        ("normal:1,5", 2.533),  # what is negative is none
        ("lognormal:60,0.5", 60 * math.exp(0.125)),
        ("exponential:60", 60.0),
    ],
)
def test_durations_have_the_mean_that_they_claim(text, mean):
    found = durations.parse(text)
    rng = np.random.default_rng(1)

    drawn = [found.draw(rng) for _ in range(20_000)]

    assert found.mean == pytest.approx(mean, rel=0.01)
    assert np.mean(drawn) == pytest.approx(mean, rel=0.05)
    assert min(drawn) >= 0


def test_durations_of_results_are_drawn(tmp_path):
    ours = tmp_path / "results.csv"
    ours.write_text(
        "trial,attempt,status,objective,rank,host,start,end,elapsed_sec,x\n"
        "0,0,done,1.0,2,a,0,10,10,0.5\n1,0,failed,,2,a,10,40,30,0.7\n"
    )
    deephyper = tmp_path / "deephyper.csv"
    deephyper.write_text("p:x,objective,job_id,m:timestamp_submit,m:timestamp_gather\n0.5,1.0,0,1.0,6.0\n")
    rng = np.random.default_rng(1)

    assert {durations.parse(str(ours)).draw(rng) for _ in range(50)} == {10.0, 30.0}
    assert durations.parse(str(deephyper)).draw(rng) == 5.0


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--evaluators", "0"], "--evaluators takes a number >= 1, or several with commas between them, got '0'"),
        (["--duration", "lognormal:60"], "--duration 'lognormal:60': write lognormal:MEDIAN,SIGMA"),
        (["--duration", "gamma:1"], "--duration 'gamma:1' is no distribution"),
        (["--duration", "normal:a,b"], "'a' is no number of seconds >= 0"),
        (["--duration", "constant:0"], "evaluations must take more than no time"),
        (["--duration", "uniform:9,1"], "the least is more than the most"),
        (["--max-evals", "0"], "the search random says: --max-evals must be >= 1"),
        (["--kappa", "2"], "the search random says: unrecognized arguments: --kappa 2"),
        (["--chaos", "kill=0.1"], "--chaos cannot be simulated"),
        (["--costs", "nowhere.json"], "cannot read --costs nowhere.json"),
        (["--costs", "live", "--stand-in"], "--stand-in has no costs of its own"),
        (["--keep-costs", "x.json"], "--keep-costs keeps what --costs measure measures"),
        (["--latency", "-1"], "--latency must be >= 0"),
        (["-o", "plot.txt"], "the name must end in .png, .svg, .pdf"),
        (["--run", "nowhere.run"], "'nowhere.run'"),
        (["--problem", "nowhere.Problem"], "'nowhere.Problem'"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(capsys, words, sentence):
    given = {"--evaluators": "4", "--duration": "constant:1", "--max-evals": "20", "--problem": POLYNOME2[1]}
    given |= dict(zip(words[::2], words[1::2]))
    rest = words[len(words) - len(words) % 2 :]

    code, out, err = call(capsys, "--search", "random", *(word for pair in given.items() for word in pair), *rest)

    assert (code, out) == (2, "")
    assert err.startswith("dhmpi.simulate: error: ")
    assert sentence in err
    assert err.count("\n") == 1


def test_a_function_that_cannot_be_prepared_is_refused(capsys, function):
    words = function("def run(config):\n    return 1\nrun.prepare = lambda: {}['data']\n")

    code, out, err = call(capsys, *words)

    assert (code, out) == (2, "")
    assert err.startswith("dhmpi.simulate: error: ")
    assert "cannot be prepared: the function raised KeyError: 'data'\n" in err


def test_a_simulation_needs_an_end(capsys):
    code, _, err = call(capsys, "--search", "random", "--evaluators", 4, "--duration", "constant:1", *POLYNOME2)

    assert code == 2
    assert "give --max-evals or --time-limit-minutes" in err


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[", "holds no costs of searches"),
        ('{"format": 9}', "its format is 9"),
        ('{"format": 1}', "it lacks 'costs'"),
        ('{"format": 1, "costs": [{"search": "ambs"}]}', "it lacks 'points'"),
    ],
)
def test_a_file_that_holds_no_costs_is_refused(tmp_path, text, sentence):
    path = tmp_path / "costs.json"
    path.write_text(text)

    with pytest.raises(OptionError, match=sentence):
        costs.Costs.read(path)


def test_costs_that_are_no_numbers_are_refused(priced):
    with pytest.raises(OptionError, match="has a number that is none, or negative"):
        costs.Costs.read(priced(entry(ask=(-1.0,))))


def test_a_search_without_costs_is_refused(capsys, priced):
    code, _, err = call(
        capsys, "--evaluators", 4, "--duration", "constant:1", "--max-evals", 20, *POLYNOME2, "--costs", priced(entry())
    )

    assert code == 2
    assert "know random, but not ambs: --costs measure measures it here" in err
