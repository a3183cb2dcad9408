"""The rows of OpenAI's paths: `/v1/images`, `/v1/models`, and both without `/v1`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

from pydantic import BaseModel, Field, create_model

from lpw_sdxl.api.asgi import JSON, JsonObject
from lpw_sdxl.api.body_memory import PARSED_BYTES
from lpw_sdxl.api.endpoints import (
    EVENTS,
    MULTIPART,
    READING_METHODS,
    Answer,
    Body,
    Endpoint,
    HeadCheck,
    Payload,
)
from lpw_sdxl.api.example_picture import EXAMPLE_PICTURE
from lpw_sdxl.api.native import PICTURE_BYTES
from lpw_sdxl.api.native_schemas import ServedLimits
from lpw_sdxl.doors.door import ServedDoor
from lpw_sdxl.doors.openai.answers import ImagesAnswer
from lpw_sdxl.doors.openai.errors import OPENAI
from lpw_sdxl.doors.openai.events import StreamData
from lpw_sdxl.doors.openai.fields import PICTURES, read_fields
from lpw_sdxl.doors.openai.images import LINKS_PATH, ImageDoor
from lpw_sdxl.doors.openai.models import ModelAnswer, ModelList, ServedModel
from lpw_sdxl.doors.openai.multipart import PartBounds
from lpw_sdxl.doors.openai.spellings import OPENAI_FIELDS, PASSED_ON, SPELLINGS
from lpw_sdxl.doors.openai.translation import ImageOrder, translate
from lpw_sdxl.imaging import MEDIA_TYPES
from lpw_sdxl.imaging.picture import PictureLimits
from lpw_sdxl.request_reading import largest_picture_bytes, largest_request_bytes

PREFIX = "/v1"
TAG = "openai"
GENERATIONS, EDITS = "/images/generations", "/images/edits"
MODELS_AT_ONCE = 4
_FAILURES = frozenset({409, 429, 500, 503, 504})


def openai_endpoints(served: ServedDoor) -> tuple[Endpoint, ...]:
    """Build the rows."""
    limits = served.limits.request
    door = ImageDoor(
        served.model_tag,
        PictureLimits(max_bytes=limits.max_image_bytes),
        served.public_url,
        has_files=served.workers == 1,
    )
    rows = [replace(one, takes_basic=True) for one in _rows(door, served)]
    bare = (
        replace(row, path=row.path.removeprefix(PREFIX), is_documented=False)
        for row in rows
        if not row.path.startswith(LINKS_PATH)
    )
    return (*rows, *bare)


def _rows(door: ImageDoor, served: ServedDoor) -> Iterator[Endpoint]:
    yield from _image_rows(door, served)
    yield from _model_rows(served)


def _image_rows(door: ImageDoor, served: ServedDoor) -> Iterator[Endpoint]:
    limits = served.limits.request
    with_prompts = largest_request_bytes(limits.max_prompt_characters)
    for path, summary, is_edit, limit in (
        (GENERATIONS, "Make images from a prompt, as OpenAI's API does.", False, with_prompts),
        (
            EDITS,
            "Make images from a picture, as OpenAI's API does.",
            True,
            served.limits.max_body_bytes,
        ),
    ):
        yield Endpoint(
            ("POST",),
            PREFIX + path,
            summary,
            Answer(
                "The images; with `stream`, events of previews and images.",
                (JSON, EVENTS),
                ImagesAnswer,
                {"x-seed": _SEEDS},
                event_type=StreamData,
            ),
            tag=TAG,
            body=Body(
                partial(_parse, served=served.limits, is_edit=is_edit),
                limit,
                _EditFields if is_edit else _GenerationFields,
                _example(is_edit=is_edit),
                media_types=(JSON, MULTIPART),
                head_check=HeadCheck.TOLERANT,
                parsed_bytes=PICTURE_BYTES if is_edit else PARSED_BYTES,
            ),
            handler=door.answer,
            dialect=OPENAI,
            statuses=_FAILURES,
        )
    yield Endpoint(
        READING_METHODS,
        f"{LINKS_PATH}/{{name}}",
        "An image that an answer named by its URL.",
        Answer("The file.", tuple(MEDIA_TYPES.values())),
        tag=TAG,
        handler=door.answer_file,
        dialect=OPENAI,
        statuses=frozenset({404, 500}),
        needs_token=False,  # its name is the secret: clients fetch it without a token
        takes_links=True,  # and show it in pages of their own
    )


def _model_rows(served: ServedDoor) -> Iterator[Endpoint]:
    name = served.model_tag.partition(":")[0]
    created = int(datetime.fromisoformat(served.model_created).timestamp())
    model = ServedModel(name, served.model_tag, created)
    yield Endpoint(
        READING_METHODS,
        f"{PREFIX}/models",
        "List the served model, as OpenAI's API does.",
        Answer("All models.", (JSON,), ModelList),
        tag=TAG,
        handler=model.answer_list,
        dialect=OPENAI,
        statuses=frozenset({500}),
        at_once=MODELS_AT_ONCE,
    )
    yield Endpoint(
        READING_METHODS,
        f"{PREFIX}/models/{{id}}",
        "Describe the served model.",
        Answer("The model.", (JSON,), ModelAnswer),
        tag=TAG,
        handler=model.answer_one,
        dialect=OPENAI,
        statuses=frozenset({404, 500}),
        at_once=MODELS_AT_ONCE,
    )


def _parse(payload: Payload, *, served: ServedLimits, is_edit: bool) -> ImageOrder:
    limits = served.request
    bounds = PartBounds(
        text=largest_request_bytes(limits.max_prompt_characters),
        file=limits.max_image_bytes,
        encoded=largest_picture_bytes(limits),
        pictures=PICTURES,
    )
    fields = read_fields(payload.content, payload.content_type, bounds)
    return translate(fields, limits, served.native_size, is_edit=is_edit)


def _document(name: str, *required: str) -> type[BaseModel]:
    """Describe a body whose fields are read loosely: any of them may be of any type."""
    extensions = (*SPELLINGS, *PASSED_ON)
    known = dict.fromkeys((*required, *OPENAI_FIELDS, *extensions))
    fields: dict[str, Any] = {
        field: (
            Any,
            Field(... if field in required else None, description=_DESCRIPTIONS[field]),
        )
        if field in _DESCRIPTIONS
        else (Any, ... if field in required else None)
        for field in known
    }
    model: type[BaseModel] = create_model(name, **fields)
    model.__doc__ = "A request in OpenAI's form; what is not known is ignored."
    return model


def _example(*, is_edit: bool) -> JsonObject:
    example = {"prompt": "a lighthouse at dusk", "n": 1, "size": "auto", "seed": 7}
    return example | {"image": EXAMPLE_PICTURE} if is_edit else example


_SEEDS = {
    "description": "The seeds of the images, with commas between them; not of a stream.",
    "schema": {"type": "string"},
}
_DESCRIPTIONS = {
    "prompt": "What to draw.",
    "model": "Any name; the served model draws. Of `dall-e-` names the answer has URLs.",
    "n": "Images, 1 to 10.",
    "size": "Such as 1024x1536, width first, rounded to multiples of 8; auto is the model's own, or"
    " the picture's.",
    "quality": "low, medium, high or xhigh: the number of steps.",
    "output_format": "png, jpeg or webp.",
    "output_compression": "Of JPEG and WebP, 0 to 100.",
    "response_format": "b64_json or url.",
    "image": "A file, or base64; the first of several counts.",
    "mask": "A file, or base64: what is transparent is painted over; of one without transparency,"
    " what is white.",
    "stream": "Whether events are the answer.",
    "partial_images": "Previews in a stream, 0 to 3.",
}
_GenerationFields = _document("ImageGenerationFields", "prompt")
_EditFields = _document("ImageEditFields", "prompt")
