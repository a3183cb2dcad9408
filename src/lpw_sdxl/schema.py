"""What a client may ask for: GenerationRequest, its limits, and how a bad one is refused.

Knows nothing of HTTP, torch or the engine. Fields are the field's own names; the order of a pair is
height first wherever it is not named.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, NamedTuple, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.lora_reference import LoraReference
from lpw_sdxl.prompt.style import PromptStyle
from lpw_sdxl.refusal import explain_refusal
from lpw_sdxl.scheduler_names import SchedulerName, find_scheduler, read_scheduler
from lpw_sdxl.settings import Settings

__all__ = [
    "LATENT_SCALE",
    "MAX_IMAGE_PIXELS",
    "MIN_IMAGE_PIXELS",
    "BatchRequest",
    "GenerationRequest",
    "ImageFormat",
    "ImageSize",
    "InfoRequest",
    "InspectionRequest",
    "LoraReference",
    "RequestLimits",
    "SchedulerName",
    "check_limits",
    "check_prompt_lengths",
    "find_scheduler",
    "parse_batch",
    "parse_info",
    "parse_inspection",
    "parse_request",
    "validate_request",
]

MIN_IMAGE_PIXELS = 64  # one side; below it SDXL's UNet has nothing left to halve
MAX_IMAGE_PIXELS = 8192  # one side; the server's own limit is lower
LATENT_SCALE = 8  # pixels a latent cell stands for, one side


Model = TypeVar("Model", bound=BaseModel)


class ImageSize(NamedTuple):
    """Height and width of an image, pixels."""

    height: int
    width: int

    def __str__(self) -> str:
        """Write it the way people do: width first."""
        return f"{self.width}x{self.height}"


class ImageFormat(StrEnum):
    """File format of the answer."""

    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"


Side = Annotated[int, Field(ge=MIN_IMAGE_PIXELS, le=MAX_IMAGE_PIXELS, multiple_of=LATENT_SCALE)]


class GenerationRequest(BaseModel):
    """One image to make; immutable and strict: unknown fields, NaN and wrong types are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    prompt: str = Field(
        description="What to draw, long or short; (words:1.3) strengthens, [words] weakens.",
        examples=["a lighthouse at dusk, (stormy sea:1.2)"],
    )
    negative_prompt: str = Field(default="", description="What to keep away from.")
    width: Side | None = Field(
        default=None, description="Pixels, a multiple of 8; the model's native width by default."
    )
    height: Side | None = Field(
        default=None, description="Pixels, a multiple of 8; the model's native height by default."
    )
    num_inference_steps: int = Field(default=30, ge=1, le=999, description="Denoising steps.")
    guidance_scale: float = Field(
        default=5.0,
        ge=0,
        le=100,
        allow_inf_nan=False,
        description="How hard to follow the prompt; 1 or less skips guidance and halves the cost.",
    )
    guidance_rescale: float = Field(
        default=0.0,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Restores the contrast that high guidance burns, 0 to 1.",
    )
    seed: int | None = Field(
        default=None, ge=0, le=2**64 - 1, description="Null draws one, and the answer tells it."
    )
    scheduler: Annotated[SchedulerName | None, BeforeValidator(read_scheduler)] = Field(
        default=None,
        description="Null is the model's own. Names of Diffusers' classes are understood too.",
        strict=False,
    )
    prompt_style: PromptStyle = Field(
        default=PromptStyle.LPW, description="How the prompt is read.", strict=False
    )
    clip_skip: int | None = Field(
        default=None, ge=0, le=32, description="k takes hidden_states[-(k+2)] of both encoders."
    )
    loras: list[LoraReference] = Field(
        default_factory=list,
        max_length=16,
        description="LoRAs by name, with their weights; those of the prompt's tags are added.",
    )
    image_format: ImageFormat = Field(
        default=ImageFormat.PNG, description="What kind of file the answer is.", strict=False
    )
    deadline_s: float | None = Field(
        default=None,
        gt=0,
        le=86_400,
        allow_inf_nan=False,
        description="Give up when the image is not done after so many seconds.",
    )


class InspectionRequest(BaseModel):
    """A prompt to explain instead of drawing it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    prompt: str
    negative_prompt: str = ""
    prompt_style: PromptStyle = Field(default=PromptStyle.LPW, strict=False)


class InfoRequest(BaseModel):
    """Nothing: what is served needs no question."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class BatchRequest(BaseModel):
    """Several requests in one body; each item is read on its own, so that one spoils no other."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    requests: list[Any] = Field(min_length=1, description="GenerationRequests, in order.")


@dataclass(frozen=True)
class RequestLimits:
    """The server's own limits on a request, tighter than the schema's.

    Attributes:
        max_prompt_characters: of `prompt` and of `negative_prompt`, each.
        max_steps: `num_inference_steps`.
        max_size: height and width, pixels.
        max_batch_items: requests of one batch.
        max_loras: different LoRAs of one request, the body's and the prompt's together; counted
            when their names are looked up, by `lora.request.collect`.
    """

    max_prompt_characters: int
    max_steps: int
    max_size: ImageSize
    max_batch_items: int
    max_loras: int

    @classmethod
    def from_settings(cls, settings: Settings) -> RequestLimits:
        """Take the limits that the settings name."""
        return cls(
            max_prompt_characters=settings.max_prompt_characters,
            max_steps=settings.max_steps,
            max_size=ImageSize(settings.max_height, settings.max_width),
            max_batch_items=settings.max_batch_items,
            max_loras=settings.max_loras,
        )


def parse_request(body: bytes | str, limits: RequestLimits) -> GenerationRequest:
    """Read one GenerationRequest from JSON and hold it against the server's limits.

    Raises:
        InvalidRequestError: naming the first field that is wrong and what would be right; its
            message holds no value of the request but numbers.
    """
    request = _read(GenerationRequest, body)
    check_limits(request, limits)
    return request


def validate_request(values: object, limits: RequestLimits) -> GenerationRequest:
    """Read one GenerationRequest from JSON values and hold it against the server's limits.

    Raises:
        InvalidRequestError: as `parse_request`.
    """
    try:
        request = GenerationRequest.model_validate(values)
    except ValidationError as error:
        raise explain_refusal(error, GenerationRequest) from None
    check_limits(request, limits)
    return request


def parse_inspection(body: bytes | str, limits: RequestLimits) -> InspectionRequest:
    """Read one InspectionRequest from JSON and hold it against the server's limits.

    Raises:
        InvalidRequestError: as `parse_request`.
    """
    request = _read(InspectionRequest, body)
    check_prompt_lengths(request, limits)
    return request


def parse_batch(body: bytes | str, limits: RequestLimits) -> BatchRequest:
    """Read the list of a batch from JSON, not yet its items.

    Raises:
        InvalidRequestError: if there is no list, or it is empty or too long.
    """
    batch = _read(BatchRequest, body)
    if len(batch.requests) > limits.max_batch_items:
        raise InvalidRequestError(
            f"requests has {len(batch.requests)} items; at most {limits.max_batch_items} are"
            " accepted here",
            field="requests",
        )
    return batch


def parse_info(body: bytes | str) -> InfoRequest:
    """Read the empty object that /info takes.

    Raises:
        InvalidRequestError: if there is anything in it.
    """
    return _read(InfoRequest, body or "{}")


def check_limits(request: GenerationRequest, limits: RequestLimits) -> None:
    """Hold a valid request against the server's own limits.

    Raises:
        InvalidRequestError: naming the field, its value and the limit.
    """
    check_prompt_lengths(request, limits)
    numbers = (
        ("num_inference_steps", request.num_inference_steps, limits.max_steps),
        ("height", request.height, limits.max_size.height),
        ("width", request.width, limits.max_size.width),
    )
    for field, value, limit in numbers:
        if value is not None and value > limit:
            default = "" if field in request.model_fields_set else ", its default"
            raise InvalidRequestError(
                f"{field} is {value}{default}; at most {limit} is accepted here", field=field
            )


def check_prompt_lengths(
    request: GenerationRequest | InspectionRequest, limits: RequestLimits
) -> None:
    """Hold both prompts against the limit of characters.

    Raises:
        InvalidRequestError: naming the prompt, its length and the limit.
    """
    for field in ("prompt", "negative_prompt"):
        length = len(getattr(request, field))
        if length > limits.max_prompt_characters:
            raise InvalidRequestError(
                f"{field} has {length} characters; at most {limits.max_prompt_characters}"
                " are accepted here",
                field=field,
            )


def _read(model: type[Model], body: bytes | str) -> Model:
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise explain_refusal(error, model) from None
