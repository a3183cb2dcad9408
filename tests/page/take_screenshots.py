"""Takes the pictures of docs/page.md: `.venv/bin/python tests/page/take_screenshots.py URL`.

The service at URL has the demo model, its LoRAs and its embedding. The pictures are made anew with
fixed seeds, and written into docs/.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

from browser import DRAWN_MS, Ui, chromium  # noqa: E402

DOCS = ROOT / "docs"
WIDE = {"viewport": {"width": 1200, "height": 860}}
PROMPT = (
    "a (large:1.2) (red:1.3) circle on a [plain] white background, demo-midnight-sun, and some more"
    " words, so that it has more than one chunk: "
    + "calm light, soft edges, a quiet sky, nothing else, "
    * 5
)
CHANGING = (
    "a large [red circle:blue triangle:0.4] on a [white|yellow] background AND (calm:1.2) :0.3"
)


def picture(ui: Ui, name: str) -> None:
    ui.page.mouse.move(0, 0)
    ui.find("body").evaluate("() => document.activeElement.blur()")
    if name != "phone":
        ui.find("body").evaluate("() => scrollTo(0, 0)")
    ui.page.screenshot(path=DOCS / f"page-{name}.png")


def draw_one(ui: Ui) -> None:
    ui.read_prompt(PROMPT)
    ui.find("#addon").fill("demo-frame")
    ui.page.keyboard.press("Enter")
    ui.set(guidance_scale=2)
    for prompt, seed in (
        ("a large yellow square on a purple background", 7),
        ("a white triangle on a green background", 7),
        ("a large blue circle on a white background", 3),
    ):
        ui.write(prompt)
        ui.set(seed=seed)
        ui.draw()
    ui.read_prompt(PROMPT)
    ui.set(seed=7)
    ui.draw()
    ui.set(seed="", num_inference_steps=150)
    ui.page.keyboard.press("Control+Enter")
    ui.find(".job[data-previews]").wait_for(timeout=DRAWN_MS)


def main() -> None:
    with chromium() as browser:
        ui = Ui(browser.new_page(**WIDE), sys.argv[1]).open()
        draw_one(ui)
        picture(ui, "drawing")
        ui.page.keyboard.press("Escape")
        ui = Ui(browser.new_page(**WIDE, color_scheme="dark"), sys.argv[1]).open()
        ui.set(prompt_style="a1111")
        ui.read_prompt(CHANGING)
        ui.find("#prompt-reading summary").click()
        ui.find("#state-button").click()
        picture(ui, "reading")
        ui = Ui(browser.new_page(viewport={"width": 360, "height": 740}), sys.argv[1]).open()
        ui.write("a large red circle on a white background")
        ui.set(guidance_scale=2, seed=7)
        ui.draw()
        ui.button("Use as start picture").click()
        mask = ui.find("#mask")
        mask.evaluate("one => one.scrollIntoView({ block: 'center' })")
        box = mask.bounding_box()
        assert box is not None
        ui.page.mouse.move(box["x"] + box["width"] * 0.35, box["y"] + box["height"] * 0.4)
        ui.page.mouse.down()
        for share in (0.45, 0.55, 0.65):
            ui.page.mouse.move(box["x"] + box["width"] * share, box["y"] + box["height"] * 0.55)
        ui.page.mouse.up()
        picture(ui, "phone")


if __name__ == "__main__":
    main()
