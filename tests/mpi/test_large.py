"""More ranks than a test machine likes; `make test-large` runs these."""

import pytest
from test_ambs import CHEAP, rows

pytestmark = pytest.mark.large


def test_128_ranks_on_a_small_machine(run, tmp_path):
    directory = tmp_path / "run"

    ended = run(128, "ambs", *CHEAP, "--max-evals", 5000, "--log-dir", directory, timeout=400)

    assert ended.code == 0, ended.err
    table = rows(directory)
    assert sorted(int(row["trial"]) for row in table) == list(range(5000))
    assert {int(row["rank"]) for row in table} == set(range(2, 128))
