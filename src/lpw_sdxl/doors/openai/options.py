"""OpenAI's own fields of a request, read loosely: numbers may be texts, unknown fields no error."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from lpw_sdxl.doors.openai.fields import Fields
from lpw_sdxl.doors.openai.spellings import OPTION_SPELLINGS
from lpw_sdxl.doors.openai.wishes import AUTO, QUALITY_STEPS, read_size, round_side
from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.refusal import explain_refusal
from lpw_sdxl.schema import DEFAULT_STEPS, ImageSize

MAX_IMAGES = 10  # of one request, as in OpenAI's API
MAX_PARTIAL_IMAGES = 3
_LINKED_MODELS = "dall-e-"  # whose clients expect URLs where they name no response_format
_TRANSPARENT = "transparent"
_LONGEST_SIDE = 10**6  # what is longer is left as it is, to be refused


def _by_type(value: Any) -> Any:
    """Take a format from an object that names it, as in OpenAI's API of chats."""
    return value.get("type", "") if isinstance(value, dict) else value


def _by_sides(value: Any) -> Any:
    """Write a size that is an object or a list, width first, as a text."""
    match value:
        case {"width": width, "height": height} | [width, height]:
            return f"{width}x{height}"
        case _:
            return value


class Options(BaseModel):
    """OpenAI's own fields, but for the prompt and the pictures."""

    model_config = ConfigDict(frozen=True, extra="ignore", coerce_numbers_to_str=True)

    model: str = ""
    n: Annotated[int, Field(ge=1, le=MAX_IMAGES)] = 1
    size: Annotated[str, BeforeValidator(_by_sides)] = AUTO
    quality: str = AUTO
    output_format: str = "png"
    output_compression: Annotated[int, Field(ge=0, le=100)] | None = None
    background: str = AUTO
    aspect_ratio: str = AUTO
    response_format: Annotated[str, BeforeValidator(_by_type)] = ""
    stream: bool = False
    partial_images: Annotated[int, Field(ge=0, le=MAX_PARTIAL_IMAGES)] = 0

    @classmethod
    def read(cls, fields: Fields) -> Options:
        """Read the options among a request's fields.

        Raises:
            InvalidRequestError: one is no option; it is named.
        """
        spelled = {
            field: next((one for one in spellings if one in fields), field)
            for field, spellings in OPTION_SPELLINGS.items()
        }
        own = {field: fields[name] for field, name in spelled.items() if name in fields}
        try:
            return cls.model_validate(fields | own)
        except ValidationError as error:
            refusal = explain_refusal(error, cls)
            name = spelled.get(refusal.field or "", refusal.field)
            raise InvalidRequestError(_renamed(refusal, name), field=name) from None

    @property
    def is_transparent(self) -> bool:
        """Return whether a transparent background is asked for."""
        return self.background.strip().lower() == _TRANSPARENT

    @property
    def has_links(self) -> bool:
        """Return whether the answer has URLs; not in a stream, whose events have none."""
        if self.stream:
            return False
        if self.response_format:
            return self.response_format.strip().lower() == "url"
        return self.model.strip().lower().startswith(_LINKED_MODELS)

    @property
    def has_known_quality(self) -> bool:
        """Return whether its quality is one of the table's, or open."""
        return self._quality in (*QUALITY_STEPS, AUTO)

    @property
    def _quality(self) -> str:
        return self.quality.strip().lower()

    def steps(self, most: int) -> int:
        """Return the denoising steps of its quality, no more than a server takes."""
        return min(QUALITY_STEPS.get(self._quality, DEFAULT_STEPS), most)

    def sides(self, width: Any, height: Any, native: ImageSize) -> Fields:
        """Choose the sides: by fields of their own, else by `size`, else by a ratio.

        Args:
            width: as the client sent it, or None.
            height: likewise.
            native: size of the model.

        Raises:
            InvalidRequestError: `size` is no size, or the ratio no ratio.
        """
        size = read_size(self.size, native)
        size = size or read_size(self.aspect_ratio, native, "aspect_ratio")
        own = {"width": width, "height": height}
        return {
            **({} if size is None else size._asdict()),
            **{name: _round(value) for name, value in own.items() if value is not None},
        }


def _renamed(refusal: InvalidRequestError, name: str | None) -> str:
    """Return a refusal's sentence with the field's name as the client wrote it."""
    field = refusal.field or ""
    message = refusal.message
    return f"{name}{message[len(field) :]}" if field and message.startswith(field) else message


def _round(value: Any) -> Any:
    """Round a side that is a number, or a text of one; leave anything else to be refused."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return value
    return round_side(int(number)) if abs(number) < _LONGEST_SIDE else value


def refuse_transparent() -> InvalidRequestError:
    """Make the error for a transparent background."""
    return InvalidRequestError(
        "background is transparent, and this model draws none; opaque or auto would be right",
        field="background",
    )
