"""Pictures drawn on the page: by the key, with previews, several at once, cancelled, kept."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from PIL import Image

from browser import DRAWN_MS, Ui
from serving import Server

pytestmark = [pytest.mark.processes, pytest.mark.page]

PROMPT = "a large red circle on a white background"


def engine(server: Server) -> dict[str, Any]:
    counts: dict[str, Any] = httpx.post(f"{server.url}/info", json={}).json()["engine"]
    return counts


def test_a_prompt_and_the_key_draw_with_previews(ui: Ui) -> None:
    bodies = ui.record_streams()
    previews: set[str] = set()
    ui.write(PROMPT)
    ui.set(num_inference_steps=60)
    ui.find("#prompt").focus()
    ui.page.keyboard.press("Control+Enter")
    ui.find(".job-preview img[src]").wait_for(timeout=DRAWN_MS)
    while ui.find(".job").count():
        shown = ui.find(".job").evaluate_all(
            "jobs => jobs.map(job => [job.dataset.previews, job.querySelector('img').naturalWidth])"
        )
        previews |= {count for count, width in shown if width == 16}
        time.sleep(0.02)
    assert len(previews) >= 3
    assert bodies == [{"prompt": PROMPT, "num_inference_steps": 60, "preview_every": 10}]
    picture = ui.find(".shown > img")
    assert picture.evaluate("one => [one.naturalWidth, one.naturalHeight]") == [128, 128]
    assert f"{PROMPT}\nSteps: 60" in ui.find(".parameters pre").text_content()
    assert ui.find("#live").text_content().startswith("The picture is done: 128 by 128")


def test_the_file_is_the_one_that_the_endpoint_answers(ui: Ui, server: Server) -> None:
    ui.write(PROMPT)
    ui.set(seed=7, num_inference_steps=4)
    ui.draw()
    with ui.page.expect_download() as download:
        ui.find("a[download]").click()
    assert download.value.suggested_filename == "7-a-large-red-circle-on-a.png"
    request = {"prompt": PROMPT, "seed": 7, "num_inference_steps": 4}
    expected = httpx.post(f"{server.url}/generate", json=request).content
    file = download.value.path().read_bytes()
    assert Image.open(io.BytesIO(file)).tobytes() == Image.open(io.BytesIO(expected)).tobytes()


def test_seeds_are_kept_drawn_anew_or_taken_from_the_last_picture(ui: Ui) -> None:
    bodies = ui.record_streams()
    ui.write(PROMPT)
    ui.set(num_inference_steps=2)
    assert ui.button("The last picture's").is_disabled()
    ui.draw()
    drawn = ui.find(".seed").text_content().removeprefix("seed ")
    ui.button("The last picture's").click()
    ui.draw()
    ui.button("A new one").click()
    ui.draw()
    ui.set(seed=18446744073709551615)
    ui.draw()
    ui.button("Again with another seed").click()
    ui.find(".thumb").nth(4).wait_for()
    assert [body.get("seed") for body in bodies] == [None, int(drawn), None, 2**64 - 1, None]


def test_several_pictures_have_the_seeds_that_follow(ui: Ui) -> None:
    bodies = ui.record_streams()
    ui.write(PROMPT)
    ui.set(seed=5, num_inference_steps=2)
    ui.find("#count").select_option("6")
    ui.find("#draw").click()
    ui.find(".thumb").nth(5).wait_for(timeout=DRAWN_MS)
    assert sorted(body["seed"] for body in bodies) == [5, 6, 7, 8, 9, 10]


@pytest.mark.parametrize("way", ["Escape", "the button"])
def test_cancelling_ends_the_job(ui: Ui, server: Server, way: str) -> None:
    before = engine(server)
    ui.write(PROMPT)
    ui.set(num_inference_steps=400)
    ui.page.keyboard.press("Control+Enter")
    ui.find(".job[data-state=running]").wait_for()
    if way == "Escape":
        ui.page.keyboard.press("Escape")
    else:
        ui.button("Cancel").click()
    ui.find(".job[data-state=cancelled]").wait_for()
    deadline = time.monotonic() + 10
    while engine(server)["left"] == before["left"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert engine(server)["queued_jobs"] == 0
    assert ui.find(".thumb").count() == 0


def test_the_place_in_the_queue_is_shown(
    start_server: Callable[..., Any], tab: Callable[..., Ui]
) -> None:
    with start_server(max_rows="2", max_steps="400") as crowded:
        ui = tab(crowded.url).open()
        ui.write(PROMPT)
        ui.set(num_inference_steps=100)
        ui.find("#count").select_option("4")
        ui.page.keyboard.press("Control+Enter")
        ui.find(".job-text", has_text="Queued behind").first.wait_for()
        places = ui.find(".job").evaluate_all("jobs => jobs.map(job => job.dataset.place)")
        assert max(places) >= "1"
        while ui.find(".job .cancel").count():
            ui.page.keyboard.press("Escape")
            time.sleep(0.1)


def test_the_gallery_is_kept_and_moved_through_by_keys(ui: Ui) -> None:
    ui.set(num_inference_steps=2)
    for number in range(3):
        ui.write(f"picture {number}")
        ui.draw()
    ui.page.reload()
    ui.find(".thumb").nth(2).wait_for()
    shown = lambda: ui.find(".shown > img").get_attribute("alt")  # noqa: E731
    ui.find(".thumb[aria-current]").focus()
    assert shown() == "Picture of: picture 2"
    for key, expected in (("ArrowRight", 1), ("ArrowRight", 0), ("ArrowLeft", 1), ("Home", 2)):
        ui.page.keyboard.press(key)
        assert shown() == f"Picture of: picture {expected}"
    ui.page.keyboard.press("Delete")
    ui.find('.shown > img[alt="Picture of: picture 1"]').wait_for()
    assert ui.find(".thumb").count() == 2
    ui.button("Undo").click()
    ui.find(".thumb").nth(2).wait_for()
    assert shown() == "Picture of: picture 2"


def test_the_gallery_is_bounded(ui: Ui) -> None:
    """Pictures beyond the bound push the oldest out; 250 are put in as the page does."""
    kept = ui.page.evaluate(
        """async () => {
            const own = await import("/ui/gallery_store.js");
            const { GalleryStore, MOST_BYTES, MOST_PICTURES } = own;
            const store = await GalleryStore.open();
            const add = (bytes) => store.add({ file: new Blob([new Uint8Array(bytes)]) });
            for (let number = 0; number < 250; number += 1) await add(10);
            const many = (await store.all()).map((one) => one.id);
            for (let number = 0; number < 3; number += 1) await add(100 * 1024 * 1024);
            const large = (await store.all()).map((one) => one.file.size);
            return { many, large, MOST_BYTES, MOST_PICTURES };
        }"""
    )
    assert kept["many"] == list(range(51, 251))
    assert len(kept["many"]) == kept["MOST_PICTURES"]
    assert sum(kept["large"]) <= kept["MOST_BYTES"]
    assert [size for size in kept["large"] if size > 10] == [100 * 1024 * 1024] * 2


def test_the_state_is_shown_at_a_glance(ui: Ui, server: Server) -> None:
    info = httpx.post(f"{server.url}/info", json={}).json()
    line = ui.find("#state-line")
    assert info["model"]["title"] in line.text_content()
    ui.find("#state-button").click()
    words = ui.find("#state").text_content()
    for expected in (info["model_tag"], info["memory"]["hardware"]["name"], info["version"]):
        assert expected in words
    assert info["memory"]["offload_reason"] in words
    ui.write(PROMPT)
    ui.draw()
    ui.find("#state-line", has_text="a picture").wait_for()
