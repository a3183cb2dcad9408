"""A real browser for the tests of the page: Debian's chromium, driven by playwright."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from conftest import ROOT

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

FOLDER = ROOT / ".venv-page"
AXE = FOLDER / "node_modules" / "axe-core" / "axe.min.js"
DRAWN_MS = 60_000
FOREIGN_NAME = "pictures.example.org"  # of this machine, for the browser
# Chromium's own lines in the console, of answers that are no success: a refusal is no fault.
EXPECTED_LINES = "Failed to load resource"


@contextmanager
def chromium(*arguments: str) -> Iterator[Browser]:
    """Start the browser; root has no sandbox."""
    path = shutil.which("chromium")
    assert path, "make test-page installs chromium"
    assert FOLDER.exists(), "make test-page installs what drives chromium"
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))  # behind the packages of .venv
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", *arguments]
        )
        yield browser
        browser.close()


class Ui:
    """The page in a browser's tab of its own.

    Attributes:
        page: playwright's.
        url: of the server.
        requests: addresses that the tab asked for.
        faults: errors and unexpected lines of the console.
    """

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.requests: list[str] = []
        self.faults: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("console", self._note)
        page.set_default_timeout(20_000)

    def _note(self, message: Any) -> None:
        if message.type in ("error", "warning") and EXPECTED_LINES not in message.text:
            self.faults.append(message.text)

    def open(self, fragment: str = "") -> Ui:
        """Open the page and wait until the server has described itself."""
        self.page.goto(f"{self.url}/ui{fragment}")
        self.find("#f-scheduler option").nth(1).wait_for(state="attached")
        return self

    def find(self, selector: str, **given: Any) -> Locator:
        return self.page.locator(selector, **given)

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    def write(self, prompt: str, field: str = "prompt") -> None:
        self.find(f"#{field}").fill(prompt)

    def set(self, **fields: object) -> None:
        """Fill fields of the form, by the request's names."""
        for name, value in fields.items():
            control = self.find(f"#f-{name.replace('__', '-')}")
            if control.evaluate("one => one.tagName") == "SELECT":
                control.select_option(str(value))
            else:
                control.fill(str(value))

    def draw(self) -> None:
        """Draw by the key, and wait for one picture more in the gallery."""
        before = self.find(".thumb").count()
        self.page.keyboard.press("Control+Enter")
        self.find(".thumb").nth(before).wait_for(timeout=DRAWN_MS)

    def read_prompt(self, prompt: str) -> None:
        """Write a prompt and wait until the server's reading of it is shown."""
        self.write(prompt)
        self.wait_for_reading()

    def wait_for_reading(self) -> None:
        """Wait until what is shown is the reading of what is written."""
        self.find("#form[data-reading=done]").wait_for()

    def record_streams(self) -> list[dict[str, Any]]:
        """Note the bodies of streams from now on, in the list that is returned."""
        bodies: list[dict[str, Any]] = []

        def note(request: Any) -> None:
            if request.url.endswith("/generate_stream"):
                bodies.append(json.loads(request.post_data))

        self.page.on("request", note)
        return bodies

    def assert_clean(self) -> None:
        """Check that nothing failed, and that nothing but the server was asked."""
        assert self.faults == []
        own = (f"{self.url}/", "blob:")
        assert [url for url in self.requests if not url.startswith(own)] == []
