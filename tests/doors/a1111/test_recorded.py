"""What real clients send to A1111 becomes what they mean: a table from what is known of each."""

from __future__ import annotations

from typing import Any

import pytest

from a1111_orders import order_of, outline
from lpw_sdxl.errors import UnservedScriptError
from recordings import A1111, read, recordings

SMALL, WIDE = {"width": 512, "height": 512}, {"width": 768, "height": 512}
TINY = {"width": 64, "height": 64}
LARGE = {"width": 1024, "height": 1024}
SEVEN, DOG = {"guidance_scale": 7.0}, {"negative_prompt": "dog"}
EULER, EULER_A = {"scheduler": "Euler"}, {"scheduler": "Euler a"}
KARRAS = {"scheduler": "DPM++ 2M", "schedule_type": "Karras"}
NORMAL = EULER_A | {"schedule_type": "Normal"}


def steps(count: int) -> dict[str, int]:
    return {"num_inference_steps": count}


SILLY = SMALL | SEVEN | DOG | KARRAS | steps(4)
WEBUI = SEVEN | EULER_A
SBC = TINY | SEVEN | NORMAL | steps(4)
KOBOLD = SMALL | SEVEN | DOG | EULER_A | steps(20) | {"seed": 12345678, "eta": 0.0}
EXPECTED: dict[str, dict[str, Any]] = {
    "aiya-img2img": SMALL | SEVEN | EULER_A | steps(30) | {"seed": 123, "pictures": 1},
    "aiya-txt2img": SMALL | SEVEN | EULER_A | steps(30) | {"seed": 123},
    "dify-txt2img": LARGE
    | SEVEN
    | steps(10)
    | {"scheduler": "DPM++ SDE", "schedule_type": "Karras", "eta": 0.0},
    "easy-diffusion-txt2img": SMALL
    | EULER_A
    | steps(25)
    | {"guidance_scale": 7.5, "schedule_type": "Simple", "seed": 42, "count": 2}
    | {"request_id": "4b7f8d3e-0000-4000-8000-000000000001"},
    "kobold-lite-img2img": KOBOLD | {"strength": 0.6, "pictures": 1},
    "kobold-lite-txt2img": KOBOLD,
    "librechat-sd-txt2img": LARGE | DOG | EULER | steps(22) | {"guidance_scale": 4.5},
    "nonebot-diao-txt2img": SMALL | SEVEN | DOG | KARRAS | steps(20) | {"seed": 42},
    "open-webui-a1111-generate-2": SMALL | SEVEN | KARRAS | steps(4),
    "open-webui-a1111-generate-auth-2": WIDE | SEVEN | DOG | EULER | steps(6) | {"count": 2},
    "open-webui-a1111-generate-noauth-2": SMALL | SEVEN | EULER | steps(4),
    "script-curl-form-type": SEVEN | EULER | steps(5),
    "script-forge-issue-2680": {"width": 768, "height": 768, "guidance_scale": 5.0}
    | steps(15)
    | {"negative_prompt": "some negative prompt", "scheduler": "DPM++ 2M SDE"}
    | {"seed": 6302954713490123530, "clip_skip_shown": 2, "notes": 1}
    | {"hires": {"scale": 2.0, "steps": 10, "strength": 0.7}},
    "script-requests-data": SEVEN | EULER | steps(5),
    "sd-backend-client-img2img": SBC | {"strength": 0.5, "pictures": 1},
    "sd-backend-client-inpaint": SBC
    | {"strength": 0.5, "pictures": 1, "has_mask": True}
    | {"mask_blur": 4.0, "only_masked": True, "only_masked_padding": 0},
    "sd-backend-client-submit_txt2img-2": SBC
    | {"seed": 7, "request_id": "096b67b361d420cf9c1a113ddb70ab14"},
    "sd-backend-client-txt2img": SBC | DOG | {"seed": 7},
    "sdai-android-img2img": SMALL | SEVEN | EULER_A | steps(20) | {"seed": 5598, "pictures": 1},
    "sdcpp-style-txt2img-lora": SMALL
    | DOG
    | EULER_A
    | steps(8)
    | {"guidance_scale": 5.0, "schedule_type": "Karras", "seed": 7, "clip_skip_shown": 2}
    | {"loras": [{"name": "demo-frame", "weight": 0.8}]},
    "sillytavern-abort-2": SILLY,
    "sillytavern-drawthings-generate": SMALL | SEVEN | DOG | EULER_A | steps(4),
    "sillytavern-generate-2": SILLY,
    "sillytavern-sdcpp-generate": SMALL
    | SEVEN
    | DOG
    | EULER_A
    | steps(4)
    | {"schedule_type": "Karras"},
    "stable-diffusion-api-img2img": TINY | WEBUI | steps(4) | {"pictures": 1},
    "stable-diffusion-api-inpaint": SMALL
    | WEBUI
    | steps(4)
    | {"pictures": 1, "has_mask": True, "masked_content": "fill"}
    | {"mask_blur": 4.0, "only_masked": True, "only_masked_padding": 0},
    "stable-diffusion-api-txt2img": TINY | WEBUI | steps(4),
    "textgen-webui-txt2img": SMALL
    | SEVEN
    | steps(32)
    | {"scheduler": "DPM++ 2M", "negative_prompt": "(worst quality, low quality:1.3)"},
    "webuiapi-err-422": SMALL | WEBUI | steps(20),
    "webuiapi-img2img": TINY
    | EULER_A
    | steps(4)
    | {"guidance_scale": 5.0, "seed": 7, "strength": 0.6, "resize_mode": "crop", "pictures": 1},
    "webuiapi-txt2img-async": SMALL | WEBUI | steps(4),
    "webuiapi-txt2img-basic-auth": SMALL | WEBUI | steps(4),
    "webuiapi-txt2img-full": TINY
    | DOG
    | KARRAS
    | steps(4)
    | {"guidance_scale": 5.0, "seed": 7, "subseed": 3, "variation_strength": 0.2, "count": 4}
    | {"clip_skip_shown": 2},
    "webuiapi-txt2img-hires": TINY
    | WEBUI
    | steps(4)
    | {"seed": 7, "hires": {"scale": 2.0, "steps": 2, "strength": 0.5}},
    "webuiapi-txt2img-minimal": SMALL | WEBUI | steps(20),
}
"""All that an order has beyond a prompt, A1111's dialect and its noise."""
REFUSED = {"sillytavern-generate-adetailer-2": "alwayson_scripts.ADetailer"}


def test_every_recording_is_in_the_table() -> None:
    assert {one.name for one in recordings(A1111)} >= EXPECTED.keys() | REFUSED.keys()
    drawing = {one.name for one in recordings(A1111) if one.target.endswith("2img")}
    assert drawing == EXPECTED.keys() | REFUSED.keys()


@pytest.mark.parametrize("name", EXPECTED)
def test_a_recorded_request_means_what_its_client_means(name: str) -> None:
    recording = read(name, A1111)
    order = order_of(recording.body, is_picture="img2img" in recording.target)
    assert outline(order) == EXPECTED[name]


def test_a_recorded_script_is_refused_by_its_name() -> None:
    (name,) = REFUSED
    with pytest.raises(UnservedScriptError) as refusal:
        order_of(read(name, A1111).body)
    assert refusal.value.field == REFUSED[name]
