"""``dhmpi.doctor`` on real ranks: it measures, leaves nothing behind, and ends the same everywhere."""

import json

import pytest

RUN = "dhmpi.benchmark.hps.polynome2.run"


def findings(ended):
    content = json.loads(ended.out)
    return content["verdict"], {finding["name"]: finding for finding in content["findings"]}


def test_four_ranks_are_examined(run, mpi, tmp_path):
    ended = run(4, "doctor", "--json", "--run", RUN, "--log-dir", tmp_path)

    verdict, found = findings(ended)
    assert ended.code == 0
    assert verdict in ("ok", "note", "warning")
    assert found["world"]["figure"].startswith("4 ranks on 1 host")
    assert ("is survived" in found["faults"]["figure"]) is (mpi == "openmpi")
    assert "there and back within a host" in found["messages"]["figure"]
    assert RUN in found["imports"]["figure"]
    assert str(tmp_path) in found["files"]["figure"]
    assert all(finding["meaning"] for finding in found.values())
    assert ended.seconds < 60
    assert not list(tmp_path.glob(".dhmpi*"))


@pytest.mark.parametrize("mpi", ["openmpi"], indirect=True)
def test_one_rank_without_a_launcher_is_examined_and_misses_a_function(run):
    ended = run(0, "doctor", "--json", "--run", "no.such.run")

    verdict, found = findings(ended)
    assert (ended.code, verdict) == (1, "problem")
    assert found["world"]["verdict"] == "note"
    assert found["messages"]["figure"] == "none: there is one rank"
    assert "no.such.run cannot be imported on 1 rank" in found["imports"]["figure"]


def test_processes_that_are_worlds_of_their_own_are_found_out(run):
    ended = run(0, "doctor", environment={"PMI_SIZE": "2"})

    assert ended.code == 1
    assert "the launcher started 2 processes, MPI sees 1" in " ".join(ended.out.split())
