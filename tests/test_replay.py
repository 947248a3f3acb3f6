"""``python -m dhmpi.replay``: what it finds the same, what it finds otherwise, how it ends."""

import dataclasses
import json
import subprocess
import sys

import pytest

from dhmpi import journal, replay
from dhmpi.ambs import spec
from dhmpi.budget import Limits
from dhmpi.load import load_problem
from dhmpi.mpi.protocol import Proposed
from dhmpi.options import AmbsOptions
from dhmpi.roles.dispatcher import Dispatcher
from dhmpi.roles.events import ranges
from dhmpi.roles.virtual import simulate
from dhmpi.search.build import build
from dhmpi.search.uniform import UniformSearch
from dhmpi.trials import Outcome, Proposal, Status

POLYNOME = "dhmpi.benchmark.hps.polynome2"
HOST = "host"
SMALL = """
from dhmpi.problem import HpProblem

Problem = HpProblem()
Problem.add_hyperparameter([1, 2, 3, 4], "a")
Problem.add_hyperparameter(["x", "y", "z"], "b")
"""


def objective(config):
    return -sum(value**2 for value in config.values())


def lognormal(config, rng):
    return float(rng.lognormal(0.0, 0.5))


class Record:
    """A run directory in the making."""

    def __init__(self, path, options, n_evaluators=4):
        self.path = path
        self.options = options
        self.n_evaluators = n_evaluators
        self.spec = {
            **spec(options),
            "problem": options.problem,
            "seed": options.seed,
            "n_evaluators": n_evaluators,
            "max_evals": options.max_evals,
        }
        self.search, info = build(self.spec)
        layout = {
            "hosts": [HOST] * n_evaluators,
            "master": 0,
            "searcher": None,
            "groups": [[rank] for rank in range(n_evaluators)],
            "spare": [],
        }
        path.mkdir(exist_ok=True)
        self.describe(
            {
                "problem": options.problem,
                "function": options.run,
                "seed": options.seed,
                "fingerprint": info["fingerprint"],
                "layout": layout,
                "options": dataclasses.asdict(options),
            }
        )

    def describe(self, content):
        (self.path / "run.json").write_text(json.dumps(content))

    def write(self, events, launch=0, epoch=0, t=0.0):
        header = {"t": t, "ranks": self.n_evaluators, "options": dataclasses.asdict(self.options)}
        file = journal.Journal(self.path / "journal", launch, epoch, header)
        file.write(events)
        file.close()

    def edit(self, change, file="0.0.jsonl"):
        """Change the events of a file: `change` takes and returns their list."""
        path = self.path / "journal" / file
        events = [json.loads(line) for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(event) + "\n" for event in change(events)))


def options_of(**changes):
    values = {"problem": f"{POLYNOME}.Problem", "run": f"{POLYNOME}.run", "seed": 3, "max_evals": 24, **changes}
    return AmbsOptions(**values)


def limits_of(options):
    return Limits(options.max_evals, quarantine_after=options.quarantine_after)


@pytest.fixture(scope="module")
def events():
    """Return the journal of a run in virtual time."""
    options = options_of()
    search, _ = build({**spec(options), "problem": options.problem, "seed": 3, "n_evaluators": 4, "max_evals": 24})
    return simulate(search, limits_of(options), 4, objective, lognormal, seed=5).events


@pytest.fixture
def record(tmp_path, events):
    record = Record(tmp_path / "run", options_of())
    record.write(events)
    return record


@pytest.fixture
def replayed(capsys):
    """Return a function that replays and returns exit code, stdout in one line, and stderr."""

    def call(path, *arguments):
        code = replay.main([str(path), *arguments])
        out, err = capsys.readouterr()
        return code, " ".join(out.split()), err

    return call


def nth(events, kind, n):
    return [i for i, event in enumerate(events) if event["e"] == kind][n]


def changing(kind, n, **changes):
    """Return an edit of the n-th event of a kind."""

    def change(events):
        events[nth(events, kind, n)].update(changes)
        return events

    return change


def test_a_run_in_virtual_time_is_the_same(record, replayed, events):
    code, out, err = replayed(record.path)

    assert (code, err) == (0, "")
    n_asks = sum(event["e"] == "asked" for event in events)
    assert f"Search: {n_asks} asks" in out
    assert f"event by event: {len(events)} events: the same" in out
    assert "invariants: 24 trials, 24 outcomes: they hold" in out


def test_a_changed_configuration_is_found_by_the_search_alone(record, replayed):
    config = {f"e{i}": 1.5 for i in range(10)}
    record.edit(changing("placed", 18, config=config))

    code, out, _ = replayed(record.path)

    line = 1 + nth([json.loads(line) for line in (record.path / "journal/0.0.jsonl").open()], "placed", 18)
    assert code == 1
    assert "Search: it diverges after" in out
    assert f"0.0.jsonl line {line}: ask" in out
    assert "│ e0 │ 1.5 │" in out
    assert "Dispatcher, event by event: " in out
    assert "events: the same" in out


def test_an_ask_that_knew_more_is_found(record, replayed):
    record.edit(changing("asked", 4, told=23))

    code, out, _ = replayed(record.path, "--only", "search")

    assert code == 1
    assert "ask 4 knew 23 outcomes" in out


def test_an_ask_that_knew_what_is_not_pending_is_found(record, replayed):
    record.edit(changing("asked", 3, pending=[[500, 501]]))

    code, out, _ = replayed(record.path, "--only", "search")

    assert code == 1
    assert "ask 3 knew of key 500, which is not pending in the replay" in out


def test_an_ask_that_is_missing_is_found(record, replayed):
    record.edit(lambda events: [e for i, e in enumerate(events) if i != nth(events, "asked", 2)])

    code, out, _ = replayed(record.path, "--only", "search")

    assert code == 1
    assert "no ask of the replay brought" in out or "ask 3 follows where ask 2 should" in out


def test_a_trial_on_another_rank_is_found(record, replayed):
    def change(events):
        event = events[nth(events, "placed", 12)]
        event["rank"] = (event["rank"] + 1) % 4
        return events

    record.edit(change)

    code, out, _ = replayed(record.path)

    assert code == 1
    assert "Dispatcher, event by event: it diverges after" in out
    assert "expected placed trial 12" in out
    assert "│ rank │" in out


def test_another_id_is_found(record, replayed):
    record.edit(changing("placed", 12, trial=13))

    code, out, _ = replayed(record.path, "--only", "dispatcher")

    assert code == 1
    assert "│ trial │ 13 │ 12 │" in out
    assert "trial 13 follows trial 11: ids must have no gaps" in out


def test_an_outcome_that_is_missing_is_found(record, replayed):
    record.edit(lambda events: [e for i, e in enumerate(events) if i != nth(events, "finished", 9)])

    code, out, _ = replayed(record.path, "--only", "dispatcher")

    assert code == 1
    assert "it diverges after" in out


def test_a_reason_to_stop_that_is_none_is_found(record, replayed):
    record.edit(changing("stopping", 0, reason="the target of 7 is reached"))

    code, out, _ = replayed(record.path, "--only", "dispatcher")

    assert code == 1
    assert "all 24 evaluations are finished" in out


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda es: [*es, es[nth(es, "finished", 3)]], "has a second outcome"),
        (changing("launch", 0, options={**dataclasses.asdict(options_of()), "max_evals": 20}), "a budget of 20"),
        (changing("placed", 5, rank=17), "trial 5 was given to rank 17, which had not joined or had left"),
        (changing("placed", 5, attempt=1), "trial 5 has attempt 1 after attempt 0"),
        (changing("finished", 0, trial=23), "has an outcome but was never given out"),
    ],
)
def test_a_broken_invariant_is_found(record, replayed, change, words):
    record.edit(change)

    code, out, _ = replayed(record.path, "--only", "dispatcher")

    assert code == 1
    assert "invariants: broken" in out
    assert words in out


def test_a_configuration_under_two_ids_is_found(record, replayed, events):
    record.edit(changing("placed", 7, config=events[nth(events, "placed", 2)]["config"]))

    code, out, _ = replayed(record.path, "--only", "dispatcher")

    assert code == 1
    assert "trial 7 has the configuration of trial 2" in out


def test_an_exhausted_space_is_replayed(tmp_path, replayed):
    problem = tmp_path / "small.py"
    problem.write_text(SMALL)
    options = options_of(problem=str(problem), max_evals=50)
    record = Record(tmp_path / "run", options)
    run = simulate(record.search, limits_of(options), 4, lambda config: config["a"], lognormal, seed=1)
    record.write(run.events)

    code, out, _ = replayed(record.path)

    assert "exhausted" in run.reason
    assert code == 0, out
    assert "invariants: 12 trials, 12 outcomes" in out


class Asking:
    """Asks a search step by step and records it, one evaluation at a time."""

    def __init__(self, record):
        self.record = record
        self.search = record.search
        self.events = [{"e": "joined", "t": 0.0, "rank": 0, "host": HOST}]
        self.finished = []
        self.pending = {}
        self.n_trials = 0

    def step(self, n=2, n_lost=0):
        """Ask for `n`; the last is left unfinished, and lost if wanted: it stays with a master that dies."""
        told, pending = self.search.n_told, self.search.pending()
        proposals = self.search.ask(n)
        self.add(
            "asked", ask=self.search.n_asks - 1, n=n, told=told, pending=ranges(pending), replacing=[], seconds=0.0
        )
        for key, config in proposals[: n - n_lost]:
            self.add("placed", trial=self.n_trials, attempt=0, rank=0, key=key, config=config)
            self.pending[key] = (self.n_trials, config)
            self.n_trials += 1
        for key, config in proposals[: n - 1]:
            self.finish(key, objective(config))
        self.search.tell([(key, y) for key, _, y in self.finished[-(n - 1) :]])

    def finish(self, key, y):
        trial, config = self.pending.pop(key)
        outcome = {"trial": trial, "attempt": 0, "status": "done", "objective": y, "rank": 0, "host": HOST}
        self.add("finished", **outcome, start=0.0, end=0.0, elapsed=1.0)
        self.finished.append((key, config, y))

    def add(self, kind, **rest):
        self.events.append({"e": kind, "t": float(len(self.events)), **rest})

    def restart(self):
        """Begin a new search, as after the death of the searcher."""
        n_asks = self.search.n_asks
        self.search, _ = build(self.record.spec)
        self.search.restore(self.finished, [(key, config) for key, (_, config) in self.pending.items()], n_asks)


def test_a_search_that_began_anew_unrecorded_is_inferred(tmp_path, replayed):
    record = Record(tmp_path / "run", options_of(surrogate_model="DUMMY"))
    asking = Asking(record)
    asking.step()
    asking.step(n_lost=1)
    asking.restart()
    asking.step()
    record.write(asking.events)

    code, out, _ = replayed(record.path, "--only", "search")

    assert code == 0, out
    assert "3 asks, 6 proposals: the same" in out
    assert "ask 2 (0.0.jsonl line 10) agrees if a new search began before it" in out


class OrderMinded(UniformSearch):
    """Proposes what depends on the order in which it was told, as models do, at once."""

    def tell(self, results):
        super().tell(results)
        for key, _ in results:
            self.seed = (31 * self.seed + key) % 2**32


def build_order_minded(spec):
    problem = load_problem(spec["problem"])
    return OrderMinded(problem.space, spec["seed"]), {"size": None, "fingerprint": problem.fingerprint()}


def test_the_order_in_which_a_new_master_told_outcomes_is_inferred(tmp_path, replayed, monkeypatch):
    monkeypatch.setattr("dhmpi.replay.command._build", build_order_minded)
    record = Record(tmp_path / "run", options_of())
    record.search, _ = build_order_minded(record.spec)
    asking = Asking(record)
    for _ in range(4):
        asking.step(3)
    for key in sorted(asking.pending, reverse=True):
        asking.finish(key, objective(asking.pending[key][1]))
    asking.search.tell([(key, y) for key, _, y in sorted(asking.finished[-4:])])
    taken_over = len(asking.events)
    for _ in range(3):
        asking.step(3)
    record.write(asking.events[:taken_over])
    record.write(asking.events[taken_over:], epoch=1)

    code, out, _ = replayed(record.path, "--only", "search")

    assert code == 0, out
    assert "7 asks, 21 proposals: the same" in out
    assert "agrees if outcomes were told in another order by a new master" in out


class Driven:
    """A dispatcher that is called by hand, and its journal."""

    def __init__(self, record, history=None, now=0.0):
        options = record.options
        self.dispatcher = Dispatcher(limits_of(options), options.silence)
        self.events = []
        if history is not None:
            self.dispatcher.inherit(history, [f"{HOST}{rank}" for rank in range(4)], now)

    def __call__(self, method, *arguments, **named):
        getattr(self.dispatcher, method)(*arguments, **named)
        self.events += self.dispatcher.take_events()

    def propose(self, ask, keys, now):
        proposals = [Proposal(key, {"e0": float(key)}) for key in keys]
        self("propose", Proposed(ask, 0, [], proposals, [], False, 0.0), now)

    def report(self, rank, *trials, now, seconds=30.0):
        outcomes = [
            Outcome(trial, 0, Status.DONE, 1.0, {}, rank, f"{HOST}{rank}", now - seconds, now, seconds)
            for trial in trials
        ]
        self("report", rank, outcomes, now)


def test_losses_silences_and_a_new_master_are_replayed(tmp_path, replayed):
    record = Record(tmp_path / "run", options_of(max_evals=12))
    first = Driven(record)
    for rank in (1, 2, 3):
        first("join", rank, f"{HOST}{rank}", 0.1 * rank)
    first.propose(0, range(8), 1.0)
    first.report(1, 0, now=31.0)
    first("alive", 1, 80.0)
    first("alive", 3, 80.0)
    first("tick", 95.0)  # rank 2 is silent
    first("alive", 2, 99.0)
    first("tick", 99.5)
    first("leave", 3, 100.0, "rank 3 on host3 has died", died=True)
    first.report(1, 3, now=101.0)
    record.write(first.events)
    history = journal.replay(record.path / "journal")
    second = Driven(record, history, 110.0)
    second("holds", 1, f"{HOST}1", history.holders and [t for t, r in history.holders.items() if 1 in r], 111.0)
    second("put_ahead", first.dispatcher.ahead, 112.0)
    second("holds", 2, f"{HOST}2", [], 113.0)
    second.propose(1, range(8, 12), 114.0)
    second("stop", "SIGTERM ended it", 120.0, cancel=True)
    record.write(second.events, epoch=5, t=110.0)
    kinds = {event["e"] for event in first.events + second.events}

    code, out, _ = replayed(record.path, "--only", "dispatcher")

    assert {"silent", "heard", "left", "lost", "stopping"} <= kinds
    assert code == 0, out
    assert f"{len(first.events) + len(second.events)} events: the same" in out


def test_a_journal_that_ends_within_a_decision_is_replayed(record, replayed):
    record.edit(lambda events: events[: nth(events, "asked", 0) + 2])

    code, out, _ = replayed(record.path)

    assert code == 0, out


def test_a_real_run_and_its_resumption_are_the_same(tmp_path, replayed):
    command = [sys.executable, "-m", "dhmpi.ambs", "--problem", f"{POLYNOME}.Problem", "--run", f"{POLYNOME}.run"]
    for words in (["--max-evals", "12"], ["--max-evals", "20", "--resume"]):
        said = subprocess.run(
            [*command, "--seed", "1", "--log-dir", str(tmp_path / "run"), *words],
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert said.returncode == 0, said.stderr

    code, out, _ = replayed(tmp_path / "run")

    assert code == 0, out
    assert "2 launches, 2 masters" in out
    assert "proposals: the same (20 of them" in out


@pytest.mark.parametrize(
    ("spoil", "arguments", "words"),
    [
        (lambda path: None, [], "the following arguments are required: RUN_DIRECTORY"),
        (lambda path: None, ["RUN", "--only", "luck"], "invalid choice: 'luck'"),
        (lambda path: None, ["/nowhere"], "/nowhere holds no run"),
        (lambda path: (path / "run.json").unlink(), ["RUN"], "cannot read"),
        (lambda path: (path / "run.json").write_text("{}"), ["RUN"], "has no options, problem, seed"),
    ],
)
def test_bad_input_ends_with_2_and_one_sentence(record, capsys, spoil, arguments, words):
    spoil(record.path)

    code = replay.main([str(record.path) if word == "RUN" else word for word in arguments])

    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert words in err
    assert err.startswith("dhmpi.replay: ")
    assert err.count("\n") == 1


def test_another_space_is_refused(record, replayed):
    content = json.loads((record.path / "run.json").read_text())
    record.describe({**content, "problem": "dhmpi.benchmark.hps.toy.problem_basic_1.Problem"})

    code, _, err = replayed(record.path)

    assert code == 2
    assert "is not the one that the run in" in err


def test_a_spoilt_line_is_refused(record, replayed):
    file = record.path / "journal" / "0.0.jsonl"
    file.write_text(file.read_text().replace('{"e":"asked"', '{"x":"asked"', 1))

    code, _, err = replayed(record.path)

    assert code == 2
    assert "is no event of a journal" in err
