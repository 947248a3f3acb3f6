"""results.csv and best.json."""

import csv
import json

import pytest

from dhmpi.errors import RunDirectoryError
from dhmpi.results import FIXED_COLUMNS, ResultsTable, write_best, write_json
from dhmpi.trials import Outcome, Status, Trial


def row(id_, objective=1.5, config=None, **metrics):
    status = Status.DONE if objective is not None else Status.FAILED
    outcome = Outcome(id_, 0, status, objective, metrics, 2, "host", 10.0, 12.5, 2.5)
    return outcome, Trial(id_, id_, config if config is not None else {"a": 1, "b": "x"})


def read(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_columns_and_values(tmp_path):
    table = ResultsTable(tmp_path / "results.csv", ["a", "b"])

    table.add([row(0, std=0.25)])

    (line,) = read(table.path)
    assert list(line) == [*FIXED_COLUMNS, "a", "b", "m:std"]
    assert line == {
        "trial": "0", "attempt": "0", "status": "done", "objective": "1.5", "rank": "2", "host": "host",
        "start": "10.0", "end": "12.5", "elapsed_sec": "2.5", "a": "1", "b": "x", "m:std": "0.25",
    }  # fmt: skip


def test_a_failed_trial_has_an_empty_objective(tmp_path):
    table = ResultsTable(tmp_path / "results.csv", ["a", "b"])

    table.add([row(0, None)])

    (line,) = read(table.path)
    assert (line["status"], line["objective"]) == ("failed", "")


def test_an_inactive_hyperparameter_is_empty(tmp_path):
    table = ResultsTable(tmp_path / "results.csv", ["a", "b"])

    table.add([row(0, config={"b": "only"})])

    assert read(table.path)[0]["a"] == ""


def test_a_list_is_json(tmp_path):
    table = ResultsTable(tmp_path / "results.csv", ["arch_seq", "b"])

    table.add([row(0, config={"arch_seq": [3, 0, 1], "b": 2})])

    (line,) = read(table.path)
    assert json.loads(line["arch_seq"]) == [3, 0, 1]


def test_a_new_metric_adds_a_column_and_keeps_earlier_rows(tmp_path):
    table = ResultsTable(tmp_path / "results.csv", ["a", "b"])
    table.add([row(0, one=1)])

    table.add([row(1, two=2)])

    first, second = read(table.path)
    assert (first["m:one"], first["m:two"]) == ("1", "")
    assert (second["m:one"], second["m:two"]) == ("", "2")
    table.add([row(2)])
    assert len(read(table.path)) == 3


def test_starts_with_the_rows_of_earlier_launches(tmp_path):
    path = tmp_path / "results.csv"
    path.write_text("what was here before\n")

    ResultsTable(path, ["a", "b"], [row(0, one=1), row(1)])

    assert [line["trial"] for line in read(path)] == ["0", "1"]


def test_quotes_what_needs_quoting(tmp_path):
    table = ResultsTable(tmp_path / "results.csv", ["a", "b"])

    table.add([row(0, config={"a": 'with "quotes", and\nlines', "b": "ü"})])

    assert read(table.path)[0]["a"] == 'with "quotes", and\nlines'


@pytest.mark.parametrize(
    "values",
    [
        (0.1, 1e-7),
        (1e300, -5),
        (3, None),
        (True, 2.0),
        (1 << 80, 0.5),
        ("null", 1),
        ("a", "b,c"),
    ],
)
def test_a_value_is_read_back_as_it_was(tmp_path, values):
    table = ResultsTable(tmp_path / "results.csv", ["a", "b"])

    table.add([row(0, 1 / 3, dict(zip("ab", values)), none=None)])

    (line,) = read(table.path)
    assert float(line["objective"]) == 1 / 3
    assert line["m:none"] == ""
    for name, value in zip("ab", values):
        if type(value) is float:
            assert float(line[name]) == value
        else:
            assert line[name] == ("" if value is None else str(value))


def test_a_host_named_with_a_comma_stays_one_cell(tmp_path):
    table = ResultsTable(tmp_path / "results.csv", ["a"])
    outcome, trial = row(0, config={"a": 1})

    table.add([(outcome._replace(host="rack 1, node 2"), trial)])

    assert read(table.path)[0]["host"] == "rack 1, node 2"


def test_an_unwritable_file_is_an_error(tmp_path):
    with pytest.raises(RunDirectoryError, match="cannot write"):
        ResultsTable(tmp_path / "missing" / "results.csv", ["a"])


def test_best(tmp_path):
    outcome, trial = row(3, 0.5, {"a": 1}, std=2)

    write_best(tmp_path / "best.json", outcome, trial.config)

    content = json.loads((tmp_path / "best.json").read_text())
    assert content["objective"] == 0.5
    assert content["config"] == {"a": 1}
    assert content["trial"] == 3
    assert [entry.name for entry in tmp_path.iterdir()] == ["best.json"]


def test_no_symbolic_link_is_followed(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("precious")
    directory = tmp_path / "run"
    directory.mkdir()
    for name in ("best.json", "best.json.new", "results.csv", "results.csv.new"):
        (directory / name).symlink_to(outside)

    write_json(directory / "best.json", {"a": 1})
    ResultsTable(directory / "results.csv", ["x"]).close()

    assert outside.read_text() == "precious"
    assert not (directory / "best.json").is_symlink()
    assert not (directory / "results.csv").is_symlink()
