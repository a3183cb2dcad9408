"""Requests that nobody recorded, as users of each client would send them, and what they mean.

Written from what is known of the clients: their fields, spellings and habits.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from lpw_sdxl.doors.openai.fields import PICTURES, read_fields
from lpw_sdxl.doors.openai.multipart import PartBounds
from lpw_sdxl.doors.openai.translation import translate
from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.request_limits import RequestLimits
from lpw_sdxl.schema import ImageSize
from recordings import BOUNDARY, outline, write_form

LIMITS = RequestLimits(32_768, 150, ImageSize(2048, 2048), 64, 10, 2**20)
NATIVE = ImageSize(1024, 1024)
BOUNDS = PartBounds(text=10**5, file=2**20, encoded=2**20, pictures=PICTURES)
A = {"prompt": "a"}
LARGE = {"width": 1024, "height": 1024}
WIDE = {"width": 1344, "height": 768}
K_EULER = {"sampler_implementation": "k_diffusion", "scheduler": "Euler"}
SEED = {"seed": 7}
PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAIAAAAlC+aJAAAAT0lEQVR42u3PQQkAAAgEsItjJtMZ1Qi+hcEKLDX9WgQE"
    "BAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQELguwhiEP4esa3QAAAABJRU5ErkJggg=="
)
SDC = 'a <sd_cpp_extra_args>{"seed": 7, "sample_params": {"sample_steps": 8, "sample_method":'
SDC += ' "euler", "scheduler": "simple", "guidance": {"txt_cfg": 1}}}</sd_cpp_extra_args>'

GENERATIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "lobechat sampler": (
        {"steps": 20, "cfg": 7, "samplerName": "euler", "scheduler": "normal", "seed": 7},
        SEED | K_EULER | {"num_inference_steps": 20, "guidance_scale": 7.0}
        | {"schedule_type": "Normal"},
    ),
    "lobechat ratio": ({"aspectRatio": "16:9", "resolution": "1K"}, WIDE | {"notes": 1}),
    "lobechat random": ({"seed": None, "steps": None, "cfg": None, "imageUrls": []}, {}),
    "lobechat karras": (
        {"samplerName": "dpmpp_2m", "scheduler": "karras"}, {"scheduler": "DPM++ 2M Karras"},
    ),
    "ai sdk ratio": ({"aspect_ratio": "9:16", "n": 1}, {"width": 768, "height": 1344}),
    "ai sdk options": ({"user": "u", "providerOptions": {}, "seed": 7}, SEED),
    "langchain js": (
        {"model": "dall-e-3", "n": 1, "size": "1024x1024", "response_format": "url",
         "style": "vivid", "quality": "standard"},
        LARGE | {"has_links": True},
    ),
    "langchain js gpt-image": ({"model": "gpt-image-1", "quality": "high", "moderation": "low"},
                               {"num_inference_steps": 45}),
    "nextcloud": ({"model": "Default", "size": "512x512", "n": 2},
                  {"width": 512, "height": 512, "count": 2}),
    "nextcloud by url": ({"response_format": "url", "n": "1"}, {"has_links": True}),
    "n8n": ({"model": "dall-e-2", "response_format": "b64_json", "size": "256x256"},
            {"width": 256, "height": 256}),
    "n8n gpt-image": ({"model": "gpt-image-1", "quality": "medium", "output_format": "webp"},
                      {"image_format": "webp"}),
    "litellm extra": ({"extra_body": {"seed": 7, "steps": 9}, "user": None},
                      SEED | {"num_inference_steps": 9}),
    "litellm ids": ({"metadata": {"a": 1}, "litellm_call_id": "x", "seed": 7}, SEED | {"notes": 1}),
    "vllm omni": (
        {"negative_prompt": "blur", "guidance_scale": 7.5, "true_cfg_scale": 4, "seed": 7,
         "num_inference_steps": 50, "generator_device": "cpu", "vae_use_tiling": True,
         "response_format": "b64_json", "lora": {"name": "demo-frame", "path": "/x", "scale": 0.5}},
        SEED | {"negative_prompt": "blur", "guidance_scale": 7.5, "num_inference_steps": 50}
        | {"loras": [{"name": "demo-frame", "weight": 0.5}]},
    ),
    "vllm omni path": ({"lora": {"lora_path": "/loras/demo-frame.safetensors", "lora_scale": 0.9}},
                       {"loras": [{"name": "demo-frame", "weight": 0.9}]}),
    "sglang seeds": ({"seed": [7, 9], "n": 2, "response_format": "b64_json"}, SEED | {"count": 2}),
    "sglang": ({"width": 1024, "height": 768, "seed": 7, "enable_teacache": False},
               SEED | {"width": 1024, "height": 768}),
    "sd.cpp arguments": (
        {"prompt": SDC, "size": "1024x1024", "n": 1, "output_compression": 80},
        SEED | LARGE | K_EULER | {"num_inference_steps": 8, "guidance_scale": 1.0}
        | {"schedule_type": "Simple", "compression": 80},
    ),
    "sd.cpp flat": (
        {"prompt": '<sd_cpp_extra_args>{"seed":7,"steps":9,"cfg_scale":3}</sd_cpp_extra_args>\na'},
        SEED | {"num_inference_steps": 9, "guidance_scale": 3.0},
    ),
    "sd.cpp fields": (
        {"sample_method": "euler_a", "scheduler": "discrete", "clip_skip": -1, "seed": -1,
         "lora": [{"path": "demo-frame.safetensors", "multiplier": 0.5, "is_high_noise": False}]},
        {"scheduler": "Euler a", "loras": [{"name": "demo-frame", "weight": 0.5}]},
    ),
    "sillytavern": ({"sampler": "k_dpmpp_2m", "scheduler": "automatic", "cfg_scale": 7},
                    {"scheduler": "DPM++ 2M", "guidance_scale": 7.0}),
    "localai object": ({"response_format": {"type": "b64_json"}, "step": 25, "mode": 1},
                       {"num_inference_steps": 25, "notes": 1}),
    "localai text": ({"prompt": "a", "size": "768x768", "clip_skip": 1},
                     {"width": 768, "height": 768, "clip_skip": 1}),
    "open webui": ({"model": "sdxl", "n": 1, "size": "", "steps": "12", "negative_prompt": ""},
                   {"num_inference_steps": 12}),
    "open webui url": ({"model": "dall-e-3", "n": 1, "size": "1024x1024"},
                       LARGE | {"has_links": True}),
    "librechat azure": ({"model": "gpt-image-1", "background": "auto", "quality": "auto",
                         "size": "auto", "user": 12}, {}),
    "siliconflow": ({"image_size": "1024x1024", "batch_size": 2, "guidance_scale": 7.5},
                    LARGE | {"guidance_scale": 7.5, "count": 2}),
    "fal": ({"image_size": {"width": 1344, "height": 768}, "num_images": 1,
             "loras": [{"path": "https://x/demo-frame.safetensors", "scale": 0.9}]},
            WIDE | {"loras": [{"name": "demo-frame", "weight": 0.9}]}),
    "dashscope": ({"size": "1344*768"}, WIDE),
    "a sign of times": ({"size": "1344\u00d7768"}, WIDE),
    "together": ({"steps": 20, "width": 1344, "height": 768, "response_format": "base64"},
                 WIDE | {"num_inference_steps": 20}),
    "weights by name": ({"loras": {"demo-frame": "0.5"}},
                        {"loras": [{"name": "demo-frame", "weight": 0.5}]}),
    "texts": ({"n": "2", "seed": "7", "steps": "20.0", "guidance_scale": "5.5", "stream": "false",
               "partial_images": "0", "width": "1000", "height": "1001"},
              SEED | {"num_inference_steps": 20, "guidance_scale": 5.5, "count": 2,
                      "width": 1000, "height": 1000}),
    "floats": ({"n": 1.0, "seed": 7.0, "steps": 20.0}, SEED | {"num_inference_steps": 20}),
    "nothing": ({"n": None, "size": None, "style": "", "loras": [], "image": [], "mask": {}}, {}),
    "media type": ({"output_format": "image/jpeg"}, {"image_format": "jpeg"}),
    "diffusers": ({"scheduler": "EulerAncestralDiscreteScheduler", "guidanceScale": 3},
                  {"scheduler": "Euler a", "guidance_scale": 3.0}),
    "stream of two": ({"stream": "true", "n": 2, "partial_images": None},
                      {"is_streamed": True, "count": 2}),
    "a quality of tomorrow": ({"quality": "ultra"}, {"notes": 1}),
}  # fmt: skip
EDITS: dict[str, tuple[Any, dict[str, Any]]] = {
    "json of images": ({"images": [{"image_url": f"data:image/png;base64,{PNG}"}]}, {}),
    "json of a list": ({"image": [PNG, f"data:image/png;base64,{PNG}"]}, {"notes": 1}),
    "json with mask": ({"image": {"b64_json": PNG}, "mask": {"image_url": PNG}, "size": "auto"},
                       {"strength": 1.0, "invert": True}),
    "json of a url": ({"url": [PNG], "denoise": 0.4}, {"strength": 0.4}),
    "sd.cpp": (
        {"image": PNG, "prompt": 'a<sd_cpp_extra_args>{"strength": 0.4}</sd_cpp_extra_args>'},
        {"strength": 0.4},
    ),
    "form of texts": ([("url[]", PNG), ("n", "2"), ("seed", "[7, 9]"), ("stream", "False")],
                      SEED | {"count": 2}),
    "form of indexes": ([("image[0]", b"x"), ("image[1]", b"y"), ("aspect_ratio", "16:9")],
                        WIDE | {"notes": 1}),
    "empty mask": ([("image", b"x"), ("mask", b""), ("strength", "0.5"), ("size", "")],
                   {"strength": 0.5}),
    "loras of a form": ([("image", b"x"), ("loras[0][name]", "demo-frame"),
                         ("loras[0][scale]", "0.5")],
                        {"loras": [{"name": "demo-frame", "weight": 0.5}]}),
}  # fmt: skip


@pytest.mark.parametrize("name", GENERATIONS)
def test_a_request_means_what_its_user_means(name: str) -> None:
    body, expected = GENERATIONS[name]
    fields = read_fields(json.dumps(A | body).encode(), "application/json", BOUNDS)
    order = translate(fields, LIMITS, NATIVE)
    assert outline(order) == expected
    assert {one.prompt for one in order.requests} == {"a"}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_means_what_its_user_means(name: str) -> None:
    body, expected = EDITS[name]
    content_type = "application/json"
    content = json.dumps(A | body).encode() if isinstance(body, dict) else b""
    if isinstance(body, list):
        content_type = f"multipart/form-data; boundary={BOUNDARY}"
        content = write_form([{"name": "prompt", "text": "a"}, *map(part, body)])
    order = translate(read_fields(content, content_type, BOUNDS), LIMITS, NATIVE, is_edit=True)
    assert outline(order) == expected
    assert {(one.prompt, one.image is not None) for one in order.requests} == {("a", True)}


def part(named: tuple[str, str | bytes]) -> dict[str, Any]:
    name, value = named
    if isinstance(value, str):
        return {"name": name, "text": value}
    return {"name": name, "filename": "blob", "base64": PNG if value else ""}


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        ({"prompt": "a <sd_cpp_extra_args>{"}, "prompt", "without </sd_cpp_extra_args>"),
        ({"prompt": "<sd_cpp_extra_args>7</sd_cpp_extra_args>"}, "prompt", "no JSON object"),
        ({"aspect_ratio": "wide"}, "aspect_ratio", "a ratio like 16:9"),
        ({"size": "100:1"}, "size", "a ratio like 16:9"),
        ({"batch_size": 11}, "batch_size", "batch_size is 11; at most 10 would be right"),
        ({"num_images": "many"}, "num_images", "num_images: "),
        ({"samplerName": "res_multistep"}, "samplerName", "samplerName: not a sampler; known are"),
        ({"image": PNG}, "image", "/v1/images/edits draws from a picture"),
    ],
)
def test_a_refusal_names_what_the_user_wrote(
    body: dict[str, Any], field: str, message: str
) -> None:
    fields = read_fields(json.dumps(A | body).encode(), "", BOUNDS)
    with pytest.raises(InvalidRequestError) as refused:
        translate(fields, LIMITS, NATIVE)
    assert refused.value.field == field
    assert message in refused.value.message
