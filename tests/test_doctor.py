"""What measurements mean, and what the doctor says of them; how it measures is tested under mpiexec."""

import json
import time
from pathlib import Path

import pytest

from dhmpi import diagnosis, doctor, launch
from dhmpi.diagnosis import Facts, Finding, Verdict
from dhmpi.mpi.examine import Files, Ping

MPICH, OPENMPI = "MPICH 4.2", "Open MPI v5.0.11"


def fact(host="a", cores=range(4), n_cores=8, **rest):
    given = {"gpus": (), "visible": "", "memory": 64_000.0, "python": "3.11.7", "version": "0.1.0", **rest}
    return Facts(host, tuple(cores), n_cores, **given)


FACTS = [fact(), fact(cores=range(4, 8)), fact("b"), fact("b", cores=range(4, 8))]
HOSTS = [item.host for item in FACTS]


@pytest.mark.parametrize(
    ("size", "expected", "facts", "verdict", "words"),
    [
        (4, 4, FACTS, "ok", "4 ranks on 2 hosts"),
        (4, None, FACTS, "ok", "4 ranks on 2 hosts"),
        (1, None, FACTS[:1], "note", "1 rank on 1 host"),
        (1, 128, FACTS[:1], "problem", "the launcher started 128 processes, MPI sees 1"),
        (2, 2, [fact(), fact("b", python="3.12.1")], "problem", "Python 3.12.1 with dhmpi 0.1.0"),
    ],
)
def test_ranks_must_be_one_world(size, expected, facts, verdict, words):
    finding = diagnosis.world(size, expected, facts, OPENMPI, 0.3)

    assert (finding.verdict, words in finding.figure) == (verdict, True)


def test_mpi_that_starts_slowly_is_worth_a_warning():
    assert diagnosis.world(4, 4, FACTS, MPICH, 60.0).verdict == "warning"


@pytest.mark.parametrize(
    ("survives", "library", "verdict", "words"),
    [
        (True, OPENMPI, "ok", "is survived"),
        (False, OPENMPI, "note", "though this MPI could survive it"),
        (False, MPICH, "note", "MPICH 4.2 cannot survive it"),
    ],
)
def test_what_the_death_of_a_rank_means(survives, library, verdict, words):
    finding = diagnosis.fault_tolerance(survives, library)

    assert (finding.verdict, words in finding.figure) == (verdict, True)


@pytest.mark.parametrize(
    ("facts", "verdict", "words"),
    [
        (FACTS, "ok", "4 cores a rank"),
        ([fact(cores=range(8))] * 4, "ok", "2 cores a rank"),
        ([fact(cores=range(2), n_cores=2)] * 4, "warning", "0.5 cores a rank"),
        ([fact(cores=[0]), fact(cores=[1])], "warning", "6 cores of a are nobody's"),
    ],
)
def test_cores(facts, verdict, words):
    finding = diagnosis.cores(facts, "openmpi")

    assert (finding.verdict, words in finding.figure) == (verdict, True)


def test_each_launcher_is_told_of_cores_in_its_own_words():
    bound = [fact(cores=[0]), fact(cores=[1])]

    said = {flavour: diagnosis.cores(bound, flavour).meaning for flavour in ("openmpi", "slurm", "aprun", "other")}

    assert "--bind-to none" in said["openmpi"]
    assert "srun --cpus-per-task" in said["slurm"]
    assert "-cc depth" in said["aprun"]
    assert len(set(said.values())) == 4


@pytest.mark.parametrize(
    ("measured", "verdict", "words"),
    [
        ([(0.1, 1.0)] * 4, "ok", "equally fast"),
        ([(0.1, 1.0)] * 3 + [(0.2, 1.0)], "warning", "b is slower than the others"),
        ([(0.4, 0.25)] * 4, "warning", "Ranks take turns on cores"),
        ([(0.1, 1.0)], "ok", "equally fast"),
    ],
)
def test_slow_ranks_are_found(measured, verdict, words):
    finding = diagnosis.speed(measured, FACTS)

    assert (finding.verdict, words in finding.meaning) == (verdict, True)


def test_messages_within_and_between_hosts_have_limits_of_their_own():
    quick = [Ping(1, 2e-6, 1e-3, 0.0, 1e-6), Ping(2, 5e-4, 2e-3, 0.0, 3e-4)]
    slow = [Ping(1, 5e-4, 1e-3, 0.0, 1e-6), quick[1]]

    assert diagnosis.messages(quick, HOSTS).verdict == "ok"
    assert "2 us there and back within a host" in diagnosis.messages(quick, HOSTS).figure
    assert diagnosis.messages(slow, HOSTS).verdict == "warning"
    assert "rank 1 on a" in diagnosis.messages(slow, HOSTS).meaning
    assert diagnosis.messages([], ["a"]).verdict == "ok"


@pytest.mark.parametrize(("offset", "verdict"), [(0.003, "ok"), (-5.0, "warning")])
def test_clocks(offset, verdict):
    finding = diagnosis.clocks([Ping(1, 1e-6, 1e-3, 99.0, 0.0), Ping(2, 1e-4, 1e-3, offset, 5e-5)], HOSTS)

    assert finding.verdict == verdict
    assert f"{abs(offset) * 1e3:.1f} ms apart (b)" in finding.figure


GOOD = Files(sync=0.004, slowest_sync=0.01, create=0.001, seen=0.02, free=1e12)


@pytest.mark.parametrize(
    ("first", "third", "verdict", "words"),
    [
        ({}, {}, "ok", "seen on all 2 hosts"),
        ({"error": "/x: Permission denied"}, {}, "problem", "/x: Permission denied"),
        ({}, {"seen": None}, "problem", "is not shared: b did not see"),
        ({"links": False}, {}, "problem", "no hard links"),
        ({"sync": 0.5}, {}, "warning", "500"),
        ({}, {"seen": 3.0}, "warning", "within 3000 ms"),
        ({"free": 1e8}, {}, "warning", "0 GB free"),
    ],
)
def test_the_run_directory(first, third, verdict, words):
    found = [GOOD._replace(**first), GOOD._replace(seen=None), GOOD._replace(**third), GOOD]

    finding = diagnosis.filesystem(found, HOSTS, "/runs")[0]

    assert finding.verdict == verdict
    if words != "500":
        assert words in finding.figure


def test_slow_directories_and_hosts_that_cannot_write_are_warned_of():
    slow = [item._replace(create=0.2) for item in [GOOD] * 4]
    broken = [GOOD, GOOD, GOOD, GOOD._replace(error="task3_0: Disk quota exceeded")]

    assert [f.verdict for f in diagnosis.filesystem(slow, HOSTS, "/runs")] == ["ok", "warning"]
    assert "Disk quota exceeded" in diagnosis.filesystem(broken, HOSTS, "/runs")[-1].figure


@pytest.mark.parametrize(
    ("answers", "verdict", "words"),
    [
        ([{"numpy": 0.2, "tensorflow": 3.0}, {"numpy": 0.4}], "ok", "numpy 0.4 s, tensorflow 3.0 s"),
        ([{"numpy": 0.2, "tensorflow": None}], "ok", "tensorflow is not installed"),
        ([{"numpy": 10.0}], "warning", "numpy more than 10 s"),
        ([{"run:a.run": 1.0}, {"run:a.run": "no such thing"}], "problem", "a.run cannot be imported on 1 rank"),
    ],
)
def test_imports(answers, verdict, words):
    finding = diagnosis.imports(answers, [0.1] * len(answers))

    assert (finding.verdict, words in finding.figure) == (verdict, True)


def test_memory_is_that_of_the_poorest_host():
    finding = diagnosis.memory([fact(), fact("b", memory=800.0), fact("b", memory=800.0)])

    assert (finding.verdict, "on b" in finding.figure) == ("warning", True)


def test_gpus_should_be_everywhere_the_same():
    same = [fact(gpus=("nvidia0",), visible="CUDA_VISIBLE_DEVICES=0"), fact("b", gpus=("nvidia0",))]

    assert "CUDA_VISIBLE_DEVICES=0" in diagnosis.gpus(same).figure
    assert diagnosis.gpus([fact()]).figure == "none"
    assert diagnosis.gpus([fact(), same[0]._replace(host="b")]).verdict == "warning"


@pytest.mark.parametrize(
    ("job", "left", "verdict", "words"),
    [
        (None, None, "ok", "no scheduler's job"),
        ("7", None, "note", "job 7, and nobody says"),
        ("7", 7200.0, "ok", "120 minutes left"),
        ("7", 60.0, "note", "1 minutes left"),
    ],
)
def test_the_end_of_the_job(job, left, verdict, words):
    finding = diagnosis.job(job, left)

    assert (finding.verdict, words in finding.figure) == (verdict, True)


def test_a_deadline_that_is_no_time_is_a_problem(monkeypatch):
    monkeypatch.setenv("DHMPI_DEADLINE", "soon")

    finding = doctor._job()

    assert finding.verdict == "problem"
    assert "DHMPI_DEADLINE must be a time in seconds since the epoch, got 'soon'" in finding.figure


def test_every_finding_is_told_with_verdict_figure_and_meaning(capsys):
    findings = [
        Finding("cores", Verdict.WARNING, "0.5 cores a rank", "They take turns. " * 20),
        Finding("job", Verdict.OK, "none", "Fine."),
    ]

    text = doctor._report(findings, 3.2)

    assert "warning  cores  0.5 cores a rank." in text
    assert "ok       job    none." in text
    assert max(map(len, text.splitlines())) <= doctor.WIDTH
    assert text.endswith("A search can run here, but see the warnings. Examined in 3 s.")
    assert json.loads(doctor._as_json(findings))["verdict"] == "warning"


def test_the_worst_verdict_counts():
    order = [Verdict.OK, Verdict.NOTE, Verdict.WARNING, Verdict.PROBLEM]
    findings = [Finding("x", verdict, "", "") for verdict in order]

    assert [diagnosis.worst(findings[:n]) for n in range(1, 5)] == order


def test_the_importer_times_what_is_there_and_names_what_is_not(tmp_path):
    study = tmp_path / "study.py"
    study.write_text("print('talks')\ndef run(config):\n    return 1.0\n")
    importer = doctor._Importer()

    answers = importer.ask(["json", "no_such_module", f"run:{study}", "run:no_such.run"], 30.0)

    importer.close()
    assert isinstance(answers["json"], float)
    assert answers["no_such_module"] is None
    assert isinstance(answers[f"run:{study}"], float)
    assert "no_such" in answers["run:no_such.run"]
    assert importer.started > 0


def test_an_import_that_never_ends_is_not_waited_for(tmp_path):
    study = tmp_path / "study.py"
    study.write_text("import time\ntime.sleep(600)\n")
    importer = doctor._Importer()
    importer.ask(["json"], 30.0)
    began = time.monotonic()

    answers = importer.ask([f"run:{study}", "json"], 0.3)

    importer.close()
    assert answers == {f"run:{study}": 0.3}
    assert time.monotonic() - began < 10


def test_an_import_that_kills_its_process_is_a_problem(tmp_path):
    study = tmp_path / "study.py"
    study.write_text("import os\nos._exit(3)\n")
    importer = doctor._Importer()

    answers = importer.ask([f"run:{study}"], 30.0)

    importer.close()
    assert answers == {f"run:{study}": "the process that imported it has ended"}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--log-dir", "/no/such"], "--log-dir /no/such: there is no such directory"),
        (["--frobnicate"], "unrecognized arguments: --frobnicate"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(words, sentence, capsys):
    assert doctor.main(words) == 2

    err = capsys.readouterr().err
    assert err.startswith("dhmpi.doctor: ")
    assert sentence in err


def test_the_doctor_is_not_restarted(capsys):
    assert launch.main(["-n", "2", "--restarts", "1", "doctor"]) == 2

    assert "--restarts resumes a search" in capsys.readouterr().err


def test_only_one_rank_says_what_is_wrong(monkeypatch, capsys):
    monkeypatch.setenv("PMI_RANK", "2")

    assert doctor.main(["--log-dir", str(Path("/no/such"))]) == 2

    assert capsys.readouterr().err == ""
