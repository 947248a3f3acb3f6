"""Faults on purpose: what --chaos understands, and that the same seed brings the same faults."""

import os
import signal
from collections import Counter

import pytest

from dhmpi.chaos import Chaos, Fault, parse, strike
from dhmpi.errors import OptionError
from dhmpi.options import AmbsOptions
from dhmpi.options import parse as parse_options

N = 4000


def options(*words):
    return parse_options(AmbsOptions, "p", "", ["--problem", "p.Problem", "--run", "p.run", *words])


def test_understands_every_fault():
    text = "kill=0.01, hang=0.02,segv=0.03,slow=0.1x3,rank-kill=0.001,max-rank-kills=5"

    assert parse(text) == Chaos(0.01, 0.02, 0.03, 0.1, 3.0, 0.001, 5)


def test_what_is_not_named_does_not_happen():
    chaos = parse("slow=1")

    assert (chaos.kill, chaos.hang, chaos.segv, chaos.rank_kill) == (0, 0, 0, 0)
    assert chaos.slow_factor == 1


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "knows no fault '': choose from kill, hang, segv, slow, rank-kill, max-rank-kills"),
        ("fire=1", "knows no fault 'fire'"),
        ("slow-factor=2", "knows no fault 'slow-factor'"),
        ("rank_kill=1", "knows no fault 'rank_kill'"),
        ("kill", "--chaos kill is not of the form kill=NUMBER"),
        ("kill=often", "--chaos kill=often is not of the form kill=NUMBER"),
        ("kill=0.1x2", "--chaos kill=0.1x2 is not of the form"),
        ("slow=0.1xmuch", "--chaos slow=0.1xmuch is not of the form"),
        ("max-rank-kills=1.5", "--chaos max-rank-kills=1.5 is not of the form"),
        ("kill=1.5", "--chaos kill must be between 0 and 1, got 1.5"),
        ("segv=-0.1", "--chaos segv must be between 0 and 1, got -0.1"),
        ("hang=nan", "--chaos hang must be between 0 and 1, got nan"),
        ("rank-kill=2", "--chaos rank-kill must be between 0 and 1, got 2"),
        ("kill=0.6,segv=0.6", "probabilities add up to more than 1"),
        ("slow=0.1x0.5", "slow=NUMBERxTIMES with TIMES >= 1, got 0.5"),
        ("slow=0.1xinf", "with TIMES >= 1, got inf"),
        ("slow=0.1xnan", "with TIMES >= 1, got nan"),
        ("max-rank-kills=-1", "--chaos max-rank-kills must be >= 0, got -1"),
    ],
)
def test_what_makes_no_sense_is_refused(text, sentence):
    with pytest.raises(OptionError) as error:
        parse(text)

    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_faults_are_as_frequent_as_asked_for():
    chaos = parse("kill=0.05,hang=0.1,segv=0.15,slow=0.2x3")

    seen = Counter(chaos.fault(7, trial, 0).kind for trial in range(N))

    for kind, share in (("kill", 0.05), ("hang", 0.1), ("segv", 0.15), ("slow", 0.2), ("", 0.5)):
        assert abs(seen[kind] / N - share) < 4 * (share * (1 - share) / N) ** 0.5


def test_deaths_of_ranks_are_as_frequent_as_asked_for_and_hit_all_ranks():
    chaos = parse("rank-kill=0.25")

    victims = Counter(chaos.victim(7, trial, 0, 5) for trial in range(N) if chaos.kills(7, trial, 0))

    assert abs(victims.total() / N - 0.25) < 0.03
    assert sorted(victims) == [0, 1, 2, 3, 4]
    assert max(victims.values()) < 1.4 * min(victims.values())


def test_the_same_seed_brings_the_same_faults_and_another_seed_others():
    chaos = parse("kill=0.3,slow=0.3x2,rank-kill=0.3")

    def faults(seed):
        return [(chaos.fault(seed, trial, 0), chaos.kills(seed, trial, 0)) for trial in range(50)]

    assert faults(1) == faults(1)
    assert faults(1) != faults(2)


def test_another_attempt_may_go_well():
    chaos = parse("kill=0.5")

    kinds = [chaos.fault(1, 0, attempt).kind for attempt in range(20)]

    assert set(kinds) == {"kill", ""}


def test_certain_faults_always_happen():
    assert {parse("hang=1").fault(3, trial, 0).kind for trial in range(100)} == {"hang"}
    assert parse("slow=1x4").fault(3, 0, 0) == Fault("slow", 4.0)
    assert all(parse("rank-kill=1").kills(3, trial, 0) for trial in range(100))
    assert not any(parse("kill=1").kills(3, trial, 0) for trial in range(100))


@pytest.mark.parametrize(("kind", "number"), [("kill", signal.SIGKILL), ("segv", signal.SIGSEGV)])
def test_a_struck_process_dies_of_the_signal(monkeypatch, kind, number):
    sent = []
    monkeypatch.setattr(os, "kill", lambda pid, signal_: sent.append((pid, signal_)))
    handler = signal.getsignal(signal.SIGSEGV)

    strike(kind)

    signal.signal(signal.SIGSEGV, handler)
    assert sent == [(os.getpid(), number)]


@pytest.mark.parametrize("kind", ["", "slow"])
def test_a_slow_evaluation_is_not_struck_before_it_begins(monkeypatch, kind):
    monkeypatch.setattr(os, "kill", None)
    monkeypatch.setattr("time.sleep", None)

    strike(kind)


@pytest.mark.parametrize("fault", ["kill=0.1", "hang=0.1", "segv=0.1", "slow=0.1x2"])
def test_faults_of_evaluations_need_a_process_of_their_own(fault):
    with pytest.raises(OptionError, match="--chaos with faults of evaluations needs --evaluator process"):
        options("--evaluator", "inline", "--chaos", fault)


def test_ranks_may_die_where_evaluations_are_inline():
    assert options("--evaluator", "inline", "--chaos", "rank-kill=0.1").faults == Chaos(rank_kill=0.1)


def test_what_hangs_needs_a_timeout():
    with pytest.raises(OptionError, match="--chaos hang needs --eval-timeout-minutes"):
        options("--chaos", "hang=0.1")

    assert options("--chaos", "hang=0.1", "--eval-timeout-minutes", "1").faults == Chaos(hang=0.1)


def test_options_refuse_what_the_faults_do():
    with pytest.raises(OptionError, match="knows no fault 'fire'"):
        options("--chaos", "fire=1")


def test_there_are_no_faults_by_default():
    assert options().faults is None
