"""What real clients send becomes what they mean: a table from what is known of each client."""

from __future__ import annotations

from typing import Any

import pytest

from lpw_sdxl.doors.openai.fields import read_fields
from lpw_sdxl.doors.openai.multipart import PartBounds
from lpw_sdxl.doors.openai.translation import translate
from lpw_sdxl.request_limits import RequestLimits
from lpw_sdxl.schema import ImageSize
from recordings import outline, read, recordings

LIMITS = RequestLimits(32_768, 150, ImageSize(2048, 2048), 64, 10, 2**20)
NATIVE = ImageSize(1024, 1024)
BOUNDS = PartBounds(text=10**5, file=2**20)
LARGE = {"width": 1024, "height": 1024}
SMALL = {"width": 512, "height": 512}
LORA = {"loras": [{"name": "demo-frame", "weight": 0.5}]}
SCALED = {"loras": [{"name": "demo-frame", "weight": 0.8}]}
REPAINTED = {"strength": 1.0, "invert": True}
HD = {"num_inference_steps": 45}
URL, SEEDED = {"has_links": True}, {"seed": 7, "negative_prompt": "blur"}
EXPECTED: dict[str, dict[str, Any]] = {
    "ai-sdk-compatible-edit": {"strength": 0.5, "invert": True},
    "ai-sdk-compatible-generate": LARGE | SEEDED,
    "ai-sdk-openai-edit": REPAINTED,
    "ai-sdk-openai-generate": LARGE,
    "ai-sdk-openai-generate-n2-seed": LARGE | HD,
    "ai-sdk-openai-generate-n2-seed-2": LARGE | HD,
    "langchain-community-dalle-default": LARGE | URL,
    "langchain-community-dalle3": LARGE | URL | HD,
    "langchain-js-dalle-b64": LARGE,
    "langchain-js-dalle-default": LARGE | URL,
    "librechat-oai-edit": {},
    "librechat-oai-generate": {},
    "litellm-agenerate": {},
    "litellm-edit": {},
    "litellm-generate": LARGE,
    "litellm-generate-extra": SEEDED | {"num_inference_steps": 8},
    "litellm-generate-gptimage": {"num_inference_steps": 15},
    "litellm-generate-kw": SEEDED,
    "lobechat-generate": LARGE | {"seed": 7, "num_inference_steps": 20},
    "localai-style-generate": SMALL | {"seed": 42, "num_inference_steps": 25},
    "n8n-edit-dalle2": LARGE | URL,
    "n8n-generate": LARGE | HD,
    "nextcloud-generate": LARGE,
    "open-webui-openai-edit": {},
    "open-webui-openai-edit-list": LARGE | {"notes": 2},
    "open-webui-openai-generate": SMALL | SEEDED,
    "open-webui-openai-generate-gptimage": {},
    "open-webui-openai-generate-url": SMALL | URL,
    "openai-node-edit": {},
    "openai-node-edit-mask": LARGE | REPAINTED | {"count": 2},
    "openai-node-edit-stream": {"is_streamed": True, "partial_images": 1},
    "openai-node-edit-two-images": {"notes": 1},
    "openai-node-generate": LARGE,
    "openai-node-generate-stream": {"is_streamed": True, "partial_images": 2},
    "openai-python-edit-bytesio": {},
    "openai-python-edit-extra": SEEDED | LORA | {"strength": 0.6},
    "openai-python-edit-mask": LARGE | REPAINTED | HD,
    "openai-python-edit-minimal": {},
    "openai-python-edit-stream": {"is_streamed": True, "partial_images": 1},
    "openai-python-edit-two-images": {"notes": 1},
    "openai-python-generate-auto": {},
    "openai-python-generate-dalle3": LARGE | HD,
    "openai-python-generate-extra": LARGE | SEEDED | LORA | {"num_inference_steps": 8},
    "openai-python-generate-gptimage": LARGE
    | {"count": 2, "num_inference_steps": 15, "image_format": "webp", "compression": 80},
    "openai-python-generate-minimal": {},
    "openai-python-generate-stream": LARGE | {"is_streamed": True, "partial_images": 2},
    "openai-python-generate-stream0": {"is_streamed": True},
    "openai-python-generate-url": URL,
    "sglang-style-generate": LARGE
    | {"seed": 42, "negative_prompt": "blur", "num_inference_steps": 20}
    | {"image_format": "webp", "compression": 80},
    "vllm-omni-style-edit": SCALED | {"seed": 42, "num_inference_steps": 20, "strength": 0.6},
    "vllm-omni-style-generate": LARGE
    | SCALED
    | {"seed": 42, "negative_prompt": "blur", "num_inference_steps": 20},
}
"""What differs from a request that has a prompt alone; of an edit, and a picture."""
DRAWING = [one for one in recordings() if one.name in EXPECTED]


def test_every_recording_that_draws_is_in_the_table() -> None:
    others = {one.name for one in recordings()} - EXPECTED.keys()
    assert others == {
        "openai-node-models-list",
        "openai-python-models-list",
        "openai-python-models-retrieve",
        "openai-python-variation",
        "sillytavern-sdcpp-models",
        "sillytavern-sdcpp-ping",
    }


@pytest.mark.parametrize("name", EXPECTED)
def test_a_recorded_request_means_what_its_client_means(name: str) -> None:
    recording = read(name)
    is_edit = "/edits" in recording.target
    fields = read_fields(recording.content, recording.content_type, BOUNDS)
    order = translate(fields, LIMITS, NATIVE, is_edit=is_edit)
    assert outline(order) == EXPECTED[name]
    assert (order.requests[0].image is not None) == is_edit
