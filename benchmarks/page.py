"""What does an open page with previews cost the server, beside plain streams without previews?

The page is open in a real browser and draws some images of 20 steps; the same requests are sent by
a client that takes no CPU time of its own, with the page's looks at the state; and as many images
are drawn by /generate_stream without previews and without a page; as many at once, in turn, in
another order each round. The service's CPU seconds an image. What it costs to open the page and to
read its prompt is counted by itself.

Bar: CPU seconds an image with the page's requests at most 1.05 of those without. Beside the browser
itself they are more on a machine whose cores it shares: two threads of a core slow each other down.

    make test-page ARGS=--collect-only    # installs the browser
    python benchmarks/page.py [--rounds 5] [--images 32] [--model DIRECTORY] [--threads 1] [--quick]
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from common import ROOT, service_surroundings, write_result
from services import OtherWork, Running, cpu_seconds, model_to_serve, our_service, running

STEPS = 20
AT_ONCE = 4  # as the page
AT_A_TIME = 16  # the most that the page draws by one click
MAX_RATIO = 1.05
DRAWN_MS = 600_000
PAGE, SAME, PLAIN = "the page", "the page's requests", "streams without previews"
STATE_S = 5.0  # between two looks of the page at the state
PROMPT = "a large red circle on a white background"
DRIVER = ROOT / ".venv-page"


@contextmanager
def open_page(url: str) -> Iterator[Any]:
    """Open the page in a browser that has no past; playwright's page."""
    if not (DRIVER.exists() and shutil.which("chromium")):
        sys.exit("tests/page/prepare.sh installs the browser and what drives it")
    sys.path.append(str(DRIVER))
    from playwright.sync_api import sync_playwright  # type: ignore[import-not-found] # noqa: PLC0415

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page()
        page.goto(f"{url}/ui")
        page.locator("#f-scheduler option").nth(1).wait_for(state="attached")
        page.fill("#prompt", PROMPT)
        page.fill("#f-num_inference_steps", str(STEPS))
        page.select_option("#count", str(AT_A_TIME))
        yield page
        browser.close()


def draw_on_page(page: Any, images: int) -> int:
    """Draw images on the page; returns how many previews it showed."""
    page.evaluate("window.previews = 0")
    page.evaluate(
        """() => new MutationObserver((all) => { window.previews += all.length; }).observe(
            document.getElementById("jobs"),
            { subtree: true, attributes: true, attributeFilter: ["data-previews"] })"""
    )
    for _ in range(images // AT_A_TIME):
        before = page.locator(".thumb").count()
        page.click("#draw")
        page.locator(".thumb").nth(before + AT_A_TIME - 1).wait_for(timeout=DRAWN_MS)
    return int(page.evaluate("window.previews"))


def plain_body() -> bytes:
    return json.dumps({"prompt": PROMPT, "num_inference_steps": STEPS}).encode()


def ask(url: str, body: bytes) -> bytes:
    request = urllib.request.Request(url, body, {"content-type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        content: bytes = answer.read()
    return content


def draw_elsewhere(url: str, body: bytes, images: int) -> None:
    """Draw images by streams of a body, as many at once as the page.

    Raises:
        RuntimeError: one has no image.
    """

    def one(_number: int) -> None:
        if b"event: image" not in ask(f"{url}/generate_stream", body):
            raise RuntimeError("a stream ended without its image")

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(one, range(images)))


@contextmanager
def looks_at_the_state(url: str) -> Iterator[None]:
    """Ask for the state now and then, as the open page does."""
    is_over = threading.Event()

    def look() -> None:
        while not is_over.wait(STATE_S):
            ask(f"{url}/info", b"{}")

    thread = threading.Thread(target=look)
    thread.start()
    yield
    is_over.set()
    thread.join()


@dataclass
class Ways:
    """The three ways to draw images.

    Attributes:
        url: of the service.
        worker: its process.
        body: what the page sent for an image.
        previews: that the page has shown.
        openings: CPU seconds of the service that it took to open the page, each time.
    """

    url: str
    worker: psutil.Process
    body: bytes = b""
    previews: int = 0
    openings: list[float] = field(default_factory=list)

    def draw(self, way: str, images: int) -> float:
        """Draw images; return the service's CPU seconds for each."""
        before = cpu_seconds(self.worker)
        if way == PAGE:
            with open_page(self.url) as page:
                page.on("request", self._note)
                began, before = before, cpu_seconds(self.worker)
                self.openings.append(before - began)
                self.previews += draw_on_page(page, images)
                after = cpu_seconds(self.worker)
        elif way == SAME:
            with looks_at_the_state(self.url):
                draw_elsewhere(self.url, self.body, images)
            after = cpu_seconds(self.worker)
        else:
            draw_elsewhere(self.url, plain_body(), images)
            after = cpu_seconds(self.worker)
        return (after - before) / images

    def _note(self, request: Any) -> None:
        if request.url.endswith("/generate_stream"):
            fields = json.loads(request.post_data)
            fields.pop("request_id", None)  # each has its own
            self.body = json.dumps(fields).encode()


def measure(server: Running, options: argparse.Namespace) -> dict[str, object]:
    """Measure all ways in turn; the page is opened for each of its parts, before it."""
    ways = Ways(server.url, psutil.Process(server.worker))
    ways.draw(PAGE, AT_A_TIME)  # which says what its requests are
    ways.previews = 0
    cpu: dict[str, list[float]] = {PAGE: [], SAME: [], PLAIN: []}
    for number in range(options.rounds):
        for way in list(cpu)[:: 1 if number % 2 else -1]:
            cpu[way].append(ways.draw(way, options.images))
        print({way: round(values[-1], 4) for way, values in cpu.items()}, flush=True)
    ratios = {
        way: round(statistics.median(a / b for a, b in zip(cpu[way], cpu[PLAIN], strict=True)), 3)
        for way in (SAME, PAGE)
    }
    return {
        "images": options.images,
        "rounds": options.rounds,
        "cpu_seconds_an_image": {w: round(statistics.median(v), 4) for w, v in cpu.items()},
        "cpu_seconds_to_open": round(statistics.median(ways.openings), 4),
        "median_ratios": ratios,
        "previews_an_image": round(ways.previews / options.images / options.rounds, 1),
        "bars_met": {"CPU with the page's requests at most 1.05": ratios[SAME] <= MAX_RATIO},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=32, help=f"a multiple of {AT_A_TIME}")
    parser.add_argument("--model", type=Path, help="model directory; the demo model by default")
    parser.add_argument("--threads", type=int, default=1, help="OMP_NUM_THREADS of the service")
    parser.add_argument("--quick", action="store_true", help="one round; no result is kept")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.images = 1, AT_A_TIME
    if options.images % AT_A_TIME:
        parser.error(f"--images is {options.images}; a multiple of {AT_A_TIME} would be right")
    with (
        model_to_serve(options.model) as model,
        running(our_service(model), model, options.threads) as server,
    ):
        device = str(server.ask("/info")["device"])
        others = OtherWork()
        result = measure(server, options) | {"others_share_of_cores": others.share()}
    write_result(
        "page", service_surroundings(device, options.threads) | result, keep=not options.quick
    )


if __name__ == "__main__":
    main()
