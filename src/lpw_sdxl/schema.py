"""What a client may ask for: GenerationRequest, its limits, and how a bad one is refused.

Knows nothing of HTTP, torch or the engine. Fields are the field's own names; the order of a pair is
height first wherever it is not named.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, NamedTuple, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.prompt.style import PromptStyle
from lpw_sdxl.settings import Settings

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


class SchedulerName(StrEnum):
    """Schedulers by the names that people know them by, which are AUTOMATIC1111's."""

    EULER = "Euler"
    EULER_ANCESTRAL = "Euler a"
    DPMPP_2M = "DPM++ 2M"
    DPMPP_2M_KARRAS = "DPM++ 2M Karras"
    DPMPP_2M_SDE = "DPM++ 2M SDE"
    DPMPP_2M_SDE_KARRAS = "DPM++ 2M SDE Karras"
    DPMPP_3M_SDE = "DPM++ 3M SDE"
    DPMPP_3M_SDE_KARRAS = "DPM++ 3M SDE Karras"
    DPMPP_SDE = "DPM++ SDE"
    DPMPP_SDE_KARRAS = "DPM++ SDE Karras"
    DDIM = "DDIM"
    UNIPC = "UniPC"
    HEUN = "Heun"
    LMS = "LMS"
    LMS_KARRAS = "LMS Karras"
    LCM = "LCM"
    TCD = "TCD"


SCHEDULER_ALIASES: Mapping[str, SchedulerName] = {
    "euler_ancestral": SchedulerName.EULER_ANCESTRAL,
    "EulerDiscreteScheduler": SchedulerName.EULER,
    "EulerAncestralDiscreteScheduler": SchedulerName.EULER_ANCESTRAL,
    "DPMSolverMultistepScheduler": SchedulerName.DPMPP_2M,
    "DPMSolverSDEScheduler": SchedulerName.DPMPP_SDE,
    "DDIMScheduler": SchedulerName.DDIM,
    "UniPCMultistepScheduler": SchedulerName.UNIPC,
    "HeunDiscreteScheduler": SchedulerName.HEUN,
    "LMSDiscreteScheduler": SchedulerName.LMS,
    "LCMScheduler": SchedulerName.LCM,
    "TCDScheduler": SchedulerName.TCD,
}
"""Names that spelling alone does not lead to one of ours: ComfyUI's, and Diffusers' classes."""

LONGEST_SCHEDULER_NAME = 64  # characters; longer is no name and is not compared with one


def find_scheduler(text: str) -> SchedulerName | None:
    """Find a scheduler by a name in anybody's spelling, or None.

    Case, blanks, hyphens, underscores, `pp` for `++` and a leading `k_` don't matter, so that
    `dpmpp_2m_sde`, `uni_pc` and `k_euler_a` are known without being listed.
    """
    return _SCHEDULERS_BY_SPELLING.get(_spelling(text))


def _spelling(name: str) -> str:
    """Reduce a name to what all its spellings share."""
    if len(name) > LONGEST_SCHEDULER_NAME:
        return ""
    lowered = name.casefold().removeprefix("k_").replace("++", "pp")
    return "".join(lowered.replace("_", " ").replace("-", " ").split())


_SCHEDULERS_BY_SPELLING: Mapping[str, SchedulerName] = {
    _spelling(name): scheduler
    for name, scheduler in (
        *SCHEDULER_ALIASES.items(),
        *((name.value, name) for name in SchedulerName),
    )
}


def _read_scheduler(value: object) -> object:
    """Turn a scheduler's name in any spelling into ours; leave what is no text to pydantic."""
    if not isinstance(value, str):
        return value
    scheduler = find_scheduler(value)
    if scheduler is None:
        near = difflib.get_close_matches(_spelling(value), _SCHEDULERS_BY_SPELLING, n=1)
        hint = f"did you mean '{_SCHEDULERS_BY_SPELLING[near[0]]}'? " if near else ""
        known = ", ".join(f"'{name}'" for name in SchedulerName)
        raise PydanticCustomError(
            "unknown_scheduler",
            "not a scheduler; {hint}known are {known}",
            {"hint": hint, "known": known},
        )
    return scheduler


class ImageFormat(StrEnum):
    """File format of the answer."""

    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"


class LoraReference(BaseModel):
    """One LoRA by the name it was imported under, and its strength."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    weight: Annotated[float, Field(ge=-10, le=10, allow_inf_nan=False)] = 1.0


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
    scheduler: Annotated[SchedulerName | None, BeforeValidator(_read_scheduler)] = Field(
        default=None,
        description="Null is the model's own. Names of Diffusers' classes are understood too.",
    )
    prompt_style: PromptStyle = Field(
        default=PromptStyle.LPW, description="How the prompt is read.", strict=False
    )
    clip_skip: int | None = Field(
        default=None, ge=0, le=32, description="k takes hidden_states[-(k+2)] of both encoders."
    )
    loras: list[LoraReference] = Field(
        default_factory=list, max_length=16, description="LoRAs by name, with their weights."
    )
    image_format: ImageFormat = Field(
        default=ImageFormat.PNG, description="File format of the answer.", strict=False
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
    """

    max_prompt_characters: int
    max_steps: int
    max_size: ImageSize
    max_batch_items: int

    @classmethod
    def from_settings(cls, settings: Settings) -> RequestLimits:
        """Take the limits that the settings name."""
        return cls(
            max_prompt_characters=settings.max_prompt_characters,
            max_steps=settings.max_steps,
            max_size=ImageSize(settings.max_height, settings.max_width),
            max_batch_items=settings.max_batch_items,
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
            raise InvalidRequestError(
                f"{field} is {value}; at most {limit} is accepted here", field=field
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
        raise _explain_refusal(error, tuple(model.model_fields)) from None


def _explain_refusal(error: ValidationError, known_fields: tuple[str, ...]) -> InvalidRequestError:
    """Say in one sentence which field pydantic refused and why, without quoting its value."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    field = ".".join(str(part) for part in first["loc"]) or None
    if first["type"] == "json_invalid":
        return InvalidRequestError(f"the body is not valid JSON: {first['msg']}")
    if first["type"] == "missing":
        return InvalidRequestError(f"{field} is missing", field=field)
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(first["loc"][-1]), known_fields, n=1)
        known = ", ".join(known_fields) or "none"
        hint = f"did you mean {near[0]}?" if near else f"known are {known}"
        shown = (field or "")[:64]
        return InvalidRequestError(f"{shown} is not a field of a request; {hint}", field=shown)
    message = first["msg"][0].lower() + first["msg"][1:]
    return InvalidRequestError(f"{field or 'the body'}: {message}", field=field)
