"""Pictures that come in as a start: dropped, masked, painted over, drawn anew, enlarged."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from browser import Ui
from dropped import drop, pixels, png, shown_pixels

pytestmark = [pytest.mark.processes, pytest.mark.page]


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
