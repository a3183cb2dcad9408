"""A1111's png-info and extras over real HTTP: pictures' texts, and larger pictures."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import httpx
import pytest
from PIL import Image

from a1111_server import API, LONG

pytestmark = pytest.mark.processes


def test_a_pictures_text_is_read_as_it_was_written(a1111_client: httpx.Client) -> None:
    drawn = a1111_client.post(
        f"{API}/txt2img", json=LONG | {"steps": 2, "negative_prompt": "dog"}
    ).json()
    [text] = json.loads(drawn["info"])["infotexts"]
    for image in (drawn["images"][0], f"data:image/png;base64,{drawn['images'][0]}"):
        answer = a1111_client.post(f"{API}/png-info", json={"image": image}).json()
        assert answer["info"] == text
        assert answer["items"]["parameters"] == text
        found = answer["parameters"]
        assert (found["Prompt"], found["Negative prompt"]) == ("a cat", "dog")
        assert (found["Size-1"], found["Size-2"], found["Steps"]) == ("64", "64", "2")
        assert all(isinstance(one, str) for one in found.values())
    plain = a1111_client.post(f"{API}/png-info", json={"image": picture(8, 8)}).json()
    assert plain == {"info": "", "items": {}, "parameters": {}}
    for wrong in ({}, {"image": None}, {"image": 5}, {"image": "AAAA"}, {"image": "http://x/y"}):
        response = a1111_client.post(f"{API}/png-info", json=wrong)
        assert (response.status_code, response.json()["field"]) == (400, "image")


def picture(width: int, height: int) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def to(width: int, height: int, **others: Any) -> dict[str, Any]:
    sides = {"upscaling_resize_w": width, "upscaling_resize_h": height}
    return {"resize_mode": 1, "upscaler_1": "Nearest", **sides, **others}


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({}, (60, 40)),
        ({"upscaler_1": "None", "upscaling_resize": 4}, (60, 40)),
        ({"upscaler_1": "Lanczos"}, (120, 80)),
        ({"upscaler_1": "Lanczos", "upscaling_resize": "1.5", "gfpgan_visibility": 0}, (90, 60)),
        ({"upscaler_1": "Tiny 2x", "upscaling_resize": 3}, (180, 120)),
        (to(100, 100), (100, 100)),
        (to(100, 100, upscaling_crop="false"), (150, 100)),
        (to(0, 100), (150, 100)),
    ],
)
def test_a_picture_is_enlarged(
    a1111_client: httpx.Client, fields: dict[str, Any], size: tuple[int, int]
) -> None:
    response = a1111_client.post(
        f"{API}/extra-single-image", json={"image": picture(60, 40)} | fields
    )
    assert response.status_code == 200, response.text
    answer = response.json()
    assert answer.keys() == {"html_info", "image"}
    assert Image.open(io.BytesIO(base64.b64decode(answer["image"]))).size == size


@pytest.mark.parametrize(
    ("fields", "at_fault"),
    [
        ({"gfpgan_visibility": 0.5}, "gfpgan_visibility"),
        ({"codeformer_visibility": "1"}, "codeformer_visibility"),
        (
            {"upscaler_2": "Nearest", "extras_upscaler_2_visibility": 0.3},
            "extras_upscaler_2_visibility",
        ),
        ({"resize_mode": 2}, "resize_mode"),
        ({"upscaling_resize": 9}, "upscaling_resize"),
        ({"upscaler_1": "R-ESRGAN 4x+"}, "upscaler_1"),
        ({"upscaler_1": "Latent"}, "upscaler_1"),
        (to(0, 0), "upscaling_resize_w"),
        ({"image": "AAAA"}, "image"),
        ({"image": None}, "image"),
    ],
)
def test_what_no_picture_is_enlarged_by_is_named(
    a1111_client: httpx.Client, fields: dict[str, Any], at_fault: str
) -> None:
    body = {"image": picture(8, 8), "upscaler_1": "Lanczos"} | fields
    response = a1111_client.post(f"{API}/extra-single-image", json=body)
    assert (response.status_code, response.json()["field"]) == (400, at_fault)
    assert at_fault in response.json()["detail"] or at_fault == "upscaler_1"


def test_pictures_of_a_list_are_enlarged_in_their_order(a1111_client: httpx.Client) -> None:
    pictures = [{"data": picture(60, 40), "name": "a.png"}, {"data": picture(10, 20), "name": "b"}]
    body = {"imageList": pictures, "upscaler_1": "Nearest", "show_extras_results": True}
    answer = a1111_client.post(f"{API}/extra-batch-images", json=body).json()
    sizes = [Image.open(io.BytesIO(base64.b64decode(one))).size for one in answer["images"]]
    assert sizes == [(120, 80), (20, 40)]
    for wrong, at_fault in (
        ([], "imageList"),
        ("a", "imageList"),
        ([picture(8, 8)], "imageList"),
        ([pictures[0], {"name": "x"}], "imageList.1.data"),
        ([pictures[0], {"data": "AAAA"}], "imageList.1.data"),
        ([pictures[0]] * 100, "imageList"),
    ):
        response = a1111_client.post(f"{API}/extra-batch-images", json=body | {"imageList": wrong})
        assert (response.status_code, response.json()["field"]) == (400, at_fault)
