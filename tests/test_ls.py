"""``python -m dhmpi.ls``: what it lists, of what, and in which form."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from journal_writer import T0, Writer, ended, finished, header, joined, left, lost, placed, stopping

from dhmpi import ls


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Two runs: one that goes on, one that has ended."""
    monkeypatch.chdir(tmp_path)
    Writer(tmp_path / "dhmpi-runs/default/poly_1").begin(
        joined(2, 1), joined(3, 1), placed(0, 2, 1), placed(1, 3, 1), finished(0, 2, 1, 3.5, 0.5, metrics={"loss": 2}),
        finished(1, 3, 1, 3, None, reason="ValueError: [no]\nTraceback ..."), placed(2, 2, 4, {"x": [1, 2]}),
    ).hold()  # fmt: skip
    Writer(tmp_path / "dhmpi-runs/other/nets_2").begin(
        joined(2, 1), placed(0, 2, 1), left(2, 2), lost(0, 2, 2), joined(2, 3), placed(0, 2, 3, attempt=1),
        finished(0, 2, 3, 4, 7.0, attempt=1), stopping(4), ended(5), head=header(workflow="other"),
    )  # fmt: skip
    return tmp_path / "dhmpi-runs"


@pytest.fixture
def listed(capsys):
    """Return a function that lists and returns exit code, rows of the table (or what JSON and CSV say) and stderr."""

    def call(*arguments):
        code = ls.main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        if "--json" in arguments and not code:
            return code, json.loads(out), err
        if "--csv" in arguments:
            return code, list(csv.DictReader(io.StringIO(out))), err
        return code, [line.split() for line in out.splitlines()], err

    return call


def test_runs_are_listed_if_nothing_is_said(study, listed):
    code, rows, _ = listed()

    assert code == 0
    assert rows[0][:8] == ["run", "search", "state", "finished", "of", "running", "failed", "best"]
    assert rows[1][:8] == ["default/poly_1", "ambs", "running", "2", "10", "1", "1", "0.5"]
    assert rows[2][:8] == ["other/nets_2", "ambs", "ended", "1", "10", "0", "0", "7"]


def test_a_directory_alone_means_its_runs(study, listed):
    _, rows, _ = listed(study / "other", "--json")

    assert [row["run"] for row in rows] == ["nets_2"]


@pytest.mark.parametrize("words", [["--json"], ["--name", "nets", "--json"], ["--json", "dhmpi-runs/other"]])
def test_options_alone_are_those_of_runs(study, listed, words):
    code, rows, _ = listed(*words)

    assert code == 0
    assert [row["run"] for row in rows] == [row["run"] for row in listed("runs", *words)[1]]


def test_runs_as_csv_without_a_word_for_what(study, listed):
    assert [row["run"] for row in listed("--csv")[1]] == ["default/poly_1", "other/nets_2"]


@pytest.mark.parametrize("filters", [["--name", "nets"], ["--workflow", "oth"], ["--wf-filter", "other"]])
def test_runs_can_be_filtered(study, listed, filters):
    _, rows, _ = listed("runs", *filters, "--json")

    assert [row["run"] for row in rows] == ["other/nets_2"]
    assert rows[0]["began"] == T0
    assert rows[0]["time"] == 5


def test_jobs_of_a_run(study, listed):
    _, rows, _ = listed("jobs", study / "default/poly_1")

    assert rows[0] == [
        "trial",
        "state",
        "attempt",
        "rank",
        "host",
        "objective",
        "seconds",
        "began",
        "reason",
        "configuration",
    ]
    assert rows[1][:7] == ["0", "done", "0", "2", "node1", "0.5", "2.5"]
    assert rows[2][:7] == ["1", "failed", "0", "3", "node1", "-", "2"]
    assert rows[2][-3:] == ["ValueError:", "[no]", "x=1"]
    assert rows[3][:6] == ["2", "running", "0", "2", "node1", "-"]
    assert rows[3][-1] == "x=[1,2]"


@pytest.mark.parametrize(
    ("words", "trials"),
    [
        (["--state", "failed"], [1]),
        (["--state", "done,running"], [0, 2]),
        (["--state", "done", "--state", "FAILED"], [0, 1]),
        (["--id", "2", "--id", "0"], [0, 2]),
        (["--last", "2"], [1, 2]),
        (["--name", "task1_"], [1]),
        (["--name", "poly"], [0, 1, 2]),
        (["--name", "nothing"], []),
    ],
)
def test_jobs_can_be_selected(study, listed, words, trials):
    _, rows, _ = listed("jobs", study / "default/poly_1", *words, "--json")

    assert [row["trial"] for row in rows] == trials


def test_jobs_for_spreadsheets_have_a_column_for_everything(study, listed):
    _, rows, _ = listed("jobs", study / "default/poly_1", "--csv")

    assert (rows[0]["x"], rows[0]["m:loss"], rows[0]["objective"]) == ("0", "2", "0.5")
    assert (rows[1]["x"], rows[1]["m:loss"], rows[1]["objective"]) == ("1", "", "")
    assert rows[1]["reason"] == "ValueError: [no]\nTraceback ..."
    assert rows[2]["x"] == "[1, 2]"


def test_jobs_of_several_runs_name_the_run(study, listed):
    _, rows, _ = listed("jobs", study, "--state", "done")

    assert [row[:2] for row in rows] == [["run", "trial"], ["poly_1", "0"], ["nets_2", "0"]]


def test_states_are_counted(study, listed):
    _, rows, _ = listed("jobs", study / "default/poly_1", "--by-states")
    _, counts, _ = listed("jobs", study, "--by-states", "--json")

    assert rows == [["state", "evaluations"], ["running", "1"], ["done", "1"], ["failed", "1"]]
    assert counts == {"running": 1, "done": 2, "failed": 1}


def test_the_history_of_a_job_has_everything_that_happened_to_it(study, listed):
    _, rows, _ = listed("jobs", study / "other/nets_2", "--id", "0", "--history")
    _, jobs, _ = listed("jobs", study / "other/nets_2", "--history", "--json")

    assert [row[4] for row in rows[1:]] == ["placed", "lost", "placed", "finished"]
    assert [row[3] for row in rows[2:]] == ["1", "1", "1"]
    assert " ".join(rows[2][6:]) == "while it ran: rank 2 has died"
    assert " ".join(rows[4][6:]) == "done, objective 7, after 1 s"
    assert [event["e"] for event in jobs[0]["history"]] == ["placed", "lost", "placed", "finished"]


def test_workers_say_what_they_do(study, listed):
    _, rows, _ = listed("workers", study / "default/poly_1", "--json")

    assert [(row["rank"], row["role"], row["state"], row["trial"]) for row in rows] == [
        (0, "master", None, None), (1, "searcher", None, None), (2, "evaluator", "evaluating", 2),
        (3, "evaluator", "waiting", None),
    ]  # fmt: skip
    assert (rows[2]["done"], rows[2]["failed"], rows[2]["mean_seconds"]) == (1, 0, 2.5)


def test_a_resumed_run_took_the_time_of_its_launches_and_shows_the_workers_of_the_last(study, listed):
    writer = Writer(study / "other/nets_2")
    writer.launch = 0
    writer.begin(joined(2, 101), placed(1, 2, 101), finished(1, 2, 101, 103, 1.0), ended(104), head=header(T0 + 100))

    _, (run,), _ = listed("runs", "--name", "nets", "--json")
    _, rows, _ = listed("workers", study / "other/nets_2")
    _, others, _ = listed("workers", study / "default/poly_1")

    assert run["time"] == 5 + 4
    assert " ".join(rows[-1]) == "Workers, and what they have done, are those of the last launch: nets_2 has had 2."
    assert len(others) == 5


def test_worker_groups_of_agents_are_shown(tmp_path, listed):
    layout = {
        "hosts": ["a"] * 6, "master": 0, "searcher": None, "groups": [[2, 3], [4, 5]], "spare": [], "agents": [1],
        "workers": [[2, 4]],
    }  # fmt: skip
    Writer(tmp_path / "ppo").begin(joined(2, 1), head=header(layout=layout)).hold()

    _, rows, _ = listed("workers", tmp_path / "ppo", "--json")

    assert [(row["rank"], row["role"], row["state"]) for row in rows] == [
        (0, "master", None), (1, "agent", None), (2, "evaluator of agent 1", "waiting"),
        *((rank, "evaluator of agent 1", "import") for rank in (3, 4, 5)),
    ]  # fmt: skip


def test_without_a_name_the_run_written_last_is_meant(study, listed):
    _, rows, err = listed("workers", "--json")

    assert {row["run"] for row in rows} == {"nets_2"}
    assert "nets_2" in err


def test_a_run_that_cannot_be_read_does_not_hide_the_others(study, listed):
    (study / "default/poly_1/journal/0.0.jsonl").open("ab").write(b"garbage\n")

    code, rows, _ = listed("runs", "--json")

    assert code == 0
    assert [row["state"] for row in rows] == ["unreadable", "ended"]
    assert "is no event of a journal" in rows[0]["reason"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["runs", "nowhere"], "nowhere holds no runs: there is no such directory"),
        (["jobs", "nowhere"], "nowhere holds no runs"),
        (["jobs"], "there is no directory dhmpi-runs here"),
        (["jobs", ".", "--state", "enchanted"], "--state enchanted: there is no such state"),
        (["jobs", ".", "--last", "0"], "--last must be >= 1"),
        (["jobs", ".", "--by-states", "--history"], "give one of them"),
        (["jobs", "."], "there is no run in or below ."),
        (["dogs"], "dogs holds no runs: there is no such directory"),
        (["--json"], "dhmpi-runs holds no runs: there is no such directory"),
        (["--last", "1"], "--last is an option of python -m dhmpi.ls jobs, not of runs"),
        (["runs", "--state=running"], "--state=running is an option of python -m dhmpi.ls jobs, not of runs"),
        (["jobs", "--json", "--csv"], "not allowed with"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(tmp_path, monkeypatch, listed, words, sentence):
    monkeypatch.chdir(tmp_path)

    code, _, err = listed(*words)

    assert code == 2
    assert sentence in err
    assert err.startswith("dhmpi.ls: ")
    assert err.count("\n") == 1


def test_no_run_is_no_error(tmp_path, listed):
    assert listed("runs", tmp_path)[:2] == (0, [["No", "runs", "below", f"{tmp_path}."]])


def test_neither_mpi_nor_tensorflow_is_needed_and_a_closed_pipe_is_quiet(study):
    script = (
        "import sys\nfrom dhmpi import ls\nls.main(['jobs', 'dhmpi-runs'])\n"
        "heavy = {'mpi4py', 'tensorflow', 'numpy', 'sklearn', 'ConfigSpace', 'rich'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))\n"
    )
    root = Path(__file__).resolve().parents[1]
    command = [sys.executable, "-c", script]
    said = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=True, env={"PYTHONPATH": str(root)}
    )
    piped = subprocess.run(
        f"{sys.executable} -m dhmpi.ls jobs dhmpi-runs | true", shell=True, capture_output=True, text=True, timeout=60
    )

    assert "HEAVY []" in said.stdout
    assert piped.stderr == ""
