"""Every call of images and models of OpenAI's own client: drive_openai.py URL. Prints JSON."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import sys
import warnings
from collections.abc import Callable
from typing import Any

import openai
from PIL import Image

warnings.simplefilter("ignore")
base_url = sys.argv[1] + "/v1"
client = openai.OpenAI(base_url=base_url, api_key="any")
outcomes: dict[str, Any] = {}
own = {"steps": 2, "seed": 7}


def call(name: str, work: Callable[[], Any]) -> None:
    try:
        outcomes[name] = work()
    except openai.APIStatusError as error:
        found = (error.status_code, error.type, error.param, error.code, error.message[:200])
        outcomes[name] = dict(
            zip(("status", "type", "param", "code", "message"), found, strict=True)
        )


def png(mode: str, colour: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (64, 64), colour).save(buffer, "PNG")
    return buffer.getvalue()


def look(answer: Any) -> list[str]:
    """Kind and size of each picture of an answer."""
    pictures = [Image.open(io.BytesIO(base64.b64decode(one.b64_json))) for one in answer.data]
    return [f"{one.format} {one.width}x{one.height}" for one in pictures]


def events(stream: Any) -> list[str]:
    with stream:
        return [f"{type(one).__name__} {one.type}" for one in stream if one.b64_json]


def generate(**fields: Any) -> Any:
    extra = own | fields.pop("extra_body", {})
    return client.images.generate(prompt="a red circle", extra_body=extra, **fields)


def edit(**fields: Any) -> Any:
    extra = own | fields.pop("extra_body", {})
    return client.images.edit(prompt="a blue circle", extra_body=extra, **fields)


async def generate_async() -> list[str]:
    async with openai.AsyncOpenAI(base_url=base_url, api_key="any") as asynchronous:
        return look(await asynchronous.images.generate(prompt="a", size="64x64", extra_body=own))


picture, mask = png("RGB", "green"), png("RGBA", (0, 0, 0, 0))
named = ("in.png", picture, "image/png")
call("models", lambda: [one.id for one in client.models.list()])
call("model", lambda: client.models.retrieve("sdxl").object)
call("other model", lambda: client.models.retrieve("gpt-image-1").object)
call("alone", lambda: look(client.images.generate(prompt="a red circle", quality="low")))
call("several", lambda: look(generate(n=2, size="64x64", quality="hd", style="vivid", user="u")))
call("webp", lambda: look(generate(model="gpt-image-1", size="64x64", output_format="webp")))
call("url", lambda: generate(model="dall-e-3", size="64x64").data[0].url)
call("usage", lambda: generate(size="64x64").usage.total_tokens)
call("again", lambda: generate().data == generate().data)
call("sampler", lambda: look(generate(extra_body={"sampler": "DPM++ 2M", "scheduler": "karras"})))
call("async", lambda: asyncio.run(generate_async()))
call("stream", lambda: events(generate(size="64x64", stream=True)))
call(
    "previews",
    lambda: events(generate(size="64x64", stream=True, partial_images=2, extra_body={"steps": 40}))[
        -1
    ],
)
call("edit", lambda: look(edit(image=named)))
call("edit of bytes", lambda: look(edit(image=io.BytesIO(picture), model="dall-e-2",
                                        response_format="b64_json")))  # fmt: skip
call("edit of two", lambda: look(edit(image=[named, named], size="auto")))
call("edit with mask", lambda: look(edit(image=named, mask=("m.png", mask, "image/png"), n=2)))
call("edit by stream", lambda: events(edit(image=named, stream=True)))
call("variation", lambda: client.images.create_variation(image=named))
call("bad size", lambda: generate(size="9000x64"))
call("no such lora", lambda: generate(extra_body={"loras": [{"name": "absent", "weight": 0.5}]}))
call(
    "no such lora in a form", lambda: edit(image=named, extra_body={"loras": [{"name": "absent"}]})
)
call("transparent", lambda: generate(background="transparent"))
print(json.dumps(outcomes))
