"""A request to enlarge: its fields in JSON, and the sizes that it asks for."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.field_types import ImageSize
from lpw_sdxl.request_limits import RequestLimits
from lpw_sdxl.second_pass import Enlargement
from lpw_sdxl.settings import Settings
from lpw_sdxl.upscale_request import UpscaleRequest, enlarge_picture, parse_upscale

LIMITS = RequestLimits.from_settings(Settings())
PICTURE = ImageSize(height=60, width=100)


def parse(**fields: Any) -> UpscaleRequest:
    body = {"image": base64.b64encode(b"a file").decode()} | fields
    return parse_upscale(json.dumps(body), LIMITS)


def test_what_is_not_named_has_defaults() -> None:
    request = parse()
    assert request == UpscaleRequest(image=b"a file")
    assert (request.upscaler, request.scale, request.crop) == ("lanczos", None, True)
    assert request.without_picture().image == b""


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({}, ((240, 400), (240, 400))),  # the upscaler's own
        ({"scale": 1.15}, ((69, 115), (69, 115))),
        ({"scale": 0.001}, ((1, 1), (1, 1))),
        ({"width": 101}, ((61, 101), (61, 101))),
        ({"height": 90}, ((90, 150), (90, 150))),
        ({"width": 200, "height": 200}, ((200, 333), (200, 200))),
        ({"width": 400, "height": 200}, ((240, 400), (200, 400))),
        ({"width": 400, "height": 200, "crop": False}, ((240, 400), (240, 400))),
        ({"width": 200, "height": 120}, ((120, 200), (120, 200))),
        ({"width": 3, "height": 999}, ((999, 1665), (999, 3))),
    ],
)
def test_sizes(fields: dict[str, Any], size: Any) -> None:
    expected = Enlargement(*(ImageSize(*one) for one in size))
    assert enlarge_picture(PICTURE, parse(**fields), own_scale=4) == expected


def test_sides_that_are_given_are_kept_whatever_rounding_makes_of_the_others() -> None:
    for width in range(1, 60):
        for height in range(1, 60):
            found = enlarge_picture(ImageSize(7, 11), parse(width=width, height=height))
            assert found.size == ImageSize(height, width)
            assert all(a >= b for a, b in zip(found.covering, found.size, strict=True))


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "no picture": ({"image": None}, "image", "base64"),
    "two sizes": ({"scale": 2, "width": 9}, "scale", "one of the two"),
    "a latent upscaler": ({"upscaler": "Latent (nearest)"}, "upscaler", "hires of /generate"),
    "quality of a PNG": ({"quality": 80}, "quality", "loses nothing"),
    "quality over 95": ({"quality": 96, "image_format": "jpeg"}, "quality", "at most 95"),
    "a large scale": ({"scale": 9}, "scale", "at most 8"),
    "no scale": ({"scale": 0}, "scale", "greater than 0"),
    "a side of nothing": ({"width": 0}, "width", "at least 1"),
    "a huge side": ({"height": 20_000}, "height", "at most 16384"),
    "a prompt": ({"prompt": "a fox"}, "prompt", "not a field of a request to upscale"),
    "no name": ({"upscaler": ""}, "upscaler", "at least 1"),
}


@pytest.mark.parametrize(("fields", "field", "part"), REFUSED.values(), ids=REFUSED)
def test_what_is_wrong_is_named(fields: dict[str, Any], field: str, part: str) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        parse(**fields)
    assert refusal.value.field == field
    assert part in refusal.value.message


def test_a_file_over_the_limit_is_refused() -> None:
    limits = RequestLimits.from_settings(Settings(max_image_bytes=1024))
    body = json.dumps({"image": base64.b64encode(b"x" * 1025).decode()})
    with pytest.raises(InvalidRequestError, match="1024") as refusal:
        parse_upscale(body, limits)
    assert refusal.value.field == "image"
