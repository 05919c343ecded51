"""The page in a real browser: nothing leaves it, nothing breaks, everything can be clicked."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest

from tests.report.conftest import SCRIPT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Visit:
    """A page that is open, and what happened in it."""

    def __init__(self, browser: Any, path: Path, width: int) -> None:
        self.said: list[str] = []
        self.asked: list[str] = []
        self.tab = browser.new_page(viewport={"width": width, "height": 800}, color_scheme="light")
        self.tab.on("console", lambda message: self.said.append(message.text))
        self.tab.on("pageerror", lambda error: self.said.append(str(error)))
        self.tab.on("dialog", lambda dialog: self.said.append("dialog") or dialog.dismiss())
        self.tab.on("request", lambda request: self.asked.append(request.url))
        self.tab.goto(path.as_uri())
        self.tab.wait_for_selector("html[data-drawn]", timeout=60_000)

    def until(self, condition: str, argument: Any = None) -> None:
        """Wait for a condition; the page's policy forbids Playwright's own way, which is eval."""
        for _ in range(100):
            if self.tab.evaluate(condition, argument):
                return
            self.tab.wait_for_timeout(100)
        raise AssertionError(condition)

    def check_quiet(self) -> None:
        assert self.said == []
        assert [url for url in self.asked[1:] if not url.startswith("data:")] == []


@pytest.fixture(scope="module")
def wide(browser: Any, page: Path) -> Visit:
    return Visit(browser, page, 1280)


@pytest.fixture(scope="module")
def narrow(browser: Any, page: Path) -> Visit:
    return Visit(browser, page, 390)


@pytest.mark.parametrize("name", ["wide", "narrow"])
def test_nothing_overflows_nothing_is_empty_nothing_is_asked(
    name: str, request: pytest.FixtureRequest
) -> None:
    visit: Visit = request.getfixturevalue(name)
    tab = visit.tab
    for button in tab.query_selector_all("[role=tab]"):
        button.click()
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
        plots = tab.evaluate(
            """[...document.querySelectorAll("[data-figure]")]
               .filter(plot => plot.offsetParent !== null)
               .map(plot => [plot.dataset.figure, plot.clientWidth,
                             plot.querySelector(".main-svg").clientWidth,
                             plot.querySelectorAll(".plot path, .plot image, .plot .point").length])
            """
        )
        assert len(plots) >= 14
        for figure, available, drawn, marks in plots:
            assert abs(available - drawn) <= 1, figure
            assert marks > 0, figure
    for image in tab.query_selector_all("img"):
        assert image.evaluate("image => image.naturalWidth") == 144
    visit.check_quiet()


def test_light_and_dark_follow_the_reader(wide: Visit) -> None:
    for scheme in ("dark", "light"):
        wide.tab.emulate_media(color_scheme=scheme)
        background = wide.tab.evaluate("getComputedStyle(document.body).backgroundColor")
        ink = wide.tab.evaluate("getComputedStyle(document.querySelector('.xtick text')).fill")
        paper, text = (sum(map(int, colour[4:-1].split(","))) for colour in (background, ink))
        assert (paper > text) == (scheme == "light")
        assert abs(paper - text) > 450


def test_names_are_shown_as_they_are_in_plots(wide: Visit) -> None:
    ticks = wide.tab.eval_on_selector_all(
        "[data-figure^=confusion] .xtick text", "all => all.map(one => one.textContent)"
    )
    assert any(SCRIPT.startswith(text.rstrip("…")) for text in ticks if "script" in text)
    assert any("<b>" in text for text in ticks)
    assert wide.tab.query_selector("main script, main b b, svg a, img[onerror]") is None
    wide.check_quiet()


def test_the_contents_and_the_toggles_can_be_clicked(wide: Visit) -> None:
    tab = wide.tab
    tab.emulate_media(reduced_motion="reduce")
    for link in tab.query_selector_all("nav a"):
        link.click()
        wide.until(
            """id => { const top = document.querySelector(id).getBoundingClientRect().top;
                       const end = innerHeight + scrollY >= document.body.scrollHeight - 2;
                       return Math.abs(top) < 120 || end }""",
            link.get_attribute("href"),
        )
    tab.click("#failures-tab-test")
    assert tab.is_visible("#failures-test")
    assert not tab.is_visible("#failures-validation")
    tab.keyboard.press("ArrowLeft")
    assert tab.is_visible("#failures-validation")
    tab.click("#data summary")
    assert not tab.is_visible("#data details table")
    tab.click("pre.command button >> nth=0")
    tab.wait_for_selector("pre.command button:has-text('Copied')")
    tab.click("[data-figure=curves] .legendtoggle >> nth=0")
    wide.until(
        "document.querySelector('[data-figure=curves]').data.some(t => t.visible === 'legendonly')"
    )
    wide.check_quiet()


def test_everything_is_on_paper(wide: Visit) -> None:
    tab = wide.tab
    tab.emulate_media(media="print", color_scheme="dark")
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert tab.is_visible("#failures-test")
    assert tab.is_visible("#failures-validation")
    assert not tab.is_visible("nav")
    drawn = tab.eval_on_selector_all(
        "[data-figure] .main-svg", "all => all.map(one => one.clientWidth)"
    )
    assert 0 < max(drawn) <= 660
    white = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert white == "rgb(255, 255, 255)"
    wide.check_quiet()
