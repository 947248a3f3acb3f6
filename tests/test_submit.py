"""Submitting: what schedulers are asked, what is written, and what is refused before anything is."""

import json
import os
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from dhmpi import sites, submit
from dhmpi.errors import DhmpiError, SiteError

POLYNOME = ["-p", "dhmpi.benchmark.hps.polynome2.Problem", "-r", "dhmpi.benchmark.hps.polynome2.run"]
QUICK = ["hps", "study", *POLYNOME, "-t", "60", "-n", "4", "--no-import-check"]
GUIDE = ["hps", "test", *POLYNOME, *shlex.split("-t 60 -q debug-cache-quad -n 4 -A datascience -j mpi")]
THETA = [*GUIDE, "--site", "theta", "--no-import-check"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A place to submit from, with an empty home, and a directory of commands that comes first on the PATH."""
    work = tmp_path / "work"
    work.mkdir()
    (tmp_path / "bin").mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    for name in ("XDG_CONFIG_HOME", "DEEPHYPER_WORKERS_PER_NODE", "NERSC_HOST", "LMOD_SYSTEM_NAME", "PYTHONPATH"):
        monkeypatch.delenv(name, raising=False)
    return work


def command(here, name, says="printf '4711\\n'", code=0):
    """Make a command that notes its words and working directory."""
    path = here.parent / "bin" / name
    log = here.parent / "calls"
    path.write_text(
        f"#!/bin/sh\nfor word; do printf '%s\\n' \"$word\"; done >> {log}\nprintf 'in %s\\n' \"$PWD\" >> {log}\n"
        f"{says}\nexit {code}\n"
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return log


def calls(log):
    """Return the words of each call and its working directory."""
    found, words = [], []
    for line in log.read_text().splitlines():
        if line.startswith("in "):
            found.append((words, Path(line[3:])))
            words = []
        else:
            words.append(line)
    return found


def files(here):
    return sorted(str(path.relative_to(here)) for path in here.rglob("*"))


def only_run(here):
    (run,) = (here / "dhmpi-runs").glob("*/*")
    return run


def test_the_guides_command_line_is_queued_on_theta(here, capsys):
    log = command(here, "qsub")

    assert submit.main(THETA) == 0

    run = only_run(here)
    assert run.parent.name == "test"
    assert run.name.startswith("test_")
    assert capsys.readouterr().out == f"job 4711\nrun directory {run}\n"
    assert calls(log) == [([str(run / "job.sh")], run / "jobs")]
    assert os.access(run / "job.sh", os.X_OK)
    assert "#COBALT -q debug-cache-quad\n#COBALT -A datascience\n" in (run / "job.sh").read_text()
    assert json.loads((run / "jobs" / "submitted.json").read_text())["jobs"] == ["4711"]


@pytest.mark.parametrize(
    ("scheduler", "name", "says", "dependency"),
    [
        ("cobalt", "qsub", "echo Project charged; echo 4711", ["--dependencies", "4711"]),
        ("pbs", "qsub", "echo 4711.polaris-pbs-01", ["-W", "depend=afterany:4711.polaris-pbs-01"]),
        ("slurm", "sbatch", "echo '4711;cluster'", ["--dependency=afterany:4711"]),
    ],
)
def test_a_campaign_is_jobs_that_follow_each_other(here, scheduler, name, says, dependency):
    log = command(here, name, says)
    words = [*QUICK, "--scheduler", scheduler, "--cores-per-node", "4", "-t", "6h", "--campaign", "24h"]

    assert submit.main(words) == 0

    first, *others = [words for words, _ in calls(log)]
    script = str(only_run(here) / "job.sh")
    parsable = ["--parsable"] if scheduler == "slurm" else []
    assert first == [*parsable, script]
    assert others == [[*parsable, *dependency, script]] * 3


def test_a_dry_run_prints_the_script_alone_and_writes_nothing(here, capsys):
    log = command(here, "qsub")

    assert submit.main([*THETA, "--dry-run"]) == 0

    said = capsys.readouterr()
    assert said.out.startswith("#!/bin/bash -l\n#COBALT -n 4\n")
    assert said.out.endswith("\n")
    assert "4 ranks on 4 hosts" in said.err
    assert files(here) == []
    assert not log.exists()


def test_options_of_the_search_go_to_the_search(here, capsys):
    assert submit.main([*QUICK, "--scheduler", "slurm", "--dry-run", "--kappa", "1.2", "--target", "-1.5"]) == 0

    assert "--kappa 1.2 \\\n    --target -1.5\n" in capsys.readouterr().out


def test_other_searches(here, capsys):
    assert submit.main([*QUICK, "--scheduler", "slurm", "--dry-run", "--search", "random"]) == 0

    assert "\n    random \\\n" in capsys.readouterr().out


def test_ageing_evolution_with_a_model_has_a_searcher_and_its_own_options(here, capsys):
    words = ["nas", "study", "-p", "x.Problem", "--search", "agebo", "-t", "60", "-n", "4", "--scheduler", "slurm"]

    assert submit.main([*words, "--no-import-check", "--dry-run", "--population-size", "50"]) == 0

    said = capsys.readouterr()
    assert "agebo \\\n    --problem x.Problem \\\n    --run dhmpi.nas.run." in said.out
    assert "--population-size 50" in said.out
    assert "4 ranks on 4 hosts: master on rank 0, searcher on rank 1, 2 evaluators" in said.err


def test_a_post_training_is_placed_in_the_run_directory_of_its_search(here, capsys):
    search = here / "dhmpi-runs/nas/my search_0123abcd"
    search.mkdir(parents=True)
    (search / "run.json").write_text('{"problem": "study.py"}')
    words = ["post", "dhmpi-runs/nas/my search_0123abcd", "-n", "4", "-t", "60", "--scheduler", "slurm"]
    words += ["--cores-per-node", "4", "--no-import-check", "--top", "20"]

    assert submit.main([*words, "--dry-run"]) == 0
    script = capsys.readouterr().out
    log = command(here, "sbatch", "echo 4711")
    assert submit.main([*words, "--name", "long", "--epochs", "200"]) == 0
    place = search / "long"
    assert submit.main([*words, "--name", "long"]) == 2

    assert f"nas.post '{search}' \\\n    --problem study.py \\\n    --run dhmpi.nas.run.post.run \\\n" in script
    assert f"--log-dir '{search}/post' \\\n    --resume \\\n    --num-threads-per-rank 4 \\\n    --top 20\n" in script
    assert "--workflow" not in script
    assert "post_of_my_sear" in script
    assert calls(log) == [(["--parsable", str(place / "job.sh")], place / "jobs")]
    assert f"--log-dir '{place}'" in (place / "job.sh").read_text()
    assert f"{place} is there already: give another --name" in capsys.readouterr().err


def test_a_post_training_needs_a_search_that_has_run(here, capsys):
    words = ["-n", "1", "-t", "60", "--scheduler", "slurm", "--no-import-check"]

    assert submit.main(["post", "nowhere", *words]) == 2
    assert "nowhere" in capsys.readouterr().err
    (here / "trained").mkdir()
    (here / "trained/run.json").write_text('{"problem": "study.py", "options": {"considered": 3}}')
    assert submit.main(["post", "trained", *words]) == 2

    assert "holds no search: what is there was trained by dhmpi.nas.post already" in capsys.readouterr().err
    assert files(here) == ["trained", "trained/run.json"]


def test_evaluators_per_node_become_ranks_and_are_checked_at_launch(here, capsys):
    words = ["--env", "DEEPHYPER_WORKERS_PER_NODE=4", "-j", "serial", "--node-packing-count=4", "--dry-run"]

    assert submit.main([*QUICK, "--scheduler", "slurm", *words]) == 0

    script = capsys.readouterr().out
    assert "#SBATCH --ntasks-per-node=4\n" in script
    assert "-m dhmpi.launch -n 16 " in script
    assert "--job-mode serial \\\n    --node-packing-count 4 \\\n    --num-evals-per-node 4\n" in script


def test_modules_are_found_where_they_are_found_here(here, capsys, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/my/modules")

    assert submit.main([*QUICK, "--scheduler", "slurm", "--dry-run"]) == 0

    assert "export PYTHONPATH=/my/modules\n" in capsys.readouterr().out


def test_a_second_run_of_the_name_is_refused_and_another_name_is_not(here, capsys):
    command(here, "sbatch")
    assert submit.main([*QUICK, "--scheduler", "slurm"]) == 0
    before = files(here)

    assert submit.main([*QUICK, "--scheduler", "slurm"]) == 2
    assert "there is a run 'study' already" in capsys.readouterr().err
    assert files(here) == before
    assert submit.main([*QUICK, "--scheduler", "slurm", "--name", "stud"]) == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["-n", "0"], "-n must be >= 1, got 0"),
        (["-j", "serial", "-n", "2"], "leave no evaluator of 1 rank"),
        (["-t", "0"], "-t must be more than nothing"),
        (["-t", "soon"], "-t takes minutes, HH:MM:SS"),
        (["-t", "1:90:00"], "-t takes minutes, HH:MM:SS"),
        (["-t", "-5"], "-t takes minutes, HH:MM:SS, or a number with m, h or d behind it, got '-5'"),
        (["-t", "inf"], "-t takes minutes"),
        (["--campaign", "0"], "--campaign must be more than nothing"),
        (["--scheduler", "lsf"], "invalid choice: 'lsf'"),
        (["--site", "summit"], "there is no site 'summit'"),
        (["--site", "theta", "--scheduler", "slurm"], "theta has the scheduler cobalt, not slurm"),
        (["--site", "theta", "-A", "p", "-n", "128", "-t", "181"], "gives 128 nodes at most 180 minutes, got -t 181"),
        (["--site", "theta", "-A", "p", "-n", "4"], "queue default of theta takes 128 to 4392 nodes, got -n 4"),
        (["--site", "theta", "-A", "p", "-q", "turbo"], "theta has no queue 'turbo', but default, debug-cache-quad"),
        (["--site", "theta", "-n", "128"], "theta charges a project for the time: name it with -A"),
        (["--site", "frontier", "-A", "p", "-n", "92", "-t", "7h"], "gives 92 nodes at most 360 minutes"),
        (["--scheduler", "local"], "without a scheduler there is this machine alone, one node, got -n 4"),
        (["--scheduler", "slurm", "--launcher", "jsrun"], "slurm has no launcher 'jsrun', but openmpi, mpich, srun"),
        (["-q", "a b"], "--queue is no name that a scheduler knows"),
        (["-A", "$(id)"], "--account is no name that a scheduler knows"),
        (["--name", "../up"], "becomes the name of a directory"),
        (["--name", ".."], "becomes the name of a directory"),
        (["--name", " "], "becomes the name of a directory"),
        (["--name", "a\nb"], "characters that cannot be printed"),
        (["--env", "A"], "--env takes NAME=VALUE"),
        (["--env", "A;id=1"], "--env takes NAME=VALUE"),
        (["--restarts", "-1"], "--restarts must be >= 0"),
        (["--search", "ppo"], "--search of hps is one of ambs, regevo, random, got 'ppo'"),
        (["--log-dir", "x"], "--log-dir is given by the job script"),
        (["--kappa", "-3"], "the search ambs says: --kappa must be >= 0, got -3"),
        (["--no-such-option"], "the search ambs says: unrecognized arguments: --no-such-option"),
        (["--num-agents", "3"], "--num-agents: the search ambs has no agents"),
    ],
)
def test_what_is_refused_is_one_sentence_and_leaves_nothing(here, capsys, words, sentence):
    command(here, "sbatch")
    command(here, "qsub")
    base = [*QUICK, "--scheduler", "slurm"] if not {"--site", "--scheduler"} & set(words) else QUICK

    assert submit.main([*base, *words]) == 2

    said = capsys.readouterr()
    assert said.err.startswith("dhmpi.submit: error: ")
    assert sentence in said.err
    assert (said.err.count("\n"), said.out) == (1, "")
    assert files(here) == []
    assert not (here.parent / "calls").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["hps"], "the following arguments are required: WORKFLOW, -n"),
        (["hps", "a", "-n", "1", "-t", "1", "--scheduler", "slurm", "-r", "x.r"], "-p is missing"),
        (["dance", "x"], "invalid choice: 'dance'"),
        (["hps", "a/b", *POLYNOME, "-n", "1", "-t", "1"], "WORKFLOW becomes the name of a directory"),
        (["hps", "a", "-p", "x.P", "-n", "1", "-t", "1", "--scheduler", "slurm"], "-r is missing"),
    ],
)
def test_incomplete_command_lines(here, capsys, words, sentence):
    assert submit.main(words) == 2

    assert sentence in capsys.readouterr().err
    assert files(here) == []


def test_without_a_scheduler_one_must_be_named(here, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(here.parent / "bin"))

    assert submit.main(["hps", "a", *POLYNOME, "-n", "1", "-t", "1"]) == 2

    assert "no scheduler is found here: name one with --scheduler" in capsys.readouterr().err
    assert files(here) == []


def test_a_search_that_does_not_exist_is_named(here, capsys, monkeypatch):
    monkeypatch.setattr(submit, "PROGRAMS", ("ambs",))

    assert submit.main(["nas", "study", "-p", "x.P", "-t", "60", "-n", "4", "--scheduler", "slurm"]) == 2

    assert "this version of dhmpi has no search ppo: choose with --search one of ambs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("problem", "run", "sentence"),
    [
        ("no.such.Problem", "dhmpi.benchmark.hps.polynome2.run", "there is no module 'no'"),
        ("bad.py", "bad.py", "bad.py cannot be imported: ZeroDivisionError"),
        ("dead.py", "dead.py", "the import ended with exit code -9"),
    ],
)
def test_problem_and_run_must_be_importable(here, capsys, problem, run, sentence):
    command(here, "sbatch")
    (here / "bad.py").write_text("1 / 0\n")
    (here / "dead.py").write_text("import os\nos.kill(os.getpid(), 9)\n")
    words = ["hps", "study", "-p", problem, "-r", run, "-t", "60", "-n", "4", "--scheduler", "slurm"]

    assert submit.main(words) == 2

    assert sentence in capsys.readouterr().err
    assert not (here / "dhmpi-runs").exists()


def test_what_a_module_prints_is_not_in_the_script(here, capfd):
    (here / "talkative.py").write_text(
        "print('hello')\nfrom dhmpi.problem import HpProblem\nProblem = HpProblem()\n"
        "Problem.add_hyperparameter((0, 9), 'x')\ndef run(config):\n    return config['x']\n"
    )
    words = ["hps", "s", "-p", "talkative.py", "-r", "talkative.py", "-t", "60", "-n", "4", "--scheduler", "slurm"]

    assert submit.main([*words, "--dry-run"]) == 0

    assert capfd.readouterr().out.startswith("#!/bin/bash -l\n")


@pytest.mark.parametrize(
    ("says", "code", "sentence", "kept"),
    [
        ("echo 'invalid account' >&2", 1, "sbatch refuses the job (exit code 1): invalid account", False),
        (":", 1, "sbatch refuses the job (exit code 1): it does not say why", False),
        (":", 0, "sbatch has not said which job it queued", True),
    ],
)
def test_a_scheduler_that_refuses(here, capsys, says, code, sentence, kept):
    command(here, "sbatch", says, code)

    assert submit.main([*QUICK, "--scheduler", "slurm"]) == 2

    assert sentence in capsys.readouterr().err
    assert (here / "dhmpi-runs").exists() == kept


def test_a_scheduler_that_refuses_the_second_job_of_a_campaign(here, capsys):
    command(here, "sbatch", f"test $(grep -c '^in' {here.parent / 'calls'}) = 1 && echo 4711 && exit 0", 1)

    assert submit.main([*QUICK, "--scheduler", "slurm", "--campaign", "3h"]) == 2

    assert "queued before that: 4711, in" in capsys.readouterr().err
    assert json.loads((only_run(here) / "jobs" / "submitted.json").read_text())["jobs"] == ["4711"]


def test_a_scheduler_that_is_not_here(here, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(here.parent / "bin"))

    assert submit.main(THETA) == 2

    assert "there is no qsub here: submit on a login node of theta, or see --dry-run" in capsys.readouterr().err
    assert files(here) == []


@pytest.mark.parametrize(
    ("commands", "environment", "host", "site"),
    [
        (["sbatch"], {}, "login1", "slurm"),
        (["qsub"], {}, "login1", "pbs"),
        (["qsub", "partlist"], {}, "login1", "cobalt"),
        (["sbatch"], {"NERSC_HOST": "perlmutter"}, "login1", "perlmutter"),
        (["sbatch"], {}, "login07.frontier.olcf.ornl.gov", "frontier"),
        (["qsub"], {}, "polaris-login-02.hsn.cm.polaris.alcf.anl.gov", "polaris"),
        (["qsub"], {}, "aurora-uan-0010", "aurora"),
        (["qsub"], {}, "thetalogin6", "theta"),
    ],
)
def test_the_site_is_found(here, commands, environment, host, site):
    for name in commands:
        command(here, name)

    assert sites.detect({"PATH": str(here.parent / "bin"), **environment}, host).name == site


def own_site(here, text, name="mine"):
    directory = here.parent / "home" / ".config" / "dhmpi" / "sites"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{name}.toml").write_text(text)


def test_a_users_own_site_changes_what_it_names(here, capsys):
    own_site(
        here, 'base = "polaris"\nmodules = ["conda"]\naccount-needed = false\n[queues]\ntiny = [{max-nodes = 4}]\n'
    )

    assert submit.main([*QUICK, "--site", "mine", "-q", "tiny", "--dry-run"]) == 0

    script = capsys.readouterr().out
    assert "module load conda\n" in script
    assert "#PBS -l select=4:system=polaris\n" in script
    assert "#PBS -q tiny\n" in script


def test_a_users_own_site_wins_over_the_shipped_one(here):
    own_site(here, 'scheduler = "slurm"\nlauncher = "a"\n[launchers.a]\n', "theta")

    assert sites.load("theta").scheduler == "slurm"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("scheduler = ", "is no TOML"),
        ('scheduler = "lsf"', "must have a scheduler, one of cobalt, pbs, slurm, local, got 'lsf'"),
        ('base = "slurm"\nqueue = 3', "queue must be of type str, got 3"),
        ('base = "slurm"\ncolour = "red"', "has an unknown key 'colour'"),
        ('base = "slurm"\nlauncher = "x"', "has no launcher 'x', but openmpi"),
        ('base = "slurm"\ncores = 0', "cores must be > 0, got 0"),
        ('base = "slurm"\n[queues]\nq = [{nodes = 3}]', "queues.q has an unknown key 'nodes'"),
        ('base = "slurm"\n[queues]\nq = [{max-nodes = "3"}]', "queues.q.max-nodes must be of type int, got '3'"),
        ('base = "mine"', "base must be the name of another site, got 'mine'"),
        ('base = "slurm"\ndirectives = ["--x=$money"]', "names $money in '--x=$money'"),
        ('base = "slurm"\ndirectives = ["--x=$"]', "has a stray $ in '--x=$'"),
    ],
)
def test_a_site_file_that_is_wrong(here, capsys, text, sentence):
    own_site(here, text)

    assert submit.main([*QUICK, "--site", "mine", "--dry-run"]) == 2

    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("name", sites.names())
def test_the_shipped_sites_are_whole(name):
    site = sites.load(name)

    assert site.description
    if site.queue:
        assert site.queue in site.queues
    for bins in site.queues.values():
        assert all(one.min_nodes <= (one.max_nodes or one.min_nodes) for one in bins)


def test_limits_without_numbers_are_none():
    site = sites.Site("s", "slurm", queues={"q": (sites.Bin(),)})

    site.check_limits("q", 10_000, 1e6)
    with pytest.raises(SiteError, match="no queue 'x'"):
        site.check_limits("x", 1, 1)


def test_mpich_is_used_where_it_is_the_one_installed(monkeypatch):
    monkeypatch.setattr(submit, "_installed", lambda name: name == "mpich")

    launcher = submit._launcher(sites.load("slurm"), None)

    assert launcher == sites.load("slurm").launchers["mpich"]


@pytest.mark.parametrize("text", ["", "60:00", "1h30", "1:2:3", "٣", "1e3", "nan", "9999d"])
def test_times_that_are_none(text):
    with pytest.raises(DhmpiError):
        submit.parse_time(text, "-t")


def test_help_names_the_searches():
    done = subprocess.run(
        [sys.executable, "-m", "dhmpi.submit", "--help"], capture_output=True, text=True, timeout=60, check=True
    )

    assert "ppo, regevo, random, agebo" in " ".join(done.stdout.split())
