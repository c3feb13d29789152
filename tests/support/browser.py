"""A real headless Chromium over file:// pages, and everything that it had to complain about."""

from __future__ import annotations

import contextlib
import shutil
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@contextlib.contextmanager
def chromium() -> Iterator[object]:
    """One browser for many pages."""
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    from playwright.sync_api import sync_playwright  # noqa: PLC0415  # its driver starts with it

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--autoplay-policy=no-user-gesture-required"])
        yield browser
        browser.close()


class Sight:
    """One page in a context of its own; closes with the block.

    Attributes:
        requests: every address that was asked for.
        complaints: what the console said, policy violations among it, and errors that nobody caught.
    """

    def __init__(self, browser, path: Path, *, fragment: str = "", **context) -> None:
        self._context = browser.new_context(**{"viewport": {"width": 1200, "height": 820}} | context)
        self.page = self._context.new_page()
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self.page.goto(path.as_uri() + fragment)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._context.close()

    def until(self, expression: str) -> None:
        """Wait for a condition in the page; asked from outside, since the policy of the page forbids `eval` inside."""
        deadline = time.monotonic() + 15
        while not self.page.evaluate(expression):
            assert time.monotonic() < deadline, f"{expression} did not come true; {self.complaints}"
            self.page.wait_for_timeout(20)

    def texts(self, selector: str) -> list[str]:
        """What the elements say."""
        return self.page.locator(selector).all_inner_texts()
