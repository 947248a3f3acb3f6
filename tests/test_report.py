"""The report as a file: complete, whole, harmless whatever users named their things, and of bounded size."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hostile_run import EVIL, hostile_run
from journal_writer import LAYOUT, Writer, ended, event, finished, header, joined, placed, stopping

from dhmpi.analytics import importance, load, report, study
from dhmpi.analytics.__main__ import main
from dhmpi.timeline import Activity

VOID = {"meta", "link", "img", "input", "br", "hr"}


class Page(HTMLParser):
    """Reads a page, and sees to it that every element is closed where it was opened."""

    def __init__(self, text):
        super().__init__()
        self.open, self.scripts, self.attributes, self.figures, self.text = [], [], [], [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.attributes += [(tag, *pair) for pair in attributes]
        self.figures += [value for name, value in attributes if name == "data-figure"]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        elif self.open and self.open[-1] != "style":
            self.text += data

    @property
    def data(self):
        return json.loads(self.scripts[0])


def page_of(*paths, **options):
    return Page(report.page([load(path) for path in paths], **options))


def run_of(path, n, n_ranks=4, architectures=False, updates=0):
    """Write a run of n evaluations, a tenth of which fails."""
    rng = np.random.default_rng(n)
    layout = {**LAYOUT, "hosts": [f"nid{rank // 4}" for rank in range(n_ranks + 2)]}
    layout["groups"] = [[rank] for rank in range(2, n_ranks + 2)]
    events = [joined(rank, 1.0, layout["hosts"][rank]) for rank in range(2, n_ranks + 2)]
    for i in range(n):
        rank, t = 2 + i % n_ranks, 1 + 3.0 * (i // n_ranks)
        config = {"x": float(rng.uniform()), "k": "ab"[i % 2]}
        if architectures:
            config = {"arch_seq": [int(rng.integers(9)), *([0, 1] * architectures)][:architectures]}
        y = None if i % 10 == 3 else i / n + config.get("x", 0.0)
        events += [placed(i, rank, t, config), finished(i, rank, t, t + 2.5, y)]
    end = events[-1]["t"] - T0 if n else 1.0
    events += [event("update", end, reward_mean=0.1 * i, entropy_share=1 / (1 + i)) for i in range(updates)]
    names = ["arch_seq"] if architectures else ["x", "k"]
    problem = "dhmpi.benchmark.nas.digits_dense.Problem" if architectures else "p.Problem"
    writer = Writer(path, hyperparameters=names, problem=problem)
    return writer.begin(*events, stopping(end), ended(end), head=header(layout=layout, max_evals=10 * n)).path


from journal_writer import T0  # noqa: E402


@pytest.fixture(autouse=True)
def small_forest(monkeypatch):
    """Have forests take no time: what they find is tested elsewhere."""
    monkeypatch.setattr(importance, "N_TREES", 8)


@pytest.fixture
def path(tmp_path):
    return run_of(tmp_path / "ambs_1", 80)


def test_a_report_has_every_part_of_a_run(path):
    page = page_of(path)

    assert page.open == []
    assert page.figures == ["account", "gantt", "durations", "trajectory", "parallel", "dependence"]
    usage = load(path).usage()
    for words in (usage.sentence(), "80", "8 without an objective", "The best 10 of 80", "nid1", "p.Problem"):
        assert words in page.text
    assert page.data["runs"][0]["usage"]["totals"]["in flight"] == pytest.approx(usage.utilisation)


def test_a_report_needs_nothing_else(path):
    page = page_of(path)

    addresses = [value for _, name, value in page.attributes if name in ("src", "href", "action")]
    assert all(value.startswith(("#", "data:")) for value in addresses)
    assert "default-src 'none'" in report.POLICY
    assert ("meta", "content", report.POLICY) in page.attributes
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", "".join(page.scripts))


def test_nothing_that_users_named_leaves_its_place(tmp_path):
    text = report.page([load(hostile_run(tmp_path / "run_1")), load(hostile_run(tmp_path / "run_2"))])
    page = Page(text)

    assert page.open == []
    assert len(page.scripts) == 2  # the data and ours
    assert not any(name.startswith("on") for _, name, _ in page.attributes)
    assert not any(tag == "img" for tag, _, _ in page.attributes)
    assert EVIL[:40] in page.text
    names = [axis["name"] for axis in page.data["runs"][0]["parallel"]["axes"]]
    assert f"x{EVIL}" in names
    assert "owned" not in re.sub(r"&[a-z#0-9]+;owned|\\u003[^o]*owned", "", text).split("<style>")[0].split("title>")[0]


def test_what_evaluators_did_is_in_the_right_stretches(path):
    usage = load(path).usage()
    gantt = report._gantt(usage)

    width = usage.length / report.N_PIXELS
    for row, rank in zip(gantt["rows"], np.unique(usage.rank)):
        for pixel in range(0, report.N_PIXELS, 37):
            seconds = np.zeros(len(Activity) + 1)
            for b, e, a, o, r in zip(usage.begin, usage.end, usage.activity, usage.outcome, usage.rank):
                if r == rank:
                    covered = min(e, (pixel + 1) * width) - max(b, pixel * width)
                    seconds[len(Activity) if o == 0 else a] += max(0.0, covered)
            code = row["codes"][pixel]
            assert code == report.NOTHING if seconds.max() == 0 else seconds[int(code)] == pytest.approx(seconds.max())


def test_the_size_does_not_depend_on_evaluations_or_ranks(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "MOST_POINTS", 300)
    monkeypatch.setattr(importance, "MOST", 200)
    small = report.page([load(run_of(tmp_path / "small_1", 1000, 500))])
    large = report.page([load(run_of(tmp_path / "large_1", 4000, 1200))])

    rows = Page(large).data["runs"][0]["gantt"]["rows"]
    assert len(large) < 1.2 * len(small)
    assert len(rows) == 240
    assert rows[0]["label"] == "2–6"
    assert len(Page(large).data["runs"][0]["trajectory"]["trial"]) < 700


def test_the_best_so_far_never_goes_back_though_reports_overtake_one_another(tmp_path):
    Writer(tmp_path).begin(
        joined(2, 0), joined(3, 0), placed(0, 2, 0), placed(1, 3, 0), finished(0, 2, 0, 6, 1.0),
        finished(1, 3, 0, 5, 3.0, t=7), ended(8),
    )  # fmt: skip

    best = page_of(tmp_path).data["runs"][0]["trajectory"]["best"]

    assert best["time"] == {"x": [5, 6], "y": [3, 3]}
    assert best["evaluations"] == {"x": [1, 2], "y": [1, 3]}


def test_architectures_have_their_names_and_networks(tmp_path):
    from dhmpi.load import load_problem

    space = load_problem("dhmpi.benchmark.nas.digits_dense.Problem").architecture_space
    path = run_of(tmp_path / "ppo_1", 60, architectures=len(space.decisions), updates=3)

    page = page_of(path)

    assert "policy" in page.figures
    assert page.data["runs"][0]["updates"]["reward_mean"] == [0, 0.1, 0.2]
    assert "9 different architectures" in page.text
    assert "Dense(96, tanh)" in page.text
    alts = [value for tag, name, value in page.attributes if (tag, name) == ("img", "alt")]
    assert len(alts) == 3
    assert alts[0].startswith("Network of trial ")
    assert "layer0: " in alts[0]
    assert page.data["runs"][0]["importance"]["dependence"][0]["name"] == "layer0"


def test_architectures_of_a_problem_that_is_not_here_have_numbers(tmp_path, monkeypatch):
    path = run_of(tmp_path / "ppo_1", 60, architectures=2)
    monkeypatch.setattr(study.Study, "architecture_space", None)

    page = page_of(path)

    assert "cannot be loaded here" in page.text
    assert "arch_seq[0]" in page.text


def test_several_runs_are_compared(tmp_path):
    page = page_of(run_of(tmp_path / "a_1", 40), run_of(tmp_path / "a_2", 50), run_of(tmp_path / "b_1", 30))

    assert page.figures[0] == "comparison"
    assert [group["n"] for group in page.data["comparison"]["time"]["groups"]] == [2, 1]
    assert page.figures.count("trajectory") == 3
    assert "of several runs of one kind the mean" in page.text


def test_runs_that_are_compared_keep_their_names_and_end_where_they_did(tmp_path):
    Writer(tmp_path / "e5").begin(joined(2, 0), placed(0, 2, 0), finished(0, 2, 0, 1, None))

    page = page_of(run_of(tmp_path / "r1", 40), run_of(tmp_path / "k9", 8), tmp_path / "e5")

    drawn = page.data["comparison"]["time"]
    short = drawn["groups"][1]
    assert [group["name"] for group in drawn["groups"]] == ["r1", "k9"]
    assert drawn["grid"][short["last"]] == 6.5
    assert short["mean"][short["last"] + 1 :] == [None] * (len(drawn["grid"]) - short["last"] - 1)
    assert "standard deviation" not in page.text.partition("Kinds of runs")[0]
    assert "No evaluation of e5 has succeeded." in page.text


def test_axes_of_few_numbers_have_ticks_at_their_values(tmp_path):
    events = [joined(2, 0)]
    for i in range(30):
        config = {"batch": [16, 32, 64][i % 3], "units": [8, 11, 20, 64, 100, 190, 400, 512][i % 8]}
        events += [placed(i, 2, i, config), finished(i, 2, i, i + 1, config["batch"] + config["units"])]
    Writer(tmp_path, hyperparameters=["batch", "units"], logarithmic=["units"]).begin(*events, ended(30))

    (run,) = page_of(tmp_path).data["runs"]

    ticks = {axis["name"]: [tick["text"] for tick in axis["ticks"]] for axis in run["parallel"]["axes"]}
    panels = {panel["name"]: panel for panel in run["importance"]["dependence"]}
    assert ticks == {"batch": ["16", "32", "64"], "units": ["8", "64", "512"]}
    assert panels["batch"]["marks"] == [[16, "16"], [32, "32"], [64, "64"]]
    assert (panels["units"]["marks"], panels["units"]["log"]) == (None, True)


def test_a_resumed_run_took_the_time_of_its_launches(tmp_path):
    writer = Writer(tmp_path / "a").begin(joined(2, 0), placed(0, 2, 0), finished(0, 2, 0, 5, 1.0), ended(8))
    writer.begin(joined(2, 101), placed(1, 2, 101), finished(1, 2, 101, 103, 2.0), ended(104), head=header(T0 + 100))

    content = report.page([load(tmp_path / "a"), load(run_of(tmp_path / "b", 20))])

    row = next(line for line in content.splitlines() if '<a href="#run0">a</a></td>' in line)
    assert "<b>0:00:12</b><span>of search" in content
    assert "utilisation of evaluators in 2 launches" in content
    assert '<td class="n" data-v="12.0">12</td>' in row


def test_a_results_csv_has_a_report_too(path, tmp_path):
    from dhmpi.analytics import export

    export.to_deephyper(load(path), tmp_path / "results.csv")

    page = page_of(tmp_path / "results.csv")

    assert "does not say what evaluators did" in page.text
    assert page.figures == ["trajectory", "parallel", "dependence"]


@pytest.mark.parametrize("events", [[], [joined(2, 0)], [joined(2, 0), placed(0, 2, 0), finished(0, 2, 0, 1, None)]])
def test_a_run_without_success_has_a_report_that_says_so(tmp_path, events):
    Writer(tmp_path / "a").begin(*events)
    Writer(tmp_path / "b").begin(*events)

    page = page_of(tmp_path / "a", tmp_path / "b")

    assert page.open == []
    assert "No evaluation has succeeded." in page.text


def test_the_command_writes_a_report(path, tmp_path, capsys):
    file = tmp_path / "r.html"

    assert main(["report", str(path), "-o", str(file), "-k", "3"]) == 0

    assert capsys.readouterr().out.startswith(f"{file} written (")
    assert "The best 3 of 80" in Page(file.read_text()).text


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nowhere"], "nowhere holds no run"),
        (["RUN", "-o", "x.pdf"], "the name must end in .html"),
        (["RUN", "-o", "/no/such/x.html"], "cannot write /no/such/x.html"),
        (["RUN", "-k", "0"], "-k must be >= 1"),
        (["RUN", "--seed", "-1"], "--seed must be >= 0"),
    ],
)
def test_what_no_report_can_be_made_of_is_refused_in_a_sentence(path, tmp_path, monkeypatch, capsys, words, sentence):
    monkeypatch.chdir(tmp_path)

    assert main(["report", *(str(path) if word == "RUN" else word for word in words)]) == 2

    assert sentence in capsys.readouterr().err
    assert list(tmp_path.glob("*.html")) == []


def test_a_journal_of_a_newer_version_is_refused_in_a_sentence(path, capsys):
    file = path / "journal" / "0.0.jsonl"
    file.write_text(file.read_text().replace('"schema":1', '"schema":99', 1))

    assert main(["report", str(path)]) == 2

    assert "use a newer one" in capsys.readouterr().err
