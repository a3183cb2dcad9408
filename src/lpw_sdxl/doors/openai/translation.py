"""The fields of a request to an order: what is drawn, and how it is answered. A pure function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from lpw_sdxl.doors.json_text import parse_json
from lpw_sdxl.doors.loras import read_loras
from lpw_sdxl.doors.openai.fields import PICTURES, Fields
from lpw_sdxl.doors.openai.hidden_fields import unfold
from lpw_sdxl.doors.openai.options import Options, refuse_transparent
from lpw_sdxl.doors.openai.pictures import take_mask, take_pictures
from lpw_sdxl.doors.openai.spellings import KNOWN, PASSED_ON, SPELLINGS
from lpw_sdxl.doors.openai.wishes import AUTO, QUALITY_SHARES, read_format
from lpw_sdxl.doors.sampling import choose_sampling
from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.field_types import SEEDS
from lpw_sdxl.refusal import explain_refusal
from lpw_sdxl.request_limits import RequestLimits, check_limits
from lpw_sdxl.schema import GenerationRequest, ImageSize, ResizeMode

REPAINTED_STRENGTH = 1.0
"""Of a masked edit that names none: nothing of what is painted over is to be seen."""
SHOWN_NAMES, SHOWN_CHARACTERS = 10, 64
_SAMPLING = ("sampler", "scheduler", "schedule_type", "sampler_implementation")
_LISTS = ("seed", "guidance_interval")  # in a form they are texts
_NUMBERS = ("seed", "num_inference_steps", "guidance_scale", "strength")  # likewise
_OF_PICTURES = ("strength", "resize_mode")  # without effect where there is none


@dataclass(frozen=True)
class ImageOrder:
    """The images of one request, and how they are answered.

    Attributes:
        requests: of the images; they differ by their seeds alone.
        is_edit: whether they are made from a picture.
        is_mask_raw: whether the mask's own transparency decides which part of it is painted over.
        is_streamed: whether events are the answer.
        partial_images: at most so many previews of each image in a stream.
        has_links: whether the answer has URLs, and not the images themselves.
        compression: of JPEG and WebP, 0 to 100; None is our own.
        quality: as the client named it.
        notes: sentences on what was not honoured.
        unknown_fields: their number.
        request_id: the client's own name for the request.
    """

    requests: tuple[GenerationRequest, ...]
    is_edit: bool
    is_mask_raw: bool = False
    is_streamed: bool = False
    partial_images: int = 0
    has_links: bool = False
    compression: int | None = None
    quality: str = AUTO
    notes: tuple[str, ...] = ()
    unknown_fields: int = 0
    request_id: str | None = None


def translate(
    fields: Fields, limits: RequestLimits, native_size: ImageSize, *, is_edit: bool = False
) -> ImageOrder:
    """Translate the fields of a request.

    Args:
        fields: by name.
        limits: of this server.
        native_size: of the model.
        is_edit: whether it has a picture to start from.

    Raises:
        InvalidRequestError: a field is wrong; it is named as the client did.
    """
    fields = unfold(fields)
    if "prompt" not in fields:
        raise InvalidRequestError("prompt is missing", field="prompt")
    options = Options.read(fields)
    if options.is_transparent and not is_edit:
        raise refuse_transparent()
    native, spelled = _take_extensions(fields)
    if not is_edit:
        _refuse_pictures(fields)
        native = {name: value for name, value in native.items() if name not in _OF_PICTURES}
    native |= options.sides(native.get("width"), native.get("height"), native_size)
    native.setdefault("num_inference_steps", options.steps(limits))
    native["image_format"] = read_format(options.output_format)
    picture_count = _add_pictures(fields, native, limits) if is_edit else 0
    requests = _Maker(native, spelled, limits).make(options.n)
    return ImageOrder(
        requests=tuple(one.model_copy(update={"request_id": None}) for one in requests),
        is_edit=is_edit,
        is_mask_raw="mask_image" in native and "invert_mask" not in native,
        is_streamed=options.stream,
        partial_images=options.partial_images,
        has_links=options.has_links,
        compression=options.output_compression,
        quality=options.quality,
        notes=tuple(_notes(fields, options, picture_count)),
        unknown_fields=len(fields.keys() - KNOWN),
        request_id=requests[0].request_id,
    )


def _take_extensions(fields: Fields) -> tuple[Fields, dict[str, str]]:
    """Collect the fields of our request, and the client's spelling of each."""
    native: Fields = {"prompt": fields["prompt"]}
    spelled = {"mask_image": "mask"}
    for field, spellings in SPELLINGS.items():
        name = next((one for one in spellings if one in fields), None)
        if name is not None:
            native[field], spelled[field] = fields[name], name
    native |= {field: fields[field] for field in PASSED_ON if field in fields}
    if "loras" in native:
        native["loras"] = read_loras(native["loras"], spelled["loras"])
    for field in _LISTS:
        if isinstance(value := native.get(field), str) and value.lstrip().startswith("["):
            native[field] = parse_json(value)
    for field in _NUMBERS:
        if field in native:
            native[field] = _number(native[field])
    names = [_name(native.pop(field, None), spelled.get(field, field)) for field in _SAMPLING]
    if "sampler" in spelled:
        spelled["schedule_type"] = spelled.get("scheduler", "schedule_type")
        spelled["scheduler"] = spelled["sampler"]
    field = spelled.get("scheduler", "scheduler")
    return native | choose_sampling(*names, field=field), spelled


def _number(value: Any) -> Any:
    """Convert a text of a number; leave anything else to be refused."""
    for convert in (int, float):
        try:
            return convert(value) if isinstance(value, str) else value
        except ValueError:
            continue
    return value


def _name(value: Any, field: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise InvalidRequestError(f"{field} is no text; a name would be right", field=field)


def _refuse_pictures(fields: Fields) -> None:
    for name in PICTURES:
        if name in fields:
            raise InvalidRequestError(
                f"{name} has no effect here; /v1/images/edits draws from a picture", field=name
            )


def _add_pictures(fields: Fields, native: Fields, limits: RequestLimits) -> int:
    """Add the picture to start from and its mask; return the number of pictures."""
    pictures = take_pictures(fields, limits.max_image_bytes)
    if not pictures:
        raise InvalidRequestError("image is missing", field="image")
    native["image"] = pictures[0]
    native.setdefault("resize_mode", ResizeMode.CROP)  # stretched, a picture would be another one
    mask = take_mask(fields, limits.max_image_bytes)
    if mask is not None:
        native["mask_image"] = mask
        native.setdefault("strength", REPAINTED_STRENGTH)
    return len(pictures)


def _notes(fields: Fields, options: Options, picture_count: int) -> list[str]:
    """State what was not honoured."""
    notes = []
    unknown = [repr(name[:SHOWN_CHARACTERS]) for name in fields if name not in KNOWN]
    if unknown:
        more = f" and {len(unknown) - SHOWN_NAMES} more" if len(unknown) > SHOWN_NAMES else ""
        notes.append(f"unknown fields were ignored: {', '.join(unknown[:SHOWN_NAMES])}{more}")
    if not options.has_known_quality:
        notes.append(f"quality is unknown; known are {', '.join(QUALITY_SHARES)}; auto was taken")
    if options.is_transparent:
        notes.append("background is transparent, which was ignored: this model draws none")
    if picture_count > 1:
        notes.append(f"image is {picture_count} pictures; the first was edited, without the others")
    return notes


@dataclass(frozen=True)
class _Maker:
    """A maker of our requests whose refusals name fields as the client did.

    Attributes:
        native: the fields of our request.
        spelled: the client's names of some.
        limits: of this server.
    """

    native: Fields
    spelled: dict[str, str]
    limits: RequestLimits

    def make(self, count: int) -> list[GenerationRequest]:
        """Make a number of requests, whose seeds are those of a list, or follow the first one."""
        seed = self.native.get("seed")
        if isinstance(seed, list):
            seeds = [*seed, *[None] * count][:count]
            return [self._make_one(one) for one in seeds]
        first = self._make_one(seed)
        if first.seed is None:
            return [first] * count
        following = ((first.seed + index) % SEEDS for index in range(count))
        return [first.model_copy(update={"seed": one}) for one in following]

    def _make_one(self, seed: Any) -> GenerationRequest:
        fields = self.native | {"seed": seed}
        try:
            request = GenerationRequest.model_validate(fields, strict=False)
            check_limits(request, self.limits)
        except ValidationError as error:
            raise self._spell(explain_refusal(error, GenerationRequest)) from None
        except InvalidRequestError as error:
            raise self._spell(error) from None
        return request

    def _spell(self, refusal: InvalidRequestError) -> InvalidRequestError:
        """Name the field of a refusal as the client did."""
        first, dot, rest = (refusal.field or "").partition(".")
        default = "size" if first in ("width", "height") else first
        name = self.spelled.get(first, default)
        message = refusal.message
        if first in self.spelled and message.startswith((f"{first} ", f"{first}:")):
            message = name + message[len(first) :]
        return InvalidRequestError(message, field=f"{name}{dot}{rest}" or None)
