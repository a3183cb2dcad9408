"""Nothing of a prompt, a name or a file ever becomes markup: hostile texts are shown as text."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from urllib.parse import quote

import httpx
import pytest

from browser import Ui
from hostile_texts import HOSTILE_NAMES, HOSTILE_TEXTS
from serving import Server

pytestmark = [pytest.mark.processes, pytest.mark.page]

# Of the whole document, by the kinds of its elements; the page itself has no other.
KINDS = (
    """() => [...new Set([...document.querySelectorAll("*")].map((one) => one.localName))].sort()"""
)
OWN = {
    *("html", "head", "meta", "title", "link", "script", "body", "noscript", "header", "main"),
    *("section", "article", "div", "span", "p", "h1", "h2", "b", "strong", "mark", "kbd", "pre"),
    *("ul", "ol", "li", "dl", "dt", "dd", "details", "summary", "dialog", "figure", "figcaption"),
    *("form", "fieldset", "legend", "label", "input", "select", "option", "textarea", "button"),
    *("output", "progress", "canvas", "img", "a", "code"),
}
HANDLERS = """() => [...document.querySelectorAll("*")].flatMap((one) => [...one.attributes])
    .filter((one) => one.name.startsWith("on") || /^\\s*javascript:/i.test(one.value)).length"""


def assert_untouched(ui: Ui) -> None:
    assert set(ui.page.evaluate(KINDS)) <= OWN
    assert ui.page.evaluate(HANDLERS) == 0
    assert ui.page.evaluate("[window.hit ?? 0, document.scripts.length]") == [0, 1]
    assert ui.page.evaluate("document.querySelectorAll('#form, base').length") == 1


def test_200_prompts_are_text(ui: Ui) -> None:
    assert len(set(HOSTILE_TEXTS)) == 200
    ui.set(prompt_style="a1111")
    for text in HOSTILE_TEXTS:
        prompt = f"{text} [{text}:x:0.5]"
        ui.find("#prompt").evaluate(
            """(area, prompt) => {
                area.value = prompt;
                area.dispatchEvent(new Event("input", { bubbles: true }));
            }""",
            prompt,
        )
        ui.wait_for_reading()
        assert ui.find("#prompt-marks").text_content().rstrip("\u200b") == prompt
    assert_untouched(ui)


def test_a_picture_of_a_hostile_prompt_shows_it_as_text(ui: Ui) -> None:
    ui.set(num_inference_steps=1, scheduler="Euler")
    for text in HOSTILE_TEXTS[1:20:6]:
        ui.write(text)
        ui.draw()
        assert ui.find(".parameters pre").text_content().startswith(text)
        assert ui.find(".shown > img").get_attribute("alt") == f"Picture of: {text}"
        assert_untouched(ui)
    ui.page.reload()
    ui.find(".thumb").nth(3).wait_for()
    assert_untouched(ui)


def test_names_of_loras_are_text(
    ui: Ui, server: Server, start_server: Callable[..., object]
) -> None:
    served = {one["name"] for one in httpx.post(f"{server.url}/info", json={}).json()["loras"]}
    assert set(HOSTILE_NAMES) <= served
    ui.find("#addon").click()
    shown = set(ui.find("#addon-list [role=option] span:last-child").all_text_contents())
    assert shown == served | {"demo-midnight-sun"}
    for name in HOSTILE_NAMES[:8]:
        ui.find("#addon").fill(name)
        ui.page.keyboard.press("Enter")
    assert ui.find("#lora-chips .chip-name").all_text_contents() == HOSTILE_NAMES[:8]
    assert_untouched(ui)
    link = json.dumps([{"name": name, "weight": 1} for name in HOSTILE_TEXTS[:10]])
    ui.page.goto("about:blank")
    ui.open(f"#prompt={quote(HOSTILE_TEXTS[3])}&loras={quote(link)}&{quote(HOSTILE_TEXTS[1])}=1")
    assert ui.find("#lora-chips .chip-name").all_text_contents() == HOSTILE_TEXTS[:10]
    assert ui.find(".notice[data-key=link] li").all_text_contents() == [HOSTILE_TEXTS[1]]
    assert_untouched(ui)


def test_names_of_files_are_text(ui: Ui) -> None:
    for name in [*HOSTILE_NAMES, *HOSTILE_TEXTS[:10]]:
        ui.page.evaluate(
            """([name, content]) => {
                const bytes = Uint8Array.from(atob(content), (one) => one.charCodeAt(0));
                const dataTransfer = new DataTransfer();
                dataTransfer.items.add(new File([bytes], name, { type: "image/png" }));
                document.body.dispatchEvent(
                    new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
            }""",
            [name, base64.b64encode(b"no picture").decode()],
        )
        notice = ui.find(".notice[data-key=settings] p")
        notice.filter(has_text=name[:40]).wait_for()
        assert notice.text_content().startswith(f"{name}: ")
    assert_untouched(ui)
