"""The page for every reader: by keyboard, screen reader and phone; quick, from one origin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from browser import AXE, DRAWN_MS, Ui
from serving import Server

pytestmark = [pytest.mark.processes, pytest.mark.page]

SEVERE = {"serious", "critical"}


def findings(ui: Ui) -> list[str]:
    """What axe-core finds that is serious or critical. It is injected, which the policy forbids."""
    ui.page.evaluate(AXE.read_text(encoding="utf-8"))
    found: list[dict[str, Any]] = ui.page.evaluate(
        "async () => (await axe.run({ resultTypes: ['violations'] })).violations"
    )
    return [
        f"{one['id']}: {one['help']}: {node['html'][:120]}"
        for one in found
        if one["impact"] in SEVERE
        for node in one["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(server: Server, tab: Callable[..., Ui], scheme: str) -> None:
    ui = tab(server.url, color_scheme=scheme).open()
    assert findings(ui) == []
    ui.set(prompt_style="a1111", num_inference_steps=4)
    ui.read_prompt("a [red:blue:0.4] (fox:1.3) [x] <lora:absent:1> demo-midnight-sun (open")
    ui.find("#prompt-reading summary").click()
    ui.find("#state-button").click()
    ui.find("#addon").click()
    ui.page.keyboard.press("Control+Enter")  # refused, for its tag
    ui.find("#prompt-error").wait_for()
    assert findings(ui) == []
    ui.write("a red circle")
    ui.draw()
    ui.button("Use as start picture").click()
    ui.find("#mask").focus()
    ui.page.keyboard.press("Space")
    for group in ("hires", "more"):
        ui.find(f"#group-{group} summary").click()
    ui.find(".parameters summary").click()
    assert findings(ui) == []
    ui.find("#keys-button").click()
    assert findings(ui) == []


def tab_to(ui: Ui, target: str) -> None:
    """Press Tab until an element has the focus."""
    for _ in range(120):
        if ui.find(target).evaluate("one => one === document.activeElement"):
            return
        ui.page.keyboard.press("Tab")
    raise AssertionError(f"{target} is not reached with Tab")


def test_all_of_it_works_by_keyboard(ui: Ui) -> None:
    """From the prompt to a picture that is painted over, with nothing but keys."""
    keys = ui.page.keyboard
    assert ui.find("#prompt").evaluate("one => one === document.activeElement")
    keys.type("a red circle")
    tab_to(ui, "#addon")
    keys.type("pastel")
    keys.press("Enter")
    tab_to(ui, "#lora-chips input")
    keys.press("ArrowUp")
    tab_to(ui, "#f-num_inference_steps")
    keys.press("Control+a")
    keys.type("4")
    keys.press("ArrowUp")
    assert ui.find("#f-num_inference_steps").input_value() == "5"
    tab_to(ui, "#f-scheduler")
    keys.press("ArrowDown")
    assert ui.find("#f-scheduler").input_value() == "Euler"
    keys.press("Control+Enter")
    ui.find(".shown").wait_for(timeout=DRAWN_MS)
    ui.find("#prompt").focus()
    tab_to(ui, ".shown figcaption button:has-text('Use as start picture')")
    keys.press("Enter")
    ui.find("#mask").wait_for()
    tab_to(ui, "#mask")
    keys.press("Space")
    tab_to(ui, "#brush-size")
    keys.press("ArrowRight")
    tab_to(ui, "#f-strength")
    keys.press("Control+a")
    keys.type("0.9")
    keys.press("Control+Enter")
    ui.find(".thumb").nth(1).wait_for(timeout=DRAWN_MS)
    tab_to(ui, "#group-hires summary")
    keys.press("Enter")
    ui.find("#prompt").focus()
    for _ in range(3):
        keys.press("Shift+Tab")
    tab_to(ui, "#keys-button")
    keys.press("Enter")
    ui.find("#keys-dialog[open]").wait_for()
    keys.press("Escape")
    assert not ui.find("#keys-dialog").is_visible()


def test_the_focus_is_always_seen(ui: Ui) -> None:
    ui.page.keyboard.press("Shift+Tab")
    unseen: list[str] = []
    for _ in range(60):
        ui.page.keyboard.press("Tab")
        seen = ui.page.evaluate(
            """() => {
                const one = document.activeElement;
                if (one === document.body) return null;
                const shown = one.matches("input.unseen") ? one.nextElementSibling : one;
                const { outlineStyle, outlineWidth } = getComputedStyle(shown);
                const name = one.id || one.textContent.slice(0, 40);
                return [name, outlineStyle, parseFloat(outlineWidth)];
            }"""
        )
        if seen is not None and (seen[1] == "none" or seen[2] < 2):
            unseen.append(seen[0])
    assert unseen == []


def test_a_phone_of_360_pixels_is_enough(server: Server, tab: Callable[..., Ui]) -> None:
    ui = tab(server.url, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    ui.open()
    ui.read_prompt("an_unbroken_word_" * 20 + " (red:1.3) circle, demo-midnight-sun")
    ui.find("#addon").fill("demo-frame")
    ui.page.keyboard.press("Enter")
    for group in ("picture", "hires", "more"):
        ui.find(f"#group-{group} summary").click()
    ui.find("#f-hires").check()
    ui.find("#state-button").click()
    ui.set(num_inference_steps=4)
    assert ui.find("#draw").is_visible()
    ui.find("#draw").tap()
    ui.find(".shown").wait_for(timeout=DRAWN_MS)
    ui.button("Use as start picture").tap()
    ui.find("#mask").wait_for()
    assert ui.page.evaluate("document.documentElement.scrollWidth") == 360
    small = ui.page.evaluate(
        """() => [...document.querySelectorAll("button, select, summary, a.button")]
            .filter((one) => one.checkVisibility() && one.getBoundingClientRect().height < 20)
            .map((one) => one.textContent)"""
    )
    assert small == []


def test_the_first_paint_comes_within_300_ms(server: Server, tab: Callable[..., Ui]) -> None:
    """On loopback, with nothing in the browser's cache; the tab that other work disturbed least."""
    times = []
    for _ in range(8):
        ui = tab(server.url).open()
        paints = ui.page.evaluate(
            "performance.getEntriesByType('paint').map((one) => [one.name, one.startTime])"
        )
        times.append(dict(paints)["first-contentful-paint"])
    assert min(times) < 300, times


def test_a_second_visit_asks_only_whether_files_have_changed(ui: Ui) -> None:
    sizes: list[tuple[str, int]] = []
    ui.page.on("response", lambda one: sizes.append((one.url, one.status)))
    ui.page.reload()
    ui.find("#f-scheduler option").nth(1).wait_for(state="attached")
    sent = ui.page.evaluate(
        """() => performance.getEntriesByType("resource")
            .filter((one) => /\\.(js|css|svg)$/.test(one.name))
            .map((one) => [one.name, one.transferSize, one.encodedBodySize])"""
    )
    assert len(sent) > 25
    assert all(transfer < 1000 for _, transfer, _ in sent), sent


def test_no_script_but_the_pages_own_runs(ui: Ui) -> None:
    """The policy stops markup, inline scripts and styles, and other origins."""
    tried = ui.page.evaluate(
        """async () => {
            const refused = [];
            addEventListener("securitypolicyviolation",
                (event) => refused.push(event.effectiveDirective));
            const script = document.createElement("script");
            try {
                script.textContent = "window.ran = 1";
                document.body.append(script);
            } catch { refused.push("text of a script"); }
            try { document.body.innerHTML += "<b>x</b>"; } catch { refused.push("markup"); }
            const style = document.createElement("style");
            style.textContent = "body { display: none }";
            document.head.append(style);
            const image = new Image();
            image.src = "data:image/gif;base64,R0lGODlhAQABAAAAACw=";
            try { await fetch("http://127.0.0.1:9/"); } catch { }
            await new Promise((resolve) => setTimeout(resolve, 200));
            return [window.ran ?? 0, document.body.checkVisibility(), refused];
        }"""
    )
    assert tried[:2] == [0, True]
    expected = {"text of a script", "markup", "style-src-elem", "connect-src", "img-src"}
    assert expected <= set(tried[2])
    ui.faults.clear()  # of these trials
    ui.requests[:] = [url for url in ui.requests if url.startswith(ui.url)]
