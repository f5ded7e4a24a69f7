"""The page in headless Chromium: what a reader does with it, and what it then shows."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from synthetic_run import make, time_in_turns

import reports.html
from core.point import Point
from core.record import Section
from reports.html.content import content
from results.curves import curves
from results.table import load

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

BROWSERS = ("chromium", "chromium-headless-shell", "chromium-browser", "google-chrome")
PHONE = {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def browser() -> Iterator:
    """Chromium: $CHROMIUM, one on the path, or playwright's own."""
    with playwright.sync_playwright() as engine:
        found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
        found = found or engine.chromium.executable_path
        if not Path(found).is_file():
            pytest.skip("no Chromium; install one, or: playwright install chromium-headless-shell")
        started = engine.chromium.launch(executable_path=found)
        yield started
        started.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Three seeds, a failure whose reason is mark-up, and a disturbed timing."""
    run = make(tmp_path_factory.mktemp("page") / "run", methods=("low-rank", "row-pruning"),
               rates=(0.1, 0.5, 0.9), seeds=(0, 1, 2))  # fmt: skip
    time_in_turns(run)
    failed = Point("builtin", "low-rank", 0.7, 0, "builtin")
    run.write_point(failed)
    reason = "</script><script>console.error('broken out')</script>"
    run.write_section(failed.key, Section("compress", "failed", "f", reason=reason))
    key = Point("builtin", "low-rank", 0.5, 1, "builtin").key
    latency = run.read(key).sections["profile.latency"]
    latency.details["disturbed"] = True
    run.write_section(key, latency)
    return run.path


@pytest.fixture(scope="module")
def file(folder) -> Path:
    out = folder.parent / "report.html"
    reports.html.write([folder], out)
    return out


@pytest.fixture
def open_page(browser):
    """Opens a file, waits for its chart, and fails where the console has an error or a warning."""
    pages, troubles = [], []

    def open_(file: Path, chart: bool = True, **options):
        page = browser.new_page(**options)
        pages.append(page)
        page.on("console", lambda said: troubles.append(said.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", lambda asked: asked.url.startswith(("file:", "data:", "blob:"))
                or troubles.append(f"asked for {asked.url}"))  # fmt: skip
        page.goto(file.as_uri())
        page.wait_for_selector("#chart .scatterlayer .trace" if chart else "#chart .empty")
        return page

    yield open_
    for page in pages:
        page.close()
    assert not troubles


@pytest.fixture
def page(open_page, file):
    return open_page(file)


def axis_titles(page):
    return page.evaluate("['x', 'y'].map((a) => document.querySelector(`.${a}title`).textContent)")


def hover_first(page, method):
    """Point at the first mark of a method."""
    where = page.evaluate(
        """(method) => {
            const chart = document.getElementById('chart');
            const {data, _fullLayout: {xaxis, yaxis}} = chart;
            const {x, y} = data.find((trace) => trace.name === method);
            const {left, top} = chart.getBoundingClientRect();
            return [left + xaxis._offset + xaxis.d2p(x[0]), top + yaxis._offset + yaxis.d2p(y[0])];
        }""",
        method,
    )
    page.mouse.move(*where)
    page.locator("#chart .hovertext", has_text=method).wait_for()
    return where


def cells(page, column):
    """The texts of a column of the leaderboard."""
    headings = page.locator("#table thead button").evaluate_all(
        "(all) => all.map((button) => button.dataset.column)"
    )
    place = headings.index(column) + 1
    return page.locator(f"#table tbody td:nth-child({place})").all_text_contents()


def test_axes_can_be_chosen(page):
    assert axis_titles(page) == ["Parameters (M)", "superb_s"]
    before = page.evaluate("JSON.stringify(document.getElementById('chart').data.map((t) => t.x))")
    page.select_option("#x", "latency_s_p50")
    page.select_option("#y", "pr_per")
    assert axis_titles(page) == ["Latency, median (ms)", "pr_per (%), lower is better"]
    after = page.evaluate("JSON.stringify(document.getElementById('chart').data.map((t) => t.x))")
    assert before != after
    low, high = page.evaluate("document.getElementById('chart')._fullLayout.yaxis.range")
    assert low > high, "the good end of errors is up"
    assert "Rings: disturbed while they were timed (1 marks)." in page.inner_text("#notes")
    page.check("#log-x")
    assert page.evaluate("document.getElementById('chart')._fullLayout.xaxis.type") == "log"
    page.click("#swap")
    assert axis_titles(page)[1] == "Latency, median (ms)"


def test_marks_and_front_are_those_of_the_figures(page, folder):
    check_marks(page, folder, "params_total", "superb_s")
    check_marks(page, folder, "latency_s_paired", "pr_per")
    check_marks(page, folder, "speedup", "ks_acc")


def check_marks(page, folder, x, y):
    table = curves(load([folder]), x, y)
    expected = table[~table["method"].isin(["fbank", "random-init"])]
    page.select_option("#x", x)
    page.select_option("#y", y)
    marks = page.evaluate(
        """([x, y]) => gather(points, columns.get(x), columns.get(y))
            .filter((mark) => !level(mark.method))
            .map(({method, rate, seeds, x: a, y: b}) =>
                ({name: `${method} ${rate}`, values: [a.mean, a.low, a.high, b.mean, b.low, b.high],
                  front: drawn.front.has(seeds[0])}))""",
        [x, y],
    )
    scales = {c["name"]: c["divisor"] for c in content([folder])["columns"]}
    found = {mark["name"]: mark for mark in marks}
    assert len(found) == len(expected)
    for row in expected.itertuples():
        mark = found[f"{row.method} {row.rate:g}"]
        costs = [value / scales[x] for value in (row.x, row.x_low, row.x_high)]
        assert mark["values"] == pytest.approx([*costs, row.y, row.y_low, row.y_high])
        assert mark["front"] == row.on_front


def test_hover_shows_the_whole_record(page, folder):
    frame = load([folder])
    seeds = frame[(frame.method == "low-rank") & (frame.rate == 0.1)]
    hover_first(page, "low-rank")
    told = page.inner_text("#record")
    assert told.startswith("low-rank at 0.1")
    assert all(key in told for key in seeds["key"])
    for text in ("cpu", "seed 2", "sid_acc (%)", f"{seeds['superb_s'].mean():,.0f}"):
        assert text in told
    assert "mean of 3 seeds" in page.text_content("#chart .hoverlayer")
    page.mouse.click(*hover_first(page, "low-rank"))
    hover_first(page, "dense")
    assert page.inner_text("#record").startswith("low-rank at 0.1"), "a click keeps it"
    page.keyboard.press("Escape")
    hover_first(page, "row-pruning")
    assert page.inner_text("#record").startswith("row-pruning at 0.1")


def test_methods_can_be_hidden_in_chart_and_table(page):
    def drawn():
        return page.evaluate("document.getElementById('chart').data.map((trace) => trace.name)")

    assert "row-pruning" in drawn()
    page.uncheck("#choices input[value=row-pruning]")
    assert "row-pruning" not in drawn()
    assert not any("row-pruning" in text for text in cells(page, "method"))
    page.get_by_role("button", name="Methods: none").click()
    assert drawn() == []
    assert page.locator("#table tbody tr").count() == 0
    page.get_by_role("button", name="Methods: all").click()
    assert page.locator("#table tbody tr").count() == 28


def test_the_leaderboard_is_filtered_and_sorted(page):
    assert page.inner_text("#count") == "28 of 28 points"
    scores = [float(text.replace(",", "")) for text in cells(page, "superb_s") if text]
    assert len(scores) == 27
    assert scores == sorted(scores, reverse=True), "the best score is first"
    page.fill("#filter", "LOW-rank seed=1")
    assert page.inner_text("#count") == "3 of 28 points"
    page.fill("#filter", "failed")
    assert page.locator("#table tbody tr").count() == 1
    page.fill("#filter", "")
    page.click("#table button[data-column=pr_per]")
    heading = page.locator("#table th", has_text="pr_per")
    assert heading.get_attribute("aria-sort") == "ascending", "low errors are good"
    errors = [float(text) for text in cells(page, "pr_per") if text]
    assert errors == sorted(errors)
    page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "descending", "the heading kept the focus"
    assert [float(text) for text in cells(page, "pr_per") if text] == errors[::-1]
    assert cells(page, "pr_per")[-1] == "", "what has no value is last either way"
    page.click("#columns summary")
    page.check("#columns input[value=limit_share]")
    assert any(cells(page, "limit_share"))


def test_it_can_be_used_by_keyboard(page):
    page.locator("#chart").focus()
    told = []
    for _ in range(3):
        page.keyboard.press("ArrowRight")
        page.wait_for_timeout(100)  # hover labels are drawn at most every 50 ms
        told.append(page.inner_text("#record h3"))
        assert told[-1] in page.text_content("#chart .hoverlayer")
    assert len(set(told)) == 3
    page.keyboard.press("Enter")
    page.locator("#table tbody tr").first.focus()
    page.keyboard.press("ArrowDown")
    assert page.inner_text("#record h3") == told[-1], "Enter kept it"
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowDown")
    key = page.evaluate("document.activeElement.dataset.key")
    assert key == page.locator("#table tbody tr").nth(2).get_attribute("data-key")
    assert key in page.inner_text("#record")


def test_what_is_wrong_is_listed(page):
    gaps = page.inner_text("#gap-list")
    assert "failed compress: </script><script>console.error('broken out')</script>" in gaps
    assert "low-rank at 0.7 (seed 0)" in gaps
    assert "disturbed profile.latency: something else ran" in gaps
    assert "low-rank at 0.5 (seed 1)" in gaps
    images = page.locator("#figure-list img")
    assert images.count() >= 2
    images.first.scroll_into_view_if_needed()
    page.wait_for_function("document.querySelector('#figure-list img').naturalWidth > 500")


def test_lines_of_two_devices_are_never_joined(open_page, folder, tmp_path):
    run = make(tmp_path / "mixed", methods=("low-rank",), rates=(0.1, 0.3), device="one")
    for rate in (0.5, 0.9):
        point = Point("builtin", "low-rank", rate, 0, "builtin")
        make(tmp_path / "mixed", methods=("low-rank",), rates=(rate,), device="two")
        assert run.read(point.key).sections["profile.latency"].environment["device"] == "two"
    dense = Point("builtin", "dense", 0.0, 0, "builtin").key
    section = run.read(dense).sections["profile.latency"]
    section.environment["device"] = "one"
    run.write_section(dense, section)
    reports.html.write([run.path], tmp_path / "a.html")
    page = open_page(tmp_path / "a.html")
    lines = """document.getElementById('chart').data.filter((trace) => trace.name === 'low-rank')
        .map((trace) => [trace.customdata.map((seeds) => seeds[0].rate), trace.line.dash])"""
    assert page.evaluate(lines) == [[[0.1, 0.3, 0.5, 0.9], "solid"]], "parameters compare"
    page.select_option("#x", "latency_s_p50")
    assert page.evaluate(lines) == [[[0.1, 0.3], "solid"], [[0.5, 0.9], "dash"]]
    assert "never joined and dashed apart: one | two." in page.inner_text("#notes")
    fronts = "document.getElementById('chart').data.filter((t) => t.name === 'Pareto front').length"
    assert page.evaluate(fronts) == 2


def test_it_fits_a_phone_and_follows_the_colour_scheme(open_page, file):
    page = open_page(file, viewport=PHONE, color_scheme="dark", has_touch=True)
    page.click("#choices summary")
    page.fill("#filter", "rank")
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    widths = page.evaluate(
        "[...document.querySelectorAll('select, input, button, #chart, #record, img, li')]"
        ".filter((one) => !one.closest('.scroll')).map((one) => one.getBoundingClientRect().right)"
    )
    assert max(widths) <= PHONE["width"]
    papers = page.evaluate(
        "[getComputedStyle(document.body).backgroundColor,"
        " document.querySelector('#chart .main-svg').style.background]"
    )
    assert papers[0] == papers[1] == "rgb(20, 23, 26)"


def test_failures_alone_are_a_page_too(open_page, tmp_path):
    run = make(tmp_path / "run", methods=(), seeds=())
    point = Point("builtin", "low-rank", 0.5, 0, "builtin")
    run.write_point(point)
    run.write_section(point.key, Section("compress", "failed", "f", reason="no luck"))
    reports.html.write([run.path], tmp_path / "a.html")
    page = open_page(tmp_path / "a.html", chart=False)
    assert "None of the 1 points was measured" in page.inner_text("#chart")
    assert "no luck" in page.inner_text("#gap-list")
    assert page.inner_text("#count") == "1 of 1 points"


def test_two_thousand_points(open_page, folder, tmp_path, monkeypatch, capsys):
    """Says how long they take; only what is shown is checked."""
    told = content([folder])
    method, rate = (told["fields"].index(name) for name in ("method", "rate"))
    kinds = [values for values in told["points"] if values[method] == "low-rank"][:9]
    told["points"] += [
        [f"{values[method]}-{copy % 20}" if place == method else
         value + copy / 1e4 if place == rate else value for place, value in enumerate(values)]
        for copy in range(220) for values in kinds
    ]  # fmt: skip
    look = next(look for look in told["looks"] if look["method"] == "low-rank")
    told["looks"] += [{**look, "method": f"low-rank-{copy}"} for copy in range(20)]
    monkeypatch.setattr(reports.html, "content", lambda folders: told)
    count = reports.html.write([folder], tmp_path / "a.html")
    assert count > 2000
    page = open_page(tmp_path / "a.html")
    seconds = page.evaluate("performance.getEntriesByName('drawn')[0].startTime") / 1000
    with capsys.disabled():
        print(f"\n{count} points: the chart stands {seconds:.2f} s after the page is opened")
    assert page.inner_text("#count") == f"{count:,} of {count:,} points, the first 100 shown"
    page.click("#more")
    assert page.locator("#table tbody tr").count() == count
