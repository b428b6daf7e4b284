"""Debian's Chromium, driven by playwright: what the tests of the two pages share."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium")


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser without a window; the test is skipped where there is none."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium: no `chromium` on the PATH")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


def note_wrongs(page: Page, wrong: list[str], may_ask: Callable[[str], bool]) -> None:
    """Notes what a page says on its console, its errors, and requests for what it may not ask for."""
    page.on("console", lambda message: wrong.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
    page.on("request", lambda request: None if may_ask(request.url) else wrong.append(request.url))
