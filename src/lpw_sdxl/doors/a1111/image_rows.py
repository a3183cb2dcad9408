"""The rows that draw: txt2img and img2img."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from pydantic import BaseModel, Field, create_model

from lpw_sdxl.api.asgi import JSON, JsonObject
from lpw_sdxl.api.endpoints import Answer, Body, Endpoint, HeadCheck, Payload
from lpw_sdxl.api.example_picture import EXAMPLE_PICTURE
from lpw_sdxl.doors.a1111.answers import ImagesAnswer
from lpw_sdxl.doors.a1111.images import ImageDoor
from lpw_sdxl.doors.a1111.known_fields import OF_OTHERS, PICTURE_FIELDS, TEXT_FIELDS
from lpw_sdxl.doors.a1111.lobby import Lobby
from lpw_sdxl.doors.a1111.loose_fields import read_body
from lpw_sdxl.doors.a1111.order import ImageOrder
from lpw_sdxl.doors.a1111.served_model import ServedHere, ServedModel
from lpw_sdxl.doors.a1111.translation import translate
from lpw_sdxl.doors.door import ServedDoor
from lpw_sdxl.imaging.picture import PictureLimits

TXT2IMG, IMG2IMG = "/sdapi/v1/txt2img", "/sdapi/v1/img2img"
_FAILURES = frozenset({409, 422, 429, 500, 503, 504})


def image_rows(served: ServedDoor, model: ServedModel, lobby: Lobby) -> Iterator[Endpoint]:
    """Build the rows."""
    limits = served.limits.request
    door = ImageDoor(model, PictureLimits(max_bytes=limits.max_image_bytes), lobby)
    server = ServedHere(limits, served.limits.default_size, model)
    for path, summary, fields, is_picture in (
        (TXT2IMG, "Make images from a prompt, as A1111's API does.", TEXT_FIELDS, False),
        (IMG2IMG, "Make images from pictures, as A1111's API does.", PICTURE_FIELDS, True),
    ):
        yield Endpoint(
            ("POST",),
            path,
            summary,
            Answer("The images.", (JSON,), ImagesAnswer),
            body=Body(
                partial(_parse, server=server, is_picture=is_picture),
                served.limits.max_body_bytes,
                _document("Img2ImgFields" if is_picture else "Txt2ImgFields", fields),
                _example(is_picture=is_picture),
                head_check=HeadCheck.TOLERANT,
            ),
            handler=door.answer,
            statuses=_FAILURES,
        )


def _parse(payload: Payload, *, server: ServedHere, is_picture: bool) -> ImageOrder:
    return translate(read_body(payload.content), server, is_picture=is_picture)


def _document(name: str, fields: Mapping[str, Any]) -> type[BaseModel]:
    """Describe a body whose fields are read loosely: any of them may be of any type."""
    known: dict[str, Any] = {
        field: (Any, Field(None, description=_DESCRIPTIONS.get(field)))
        for field in (*fields, *OF_OTHERS)
    }
    model: type[BaseModel] = create_model(name, **known)
    model.__doc__ = "A request in A1111's form; what is not known is ignored."
    return model


def _example(*, is_picture: bool) -> JsonObject:
    example = {"prompt": "a lighthouse at dusk", "steps": 20, "sampler_name": "Euler a", "seed": 7}
    return example | {"init_images": [EXAMPLE_PICTURE]} if is_picture else example


_DESCRIPTIONS = {
    "prompt": "What to draw, in A1111's dialect, with <lora:name:weight>.",
    "width": "Pixels, rounded down to a multiple of 8; the model's own where it is absent.",
    "height": "Likewise.",
    "steps": "50 where it is absent.",
    "cfg_scale": "7 where it is absent.",
    "sampler_name": "By A1111's name, also with its schedule type, as in DPM++ 2M Karras.",
    "scheduler": "The schedule type, by name or label.",
    "batch_size": "Images of a batch; n_iter is the number of batches.",
    "enable_hr": "Whether a second, larger pass follows; without it no hr_ field is read.",
    "init_images": "Pictures to start from, in base64; one is for all images of a batch.",
    "mask": "In base64: what is white is painted over, or what is opaque where any is transparent.",
    "override_settings": "A1111's options: those that change a picture are done, or refused.",
    "alwayson_scripts": "Scripts: those with args that are not off are refused with 422.",
    "force_task_id": "A name by which progress is asked for.",
    "infotext": "A1111's text of a picture, for what the request itself leaves open.",
}
