"""The live page in a real browser: figures move, pause, a reload, several viewers, stop, the report."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import sim_process
from browser import chromium, note_wrongs
from live_page import LiveRun
from playwright.sync_api import expect

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

BAD_NAME = "<img src=x onerror=alert(1)>"
PATIENCE_MS = 1_000 * sim_process.PATIENCE_S


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


def watch(browser: Browser, url: str, wrong: list[str]) -> Page:
    """A viewer; what it says on its console, or asks of anybody else, is wrong."""
    page = browser.new_context().new_page()
    page.set_default_timeout(PATIENCE_MS)
    origin = url.partition("?")[0]
    note_wrongs(page, wrong, lambda asked: asked.startswith((origin, "data:")))
    page.goto(url)
    return page


def offered(page: Page) -> int:
    tile = page.locator(".tile", has=page.get_by_text("Offered", exact=True)).locator(".value")
    return int(tile.inner_text().replace(",", ""))


def drawn(page: Page) -> None:
    page.locator("#chart-rate path.js-line").first.wait_for(state="attached")  # a level line has no height


def test_a_run_is_watched_paused_reloaded_stopped_and_its_report_appears(browser: Browser, tmp_path: Path) -> None:
    wrong: list[str] = []
    with LiveRun(tmp_path / "run", "--set", f"name={BAD_NAME!r}") as running:
        url = running.address().url
        first, second = watch(browser, url, wrong), watch(browser, url, wrong)
        for page in (first, second):
            drawn(page)
        assert first.locator("h1").inner_text() == BAD_NAME
        seen = offered(first)
        first.wait_for_function(
            "seen => Number(document.querySelector('.tile .value').textContent.replace(/,/g, '')) > seen", arg=seen
        )
        # The display stands still, the run does not: the other viewer goes on.
        first.get_by_role("button", name="Pause the display").click()
        still = offered(first)
        second.wait_for_function(
            "seen => Number(document.querySelector('.tile .value').textContent.replace(/,/g, '')) > seen + 5000",
            arg=still,
        )
        assert offered(first) == still
        first.get_by_role("button", name="Display paused").click()
        first.wait_for_function(
            "seen => Number(document.querySelector('.tile .value').textContent.replace(/,/g, '')) > seen", arg=still
        )
        # A reload has the whole history again.
        rows = "() => document.getElementById('chart-rate').data[1].x.length"
        before = first.evaluate(rows)
        first.reload()
        drawn(first)
        assert first.evaluate(rows) >= before
        # Stop asks first, then drains; both are taken to the report.
        first.on("dialog", lambda dialog: dialog.accept())
        first.get_by_role("button", name="Stop the run").click()
        for page in (first, second):
            page.wait_for_url("**/report?token=*")
            page.wait_for_selector("html[data-charts=drawn]")
        ended = running.end()
        verdict = first.locator(".verdict").inner_text()
        for page in (first, second):
            page.context.close()
    assert (ended.code, ended.err) == (105, "")
    assert ended.summary["interrupted"] is True
    assert "interrupted" in verdict
    assert not wrong


def test_a_paused_viewer_keeps_the_page_and_sees_the_verdict(browser: Browser, tmp_path: Path) -> None:
    wrong: list[str] = []
    with LiveRun(tmp_path / "run", duration="3s") as running:
        page = watch(browser, running.address().url, wrong)
        page.set_viewport_size({"width": 390, "height": 800})
        page.get_by_role("button", name="Pause the display").click()
        expect(page.locator("#verdict")).to_be_visible(timeout=PATIENCE_MS)
        word = page.locator("#verdict-word").inner_text()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.get_by_role("link", name="Open the report").click()
        page.wait_for_selector("html[data-charts=drawn]")
        assert page.locator("h1").inner_text() == "small"
        ended = running.end()
        page.context.close()
    assert word in ended.out
    assert not wrong
