"""The command line: defaults, files, and one sentence for what makes no sense."""

import pytest

from dhmpi.errors import OptionError
from dhmpi.options import AgeboOptions, AmbsOptions, command_line, parse

FLAGS = """
    --problem --run --max-evals --eval-timeout-minutes --time-limit-minutes --log-dir --name --workflow --resume --seed
    --surrogate-model --liar-strategy --acq-func --kappa --xi --n-jobs --evaluator --job-mode --node-packing-count
    --num-evals-per-node --num-threads-per-rank --max-rss --recycle-rss --retries --max-failures --target --patience
    --task-dirs --config --log-level --version
"""
NEEDED = ["--problem", "p.Problem", "--run", "p.run"]


def options(*words):
    return parse(AmbsOptions, "python -m dhmpi.ambs", "", [*NEEDED, *words])


def test_defaults_are_those_of_the_guides_software():
    o = options()

    assert (o.max_evals, o.liar_strategy, o.kappa, o.xi, o.n_jobs, o.retries) == (1_000_000, None, 1.96, 0.01, 1, 2)
    assert (o.evaluator, o.surrogate_model, o.eval_timeout, o.time_limit) == ("process", "auto", None, None)


def test_a_negative_number_in_any_notation_is_a_value():
    assert options("--target", "-1e-3").target == -1e-3
    assert options("--target=-2").target == -2
    assert options("--target", "-0.5", "--resume", "--log-dir", "d").resume


def test_a_container_is_a_command_around_the_process():
    assert options("--container", "x.sif").wrapping == ("apptainer", "exec", "x.sif", "{}")
    assert options("--wrap", "numactl --localalloc {}").wrapping == ("numactl", "--localalloc", "{}")


def test_minutes_may_be_fractions():
    assert options("--eval-timeout-minutes", "0.5").eval_timeout == 30


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--kappa", "-1"], "--kappa must be >= 0, got -1"),
        (["--xi", "nan"], "--xi must be >= 0"),
        (["--max-evals", "0"], "--max-evals must be >= 1, got 0"),
        (["--surrogate-model", "XGB"], "invalid choice: 'XGB'"),
        (["--eval-timeout-minutes", "0"], "--eval-timeout-minutes must be > 0"),
        (["--eval-timeout-minutes", "1", "--evaluator", "inline"], "cannot be enforced with --evaluator inline"),
        (["--max-rss", "100", "--evaluator", "inline"], "cannot be enforced with --evaluator inline"),
        (["--max-eval", "5"], "unrecognized arguments"),
        (["--resume"], "--resume needs --log-dir"),
        (["--name", "../up"], "--name becomes the name of a directory"),
        (["--retries", "-1"], "--retries must be >= 0"),
        (["--n-jobs", "0"], "--n-jobs must be >= 1"),
        (["--target", "nan"], "--target must be a number"),
        (["--config", "/nowhere.toml"], "cannot read --config /nowhere.toml"),
        (["--evaluator", "balsam"], "--evaluator balsam is not needed"),
        (["--wrap", "numactl"], "--wrap must have {} once"),
        (["--wrap", "sh -c 'x {}"], "is no command"),
        (["--wrap", "env {}", "--container", "x.sif"], "give one of the two"),
        (["--wrap", "env {}", "--evaluator", "inline"], "need --evaluator process"),
        (["--stopper", "median", "--evaluator", "inline"], "--stopper needs --evaluator process"),
        (["--stage", "data", "--evaluator", "inline"], "--stage needs --evaluator process or group"),
        (["--stopper", "halving", "--stopper-factor", "1"], "--stopper-factor must be >= 2"),
    ],
)
def test_what_makes_no_sense_is_refused(words, sentence):
    with pytest.raises(OptionError) as error:
        options(*words)

    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_problem_and_run_are_needed():
    with pytest.raises(OptionError, match="--run is missing"):
        parse(AmbsOptions, "p", "", ["--problem", "p.Problem"])


def test_a_file_gives_options_and_the_command_line_wins(tmp_path):
    file = tmp_path / "options.toml"
    file.write_text('problem = "q.Problem"\nmax-evals = 7\nkappa = 2\nresume = false\nretries = 5\n')

    o = options("--config", str(file), "--retries", "1")

    assert (o.problem, o.max_evals, o.kappa, o.retries) == ("p.Problem", 7, 2.0, 1)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("max_eval = 7", "unknown option 'max_eval'"),
        ("max_evals = 'many'", "--max-evals in --config .* must be int"),
        ("evaluator = 'thread'", "must be one of process, inline"),
        ("= 3", "is no TOML"),
        ("kappa = -1", "--kappa must be >= 0"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path, text, sentence):
    file = tmp_path / "options.toml"
    file.write_text(text)

    with pytest.raises(OptionError, match=sentence):
        options("--config", str(file))


def test_help_names_every_option_and_says_what_cl_max_means(capsys):
    with pytest.raises(SystemExit):
        options("--help")

    text = " ".join(capsys.readouterr().out.split())
    for flag in FLAGS.split():
        assert flag in text
    assert "maximised space" in text
    assert "cl_max is optimistic" in text


def test_a_command_line_can_be_made_from_options():
    o = options("--kappa", "1.2", "--name", "two words")

    words = command_line("dhmpi.ambs", o, resume=True, log_dir="dir")

    assert words == (
        "python -m dhmpi.ambs --problem p.Problem --run p.run --kappa 1.2 --log-dir dir --name 'two words' --resume"
    )


def test_agebo_has_the_options_of_evolution_and_of_a_model_with_the_defaults_of_its_paper():
    o = parse(AgeboOptions, "python -m dhmpi.agebo", "", ["--problem", "p.Problem", "--acq-func", "LCB"])

    assert (o.population_size, o.sample_size, o.kappa, o.xi, o.n_jobs) == (100, 10, 0.001, 1e-6, 1)
    assert (o.run, o.acq_func, o.fits, o.repeats) == ("dhmpi.nas.run.alpha.run", "LCB", True, True)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--kappa", "-1"], "--kappa must be >= 0"),
        (["--sample-size", "101"], "--sample-size must be at most --population-size"),
        (["--promote", "2"], "--promote must be a share"),
        (["--num-nodes", "1"], "unrecognized arguments"),
    ],
)
def test_what_makes_no_sense_to_either_half_of_agebo_is_refused(words, sentence):
    with pytest.raises(OptionError, match=sentence):
        parse(AgeboOptions, "python -m dhmpi.agebo", "", ["--problem", "p.Problem", *words])
