"""What analytics make of a run: columns, utilisation, trajectories, what mattered, exports, and what they say."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from journal_writer import (
    LAYOUT,
    T0,
    Writer,
    ended,
    event,
    finished,
    header,
    joined,
    left,
    lost,
    placed,
    stopping,
)

from dhmpi.analytics import export, importance, load, trajectory
from dhmpi.analytics.__main__ import main
from dhmpi.errors import DhmpiError, OptionError, RunDirectoryError
from dhmpi.timeline import Activity

EXAMPLE = [
    joined(2, 1), joined(3, 2), placed(0, 2, 1, {"x": 0.5, "k": "a"}), placed(1, 3, 2, {"x": 0.25, "k": "b"}),
    finished(0, 2, 1, 5, 1.0, metrics={"loss": 0.5}), placed(2, 2, 5, {"x": 0.75}),
    finished(1, 3, 2, 6, None, reason="ValueError: no\nTraceback"), placed(3, 3, 6, {"x": 0.1, "k": "a"}),
    finished(2, 2, 5, 9, 3.0, metrics={"loss": 0.25, "note": "[x]"}), finished(3, 3, 6, 10, 2.0), stopping(10),
    ended(10),
]  # fmt: skip


@pytest.fixture
def path(tmp_path):
    """A run of ten seconds on two evaluators: trials 0 and 2 on rank 2, 1 (which fails) and 3 on rank 3."""
    return Writer(tmp_path / "ambs_1", hyperparameters=["x", "k"]).begin(*EXAMPLE).path


@pytest.fixture
def said(capsys):
    """Return a function that runs the command and returns its exit code, what it said (or its JSON), and stderr."""

    def call(*arguments):
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, json.loads(out) if "--json" in arguments and not code else out, err

    return call


# -- evaluations in columns --------------------------------------------------------------------------------------------


def test_a_run_in_columns(path):
    study = load(path)

    assert study.trial.tolist() == [0, 1, 2, 3]
    assert study.status == ["done", "failed", "done", "done"]
    assert study.objective.tolist()[2:] == [3.0, 2.0]
    assert np.isnan(study.objective[1])
    assert study.elapsed.tolist() == [4.0] * 4
    assert study.seconds.tolist() == [5.0, 6.0, 9.0, 10.0]
    assert study.configs[2] == {"x": 0.75}
    assert study.metric_names == ["loss", "note"]
    assert study.best_so_far.tolist() == [1.0, 1.0, 3.0, 3.0]
    assert study.best(2) == [2, 3]
    assert study.row(1)["reason"].startswith("ValueError")


def test_time_between_launches_does_not_count(path):
    writer = Writer(path)
    writer.launch = 0
    writer.begin(joined(2, 1001), placed(4, 2, 1001), finished(4, 2, 1001, 1004, 5.0), head=header(T0 + 1000))

    study = load(path)

    assert study.seconds.tolist()[-2:] == [10.0, 14.0]
    assert study.usage().length == 14.0
    assert study.usage().boundaries == [10.0]
    assert study.usage().sentence().startswith("67.9 % of evaluators' time in 2 launches went into evaluations")


def test_a_trial_that_was_lost_ends_where_the_one_before_it_did(tmp_path):
    given_up = finished(1, 3, -T0, -T0, status="lost", t=6)
    Writer(tmp_path).begin(joined(2, 0), joined(3, 0), placed(0, 2, 0), finished(0, 2, 0, 4, 1.0), placed(1, 3, 0),
                           left(3, 6), lost(1, 3, 6), given_up)  # fmt: skip

    study = load(tmp_path)

    assert study.status == ["done", "lost"]
    assert study.seconds.tolist() == [4.0, 4.0]
    assert np.isnan(study.end[1])


def test_the_best_are_different_ones(tmp_path):
    again = {**finished(2, 0, 3, 3, 2.0, status="reused"), "host": ""}
    Writer(tmp_path).begin(
        joined(2, 0), placed(0, 2, 0, {"x": 1}), finished(0, 2, 0, 1, 2.0), placed(1, 2, 1, {"x": 2}),
        finished(1, 2, 1, 2, 1.0), placed(2, 0, 3, {"x": 1}, reused=True), again,
    )  # fmt: skip

    assert load(tmp_path).best(3) == [0, 1]


def test_a_run_without_evaluations_is_empty(tmp_path):
    Writer(tmp_path).begin(joined(2, 1))

    study = load(tmp_path)

    assert len(study) == 0
    assert study.best(3) == []
    assert study.best_so_far.tolist() == []


def test_what_dhmpi_wrote_as_csv_is_read_again(path, tmp_path):
    study = load(path)
    export.to_csv(study, tmp_path / "results.csv")

    again = load(tmp_path / "results.csv")

    assert again.trial.tolist() == study.trial.tolist()
    assert again.status == study.status
    assert np.array_equal(again.objective, study.objective, equal_nan=True)
    assert again.configs == study.configs
    assert again.metrics == study.metrics
    assert again.hyperparameters == study.hyperparameters
    assert again.elapsed.tolist() == study.elapsed.tolist()


@pytest.mark.parametrize(
    "text",
    [
        'a,b,arch_seq,objective,elapsed_sec\n1,x,"[0, 2]",0.5,10\n2,y,"[1, 1]",-3.4028234663852886e+38,5\n',
        'p:a,p:b,p:arch_seq,objective,job_id,m:timestamp_gather\n1,x,"[0, 2]",0.5,1,10\n2,y,"[1, 1]",F_oom,0,5\n',
    ],
)
def test_results_of_deephyper_are_read(tmp_path, text):
    (tmp_path / "results.csv").write_text(text)

    study = load(tmp_path)

    assert study.hyperparameters == ["a", "b", "arch_seq"]
    assert study.status == ["failed", "done"]
    assert study.objective[1] == 0.5
    assert study.configs[1] == {"a": 1, "b": "x", "arch_seq": [0, 2]}
    assert study.has_architectures
    with pytest.raises(RunDirectoryError, match="does not say what evaluators did"):
        study.usage()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [("", "has no evaluations"), ("a,b\n1,2\n", "has no column objective"), (b"\xff\xfe", "cannot read")],
)
def test_what_is_no_results_csv_is_named(tmp_path, content, sentence):
    file = tmp_path / "results.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())

    with pytest.raises(RunDirectoryError, match=sentence):
        load(file)


def test_a_column_of_several_kinds_stays_text(tmp_path):
    (tmp_path / "results.csv").write_text("a,b,objective\n1,1,0\nx,2.5,1\n,3,2\n")

    study = load(tmp_path)

    assert [config.get("a") for config in study.configs] == ["1", "x", None]
    assert [config["b"] for config in study.configs] == [1.0, 2.5, 3.0]


def test_a_frame_needs_pandas_and_says_so(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)

    with pytest.raises(DhmpiError, match="pip install pandas"):
        load(path).evaluations  # noqa: B018  that it is asked for is enough


def test_frames_hold_evaluations_events_and_utilisation(path):
    pytest.importorskip("pandas")
    study = load(path)

    evaluations, events, utilization = study.evaluations, study.events, study.utilization(10)

    assert evaluations["objective"].tolist()[2:] == [3.0, 2.0]
    assert list(evaluations["m:loss"].dropna()) == [0.5, 0.25]
    assert events["e"].value_counts()["finished"] == 4
    assert utilization["in flight"].mean() == pytest.approx(0.8)
    export.to_csv(study, path / "x.csv")
    with pytest.raises(RunDirectoryError, match="name a run directory"):
        load(path / "x.csv").events  # noqa: B018


# -- utilisation -------------------------------------------------------------------------------------------------------


def test_utilisation_is_exact(path):
    usage = load(path).usage()

    assert usage.total == 20
    assert usage.seconds == {"import": 3, "waiting": 1, "idle": 0, "evaluating": 16, "lost": 0, "draining": 0}
    assert usage.utilisation == usage.utilisation_completed == 0.8
    assert usage.sentence() == (
        "80.0 % of 2 evaluators' time went into evaluations; the largest loss was 15.0 % in imports, before evaluators "
        "were ready."
    )


def test_what_was_in_flight_counts_by_one_definition_only(tmp_path):
    Writer(tmp_path).begin(
        joined(2, 0), joined(3, 0), placed(0, 2, 0), placed(1, 3, 0), finished(0, 2, 0, 4, 1.0), placed(2, 2, 4),
        stopping(8), event("cancelled", 8, trial=1, rank=3), event("cancelled", 8, trial=2, rank=2), ended(8),
    )  # fmt: skip

    usage = load(tmp_path).usage()

    assert usage.utilisation == 1.0
    assert usage.utilisation_completed == 0.25
    assert usage.share(Activity.LOST) == 0.75


def test_curves_sum_up_to_the_whole(path):
    usage = load(path).usage()

    edges, shares = usage.curves(7)

    widths = np.diff(edges)
    for activity in Activity:
        assert shares[activity.word] @ widths * 2 == pytest.approx(usage.seconds[activity.word])
    assert np.sum([shares[activity.word] for activity in Activity], axis=0) == pytest.approx(np.ones(7))
    assert shares["completed"] @ widths * 2 == pytest.approx(16)


def test_ranks_and_hosts_are_told_apart(path):
    usage = load(path).usage()

    rows = usage.by_rank()
    assert [(row["rank"], row["evaluating"], row["import"], row["done"], row["failed"]) for row in rows] == [
        (2, 8, 1, 2, 0), (3, 8, 2, 1, 1),
    ]  # fmt: skip
    assert usage.failures == {"node1": (1, 4)}
    assert usage.n_ranks == {"master": 1, "searcher": 1, "evaluators": 2}


def test_a_run_that_goes_on_is_measured_until_now(path):
    writer = Writer(path)
    writer.launch = 0
    layout = {**LAYOUT, "groups": [[2]]}
    writer.begin(joined(2, 100), placed(4, 2, 100), head=header(T0 + 100, layout=layout)).hold()

    usage = load(path).usage()

    assert usage.open.sum() == 1
    assert usage.seconds["evaluating"] > 1000  # since a day in 2026


# -- trajectories ------------------------------------------------------------------------------------------------------


def test_improvements(path):
    steps = trajectory.improvements(load(path))

    assert [(s["trial"], s["evaluations"], s["seconds"], s["objective"]) for s in steps] == [
        (0, 1, 5, 1.0),
        (2, 3, 9, 3.0),
    ]


def test_runs_that_differ_in_a_number_are_of_one_kind(tmp_path):
    for seed, objective in ((1, 1.0), (2, 3.0)):
        Writer(tmp_path / f"ambs_{seed}").begin(
            joined(2, 0), placed(0, 2, 0), finished(0, 2, 0, 2 * seed, objective), ended(10)
        )
    Writer(tmp_path / "random_0123abcd").begin(joined(2, 0), placed(0, 2, 0), finished(0, 2, 0, 5, 1.5), ended(10))

    groups = trajectory.compare([load(tmp_path / n) for n in ("ambs_1", "ambs_2", "random_0123abcd")])
    rows = trajectory.table(groups)

    assert [(group.name, len(group.studies)) for group in groups] == [("ambs", 2), ("random_0123abcd", 1)]
    assert np.isnan(groups[0].mean[0])
    assert groups[0].mean[groups[0].last] == 2.0
    assert groups[0].spread[groups[0].last] == pytest.approx(np.sqrt(2))
    assert rows[0]["reached"] == pytest.approx(4, abs=0.05)
    assert rows[1]["reached"] == pytest.approx(5, abs=0.05)


@pytest.fixture
def runs_of(tmp_path):
    """Return a function that writes a run with an evaluation a second, and loads it."""

    def make(name, *objectives):
        events = [joined(2, 0)]
        for i, objective in enumerate(objectives):
            events += [placed(i, 2, i), finished(i, 2, i, i + 1, objective)]
        Writer(tmp_path / name).begin(*events, ended(len(objectives)))
        return load(tmp_path / name)

    return make


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["r1", "s1", "s2"], ["r1", "s (ambs)"]),
        (["11", "12", "21"], ["11", "12", "21"]),
        (["ambs2_39de6ea2", "ambs2_0123abcd"], ["ambs2"]),
        (["net_seed1", "net_seed2"], ["net (ambs)"]),
    ],
)
def test_only_runs_that_differ_in_a_number_lose_their_names(runs_of, given, expected):
    groups = trajectory.compare([runs_of(name, 1.0) for name in given])

    assert [group.name for group in groups] == expected


def test_single_runs_of_one_name_are_told_apart_by_their_paths(runs_of, tmp_path):
    good, bad = runs_of("a/x1", 1.0), runs_of("b/x1", None)

    groups = trajectory.compare([good, bad])

    assert [group.name for group in groups] == [str(tmp_path / "a/x1"), str(tmp_path / "b/x1")]


def test_a_run_without_any_success_has_a_row_that_says_what_it_lacks(runs_of):
    studies = [runs_of("e5", None, None), runs_of("e6", 1.0, 2.0), runs_of("r1")]

    rows = trajectory.table(trajectory.compare(studies))

    assert [(row["runs"], row["n"], row["evaluations"], row["failed"]) for row in rows] == [
        ("e5", 1, 2, 2), ("e6", 1, 2, 0), ("r1", 1, 0, 0),
    ]  # fmt: skip
    assert [row["best"] for row in rows] == [None, 2.0, None]
    assert [(row["mean"], row["std"], row["reached"]) for row in rows[::2]] == [(None, None, None)] * 2


def test_a_run_is_compared_until_its_last_evaluation(runs_of):
    long, a_1, a_2 = runs_of("long", 1.0, 2.0, 3.0, 4.0), runs_of("a_1", 1.0), runs_of("a_2", 3.0, 5.0)

    whole, pair = trajectory.compare([long, a_1, a_2], "evaluations")

    assert whole.mean.tolist() == [1, 2, 3, 4]
    np.testing.assert_equal(pair.mean, [2, 3, np.nan, np.nan])
    assert pair.ends.tolist() == [1, 2]


def test_runs_can_be_compared_by_evaluations(path):
    (group,) = trajectory.compare([load(path)], "evaluations")

    assert group.grid.tolist() == [1, 2, 3, 4]
    assert group.mean.tolist() == [1, 1, 3, 3]


# -- what mattered -----------------------------------------------------------------------------------------------------


@pytest.fixture
def many(tmp_path):
    """A run whose objective depends on x, a little on k, and not on the rest; k is inactive where flag is False."""
    rng = np.random.default_rng(0)
    events = [joined(2, 0)]
    for i in range(120):
        config = {
            "x": float(rng.uniform(0, 1)),
            "noise": int(rng.integers(10)),
            "rate": float(10 ** rng.uniform(-5, 0)),
            "flag": bool(rng.integers(2)),
            "constant": 1,
        }
        if config["flag"]:
            config["k"] = str(rng.choice(["a", "b"]))
        objective = 10 * config["x"] + 2 * (config.get("k") == "b")
        events += [placed(i, 2, i, config), finished(i, 2, i, i + 1, objective)]
    names = ["x", "noise", "rate", "flag", "k", "constant"]
    return Writer(tmp_path / "many_1", hyperparameters=names).begin(*events, ended(120)).path


def test_what_matters_is_found(many):
    found = importance.measure(load(many))

    rows = {row["hyperparameter"]: row for row in found.rows()}
    assert [column.name for column in found.columns[:2]] == ["x", "k"]
    assert "constant" not in rows
    assert found.accuracy > 0.8
    assert rows["x"]["best_at"] > 0.8 > 0.2 > rows["x"]["worst_at"]
    assert rows["x"]["effect"] == pytest.approx(10, rel=0.3)
    assert (rows["k"]["best_at"], rows["k"]["worst_at"]) in (("b", "inactive"), ("b", "a"))
    assert next(column for column in found.columns if column.name == "rate").log


@pytest.fixture
def ranges(tmp_path):
    """A run with integers on a logarithmic scale, of which the largest is 64 times the least, and few others."""
    rng = np.random.default_rng(0)
    events = [joined(2, 0)]
    for i in range(80):
        config = {"units": round(8 * 64 ** rng.uniform()), "batch": int(rng.choice([16, 32, 64])), "x": rng.uniform()}
        objective = -abs(np.log2(config["units"] / 100)) + config["batch"] / 64 + config["x"]
        events += [placed(i, 2, i, config), finished(i, 2, i, i + 1, objective)]
    described = {"hyperparameters": ["units", "batch", "x"], "logarithmic": ["units"]}
    return Writer(tmp_path / "ranges", **described).begin(*events, ended(80)).path


def test_a_range_is_on_the_scale_that_the_problem_gives_it(ranges):
    units, batch, x = importance.columns_of(load(ranges), range(80))

    assert [column.log for column in (units, batch, x)] == [True, False, False]
    assert units.places(np.array([64.0])) == pytest.approx(0.5, abs=0.02)


def test_integers_are_shown_as_integers(ranges, said):
    _, content, _ = said("importance", ranges, "--json")

    units, batch = (
        next(row for row in content["hyperparameters"] if row["hyperparameter"] == name) for name in ("units", "batch")
    )
    assert all(isinstance(point, int) for point in units["points"])
    assert units["best_at"] == pytest.approx(100, abs=30)
    assert batch["points"] == [16, 32, 64]


def test_an_axis_has_a_mark_for_each_of_few_values_but_for_those_too_near(ranges):
    units, batch, _ = importance.columns_of(load(ranges), range(80))
    crowded = importance.Column("n", np.array([1.0, 2.0, 100.0]), least=1.0, whole=True)

    assert batch.marks() == [(16.0, "16"), (32.0, "32"), (64.0, "64")]
    assert crowded.marks() == [(1.0, "1"), (100.0, "100")]
    assert [value for value, _ in units.marks()] == [8.0, 61.0, 468.0]


def test_architectures_have_a_column_for_each_decision(tmp_path):
    rng = np.random.default_rng(1)
    events = [joined(2, 0)]
    for i in range(60):
        arch = [int(rng.integers(3)), int(rng.integers(2))]
        events += [placed(i, 2, i, {"arch_seq": arch}), finished(i, 2, i, i + 1, float(arch[0] == 2))]
    Writer(tmp_path, hyperparameters=["arch_seq"]).begin(*events)
    study = load(tmp_path)

    found = importance.measure(study)
    shares = importance.operations(study, 2)

    assert importance.measure(study).rows() == found.rows()
    assert found.columns[0].name == "arch_seq[0]"
    assert found.rows()[0]["best_at"] == "2"
    assert importance.n_architectures(study) == 6
    assert {(s["decision"], s["option"]): s["share_of_best"] for s in shares}[0, 2] == 1.0


@pytest.mark.parametrize(
    ("objectives", "sentence"),
    [([1.0] * 3, "3 evaluations have an objective, at least 10 are needed"), ([2.0] * 20, "all objectives are 2")],
)
def test_without_enough_nothing_is_said_to_matter(tmp_path, objectives, sentence):
    events = [joined(2, 0)]
    for i, objective in enumerate(objectives):
        events += [placed(i, 2, i, {"x": i}), finished(i, 2, i, i + 1, objective)]
    Writer(tmp_path).begin(*events)

    with pytest.raises(OptionError, match=sentence):
        importance.measure(load(tmp_path))


# -- export ------------------------------------------------------------------------------------------------------------


def test_deephyper_gets_its_own_columns(path, tmp_path):
    export.to_deephyper(load(path), tmp_path / "x.csv")

    rows = list(csv.DictReader((tmp_path / "x.csv").open()))
    assert list(rows[0]) == ["x", "k", "objective", "elapsed_sec"]
    assert rows[0] == {"x": "0.5", "k": "a", "objective": "1.0", "elapsed_sec": "5.0"}
    assert float(rows[1]["objective"]) == np.finfo(np.float32).min
    again = load(tmp_path / "x.csv")
    assert np.isnan(again.objective[1])
    assert again.seconds.tolist() == [5.0, 6.0, 9.0, 10.0]


@pytest.mark.parametrize(
    ("name", "format_", "package"),
    [("x.parquet", None, "pyarrow"), ("x.db", None, "optuna"), ("y", "optuna", "optuna")],
)
def test_what_needs_another_package_says_so(path, tmp_path, monkeypatch, name, format_, package):
    monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(DhmpiError, match=f"pip install {package}"):
        export.export(load(path), tmp_path / name, format_)


def test_parquet_holds_the_rows(path, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    export.export(load(path), tmp_path / "x.parquet", None)

    table = parquet.read_table(tmp_path / "x.parquet").to_pydict()

    assert table["objective"] == [1.0, None, 3.0, 2.0]
    assert table["m:note"] == [None, None, "[x]", None]
    again, study = load(tmp_path / "x.parquet"), load(path)
    assert (again.configs, again.status, again.trial.tolist()) == (study.configs, study.status, study.trial.tolist())
    assert np.array_equal(again.end, study.end)
    (tmp_path / "y.parquet").write_text("no")
    with pytest.raises(RunDirectoryError, match="cannot read"):
        load(tmp_path / "y.parquet")


def test_optuna_gets_a_study(many, tmp_path):
    optuna = pytest.importorskip("optuna")
    study = load(many)
    export.export(study, tmp_path / "x.db", None)

    theirs = optuna.load_study(study_name="many_1", storage=f"sqlite:///{tmp_path / 'x.db'}")

    assert len(theirs.trials) == 120
    assert theirs.best_value == study.objective.max()
    assert theirs.best_params["x"] == study.configs[study.best(1)[0]]["x"]
    with pytest.raises(OptionError, match="already holds a study"):
        export.export(study, tmp_path / "x.db", None)


def test_rows_as_yaml():
    rows = [{"trial": 1, "configuration": {"a b": "x: y", "n": [1]}, "metrics": {}}, {"trial": 2}]

    assert export.as_yaml(rows) == (
        '- trial: 1\n  configuration:\n    "a b": "x: y"\n    "n": [1]\n  metrics: {}\n- trial: 2'
    )


# -- the command -------------------------------------------------------------------------------------------------------


def test_a_summary_says_it_all(path, said):
    code, out, _ = said("summary", path)
    _, (facts,), _ = said("summary", path, "--json")

    assert code == 0
    for words in (
        "ambs_1",
        "4 (3 done, 1 failed)",
        "80.0 % of 2 evaluators",
        "best objective",
        "3, trial 2",
        "ValueError",
    ):
        assert words in out
    assert (facts["evaluations"], facts["best"]["trial"], facts["utilisation"]) == (4, 2, 0.8)
    assert facts["by_status"] == {"done": 3, "failed": 1}


def test_a_summary_says_what_users_have_done(path, said):
    file = next((path / "journal").glob("*.jsonl"))
    event = {"e": "steered", "t": 1.0, "order": "1", "action": "max-evals", "max_evals": 12, "by": "me@here"}
    file.write_text(file.read_text() + json.dumps(event) + "\n")

    _, out, _ = said("summary", path)
    _, (facts,), _ = said("summary", path, "--json")

    assert "max-evals set to 12 by me@here" in out
    assert facts["steered"] == [{"at": 1.0, "what": "max-evals set to 12 by me@here"}]
    assert facts["max_evals"] == 12


def test_utilization_in_the_terminal(path, said):
    _, out, _ = said("utilization", path)
    _, content, _ = said("utilization", path, "--json")

    assert "Utilisation 0.8000 with evaluations in flight" in out
    assert "80.00 %" in out
    assert content["seconds"]["evaluating"] == 16
    assert content["failures_by_host"] == {"node1": {"failed": 1, "evaluations": 4}}
    assert len(content["curve"]["in flight"]) == len(content["curve"]["seconds"])


def test_the_trajectory_in_the_terminal(path, said):
    _, out, _ = said("trajectory", path, "--window", 2)
    _, content, _ = said("trajectory", path, "--json")

    assert "Mean of the last 2: 2.5." in out
    assert content["best_so_far"] == [1, 1, 3, 3]
    assert content["objective"] == [1, None, 3, 2]


def test_what_a_policy_learned_is_shown(tmp_path, said):
    updates = [
        event(
            "update", i, update=i, n_episodes=8, reward_mean=0.5 + i, reward_max=0.9, entropy_share=1 / (1 + i), kl=0.01
        )
        for i in range(3)
    ]
    Writer(tmp_path, hyperparameters=["arch_seq"]).begin(
        joined(2, 0), placed(0, 2, 0, {"arch_seq": [1, 0]}), finished(0, 2, 0, 1, 0.5), *updates
    )

    _, out, _ = said("trajectory", tmp_path)
    _, content, _ = said("trajectory", tmp_path, "--json")

    assert "The last of 3 updates of the policy" in out
    assert [update["reward_mean"] for update in content["updates"]] == [0.5, 1.5, 2.5]
    assert content["moving_average"] == [0.5]


@pytest.mark.parametrize("suffix", ["csv", "json", "yaml"])
def test_the_best_are_written(path, tmp_path, said, suffix):
    file = tmp_path / f"top.{suffix}"

    code, out, _ = said("topk", path, "-k", 2, "-o", file)

    assert code == 0
    assert "the best 2 of 4" in out
    content = file.read_text()
    if suffix == "csv":
        assert [(row["trial"], row["x"], row["m:loss"]) for row in csv.DictReader(content.splitlines())] == [
            ("2", "0.75", "0.25"), ("3", "0.1", ""),
        ]  # fmt: skip
    elif suffix == "json":
        assert [row["configuration"] for row in json.loads(content)] == [{"x": 0.75}, {"x": 0.1, "k": "a"}]
    else:
        assert content.startswith("- trial: 2\n  objective: 3.0\n")


@pytest.fixture
def networks(tmp_path):
    """A run whose objective is 1 where the first layer is Dense(96, tanh), of a problem that can be loaded."""
    from dhmpi.load import load_problem

    problem = "dhmpi.benchmark.nas.digits_dense.Problem"
    space, rng = load_problem(problem).architecture_space, np.random.default_rng(0)
    events = [joined(2, 0)]
    for i in range(40):
        arch = [int(option) for option in space.random(rng)]
        events += [placed(i, 2, i, {"arch_seq": arch}), finished(i, 2, i, i + 1, float(arch[0] == 8) + i / 1000)]
    return Writer(tmp_path / "evo_1", hyperparameters=["arch_seq"], problem=problem).begin(*events, ended(40)).path


def test_architectures_are_told_in_words(networks, said):
    _, best, _ = said("topk", networks, "-k", 2)
    _, content, _ = said("topk", networks, "-k", 2, "--json")
    _, mattered, _ = said("importance", networks, "--json")
    _, compared, _ = said("compare", networks, networks)

    assert "layer0: Dense(96, tanh), skip0_0: " in best
    assert content["best"][0]["architecture"]["layer0"] == "Dense(96, tanh)"
    assert content["operations"][0]["name"] == "layer0"
    assert mattered["hyperparameters"][0]["hyperparameter"] == "layer0"
    assert mattered["hyperparameters"][0]["best_at"] == "Dense(96, tanh)"
    assert "the best one: layer0: Dense(96, tanh)" in compared


def test_the_networks_of_the_best_are_drawn(networks, tmp_path, said):
    code, _, _ = said("topk", networks, "-k", 2, "--drawings", tmp_path / "best")

    assert code == 0
    files = sorted((tmp_path / "best").iterdir())
    assert [file.suffix for file in files] == [".svg", ".svg"]
    assert all(file.read_text().startswith("<?xml") for file in files)


def test_what_cannot_be_drawn_is_told_in_a_sentence(path, networks, tmp_path, said):
    file = networks / "run.json"
    file.write_text(file.read_text().replace("digits_dense", "no_such_module"))

    assert "has no architectures" in said("topk", path, "--drawings", tmp_path / "x")[2]
    assert "cannot be loaded, or has changed" in said("topk", networks, "--drawings", tmp_path / "x")[2]
    assert not (tmp_path / "x").exists()
    assert "arch_seq[0]" in said("importance", networks)[1]


def test_a_comparison_in_the_terminal(path, said):
    _, out, _ = said("compare", path, path)
    _, content, _ = said("compare", path, "--json", "--by", "evaluations")

    assert "ambs" in out
    assert content[0]["mean_best_so_far"] == [1, 1, 3, 3]


def test_a_comparison_in_the_terminal_has_a_dash_for_what_is_not_there(runs_of, said):
    good, bad = runs_of("r1", 1.0, 2.0), runs_of("e5", None)

    _, out, _ = said("compare", bad.path, good.path)
    _, content, _ = said("compare", bad.path, good.path, "--json")

    row = next(line for line in out.splitlines() if "e5" in line)
    assert row.replace("│", " ").split() == ["e5", "1", "1", "1", "-", "-", "-"]
    assert (content[0]["best"], set(content[0]["mean_best_so_far"])) == (None, {None})


def test_importance_in_the_terminal(many, said):
    _, out, _ = said("importance", many)
    _, content, _ = said("importance", many, "--json")

    assert "what mattered, from 120 evaluations" in out
    assert content["hyperparameters"][0]["hyperparameter"] == "x"


def test_an_export(path, tmp_path, said):
    code, out, _ = said("export", path, "-o", tmp_path / "x.csv")

    assert (code, out) == (0, f"4 evaluations written to {tmp_path / 'x.csv'} (csv).\n")


@pytest.mark.parametrize("what", ["summary", "utilization", "trajectory", "topk"])
def test_a_run_of_which_nothing_is_known_yet_shows_that(tmp_path, said, what):
    Writer(tmp_path).begin()

    code, out, err = said(what, tmp_path)

    assert (code, err) == (0, "")
    assert out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["summary", "nowhere"], "nowhere holds no run: there is no such directory"),
        (["compare", "RUN", "nowhere"], "nowhere holds no run"),
        (["topk", "RUN", "-k", "0"], "-k must be >= 1, got 0"),
        (["topk", "RUN", "-o", "x.txt"], "must end in .csv, .json or .yaml"),
        (["trajectory", "RUN", "--window", "0"], "--window must be >= 1"),
        (["trajectory", "RUN", "-o", "x.bmp"], "must end in .png, .svg, .pdf"),
        (["trajectory", "RUN", "-o", "/no/such/x.png"], "cannot write /no/such/x.png"),
        (["importance", "RUN"], "at least 10 are needed"),
        (["importance", "RUN", "--seed", "-1"], "--seed must be >= 0"),
        (["export", "RUN", "-o", "x.txt"], "what is it to be?"),
        (["export", "RUN"], "required: -o/--output"),
        (["frobnicate"], "invalid choice: 'frobnicate'"),
        ([], "required: "),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(path, said, words, sentence):
    code, _, err = said(*(str(path) if word == "RUN" else word for word in words))

    assert code == 2
    assert sentence in err
    assert err.startswith("dhmpi.analytics: ")
    assert err.count("\n") == 1


def test_nothing_succeeded_is_said(tmp_path, said):
    Writer(tmp_path).begin(joined(2, 0), placed(0, 2, 0), finished(0, 2, 0, 1, None, reason="no"))

    code, out, _ = said("summary", tmp_path)
    _, best, _ = said("topk", tmp_path)
    compared, _, err = said("compare", tmp_path)

    assert code == 0
    assert "no evaluation has succeeded" in out
    assert "No evaluation has succeeded." in best
    assert (compared, "no run has an objective yet" in err) == (2, True)
    assert Path(tmp_path).is_dir()
