"""When a job is started again, and how; no job runs here."""

import json
import time

import pytest

from dhmpi import journal, restarts
from dhmpi.restarts import Attempt


class Jobs:
    """Launches that leave what they are told to."""

    def __init__(self, directory, *ends):
        self.directory = directory
        self.ends = list(ends)
        self.attempts = []

    def start(self, attempt, ended):
        self.attempts.append(attempt)
        code, *events = self.ends.pop(0)
        if code != 2:
            number = journal.next_launch(self.directory / "journal")
            written = journal.Journal(self.directory / "journal", number, 0, {"run": "a", "t": time.time()})
            written.write(events)
            written.close()
            assert ended() == any(event["e"] == "ended" for event in events)
        return code


ENDED = {"e": "ended", "t": 1.0, "reason": "done", "complete": True}
PLACED = {"e": "placed", "t": 1.0, "trial": 0, "attempt": 0, "rank": 2, "key": 0, "config": {"x": 1}}


@pytest.fixture
def launch(tmp_path):
    def launch_(
        *ends, n=3, hosts=("a", "a", "b", "b", "c", "c"), alive="abc", time_limit=None, words=("--host", "a:2")
    ):
        (tmp_path / "run.json").write_text(json.dumps({"layout": {"hosts": list(hosts)}}))
        jobs = Jobs(tmp_path, *ends)
        first = Attempt(len(hosts), ["--map-by", "node", "--host", "a:2"], ["--log-dir", str(tmp_path)])
        code = restarts.run(
            first,
            tmp_path,
            n,
            time_limit,
            jobs.start,
            lambda asked: [host for host in asked if host in alive],
            lambda counts: ["--host", ",".join(f"{host}:{count}" for host, count in counts.items())],
        )
        return code, jobs.attempts

    return launch_


@pytest.mark.parametrize("of_search", [0, 1])
def test_a_rank_that_dies_after_the_end_does_not_change_the_exit_code(launch, of_search, capsys):
    code, attempts = launch((9, ENDED | {"code": of_search}))

    assert (code, len(attempts)) == (of_search, 1)
    assert "exit code 9 came when the search had ended" in capsys.readouterr().out


@pytest.mark.parametrize("code", [0, 75])
def test_a_search_that_had_too_few_ranks_left_is_resumed(launch, code):
    ended, attempts = launch((code, ENDED | {"complete": False, "code": 75}), (0, ENDED | {"code": 0}))

    assert (ended, len(attempts)) == (0, 2)
    assert "--resume" in attempts[1].words


def test_what_has_ended_is_not_started_again(launch):
    code, attempts = launch((1, ENDED))  # as when all evaluations fail

    assert (code, len(attempts)) == (1, 1)


@pytest.mark.parametrize("code", [0, 9, 75, 137])
def test_what_has_died_is_resumed_whatever_its_exit_code(launch, code, capsys):
    ended, attempts = launch((code, PLACED), (code,), (0, ENDED))

    assert ended == 0
    assert len(attempts) == 3
    assert all("--resume" in attempt.words for attempt in attempts[1:])
    assert "trial 0 was with rank 2 on b" in capsys.readouterr().out


def test_restarts_are_counted(launch, capsys):
    code, attempts = launch((0,), (0,), n=1)

    assert code == 75  # it has died all the same
    assert len(attempts) == 2
    assert "no restarts are left" in capsys.readouterr().out


def test_bad_input_is_never_tried_again(launch):
    assert launch((2,))[0] == 2


def test_a_bug_is_met_once(launch, capsys):
    code, attempts = launch((70, PLACED))

    assert (code, len(attempts)) == (70, 1)
    assert "a bug has ended the job" in capsys.readouterr().out


def test_hosts_that_do_not_answer_are_left_out(launch, capsys):
    _, attempts = launch((9,), (0, ENDED), alive="ac")

    assert attempts[1].n == 4
    assert attempts[1].launcher_words == ["--map-by", "node", "--host", "a:2,c:2"]
    assert "left out, since they do not answer: b" in capsys.readouterr().out


def test_nothing_is_started_where_no_host_answers(launch, capsys):
    code, attempts = launch((9,), alive="")

    assert (code, len(attempts)) == (9, 1)
    assert "no host answers" in capsys.readouterr().out


def test_one_host_is_not_asked(launch):
    _, attempts = launch((9,), (0, ENDED), hosts="aaa", alive="")

    assert attempts[1].n == 3


def test_the_time_limit_is_for_all_launches_together(launch):
    _, attempts = launch((9,), (0, ENDED), time_limit=3600.0)

    words = attempts[1].words
    assert 59 < float(words[words.index("--time-limit-minutes") + 1]) <= 60


@pytest.mark.parametrize("variable", ["DHMPI_DEADLINE", "SLURM_JOB_END_TIME"])
def test_the_end_of_the_job_is_respected(launch, monkeypatch, variable, capsys):
    monkeypatch.setenv(variable, str(time.time() + 5))

    code, attempts = launch((9,))

    assert (code, len(attempts)) == (9, 1)
    assert "no restart: only" in capsys.readouterr().out
