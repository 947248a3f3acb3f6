"""Every way in which an evaluation in a child process can end."""

import os
import signal
import time
from pathlib import Path

import pytest
from evaluating import Bench, search_path, until

from dhmpi import platform
from dhmpi.evaluate.process import Finished, Loaded, Refused, Reported
from dhmpi.trials import Status, Trial


@pytest.fixture
def bench(tmp_path):
    benches = []

    def make(run, load=True, **options):
        name = run if "." in run else f"evaluate_functions.{run}"
        made = Bench(name, tmp_path, **options)
        benches.append(made)
        if load:
            assert isinstance(made.load(), Loaded)
        return made

    yield make
    for made in benches:
        made.evaluator.close()
        made.keeper.close()
        assert until(lambda made=made: not platform.leftovers(made.run_id)), "processes are left"


# -- what the function returns or raises


def test_an_objective_comes_back(bench):
    finished = bench("square").evaluate(trial=3, attempt=1, x=1.5)

    assert finished[:5] == (3, 1, Status.DONE, 2.25, {})
    assert abs(finished.start - time.time()) < 10
    assert finished.end == finished.start + finished.elapsed
    assert finished.reason == ""


def test_metrics_come_back(bench):
    finished = bench("with_metrics").evaluate()

    assert finished.objective == 1.0
    assert finished.metrics == {"loss": 0.5, "name": "a", "diverged": None}


@pytest.mark.parametrize(
    ("run", "words"),
    [
        ("none", "returned None"),
        ("nan", "returned nan"),
        ("string", "'F_out_of_luck'"),
        ("huge", "bytes (100 MB)"),
        ("huge_metric", "metrics must be numbers or short strings"),
        ("leave", "sys.exit(3)"),
        ("interrupt", "KeyboardInterrupt"),
        ("exhaust", "MemoryError"),
        ("fill_disk", "File too large"),
    ],
)
def test_a_function_that_gives_no_objective_has_failed(bench, run, words):
    evaluations = bench(run)
    child = evaluations.child()

    finished = evaluations.evaluate()

    assert finished.status is Status.FAILED
    assert finished.objective is None
    assert words in finished.reason.splitlines()[0]
    assert evaluations.child() == child


def test_a_failure_says_where_and_what_was_printed(bench):
    reason = bench("fail").evaluate().reason.splitlines()

    assert reason[0] == "the function raised RuntimeError: it is broken"
    assert any("evaluate_functions.py" in line for line in reason)
    assert not any("dhmpi/evaluate" in line for line in reason)
    assert reason[-2:] == ["last output:", "about to fail"]


# -- processes that die


@pytest.mark.parametrize(
    ("run", "words"),
    [
        ("exit_without_answer", "exited with code 0"),
        ("segfault", "SIGSEGV"),
        ("terminate", "SIGTERM"),
        ("kill_group", "SIGKILL"),
        ("close_everything", "closed its connection"),
        ("close_everything_and_hang", "closed its connection"),
        ("kill_parent", "lost with its keeper"),
        ("write_nonsense", "wrote something else"),
        ("write_lies", "wrote something else"),
    ],
)
def test_a_process_that_dies_is_a_crash_and_is_replaced(bench, run, words):
    evaluations = bench(run)

    crashes = [evaluations.evaluate(trial=trial) for trial in range(2)]

    assert [crash.status for crash in crashes] == [Status.CRASHED] * 2
    assert all(words in crash.reason.splitlines()[0] for crash in crashes)
    assert not evaluations.events


def test_a_crash_shows_the_last_output(bench):
    assert bench("exit_without_answer").evaluate().reason.splitlines()[-1] == "last words"
    assert "Fatal Python error: Segmentation fault" in bench("segfault").evaluate().reason


def test_a_child_killed_between_evaluations_is_replaced(bench):
    evaluations = bench("take")
    first = evaluations.evaluate(seconds=0)

    child = evaluations.child()
    os.kill(child, signal.SIGKILL)
    assert until(lambda: platform.start_time(child) is None)
    second = evaluations.evaluate(trial=1, seconds=0)

    assert second.status is Status.DONE
    assert second.objective != first.objective


def test_a_keeper_killed_between_evaluations_is_replaced(bench):
    evaluations = bench("take")
    before = evaluations.keeper.pid

    os.kill(before, signal.SIGKILL)
    assert until(lambda: platform.start_time(before) is None)
    finished = evaluations.evaluate(seconds=0)

    assert finished.status is Status.DONE
    assert evaluations.keeper.pid != before


# -- limits


@pytest.mark.parametrize("run", ["hang", "hang_deaf", "hang_in_c"])
def test_an_evaluation_is_killed_at_its_time_limit(bench, run):
    evaluations = bench(run)

    finished = evaluations.evaluate(timeout=0.4)

    assert finished.status is Status.TIMEOUT
    assert 0.4 <= finished.elapsed < 2.0
    assert finished.reason.splitlines()[0] == "the evaluation was ended at its time limit of 0.4 s"


@pytest.mark.parametrize("run", ["eat_memory", "eat_memory_below"])
def test_an_evaluation_is_killed_at_its_memory_limit(bench, run):
    finished = bench(run, max_rss_mb=150.0).evaluate()

    assert finished.status is Status.MEMORY
    assert "more than the limit of 150 MB" in finished.reason


def test_a_child_that_has_grown_is_replaced_unnoticed(bench):
    evaluations = bench("keep_memory", recycle_rss_mb=100.0)

    finished = [evaluations.evaluate(trial=trial) for trial in range(4)]

    assert [one.status for one in finished] == [Status.DONE] * 4
    assert len({one.objective for one in finished}) == 2
    assert not evaluations.events


def test_cancelling_kills(bench):
    evaluations = bench("hang")
    before = evaluations.child()
    evaluations.evaluator.start(Trial(0, 0, {}))

    evaluations.evaluator.cancel()
    finished = evaluations.wait(Finished)

    assert finished[:4] == (0, 0, Status.CANCELLED, None)
    assert until(lambda: platform.start_time(before) is None)


def test_after_cancelling_the_next_trial_is_evaluated(bench):
    evaluations = bench("take")
    evaluations.evaluator.start(Trial(0, 0, {"seconds": 60}))

    evaluations.evaluator.cancel()
    evaluations.evaluator.start(Trial(1, 1, {"seconds": 0}))

    assert evaluations.wait(Finished).status is Status.CANCELLED
    assert evaluations.wait(Finished)[:3] == (1, 0, Status.DONE)


def test_cancelling_when_nothing_runs_does_nothing(bench):
    evaluations = bench("take")

    evaluations.evaluator.cancel()

    assert evaluations.evaluate(seconds=0).status is Status.DONE


def test_one_trial_at_a_time(bench):
    evaluations = bench("hang")
    evaluations.evaluator.start(Trial(0, 0, {}))

    with pytest.raises(RuntimeError, match="trial 1 was started while trial 0 was running"):
        evaluations.evaluator.start(Trial(1, 1, {}))


# -- directories and output


def test_each_evaluation_works_in_its_directory(bench, tmp_path):
    metrics = bench("describe_context").evaluate(trial=5, timeout=30.0).metrics

    assert metrics["cwd"] == metrics["directory"]
    assert Path(metrics["cwd"]).parent == tmp_path
    assert Path(metrics["cwd"]).name.startswith("task5_")
    assert 25 < metrics["left"] <= 30


def test_the_context_says_who_one_is(bench):
    evaluations = bench("describe_context", environment={"OMP_NUM_THREADS": "3"})

    first = evaluations.evaluate(trial=5).metrics
    again = evaluations.evaluate(trial=5, attempt=1).metrics
    other = evaluations.evaluate(trial=6).metrics

    assert (again["id"], again["attempt"], again["comm"], again["left"]) == (5, 1, None, None)
    assert (again["variable"], again["run_id"]) == ("3", evaluations.run_id)
    assert first["seed"] == again["seed"] != other["seed"]


def test_children_do_not_see_the_launcher(bench, monkeypatch):
    monkeypatch.setenv("PMI_RANK", "0")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")

    assert bench("describe_context").evaluate().metrics["launcher"] == ""


def test_later_attempts_append_to_the_output(bench, tmp_path):
    evaluations = bench("print_unfinished_line")

    evaluations.evaluate(trial=4)
    evaluations.evaluate(trial=4, attempt=1)

    (file,) = tmp_path.glob("task4_*/task4.out")
    assert file.read_text() == "of trial 4[dhmpi: attempt 1]\nof trial 4"


def test_output_goes_to_the_file_of_its_trial(bench, tmp_path):
    evaluations = bench("print_unfinished_line")

    for trial in range(3):
        evaluations.evaluate(trial=trial)

    assert [next(tmp_path.glob(f"task{i}_*/task{i}.out")).read_text() for i in range(3)] == [
        "of trial 0",
        "of trial 1",
        "of trial 2",
    ]


def test_what_c_code_prints_belongs_to_the_trial(bench, tmp_path):
    bench("print_from_c").evaluate()

    assert next(tmp_path.glob("task0_*/task0.out")).read_text() == "from C\n"


def test_much_output_is_drained_and_cut(bench, tmp_path):
    finished = bench("print_much", output_cap_bytes=1_000_000).evaluate()

    text = next(tmp_path.glob("task0_*/task0.out")).read_text()
    assert finished.status is Status.DONE
    assert text[1_000_000:] == "\n[dhmpi: more than 1000000 bytes were printed; the rest was dropped]\n"


@pytest.mark.parametrize("run", ["close_output", "redirect_output"])
def test_output_is_back_after_a_function_that_took_it_away(bench, tmp_path, run):
    module = tmp_path / "alternating.py"
    module.write_text(
        f"import evaluate_functions\n"
        f"def run(config):\n"
        f"    if config['first']:\n"
        f"        return evaluate_functions.{run}(config)\n"
        f"    return evaluate_functions.print_unfinished_line(config)\n"
    )
    evaluations = bench("alternating.run", environment={"PYTHONPATH": search_path(tmp_path)})

    first = evaluations.evaluate(trial=0, first=True)
    second = evaluations.evaluate(trial=1, first=False)

    assert (first.status, second.status) == (Status.DONE, Status.DONE)
    assert next(tmp_path.glob("task1_*/task1.out")).read_text() == "of trial 1"


def test_a_function_may_delete_its_directory(bench, tmp_path):
    evaluations = bench("delete_directory")

    finished = [evaluations.evaluate(trial=trial) for trial in range(2)]

    assert [one.status for one in finished] == [Status.DONE, Status.DONE]
    assert not list(tmp_path.glob("task*"))


def test_output_does_not_follow_a_planted_link(bench, tmp_path):
    target = tmp_path / "target"
    target.mkdir()

    finished = bench("plant_link").evaluate(target=str(target))

    assert finished.status is Status.DONE
    assert not list(target.iterdir())


def test_a_linked_task_directory_is_refused(bench, tmp_path):
    evaluations = bench("plant_link")
    evaluations.evaluate(target=str(tmp_path))

    finished = evaluations.evaluate(attempt=1, target=str(tmp_path))

    assert finished.status is Status.FAILED
    assert "symbolic link" in finished.reason


def test_a_run_directory_that_is_gone_fails_the_trial(bench, tmp_path):
    evaluations = bench("square")
    tmp_path.rmdir()

    finished = evaluations.evaluate(x=1)
    tmp_path.mkdir()

    assert finished.status is Status.FAILED
    assert "cannot be used: No such file or directory" in finished.reason


def test_only_the_directories_of_failures_are_kept(bench, tmp_path):
    module = tmp_path / "half.py"
    module.write_text("def run(config):\n    print('x')\n    return 1 / config['x']\n")
    path = search_path(tmp_path)
    evaluations = bench("half.run", task_dirs="failed", environment={"PYTHONPATH": path})

    evaluations.evaluate(trial=0, x=1)
    evaluations.evaluate(trial=1, x=0)
    evaluations.evaluate(trial=2, x=1)

    assert until(lambda: [path.name.split("_")[0] for path in tmp_path.glob("task*")] == ["task1"])
    assert next(tmp_path.glob("task1_*/task1.out")).read_text() == "x\n"


def test_without_task_directories_an_evaluation_works_in_an_empty_one(bench, tmp_path):
    module = tmp_path / "littering.py"
    module.write_text(
        "import os\n"
        "def run(config):\n"
        "    left = os.listdir('.')\n"
        "    open('file', 'w').close(); os.makedirs('a/b')\n"
        "    return {'objective': len(left), 'cwd': os.getcwd()}\n"
    )
    path = search_path(tmp_path)
    evaluations = bench("littering.run", task_dirs="none", environment={"PYTHONPATH": path})

    finished = [evaluations.evaluate(trial=trial) for trial in range(2)]
    evaluations.keeper.close()

    assert [one.objective for one in finished] == [0.0, 0.0]
    assert not list(tmp_path.glob("task*"))
    assert not Path(finished[0].metrics["cwd"]).parent.exists()


# -- what is left behind


def test_a_daemon_ends_with_its_evaluation(bench):
    finished = bench("daemonize").evaluate()

    assert until(lambda: platform.start_time(int(finished.objective)) is None)


def test_a_daemon_ends_at_the_time_limit(bench):
    evaluations = bench("daemonize")

    evaluations.evaluate(timeout=0.5, hang=True)
    daemon = int(evaluations.wait(Reported).value)

    assert until(lambda: platform.start_time(daemon) is None)


def test_a_grandchild_ends_with_the_keeper(bench):
    evaluations = bench("leave_grandchild")
    evaluations.evaluate()
    (grandchild,) = platform.children(evaluations.child())

    evaluations.keeper.close()

    assert until(lambda: platform.start_time(grandchild) is None)


def test_a_forked_copy_that_returns_too_is_no_second_answer(bench):
    evaluations = bench("fork_and_return")

    finished = [evaluations.evaluate(trial=trial) for trial in range(3)]

    assert [one.objective for one in finished] == [1.0, 1.0, 1.0]


def test_an_alarm_does_not_ring_in_the_next_evaluation(bench, tmp_path):
    module = tmp_path / "alarming.py"
    module.write_text(
        "import evaluate_functions\ndef run(config):\n    return getattr(evaluate_functions, config['run'])(config)\n"
    )
    evaluations = bench("alarming.run", environment={"PYTHONPATH": search_path(tmp_path)})
    evaluations.evaluate(trial=0, run="leave_alarm")

    assert evaluations.evaluate(trial=1, run="take", seconds=0.4).status is Status.DONE


# -- reports


def test_reports_arrive_and_stopping_is_heard(bench):
    evaluations = bench("report_until_stopped")
    evaluations.evaluator.start(Trial(2, 2, {}, 1))

    first = evaluations.wait(Reported)
    evaluations.evaluator.stop()
    finished = evaluations.wait(Finished)

    assert first == (2, 1, 0, 0.0)
    assert finished.status is Status.DONE
    last = evaluations.events[-1]
    assert (last.step, last.value) == (finished.objective, float("inf"))


def test_stopping_one_trial_does_not_stop_the_next(bench):
    evaluations = bench("report_until_stopped")
    for trial in range(2):
        evaluations.evaluator.start(Trial(trial, trial, {}))
        evaluations.wait(Reported)
        evaluations.evaluator.stop()
        evaluations.evaluator.stop()

        assert evaluations.wait(Finished).objective > 0
        evaluations.events.clear()


# -- loading


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import no_such_module", "no_such_module"),
        ("import sys; sys.exit(4)", "sys.exit"),
        ("import os; print('importing', flush=True); os._exit(5)", "exited with code 5\nlast output:\nimporting"),
        ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
        ("raise ValueError('at import')", "at import"),
        ("run = 3", ""),
    ],
)
def test_a_run_function_that_cannot_be_loaded_is_refused(bench, tmp_path, source, words):
    (tmp_path / "broken.py").write_text(source + "\n")
    path = search_path(tmp_path)
    evaluations = bench("broken.run", load=False, environment={"PYTHONPATH": path})

    refused = evaluations.load()

    assert isinstance(refused, Refused)
    assert words in refused.reason
    assert not evaluations.events


def test_loading_can_be_tried_again(bench, tmp_path):
    module = tmp_path / "late.py"
    module.write_text("raise ValueError\n")
    path = search_path(tmp_path)
    environment = {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    evaluations = bench("late.run", load=False, environment=environment)
    assert isinstance(evaluations.load(), Refused)

    module.write_text("def run(config):\n    return 1.0\n")

    assert isinstance(evaluations.load(), Loaded)
    assert evaluations.evaluate().status is Status.DONE


def test_a_child_that_can_no_longer_be_loaded_is_refused_after_some_tries(bench, tmp_path):
    counter = tmp_path / "counter"
    (tmp_path / "once.py").write_text(
        f"import os\n"
        f"with open({str(counter)!r}, 'a') as file:\n"
        f"    file.write('x')\n"
        f"if os.path.getsize({str(counter)!r}) > 1:\n"
        f"    os._exit(1)\n"
        f"def run(config):\n"
        f"    os._exit(2)\n"
    )
    path = search_path(tmp_path)
    evaluations = bench("once.run", environment={"PYTHONPATH": path})

    assert evaluations.evaluate().status is Status.CRASHED
    refused = evaluations.wait(Refused)

    assert "exited with code 1" in refused.reason
    assert counter.read_text() == "xxxx"


def test_what_imports_print_goes_to_the_log(bench, tmp_path):
    (tmp_path / "chatty.py").write_text("print('imported')\ndef run(config):\n    return 1.0\n")
    path = search_path(tmp_path)
    evaluations = bench("chatty.run", log=tmp_path / "log", environment={"PYTHONPATH": path})

    evaluations.evaluate()

    assert (tmp_path / "log").read_text() == "imported\n"
    assert not list(tmp_path.glob("task*/*.out"))


# -- preparation


def test_a_function_is_prepared_once_in_each_process(bench):
    evaluations = bench("prepared", problem="dhmpi.benchmark.hps.polynome2.Problem")

    assert [evaluations.evaluate(trial).objective for trial in range(3)] == [1.0, 1.0, 1.0]


def test_a_function_that_cannot_be_prepared_is_refused(bench):
    refused = bench("unprepared", load=False).load()

    assert isinstance(refused, Refused)
    assert "unprepared cannot be prepared: the function raised OSError: the data are gone" in refused.reason


# -- commands around the process


def test_a_command_may_be_wrapped_around_the_process(bench):
    wrapped = bench("variable", wrap=("env", "WRAPPED=yes", "{}"))

    assert wrapped.evaluate(name="WRAPPED").metrics == {"value": "yes"}


def test_a_wrapper_that_stays_is_killed_with_what_it_wraps(bench):
    wrapped = bench("hang", wrap=("sh", "-c", '"$@"; exit $?', "sh", "{}"))

    assert wrapped.evaluate(timeout=0.5).status is Status.TIMEOUT


def test_a_wrapper_that_does_not_exist_is_refused(bench):
    refused = bench("square", load=False, wrap=("no-such-command", "{}")).load()

    assert isinstance(refused, Refused)
    assert "no-such-command cannot be started" in refused.reason


def test_a_function_knows_whether_somebody_looks_at_its_reports(bench):
    assert bench("is_watched", watched=True).evaluate().objective == 1.0
    assert bench("is_watched").evaluate().objective == 0.0
