"""A1111's answers are whole where nothing was drawn, and where text has what JSON escapes."""

from __future__ import annotations

import json
from dataclasses import replace

from a1111_orders import MODEL, order_of
from lpw_sdxl.doors.a1111.answers import write_answer
from lpw_sdxl.doors.a1111.making import DrawnImage
from lpw_sdxl.imaging import ImageRecord, parameters_text
from lpw_sdxl.sampler_table import SamplerName
from lpw_sdxl.schema import ImageSize

PROMPT = 'a "quoted"\ncat, \u732b \\'


def test_an_answer_without_images_still_has_seeds_and_size() -> None:
    order = order_of({"prompt": PROMPT, "batch_size": 2, "seed": 5, "width": 640})
    answer = json.loads(write_answer(order, [], order.requests(5, 9), MODEL))
    assert answer["images"] == []
    info = json.loads(answer["info"])
    assert (info["all_seeds"], info["infotexts"]) == ([5, 6], [])
    assert (info["width"], info["height"]) == (640, 832)
    assert None not in info.values()


def test_an_answer_has_each_image_and_its_text() -> None:
    order = order_of({"prompt": PROMPT, "batch_size": 2, "seed": 5})
    requests = order.requests(5, 9)
    images = [
        DrawnImage(
            content,
            ImageRecord(one, one.seed or 0, ImageSize(64, 64), SamplerName.EULER, "m", "ab"),
        )
        for content, one in zip((b"one", b"two"), requests, strict=True)
    ]
    answer = json.loads(write_answer(order, images, requests, MODEL))
    assert answer["images"] == ["b25l", "dHdv"]
    info = json.loads(answer["info"])
    assert info["infotexts"] == [parameters_text(one.record) for one in images]
    assert info["prompt"] == answer["parameters"]["prompt"] == PROMPT
    silent = json.loads(write_answer(replace(order, sends_images=False), images, requests, MODEL))
    assert silent == answer | {"images": []}
