"""What does an open page with previews cost the server, beside plain streams without previews?

The page is open in a real browser and draws some images of 20 steps; then the same number is drawn
by /generate_stream without previews and without a page, as many at once; in turn, in another order
each round. The service's CPU seconds an image; the page's part has its previews and its looks at
the state. What it costs to open the page and to read its prompt is counted by itself.

Bar: CPU seconds an image with the page at most 1.05 of those without.

    make test-page ARGS=--collect-only    # installs the browser
    python benchmarks/page.py [--rounds 5] [--images 32] [--model DIRECTORY] [--threads 1] [--quick]
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
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
PAGE, PLAIN = "the page", "streams without previews"
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


def draw_plainly(url: str, images: int) -> None:
    """Draw images by streams without previews.

    Raises:
        RuntimeError: one has no image.
    """
    body = json.dumps({"prompt": PROMPT, "num_inference_steps": STEPS}).encode()

    def one(_number: int) -> None:
        request = urllib.request.Request(
            f"{url}/generate_stream", body, {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request) as answer:
            if b"event: image" not in answer.read():
                raise RuntimeError("a stream ended without its image")

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(one, range(images)))


def measure(server: Running, options: argparse.Namespace) -> dict[str, object]:
    """Measure both ways in turn; the page is opened for each of its parts, before it."""
    worker = psutil.Process(server.worker)
    cpu: dict[str, list[float]] = {PAGE: [], PLAIN: []}
    openings: list[float] = []
    previews = 0
    draw_plainly(server.url, AT_A_TIME)
    for number in range(options.rounds):
        for way in [PAGE, PLAIN] if number % 2 else [PLAIN, PAGE]:
            if way == PAGE:
                began = cpu_seconds(worker)
                with open_page(server.url) as page:
                    before = cpu_seconds(worker)
                    openings.append(before - began)
                    previews += draw_on_page(page, options.images)
                    after = cpu_seconds(worker)
            else:
                before = cpu_seconds(worker)
                draw_plainly(server.url, options.images)
                after = cpu_seconds(worker)
            cpu[way].append((after - before) / options.images)
        print({way: round(values[-1], 4) for way, values in cpu.items()}, flush=True)
    ratios = [a / b for a, b in zip(cpu[PAGE], cpu[PLAIN], strict=True)]
    ratio = round(statistics.median(ratios), 3)
    return {
        "images": options.images,
        "rounds": options.rounds,
        "cpu_seconds_an_image": {w: round(statistics.median(v), 4) for w, v in cpu.items()},
        "cpu_seconds_to_open": round(statistics.median(openings), 4),
        "ratios": [round(one, 3) for one in ratios],
        "median_ratio": ratio,
        "previews_an_image": round(previews / options.images / options.rounds, 1),
        "bars_met": {"CPU with the page at most 1.05": ratio <= MAX_RATIO},
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
