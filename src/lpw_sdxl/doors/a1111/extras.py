"""A1111's "extras" to our requests to upscale: which picture, by what, to which size. Pure.

Faces are not restored here and no two upscalers are blended: where a request asks for that it is
refused by the field that does, and where it is switched off nothing is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from lpw_sdxl.api.endpoints import Payload
from lpw_sdxl.doors.a1111.bodies import read_model, read_object, read_objects
from lpw_sdxl.errors import InvalidRequestError, LpwSdxlError, RequestError
from lpw_sdxl.refusal import explain_refusal
from lpw_sdxl.request_limits import RequestLimits
from lpw_sdxl.second_pass import MAX_UPSCALER_NAME, Upscaler, find_upscaler
from lpw_sdxl.upscale_request import UpscaleRequest, check_upscale

BY_FACTOR, TO_SIZE = 0, 1
IMAGE, IMAGE_LIST, DATA = "image", "imageList", "data"
_SPELLED: Mapping[str, str] = {
    "scale": "upscaling_resize",
    "width": "upscaling_resize_w",
    "height": "upscaling_resize_h",
    "upscaler": "upscaler_1",
}
"""A1111's names of our fields."""


def _number(value: Any) -> Any:
    """Take the whole part of a number that has no other; anything else is left to be refused."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return value
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_number)]
Visibility = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Name = Annotated[str, Field(max_length=MAX_UPSCALER_NAME)]


class ExtrasFields(BaseModel):
    """The work on a picture, by A1111's names and with its defaults."""

    model_config = ConfigDict(frozen=True, extra="ignore", coerce_numbers_to_str=True)

    resize_mode: Annotated[
        Whole, Field(description="0 is by upscaling_resize, 1 to upscaling_resize_w and _h.")
    ] = BY_FACTOR
    upscaling_resize: Annotated[float, Field(gt=0, le=8, allow_inf_nan=False)] = 2.0
    upscaling_resize_w: Annotated[Whole, Field(ge=0)] = 512
    upscaling_resize_h: Annotated[Whole, Field(ge=0)] = 512
    upscaling_crop: bool = True
    upscaler_1: Name = "None"
    upscaler_2: Name = "None"
    extras_upscaler_2_visibility: Visibility = 0.0
    gfpgan_visibility: Visibility = 0.0
    codeformer_visibility: Visibility = 0.0


def parse_single(payload: Payload, limits: RequestLimits) -> UpscaleRequest:
    """Read the request to enlarge one picture.

    Raises:
        InvalidRequestError: a field is wrong; it is named as in A1111.
    """
    fields = read_object(payload.content, (IMAGE,), limits.max_image_bytes)
    [request] = translate(fields, {IMAGE: fields.get(IMAGE)}, limits)
    return request


def parse_batch(payload: Payload, limits: RequestLimits) -> list[UpscaleRequest]:
    """Read the request to enlarge several pictures in the same way.

    Raises:
        InvalidRequestError: as `parse_single`.
    """
    fields, items = read_objects(
        payload.content, IMAGE_LIST, (DATA,), limits.max_image_bytes, limits.max_batch_items
    )
    if not items:
        raise InvalidRequestError(f"{IMAGE_LIST} has no pictures", field=IMAGE_LIST)
    pictures = {place_in_list(index): one.get(DATA) for index, one in enumerate(items)}
    return translate(fields, pictures, limits)


def place_in_list(index: int) -> str:
    """Return the name of the field that has one of several pictures."""
    return f"{IMAGE_LIST}.{index}.{DATA}"


def translate(
    fields: Mapping[str, Any], pictures: Mapping[str, Any], limits: RequestLimits
) -> list[UpscaleRequest]:
    """Translate fields and pictures to requests.

    Args:
        fields: as a client sent them.
        pictures: files as bytes, by their fields; anything else is refused.
        limits: of this server.

    Raises:
        InvalidRequestError: a field is wrong; it is named as in A1111.
    """
    extras = read_model(ExtrasFields, fields)
    _refuse_what_is_not_here(extras)
    native = _size(extras) | {"upscaler": extras.upscaler_1}
    return [_make(native, picture, place, limits) for place, picture in pictures.items()]


def spelled_as_there(error: LpwSdxlError, place: str) -> LpwSdxlError:
    """Return an error whose field is named as in A1111.

    Args:
        error: of one picture.
        place: the field that has it.
    """
    field = error.field if isinstance(error, RequestError) else None
    name = {**_SPELLED, IMAGE: place}.get(field or "")
    if field is None or name is None:
        return error
    message = str(error)
    if message.startswith((f"{field} ", f"{field}:")):
        message = name + message[len(field) :]
    return InvalidRequestError(message, field=name)


def _refuse_what_is_not_here(extras: ExtrasFields) -> None:
    for field in ("gfpgan_visibility", "codeformer_visibility"):
        if getattr(extras, field) > 0:
            raise InvalidRequestError(
                f"{field} is {getattr(extras, field):g}, and no faces are restored here; 0 would"
                " be right",
                field=field,
            )
    second = find_upscaler(extras.upscaler_2 or "None")
    if extras.extras_upscaler_2_visibility > 0 and second is not Upscaler.NONE:
        raise InvalidRequestError(
            "extras_upscaler_2_visibility is above 0, and no two upscalers are blended here; 0"
            " would be right",
            field="extras_upscaler_2_visibility",
        )
    if extras.resize_mode not in (BY_FACTOR, TO_SIZE):
        raise InvalidRequestError(
            f"resize_mode is {extras.resize_mode}; 0, by a factor, or 1, to a size, would be right",
            field="resize_mode",
        )


def _size(extras: ExtrasFields) -> dict[str, Any]:
    """Return the fields of the size; without an upscaler A1111 leaves the picture as it is."""
    if not extras.upscaler_1 or find_upscaler(extras.upscaler_1) is Upscaler.NONE:
        return {"scale": 1.0}
    if extras.resize_mode == BY_FACTOR:
        return {"scale": extras.upscaling_resize}
    width, height = extras.upscaling_resize_w or None, extras.upscaling_resize_h or None
    if width is None and height is None:
        raise InvalidRequestError(
            "upscaling_resize_w and upscaling_resize_h are 0; pixels would be right",
            field="upscaling_resize_w",
        )
    return {"width": width, "height": height, "crop": extras.upscaling_crop}


def _make(
    native: Mapping[str, Any], picture: Any, place: str, limits: RequestLimits
) -> UpscaleRequest:
    if not isinstance(picture, bytes):
        raise InvalidRequestError(
            f"{place} is missing; the picture's file in base64 would be right", field=place
        )
    fields = {**native, "upscaler": native["upscaler"] or Upscaler.NONE.value, "image": picture}
    try:
        request = UpscaleRequest.model_validate(fields)
        check_upscale(request, limits)
    except ValidationError as error:
        raise spelled_as_there(explain_refusal(error, UpscaleRequest), place) from None
    except InvalidRequestError as error:
        raise spelled_as_there(error, place) from None
    return request
