"""The calls of images of LiteLLM: drive_litellm.py URL. Prints JSON."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
from typing import Any

os.environ.update(LITELLM_LOCAL_MODEL_COST_MAP="True", LITELLM_TELEMETRY="False")
import litellm
from PIL import Image

server = {"api_base": sys.argv[1] + "/v1", "api_key": "any"}
own = {"size": "64x64", "extra_body": {"seed": 7, "steps": 2}}
buffer = io.BytesIO()
Image.new("RGB", (64, 64), "green").save(buffer, "PNG")


def generate(model: str, **fields: Any) -> int:
    answer = litellm.image_generation(
        model=f"openai/{model}", prompt="a red circle", **server, **own, **fields
    )
    return len(answer.data[0].b64_json) > 1000


async def generate_async() -> bool:
    answer = await litellm.aimage_generation(
        model="openai/sdxl", prompt="a red circle", **server, **own
    )
    return len(answer.data[0].b64_json) > 1000


def edit(**fields: Any) -> bool:
    answer = litellm.image_edit(
        model="openai/sdxl", image=io.BytesIO(buffer.getvalue()), prompt="a blue circle",
        **server, **fields,
    )  # fmt: skip
    return len(answer.data[0].b64_json) > 1000


outcomes = {
    "alone": generate("sdxl"),
    "options": generate("sdxl", n=1, quality="standard"),
    "gpt-image": generate("gpt-image-1", quality="low", output_format="png"),
    "async": asyncio.run(generate_async()),
    "edit": edit(),
    "edit with mask": edit(mask=io.BytesIO(buffer.getvalue()), n=1),
}
print(json.dumps(outcomes))
