"""This server's own limits on a request; one that is over them is refused by its field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.picture_file import PICTURE_FIELDS
from lpw_sdxl.picture_text import refused
from lpw_sdxl.sampling_options import SamplerImplementation
from lpw_sdxl.schema import GenerationRequest, ImageSize, InspectionRequest
from lpw_sdxl.second_pass import SecondPass
from lpw_sdxl.settings import DEFAULT_UPSCALED_PIXELS, Settings

LARGEST_SIZE = ImageSize(2048, 2048)
NATIVE_SIDES_ON_CPU = 8
# The fields about a picture, by the field of that picture.
_NEEDED: Mapping[str, str] = {
    "mask_image": "image",
    "strength": "image",
    "resize_mode": "image",
    "invert_mask": "mask_image",
    "mask_blur": "mask_image",
    "masked_content": "mask_image",
    "only_masked": "mask_image",
    "only_masked_padding": "mask_image",
    "paste_back": "mask_image",
}


_OF_K_DIFFUSION = (
    "eta",
    "noise_source",
    "timestep_rounding",
    "eta_noise_seed_delta",
    "variation_seed",
    "variation_strength",
)


def default_largest_size(native_size: ImageSize, *, is_on_cpu: bool) -> ImageSize:
    """Choose the largest image of a server whose settings name none.

    One step of a large image can't be interrupted. On a CPU, a model made for 64 pixels would draw
    2048 x 2048 for a minute, while all other requests wait.
    """
    if not is_on_cpu:
        return LARGEST_SIZE
    return ImageSize(
        *(
            min(most, NATIVE_SIDES_ON_CPU * own)
            for most, own in zip(LARGEST_SIZE, native_size, strict=True)
        )
    )


@dataclass(frozen=True)
class RequestLimits:
    """The server's own limits on a request, tighter than the schema's.

    Attributes:
        max_prompt_characters: of `prompt` and of `negative_prompt`, each.
        max_steps: of `num_inference_steps`.
        max_size: height and width, pixels.
        max_batch_items: requests of one batch.
        max_loras: different LoRAs of one request, the body's and the prompt's together; counted
            when their names are looked up, by `lora.request.collect`.
        max_image_bytes: of the file of a picture.
        max_upscaled_pixels: of a picture that is enlarged.
    """

    max_prompt_characters: int
    max_steps: int
    max_size: ImageSize
    max_batch_items: int
    max_loras: int
    max_image_bytes: int
    max_upscaled_pixels: int = DEFAULT_UPSCALED_PIXELS

    @classmethod
    def from_settings(
        cls, settings: Settings, default_size: ImageSize = LARGEST_SIZE
    ) -> RequestLimits:
        """Take the limits that the settings name.

        Args:
            settings: of the service.
            default_size: where they name no largest size (`default_largest_size`).
        """
        return cls(
            max_prompt_characters=settings.max_prompt_characters,
            max_steps=settings.max_steps,
            max_size=ImageSize(
                height=settings.max_height or default_size.height,
                width=settings.max_width or default_size.width,
            ),
            max_batch_items=settings.max_batch_items,
            max_loras=settings.max_loras,
            max_image_bytes=settings.max_image_bytes,
            max_upscaled_pixels=settings.max_upscaled_pixels,
        )


def check_limits(request: GenerationRequest, limits: RequestLimits) -> None:
    """Check a valid request against the server's own limits.

    Raises:
        InvalidRequestError: a field is over its limit; the error names field, value and limit.
    """
    check_prompt_lengths(request, limits)
    _check_number(request, "num_inference_steps", limits.max_steps)
    for field, limit in limits.max_size._asdict().items():
        _check_number(request, field, limit)
    _check_sampling(request)
    _check_second_pass(request, limits)
    _check_pictures(request, limits)


def check_inspection(request: InspectionRequest, limits: RequestLimits) -> None:
    """Check a valid inspection against the server's own limits; its default steps fit any server.

    Raises:
        InvalidRequestError: a field is over its limit; the error names field, value and limit.
    """
    check_prompt_lengths(request, limits)
    if request.has_own_steps:
        _check_number(request, "num_inference_steps", limits.max_steps)


def _check_number(request: GenerationRequest | InspectionRequest, field: str, limit: int) -> None:
    value = getattr(request, field)
    if value is not None and value > limit:
        default = "" if field in request.model_fields_set else ", its default"
        raise InvalidRequestError(
            f"{field} is {value}{default}; at most {limit} is accepted here", field=field
        )


def _check_sampling(request: GenerationRequest) -> None:
    """Check that no field lacks the family of samplers that it is about, or its other half.

    A field with its default's value asks for nothing.
    """
    if request.sampler_implementation is SamplerImplementation.DIFFUSERS:
        for field in _OF_K_DIFFUSION:
            if getattr(request, field) != GenerationRequest.model_fields[field].default:
                raise InvalidRequestError(
                    f"{field} is about the samplers of k-diffusion; with sampler_implementation"
                    " 'k_diffusion' it would be right",
                    field=field,
                )
    if request.variation_seed is not None and request.variation_strength == 0:
        raise InvalidRequestError(
            "variation_seed has no effect where variation_strength is 0; a share above 0 would be"
            " right, such as 0.1",
            field="variation_seed",
        )


def _check_second_pass(request: GenerationRequest, limits: RequestLimits) -> None:
    """Check a second pass's prompts and steps, and that nothing is asked for twice."""
    second = request.hires
    if second is None:
        return
    if request.image is not None:
        raise InvalidRequestError(
            "hires is a second pass over what a text has drawn; with image it has to be null",
            field="hires",
        )
    if second.scale is not None and (second.width or second.height):
        raise InvalidRequestError(
            "hires has a scale, and a width or height; one of the two would be right",
            field="hires.scale",
        )
    if (second.steps or 0) > limits.max_steps:
        raise InvalidRequestError(
            f"hires.steps is {second.steps}; at most {limits.max_steps} is accepted here",
            field="hires.steps",
        )
    check_prompt_lengths(second, limits, "hires.")


def _check_pictures(request: GenerationRequest, limits: RequestLimits) -> None:
    """Check that no field lacks the picture that it is about, and that no file is too large.

    A field with its default's value asks for nothing.
    """
    for field, needed in _NEEDED.items():
        default = GenerationRequest.model_fields[field].default
        if getattr(request, needed) is None and getattr(request, field) != default:
            raise InvalidRequestError(
                f"{field} is about a picture in {needed}, which is missing", field=field
            )
    for field in PICTURE_FIELDS:
        content = getattr(request, field)
        if content is not None and len(content) > limits.max_image_bytes:
            raise refused(
                field,
                f"has {len(content)} bytes and may have {limits.max_image_bytes}; send a smaller"
                " file",
            )


def check_prompt_lengths(
    request: GenerationRequest | InspectionRequest | SecondPass,
    limits: RequestLimits,
    place: str = "",
) -> None:
    """Check both prompts against the limit of characters.

    Args:
        request: that has them.
        limits: of the server.
        place: put before a field's name in errors.

    Raises:
        InvalidRequestError: a prompt is too long; the error names it, its length and the limit.
    """
    for field in ("prompt", "negative_prompt"):
        length = len(getattr(request, field) or "")
        if length > limits.max_prompt_characters:
            raise InvalidRequestError(
                f"{place}{field} has {length} characters; at most {limits.max_prompt_characters}"
                " are accepted here",
                field=f"{place}{field}",
            )
