"""Pictures that come in: dropped, masked, painted over, enlarged, read for their settings."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, PngImagePlugin

from browser import Ui

pytestmark = [pytest.mark.processes, pytest.mark.page]

WRITTEN = (
    "a red circle, (white background:1.1)\nNegative prompt: text\n"
    "Steps: 12, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 6.5,"
    " Seed: 18446744073709551615, Size: 136x120, ADetailer model: face, Denoising strength: 0.6,"
    " Hires upscale: 1.5, Hires steps: 4, Hires upscaler: Latent, Version: v1.10.1"
)


def png(
    colour: str = "white", parameters: str | None = None, size: tuple[int, int] = (128, 128)
) -> bytes:
    info = PngImagePlugin.PngInfo()
    if parameters is not None:
        info.add_text("parameters", parameters)
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG", pnginfo=info)
    return file.getvalue()


def drop(
    ui: Ui, target: str, content: bytes, name: str = "picture.png", kind: str = "image/png"
) -> None:
    """Drop a file onto an element, with the events that a browser sends for one from elsewhere."""
    ui.page.evaluate(
        """([target, content, name, type]) => {
            const bytes = Uint8Array.from(atob(content), (one) => one.charCodeAt(0));
            const dataTransfer = new DataTransfer();
            dataTransfer.items.add(new File([bytes], name, { type }));
            const send = (node, event) => node.dispatchEvent(
                new DragEvent(event, { dataTransfer, bubbles: true, cancelable: true }));
            send(document.body, "dragenter");
            const node = document.querySelector(target);
            send(node, "dragover");
            send(node, "drop");
        }""",
        [target, base64.b64encode(content).decode(), name, kind],
    )


def pixels(content: bytes) -> npt.NDArray[np.int16]:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(np.int16)


def shown_pixels(ui: Ui) -> npt.NDArray[np.int16]:
    with ui.page.expect_download() as download:
        ui.find("a[download]").click()
    return pixels(Path(download.value.path()).read_bytes())


def paint(ui: Ui, start: tuple[float, float], end: tuple[float, float]) -> None:
    mask = ui.find("#mask")
    mask.scroll_into_view_if_needed()
    box = mask.bounding_box()
    assert box is not None
    at = lambda place: (box["x"] + box["width"] * place[0], box["y"] + box["height"] * place[1])  # noqa: E731
    ui.page.mouse.move(*at(start))
    ui.page.mouse.down()
    ui.page.mouse.move(*at(end), steps=5)
    ui.page.mouse.up()


def test_a_dropped_picture_is_painted_over_where_it_is_masked(ui: Ui) -> None:
    bodies = ui.record_streams()
    drop(ui, "#drop-start", png())
    ui.find("#mask").wait_for()
    ui.write("a large red circle on a white background")
    ui.set(num_inference_steps=8, strength=0.9, seed=3)
    paint(ui, (0.2, 0.2), (0.4, 0.2))
    ui.set(mask_blur=0)
    ui.draw()
    (body,) = bodies
    mask = pixels(base64.b64decode(body["mask_image"]))[..., 0]
    assert set(np.unique(mask)) >= {0, 255}
    assert mask[25, 38] == 255
    assert mask[100, 100] == 0
    assert base64.b64decode(body["image"]) == png()
    kept = mask == 0
    painted = shown_pixels(ui)
    assert (painted[kept] == 255).all()  # bit for bit
    assert (painted[mask == 255] != 255).any()
    # The picture's recipe comes back with its mask.
    ui.button("Reset").click()
    ui.button("Remove the picture").click()
    ui.button("Take its settings").click()
    ui.find("#mask").wait_for()
    ui.find("#f-mask_blur").wait_for()
    ui.draw()
    again = pixels(base64.b64decode(bodies[1]["mask_image"]))[..., 0]
    assert (again == mask).mean() > 0.99
    assert {key: bodies[1][key] for key in ("strength", "seed")} == {"strength": 0.9, "seed": 3}


def test_the_mask_is_painted_undone_and_erased_by_keys(ui: Ui) -> None:
    drop(ui, "#group-picture", png())
    ui.find("#mask").focus()

    def area() -> int:
        painted: int = ui.find("#mask").evaluate(
            """one => one.getContext("2d").getImageData(0, 0, one.width, one.height).data
                .filter((value, place) => place % 4 === 3 && value).length"""
        )
        return painted

    keys = ui.page.keyboard
    assert area() == 0
    keys.press("Space")
    dot = area()
    for _ in range(6):
        keys.press("Shift+ArrowRight")
    line = area()
    assert 0 < dot < line
    keys.press("e")
    for _ in range(6):
        keys.press("Shift+ArrowLeft")
    assert area() < line / 2
    assert ui.find("#f-mask_blur").is_visible()
    ui.button("Clear").click()
    assert area() == 0
    assert not ui.find("#f-mask_blur").is_visible()
    ui.button("Undo").click()
    assert area() > 0


def test_a_picture_without_a_mask_is_drawn_anew(ui: Ui) -> None:
    bodies = ui.record_streams()
    ui.find("#start-file").set_input_files(
        {"name": "a.webp", "mimeType": "image/webp", "buffer": webp()}
    )
    ui.find("#mask").wait_for()
    ui.write("a large blue triangle")
    ui.set(num_inference_steps=4, strength=0.5)
    assert ui.find("#f-width").get_attribute("placeholder") == "96"
    assert not ui.find("#f-hires").is_visible()  # not with a picture
    ui.draw()
    assert "mask_image" not in bodies[0]
    assert shown_pixels(ui).shape == (64, 96, 3)


def webp() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (100, 70), "navy").save(file, "WEBP", lossless=True)
    return file.getvalue()


def test_a_picture_of_a_kind_that_the_server_does_not_read_is_sent_as_png(ui: Ui) -> None:
    bodies = ui.record_streams()
    file = io.BytesIO()
    Image.new("RGB", (64, 64), "navy").save(file, "GIF")
    drop(ui, "#drop-start", file.getvalue(), "a.gif", "image/gif")
    ui.find("#mask").wait_for()
    ui.write("a")
    ui.set(num_inference_steps=4)
    ui.draw()
    assert base64.b64decode(bodies[0]["image"]).startswith(b"\x89PNG")


def test_the_last_picture_is_a_start(ui: Ui) -> None:
    bodies = ui.record_streams()
    ui.write("a red square")
    ui.set(num_inference_steps=4)
    ui.draw()
    ui.button("Use as start picture").click()
    ui.find("#mask").wait_for()
    ui.draw()
    assert pixels(base64.b64decode(bodies[1]["image"])).shape == (128, 128, 3)


def test_a_second_pass_makes_it_larger(ui: Ui) -> None:
    bodies = ui.record_streams()
    ui.write("a large red circle on a white background")
    ui.set(num_inference_steps=4)
    ui.find("#group-hires summary").click()
    ui.find("#f-hires").check()
    ui.set(hires__scale=1.5, hires__strength=0.6, hires__upscaler="lanczos")
    ui.draw()
    assert bodies[0]["hires"] == {"scale": 1.5, "strength": 0.6, "upscaler": "lanczos"}
    assert shown_pixels(ui).shape == (192, 192, 3)


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
