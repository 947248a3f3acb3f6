"""The report in a real browser: drawn, without errors, and alive under the pointer.  Needs Chromium."""

import html
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from hostile_run import hostile_run
from test_analytics_plots import run_of

from dhmpi.analytics import load, report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.large,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: apt-get install chromium)"),
]
BLUE = (0, 114, 178)

PLAY = """
<script>
{
const chart = document.querySelector("[data-figure=trajectory] svg");
const box = chart.getBoundingClientRect();
const send = (kind, x, y) => chart.dispatchEvent(new PointerEvent(kind, {
  clientX: box.left + x * box.width, clientY: box.top + y * box.height, bubbles: true,
}));
const found = { drawn: document.documentElement.dataset.drawn, title: document.title };
found.figures = [...document.querySelectorAll("[data-figure]")].map((place) => [
  place.dataset.figure, place.querySelectorAll("path, canvas, .bar").length]);
found.wide = document.documentElement.scrollWidth - window.innerWidth;
const ticks = () => [...chart.querySelectorAll(".tick")].map((tick) => tick.textContent).join(" ");
const before = ticks();
for (let x = 0.1; x < 0.9 && document.getElementById("tip").hidden; x += 0.02) send("pointermove", x, 0.5);
found.tip = document.getElementById("tip").textContent;
send("pointerdown", 0.3, 0.5); send("pointermove", 0.5, 0.5); send("pointerup", 0.5, 0.5);
found.zoomed = ticks() !== before;
chart.dispatchEvent(new MouseEvent("dblclick", { bubbles: true }));
found.back = ticks() === before;
const tables = [...document.querySelectorAll("table.sortable")];
const table = tables.find((one) => one.caption.textContent.startsWith("The best"));
const button = [...table.querySelectorAll("th button")].find((b) => b.textContent === "objective");
const column = () => [...table.tBodies[0].rows].map((row) => Number(row.cells[1].dataset.v));
button.click();
found.sorted = column();
const filter = table.closest(".table").previousElementSibling.querySelector("input");
filter.value = table.tBodies[0].rows[0].cells[0].textContent;
filter.dispatchEvent(new Event("input"));
found.shown = [...table.tBodies[0].rows].filter((row) => !row.hidden).length;
const kinds = document.querySelectorAll("[data-figure=trajectory] .choice button");
kinds[1].click();
found.axis = document.querySelector("[data-figure=trajectory] svg .label").textContent;
document.body.setAttribute("data-found", JSON.stringify(found));
}
</script>
"""


def browse(page, *options):
    """Open a page; return the output, and what the console said."""
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr",
        "--window-size=1280,2000", "--virtual-time-budget=5000", *options, page.as_uri(),
    ]  # fmt: skip
    said = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return said.stdout, [line for line in said.stderr.splitlines() if "CONSOLE" in line]


def play(path):
    """Return what a user would find who touches everything, and what the console said."""
    played = path.with_name("played.html")
    played.write_text(path.read_text().replace("</body>", f"{PLAY}</body>"))
    dom, console = browse(played, "--dump-dom")
    (found,) = re.findall(r'data-found="([^"]*)"', dom) or [f"nothing: {console}"]
    return json.loads(html.unescape(found)), console


def picture(path):
    """Return a screenshot of a page, and what the console said."""
    from matplotlib.image import imread

    file = path.with_name("shot.png")
    _, console = browse(path, f"--screenshot={file}")
    return (255 * imread(file)[:, :, :3]).round().astype(int), console


def check(path, n):
    """Check that a report of a run of n evaluations is drawn and alive."""
    found, console = play(path)
    pixels, said = picture(path)

    assert console == said == []
    assert found["drawn"] == "yes"
    assert all(n_drawn for _, n_drawn in found["figures"])
    assert found["wide"] <= 0
    assert re.match(r"trial \d+: ", found["tip"])
    assert (found["zoomed"], found["back"]) == (True, True)
    assert found["sorted"] == sorted(found["sorted"])
    assert 1 <= found["shown"] < len(found["sorted"])
    assert found["axis"] == "evaluations"
    assert (np.abs(pixels - BLUE).sum(axis=2) < 12).mean() > 0.02  # evaluations in the account are blue
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100
    assert (pixels.reshape(-1, 3).max(axis=1) < 120).mean() > 0.005  # there is something to read


def test_a_report_is_drawn_and_alive(tmp_path):
    report.write([load(run_of(tmp_path / "ambs_1", 1000, 128))], tmp_path / "r.html")

    check(tmp_path / "r.html", 1000)


def test_hostile_names_do_nothing_in_a_browser(tmp_path):
    report.write([load(hostile_run(tmp_path / "run_1"))], tmp_path / "r.html")

    found, console = play(tmp_path / "r.html")

    assert console == []
    assert found["title"] == "Report: run_1"
    assert all(n_drawn for _, n_drawn in found["figures"])


def test_a_report_of_100000_evaluations_is_drawn_and_alive(tmp_path):
    size = report.write([load(run_of(tmp_path / "ambs_1", 100_000, 128))], tmp_path / "r.html")

    assert size < 1.5e6
    check(tmp_path / "r.html", 100_000)
