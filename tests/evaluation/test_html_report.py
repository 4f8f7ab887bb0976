"""report.html: what it says, and what a real browser makes of it."""

import base64
import re
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steps.evaluation.presentation import html_report, plots
from steps.evaluation.presentation.labels import labels
from steps.evaluation.presentation.pareto import Point, front, scatter
from tests.evaluation import sample

REPORT = sample.report()
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--window-size=1280,900",
)
# texts of what ends right of so many pixels
HANGING_OUT = """
return [...document.querySelectorAll("td, th, .answer, summary, .badge, figure")]
  .filter(each => each.getBoundingClientRect().right > arguments[0] + 0.5)
  .map(each => each.textContent);
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    html_report.write(REPORT, folder)
    return folder


def test_page_is_self_contained(written: Path) -> None:
    text = (written / "report.html").read_text()
    without_names = (
        text.replace("http://www.w3.org/", "")
        .replace("http://purl.org/", "")
        .replace("http://creativecommons.org/", "")
    )
    for forbidden in (
        'src="http',
        "url(http",
        '<link rel="stylesheet',
        "@import",
        "fetch(",
        "https://cdn",
    ):
        assert forbidden not in without_names, forbidden
    for section in ("verdict", "comparison", "pictures", "contract", "answers"):
        assert f'id="{section}"' in text


def test_pictures_are_images_too(written: Path) -> None:
    drawn = {file.stem for file in (written / "pictures").glob("*.png")}
    assert drawn == set(plots.PICTURES)
    assert all(
        file.read_bytes().startswith(b"\x89PNG") for file in (written / "pictures").glob("*.png")
    )


def test_answers_are_escaped() -> None:
    first = REPORT.candidates[0]
    items = (
        replace(first.quality.items[0], answer="<script>alert(1)</script> & more"),
        *first.quality.items[1:],
    )
    nasty = replace(first, quality=replace(first.quality, items=items))
    text = html_report.render(replace(REPORT, candidates=(nasty, REPORT.candidates[1])), {})
    assert "<script>alert" not in text and "&lt;script&gt;alert(1)" in text


def test_the_load_that_latencies_were_measured_under_is_said() -> None:
    """Reports of older versions hold answers that were given one by one."""
    assert "that were asked for at once" not in html_report.render(REPORT, {})
    first = REPORT.candidates[0]
    loaded = replace(first, quality=replace(first.quality, concurrent_items=8))
    text = html_report.render(replace(REPORT, candidates=(loaded,)), {})
    assert "Seconds are of one answer among 8 that were asked for at once." in text


def test_differences_mark_new_words_only() -> None:
    assert html_report.differences("the cat sat", "the dog sat") == "the <mark>dog</mark> sat"
    assert html_report.differences("a b", "a b") == "a b"
    assert "<mark>&lt;b&gt;</mark>" in html_report.differences("a", "a <b>")


def test_regressions_are_those_that_the_baseline_had_right() -> None:
    base = {item.id: item.score for item in REPORT.candidates[0].quality.items}
    wanted = {item.id for item in REPORT.candidates[1].quality.items if item.score < base[item.id]}
    assert {
        entry["id"] for entry in html_report.side_by_side(REPORT) if "regression" in entry["kinds"]
    } == wanted


@pytest.mark.parametrize("builds", [1, 3, 9])
def test_pictures_hold_any_number_of_candidates(builds: int, tmp_path: Path) -> None:
    """A legend of nine builds leaves the axes their room: a collapsed layout warns, and a warning
    is an error here.
    """
    first, second, _ = REPORT.candidates
    many = [replace(second, model_id=f"m-{number:032x}") for number in range(builds)]
    report = replace(REPORT, candidates=(first, *many))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        html_report.write(report, tmp_path)
    for figure in plots.draw(report).values():
        figure.canvas.draw()
        box = figure.axes[0].get_window_extent()
        assert box.height > 0.35 * figure.bbox.height and box.width > 0.35 * figure.bbox.width


def test_lm_eval_and_ranges_are_rows() -> None:
    first = REPORT.candidates[0]
    report = replace(
        REPORT,
        candidates=(
            replace(first, metrics=first.metrics | {"lm_eval/sums/exact_match": 0.5}),
            *REPORT.candidates[1:],
        ),
    )
    rows = {row["name"]: row for row in html_report.comparison(report)}
    assert (
        rows["sums, exact_match"]["group"] == "lm-eval"
        and rows["sums, exact_match"]["cells"][0].text == "0.500"
    )
    assert "sums, exact_match" in html_report.render(report, {})
    cell = rows["first token, short prompt, p50"]["cells"][0]
    assert cell is not None and " to " in cell.spread
    assert "first token, short prompt, p95" not in rows  # three samples have no 95th percentile


def test_bars_are_lengths_and_only_where_there_is_something_to_compare() -> None:
    rows = {row["name"]: row for row in html_report.comparison(REPORT)}
    memory = [cell and cell.share for cell in rows["peak resident memory"]["cells"]]
    assert memory == [1.0, pytest.approx(320 / 1100), None]
    # of the first candidate alone: the second has no such figure
    alone = replace(REPORT, candidates=REPORT.candidates[:1])
    for row in html_report.comparison(alone):
        assert [cell.share for cell in row["cells"]] == [None], row["name"]
    lengths = replace(
        REPORT.candidates[0], metrics=REPORT.candidates[0].metrics | {"speed/prompt_tokens": 54.0}
    )
    (row,) = [
        row
        for row in html_report.comparison(replace(REPORT, candidates=(lengths,) * 2))
        if row["name"] == "short prompt"
    ]
    assert [cell.share for cell in row["cells"]] == [None, None]


def test_a_quality_that_intervals_leave_open_is_not_called_best() -> None:
    def best(*intervals: tuple[float, float, float]) -> list[bool]:
        names = ("quality/score", "quality/score_low", "quality/score_high")
        candidates = tuple(
            replace(one, metrics=one.metrics | dict(zip(names, values, strict=True)))
            for one, values in zip(REPORT.candidates, intervals, strict=False)
        )
        rows = html_report.comparison(replace(REPORT, candidates=candidates))
        return [cell.best for cell in rows[0]["cells"]]

    assert best((0.48, 0.39, 0.56), (0.45, 0.37, 0.54)) == [False, False]
    assert best((0.68, 0.60, 0.76), (0.45, 0.37, 0.54)) == [True, False]


def test_pictures_name_prompts_as_the_model_counted_them() -> None:
    first = REPORT.candidates[0]
    assert plots.prompt_tokens(first) == {}  # a report that does not say
    counted = {"speed/prompt_tokens": 54.0, "speed/prompt_tokens_long": 420.0}
    older = replace(first, metrics=first.metrics | counted)
    assert plots.prompt_tokens(older) == {"32": 54, "384": 420}
    figure = plots.first_token(replace(REPORT, candidates=(older,)), ["a"])
    assert figure is not None
    texts = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert texts == ["a, 54 tokens", "a, 420 tokens"]


def test_quality_and_speed_are_drawn_with_intervals_and_the_whole_front() -> None:
    figure = plots.pareto(REPORT, labels(REPORT))
    assert figure is not None
    (axes,) = figure.axes
    assert axes.get_ylim() == (0, 1)
    points = [Point("slow", 0, 10, 0.6, 1e9), Point("fast", 1, 90, 0.5, 1e9)]
    assert front([*points, Point("worse", 2, 80, 0.4, 1e9)]) == points
    # one that beats all others is a front of its own, and is drawn
    alone = scatter([Point("slow", 0, 10, 0.6, 1e9), Point("best", 1, 90, 0.7, 1e9)], "score")
    assert alone is not None
    (staircase,) = [line for line in alone.axes[0].lines if line.get_linestyle() != "None"]
    assert np.asarray(staircase.get_ydata()).tolist()[-2:] == [
        0.7,
        pytest.approx(alone.axes[0].get_ylim()[0]),
    ]
    assert np.asarray(staircase.get_xdata()).tolist()[-1] == 90


def test_a_report_of_failures_only_is_a_page() -> None:
    text = html_report.render(replace(REPORT, incumbent=None, candidates=(sample.failed(),)), {})
    assert "crashed: killed by SIGKILL" in text and "&lt;weights&gt; &amp; more" in text


def test_what_was_not_measured_is_not_drawn(tmp_path: Path) -> None:
    bare = tuple(replace(candidate, series={}) for candidate in REPORT.candidates)
    html_report.write(replace(REPORT, candidates=bare), tmp_path)
    assert {file.stem for file in (tmp_path / "pictures").glob("*.png")} == {"quality", "pareto"}
    html_report.write(replace(REPORT, candidates=(sample.failed(),)), tmp_path)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium."""
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    for flag in FLAGS:
        options.add_argument(flag)
    options.binary_location = "/usr/bin/chromium"
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    yield driver
    driver.quit()


@pytest.mark.browser
def test_browser_filters_without_an_error(browser: Any, written: Path) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    browser.get((written / "report.html").as_uri())
    entries = html_report.side_by_side(REPORT)

    def shown() -> int:
        return sum(
            article.is_displayed()
            for article in browser.find_elements(By.CSS_SELECTOR, "#entries article")
        )

    def count(kind: str) -> int:
        return sum(kind in entry["kinds"] for entry in entries)

    assert shown() == len(entries)
    browser.find_element(By.CSS_SELECTOR, '[data-kind="regression"]').click()
    assert shown() == count("regression") > 0
    assert f"{count('regression')} items shown" in browser.find_element(By.ID, "count").text
    body = browser.find_element(By.TAG_NAME, "body")
    body.send_keys("a")
    assert shown() == len(entries)
    body.send_keys("r")
    assert shown() == count("regression")
    body.send_keys("a")
    browser.find_element(By.ID, "skill").send_keys("facts")
    assert shown() == sum(entry["skill"] == "facts" for entry in entries)
    browser.find_element(By.ID, "skill").send_keys(Keys.HOME)
    body.send_keys("/")
    assert browser.switch_to.active_element.get_attribute("id") == "search"
    browser.switch_to.active_element.send_keys("capital of France")
    assert 1 <= shown() <= 3
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


@pytest.mark.browser
def test_browser_walks_by_keyboard_in_the_dark_on_a_phone(browser: Any, written: Path) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True},
    )
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": "dark"}]},
    )
    browser.get((written / "report.html").as_uri())
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
    # nothing is cut off: neither cells of a table, nor answers
    assert browser.execute_script(HANGING_OUT, 390) == []
    assert browser.execute_script("return document.documentElement.scrollHeight") < 20_000
    colour = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert colour == "rgb(16, 20, 27)"
    body = browser.find_element(By.TAG_NAME, "body")
    body.send_keys("j")
    first = browser.execute_script(
        "return document.activeElement.querySelector('code').textContent"
    )
    browser.switch_to.active_element.send_keys("j")
    second = browser.execute_script(
        "return document.activeElement.querySelector('code').textContent"
    )
    order = [entry["id"] for entry in html_report.side_by_side(REPORT)]
    assert order.index(second) == order.index(first) + 1
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    (opened,) = browser.find_elements(By.CSS_SELECTOR, "article details[open]")
    assert opened.find_element(By.CSS_SELECTOR, "code").text == second
    assert opened.find_element(By.CSS_SELECTOR, ".answer").is_displayed()
    body.send_keys("o")
    assert len(browser.find_elements(By.CSS_SELECTOR, "article details[open]")) == len(order)
    assert browser.execute_script(HANGING_OUT, 390) == []
    body.send_keys("o")
    assert browser.find_elements(By.CSS_SELECTOR, "article details[open]") == []
    printed = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", {})["data"])
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", printed)) <= 16
    browser.find_element(By.ID, "theme").click()
    assert (
        browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        == "rgb(246, 247, 249)"
    )
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
