"""Figures: that each says what it should, in every format, also for very many evaluations."""

import numpy as np
import pytest
from journal_writer import LAYOUT, Writer, ended, event, finished, header, joined, placed, stopping

from dhmpi.analytics import importance, load, trajectory
from dhmpi.analytics.__main__ import main
from dhmpi.timeline import Activity

matplotlib = pytest.importorskip("matplotlib")
from dhmpi.analytics import plots  # noqa: E402  needs matplotlib


def run_of(path, n, n_ranks=4, architectures=False, seed=0):
    """Write a run of n evaluations, some of which fail, and one of which is far worse than all others."""
    rng = np.random.default_rng(seed)
    layout = {**LAYOUT, "hosts": ["node0"] * (n_ranks + 2), "groups": [[rank] for rank in range(2, n_ranks + 2)]}
    events, free = [], dict.fromkeys(range(2, n_ranks + 2), 1.0)
    events += [joined(rank, 1.0) for rank in free]
    for i in range(n):
        rank = min(free, key=free.get)
        begin = free[rank] + 0.1
        free[rank] = begin + float(rng.exponential(2.0))
        config = {"x": float(rng.uniform(0, 1)), "k": str(rng.choice(["a", "b"]))}
        if architectures:
            config = {"arch_seq": [int(rng.integers(3)), int(rng.integers(2))]}
        objective = None if i % 10 == 3 else -1e6 if i == 5 else i / n + config.get("x", 0.0)
        events += [placed(i, rank, begin - 0.05, config), finished(i, rank, begin, free[rank], objective)]
    end = max(free.values())
    names = ["arch_seq"] if architectures else ["x", "k"]
    writer = Writer(path, hyperparameters=names).begin(*events, head=header(layout=layout, max_evals=10 * n))
    return writer.add(stopping(end), ended(end + 1)).path


@pytest.fixture
def path(tmp_path):
    return run_of(tmp_path / "poly_1", 60)


def words(figure):
    """Return all that is written on a figure."""
    return " | ".join(text.get_text() for text in figure.findobj(matplotlib.text.Text) if text.get_text())


def test_utilisation_tells_both_definitions_and_the_whole_account(path):
    usage = load(path).usage()

    said = words(plots.utilisation(usage, "poly_1"))

    assert f"in flight: {usage.utilisation:.1%}" in said
    assert f"completed: {usage.utilisation_completed:.1%}" in said
    for activity in Activity:
        assert (f"{activity.word} " in said) is bool(usage.seconds[activity.word])
    assert usage.sentence() in said


def test_every_evaluator_has_a_row(path):
    usage = load(path).usage()

    figure = plots.ranks(usage, "poly_1")

    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["2 node1", "3 node1", "4 node2", "5 node2"]
    n_boxes = sum(len(collection.get_paths()) for collection in axes.collections)
    assert n_boxes == len(usage.rank)
    assert "failed evaluation" in words(figure)


def test_of_very_many_evaluations_a_picture_shows_what_took_most_of_the_time(path, monkeypatch):
    usage = load(path).usage()
    monkeypatch.setattr(plots, "MANY", 10)
    monkeypatch.setattr(plots, "N_PIXELS", 37)

    figure = plots.ranks(usage, "poly_1")

    picture = figure.axes[0].images[0].get_array()
    assert picture.shape == (4, 37)
    edges = np.linspace(0, usage.length, 38)
    for row, rank in enumerate(np.unique(usage.rank)):
        for pixel in range(37):
            seconds = np.zeros(len(Activity) + 1)
            for b, e, a, o, r in zip(usage.begin, usage.end, usage.activity, usage.outcome, usage.rank):
                code = len(Activity) if o == 0 else a
                if r == rank:
                    seconds[code] += max(0.0, min(e, edges[pixel + 1]) - max(b, edges[pixel]))
            assert seconds[picture[row, pixel]] == pytest.approx(seconds.max())


def test_failures_by_host(path):
    said = words(plots.hosts(load(path).usage(), "poly_1"))

    assert "node1" in said
    assert "node2" in said
    assert " of " in said


@pytest.mark.parametrize("by", ["time", "evaluations"])
def test_the_trajectory_leaves_hopeless_objectives_out_of_sight(path, by):
    figure = plots.trajectory(load(path), by, 10)

    said = words(figure)
    low, high = figure.axes[0].get_ylim()
    assert "mean of the last 10" in said
    assert "failed (6)" in said
    assert "1 below" in said
    assert low > -10
    assert high < 3


def test_what_a_policy_learned_has_a_panel_of_its_own(tmp_path):
    path = run_of(tmp_path / "ppo_1", 30, architectures=True)
    writer = Writer(path)
    updates = [event("update", i, reward_mean=0.1 * i, entropy_share=1 / (1 + i)) for i in range(5)]
    writer.launch = 0
    writer.begin(*updates, head=header())

    figure = plots.trajectory(load(path), "time", 100)

    assert "entropy, of the largest" in words(figure)
    assert figure.axes[1].lines[0].get_ydata().tolist() == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


def test_a_comparison_has_a_line_and_a_band_for_each_kind(tmp_path):
    studies = [load(run_of(tmp_path / f"{name}_{seed}", 40, seed=seed)) for name in ("a", "b") for seed in (1, 2)]

    figure = plots.comparison(trajectory.compare(studies), "time")

    said = words(figure)
    assert "a (ambs), 2 runs" in said
    assert "b (ambs), 2 runs" in said
    assert len(figure.axes[0].collections) == 2
    assert "of several runs the mean, with one standard deviation" in said


def test_a_comparison_of_single_runs_speaks_of_no_mean_and_ends_each_line_where_the_run_did(tmp_path):
    studies = [load(run_of(tmp_path / name, n)) for name, n in (("long1", 40), ("short1", 10))]
    hopeless = Writer(tmp_path / "e5").begin(joined(2, 0), placed(0, 2, 0), finished(0, 2, 0, 1, None))

    figure = plots.comparison(trajectory.compare([*studies, load(hopeless.path)]), "time")

    said = words(figure)
    assert "standard deviation" not in said
    assert "no evaluation of e5 has succeeded" in said
    assert "short1, 1 run" in said
    for line, study in zip(figure.axes[0].lines, studies, strict=True):
        shown = line.get_xdata()[~np.isnan(line.get_ydata())]
        assert shown[-1] == study.seconds.max()


def test_importance_shows_how_the_objective_depends(path):
    found = importance.measure(load(path))

    said = words(plots.importance(found, "poly_1"))

    assert "permutation importance, from 54 evaluations" in said
    assert "x" in said.split(" | ")
    assert {"a", "b"} <= set(said.split(" | "))


def test_few_numbers_have_ticks_at_their_values(tmp_path):
    rng = np.random.default_rng(0)
    events = [joined(2, 0)]
    for i in range(30):
        config = {"batch": int(rng.choice([16, 32, 64])), "units": int(2 ** rng.uniform(3, 9))}
        events += [placed(i, 2, i, config), finished(i, 2, i, i + 1, config["batch"] + config["units"])]
    described = {"hyperparameters": ["batch", "units"], "logarithmic": ["units"]}
    study = load(Writer(tmp_path, **described).begin(*events, ended(30)).path)
    found = importance.measure(study)

    panels = {axes.get_title(): axes for axes in plots.importance(found, "x").findobj(matplotlib.axes.Axes)}
    said = words(plots.parallel(study, found)).split(" | ")

    assert [label.get_text() for label in panels["batch"].get_xticklabels()] == ["16", "32", "64"]
    assert panels["units"].get_xscale() == "log"
    assert {"16", "32", "64"} <= set(said)
    assert "40" not in said


def test_configurations_are_lines_over_parallel_axes(path):
    study = load(path)

    figure = plots.parallel(study, importance.measure(study))

    assert len(figure.axes[0].lines) == 54
    assert "54 of 54 configurations" in words(figure)


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
@pytest.mark.parametrize(
    "arguments",
    [
        ("utilization",), ("utilization", "--plot", "ranks"), ("utilization", "--plot", "hosts"), ("trajectory",),
        ("compare",), ("importance",), ("importance", "--plot", "parallel"),
    ],
    ids=lambda words: words[-1],
)  # fmt: skip
def test_every_figure_is_written_in_every_format(path, tmp_path, capsys, monkeypatch, suffix, arguments):
    monkeypatch.setattr(importance, "N_TREES", 4)
    file = tmp_path / f"figure.{suffix}"

    code = main([arguments[0], str(path), *arguments[1:], "-o", str(file)])

    capsys.readouterr()
    assert code == 0
    content = file.read_bytes()
    assert content.startswith({"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[suffix])
    if suffix == "png":
        from matplotlib import image

        assert image.imread(file)[:, :, :3].std() > 0.05


def test_a_run_without_evaluations_has_figures_too(tmp_path, capsys):
    Writer(tmp_path / "new").begin()

    for arguments in (
        ("utilization",),
        ("utilization", "--plot", "ranks"),
        ("utilization", "--plot", "hosts"),
        ("trajectory",),
    ):
        assert main([arguments[0], str(tmp_path / "new"), *arguments[1:], "-o", str(tmp_path / "x.png")]) == 0

    capsys.readouterr()
