"""Settings that come in: from pictures made elsewhere or here, from pasted texts, from links."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import httpx
import pytest

from browser import Ui
from dropped import drop, png, shown_pixels
from serving import Server

pytestmark = [pytest.mark.processes, pytest.mark.page]

WRITTEN = (
    "a red circle, (white background:1.1)\nNegative prompt: text\n"
    "Steps: 12, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 6.5,"
    " Seed: 18446744073709551615, Size: 136x120, ADetailer model: face, Denoising strength: 0.6,"
    " Hires upscale: 1.5, Hires steps: 4, Hires upscaler: Latent, Version: v1.10.1"
)


def test_a_picture_made_elsewhere_fills_the_form(ui: Ui) -> None:
    bodies = ui.record_streams()
    drop(ui, "#drop-settings", png(parameters=WRITTEN), name="<b>made</b>.png")
    notice = ui.find(".notice[data-key=settings]")
    notice.wait_for()
    assert "The form is filled from <b>made</b>.png." in notice.text_content()
    assert notice.locator("li b").all_text_contents() == ["ADetailer"]
    assert ui.find("#prompt").input_value() == "a red circle, (white background:1.1)"
    assert ui.find("#negative_prompt").input_value() == "text"
    assert ui.find("#f-seed").input_value() == "18446744073709551615"
    assert ui.find("#f-scheduler").input_value() == "DPM++ 2M"
    assert ui.find("#f-prompt_style").input_value() == "a1111-original"
    ui.draw()
    assert bodies == [
        {
            "prompt": "a red circle, (white background:1.1)",
            "negative_prompt": "text",
            "width": 136,
            "height": 120,
            "num_inference_steps": 12,
            "guidance_scale": 6.5,
            "seed": 18446744073709551615,
            "sampler_implementation": "k_diffusion",
            "scheduler": "DPM++ 2M",
            "schedule_type": "Karras",
            "noise_source": "nv",
            "prompt_style": "a1111-original",
            "hires": {"scale": 1.5, "steps": 4, "strength": 0.6},
            "preview_every": 3,
        }
    ]


def test_a_picture_of_the_page_draws_itself_again(ui: Ui) -> None:
    ui.write("a (large:1.2) red circle, demo-midnight-sun")
    ui.find("#addon").fill("demo-frame")
    ui.page.keyboard.press("Enter")
    ui.set(num_inference_steps=4, guidance_scale=3, scheduler="Euler a")
    ui.draw()
    first = shown_pixels(ui)
    with ui.page.expect_download() as download:
        ui.find("a[download]").click()
    file = Path(download.value.path()).read_bytes()
    ui.button("Reset").click()
    assert ui.find("#prompt").input_value() == ""
    drop(ui, "body", file)
    ui.find(".notice[data-key=settings]", has_text="All of it can be honoured here.").wait_for()
    ui.draw()
    assert (shown_pixels(ui) == first).all()


def test_the_models_own_defaults_stand_in_the_form(ui: Ui, server: Server) -> None:
    """The demo model has a guidance and steps of its own."""
    info = httpx.post(f"{server.url}/info", json={}, timeout=60).json()
    own = info["model"]["defaults"]
    assert own == {"guidance_scale": 2, "num_inference_steps": 20}
    fields = {name: f"#f-{name}" for name in own}
    ui.page.wait_for_function("document.querySelector('#f-guidance_scale').value === '2'")
    assert ui.find(fields["num_inference_steps"]).input_value() == "20"
    ui.set(guidance_scale=5, num_inference_steps=2)
    ui.page.reload()
    ui.page.wait_for_function("document.querySelector('#f-guidance_scale').value === '5'")
    assert ui.find(fields["num_inference_steps"]).input_value() == "2"
    ui.button("Reset").click()
    assert [ui.find(field).input_value() for field in fields.values()] == ["2", "20"]


def test_a_picture_without_parameters_is_offered_as_a_start(ui: Ui) -> None:
    drop(ui, "body", png(), name="plain.png")
    ui.find(".notice[data-key=settings]", has_text="plain.png").wait_for()
    ui.button("Start from it").click()
    ui.find("#mask").wait_for()


def test_a_pasted_picture_and_a_pasted_text_are_understood(ui: Ui) -> None:
    paste = """([text, content]) => {
        const clipboardData = new DataTransfer();
        if (text) clipboardData.setData("text/plain", text);
        const bytes = Uint8Array.from(atob(content), (one) => one.charCodeAt(0));
        if (content) clipboardData.items.add(new File([bytes], "image.png", { type: "image/png" }));
        document.getElementById("prompt").dispatchEvent(
            new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true }));
    }"""
    ui.page.evaluate(paste, ["", base64.b64encode(png()).decode()])
    ui.button("Start from it").click()
    ui.find("#mask").wait_for()
    ui.page.evaluate(paste, [WRITTEN, ""])
    ui.button("Fill the form from them").click()
    ui.find(".notice[data-key=settings]", has_text="The form is filled from the text.").wait_for()
    assert ui.find("#f-num_inference_steps").input_value() == "12"


def test_a_link_fills_the_form_and_what_is_unknown_is_named(ui: Ui) -> None:
    written: dict[str, Any] = {
        "prompt": "a & b = c # d",
        "prompt_style": "a1111",
        "seed": 18446744073709551615,
        "guidance_interval": "0.2, 0.8",
        "scheduler": "Euler a",
    }
    for name, value in written.items():
        if name == "prompt":
            ui.write(value)
        else:
            if name == "guidance_interval":
                ui.find("#group-more summary").click()
            ui.set(**{name: value})
    ui.find("#addon").fill("demo-frame")
    ui.page.keyboard.press("Enter")
    ui.button("Copy a link to these settings").click()
    link = ui.page.url
    assert link.startswith(f"{ui.url}/ui#")
    ui.page.goto("about:blank")
    ui.open(link.partition("/ui")[2])
    values = {name: ui.find(f"#f-{name}").input_value() for name in written if name != "prompt"}
    assert values == {name: str(value) for name, value in written.items() if name != "prompt"}
    assert ui.find("#prompt").input_value() == written["prompt"]
    assert ui.find("#lora-chips .chip-name").all_text_contents() == ["demo-frame"]
    ui.page.goto("about:blank")
    ui.open("#prompt=new&steps=7&loras=nothing")
    notice = ui.find(".notice[data-key=link]")
    assert notice.locator("li").all_text_contents() == ["steps", "loras"]
    assert ui.find("#prompt").input_value() == "new"
