"""The second pass of a request: what it asks for, and whether its size is one."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pydantic_core import PydanticCustomError

from lpw_sdxl.addon.named_upscalers import find_imported
from lpw_sdxl.addon.registry import Addon, Registry
from lpw_sdxl.engine.job_spec import JobSpec
from lpw_sdxl.engine.upscalers import NetworkUpscaling, ReadUpscaler, TileRoom, check_way
from lpw_sdxl.errors import InvalidRequestError, RequestError
from lpw_sdxl.lora.request import LoraUse
from lpw_sdxl.sampler_names import schedule_type_of, scheduler_of, split_label
from lpw_sdxl.sampler_table import SAMPLERS
from lpw_sdxl.sampling_options import SamplerImplementation
from lpw_sdxl.scheduler_table import SCHEDULERS, find_scheduler
from lpw_sdxl.schema import GenerationRequest, ImageSize
from lpw_sdxl.second_pass import Enlargement, SecondPass, fits_second

_FIELDS: Mapping[str, str] = {
    "num_inference_steps": "hires.steps",
    "strength": "hires.strength",
    "scheduler": "hires.scheduler",
    "schedule_type": "hires.schedule_type",
    "prompt": "hires.prompt",
    "negative_prompt": "hires.negative_prompt",
}


def request_of_second(request: GenerationRequest, second: SecondPass) -> GenerationRequest:
    """Make the request that a second pass alone would be; what it leaves open is the first's.

    Args:
        request: of the image.
        second: its second pass.

    Raises:
        InvalidRequestError: the scheduler or schedule type is none of the request's family.
    """
    family = request.sampler_implementation
    own: dict[str, Any] = {"strength": second.strength}
    if second.steps:
        own["num_inference_steps"] = second.steps
    if second.scheduler is not None:
        scheduler = _read(lambda: scheduler_of(second.scheduler, family), "scheduler")
        own["scheduler"] = scheduler
        own["schedule_type"] = _inherited_type(request, str(scheduler))
    if second.schedule_type is not None:
        own["schedule_type"] = _read(
            lambda: schedule_type_of(second.schedule_type, family), "schedule_type"
        )
    # An empty text is A1111's word for "as in the first pass".
    for field in ("prompt", "negative_prompt"):
        if getattr(second, field):
            own[field] = getattr(second, field)
    if second.guidance_scale is not None:
        own["guidance_scale"] = second.guidance_scale
    return request.model_copy(update=own)


def find_second_upscaler(request: GenerationRequest, registry: Registry) -> Addon | None:
    """Find the imported upscaler that a second pass names; None where it names none.

    Args:
        request: of the image.
        registry: of what it may name.

    Raises:
        InvalidRequestError: there is none of this name.
    """
    second = request.hires
    if second is None or second.built_in is not None:
        return None
    return find_imported(registry, second.upscaler, "hires.upscaler")


def plan_between_passes(spec: JobSpec, upscaler: ReadUpscaler, room: TileRoom) -> NetworkUpscaling:
    """Plan an imported upscaler's work between two passes.

    Args:
        spec: of a job with a second pass.
        upscaler: that it names.
        room: of a call of its network.

    Raises:
        InvalidRequestError: a picture on the way would be too large.
    """
    assert spec.enlargement is not None
    first = spec.first.size
    network = NetworkUpscaling.plan(upscaler, first, spec.enlargement.covering, room)
    check_way(network, "hires.upscaler")
    return network


def check_second_size(
    first: ImageSize, enlargement: Enlargement, second: SecondPass, most: ImageSize
) -> None:
    """Refuse a second pass whose size is smaller than the first's, or too large.

    Args:
        first: of the first pass, pixels.
        enlargement: the sizes.
        second: of the request.
        most: the largest image that is accepted; a second pass may have its pixels in any ratio.

    Raises:
        InvalidRequestError: naming a field of `hires`.
    """
    given = [name for name in ImageSize._fields if getattr(second, name) is not None]
    field = f"hires.{[*given, 'scale'][0]}"
    if not fits_second(enlargement, most):
        raise InvalidRequestError(
            f"hires makes the image {enlargement.covering}; at most so many pixels as {most} has"
            " are accepted here",
            field=field,
        )
    for name, side in enlargement.size._asdict().items():
        own = getattr(first, name)
        if side < own:
            raise InvalidRequestError(
                f"hires makes the {name} {side}, less than the first pass's {own}; at least that"
                " would be right",
                field=f"hires.{name}" if name in given else field,
            )


def check_second_memory(enlargement: Enlargement, call_pixels: float) -> None:
    """Refuse a second pass of which not one row fits into a UNet call.

    Args:
        enlargement: the sizes.
        call_pixels: that a call has memory for.

    Raises:
        InvalidRequestError: naming `hires`.
    """
    size = enlargement.size
    if size.height * size.width > call_pixels:
        raise InvalidRequestError(
            f"hires makes the image {size}; this server's device has memory for"
            f" {call_pixels / 1e6:.2f} megapixels",
            field="hires",
        )


def check_second_loras(first: Collection[LoraUse], second: Collection[LoraUse], most: int) -> None:
    """Refuse more different LoRAs in both passes than one request may have.

    Args:
        first: of the first pass.
        second: of the second.
        most: that are accepted.

    Raises:
        InvalidRequestError: naming the second pass's prompt.
    """
    count = len({use.key for use in (*first, *second)})
    if count > most:
        raise InvalidRequestError(
            f"both passes have {count} LoRAs; at most {most} are accepted here",
            field="hires.prompt",
        )


def _inherited_type(request: GenerationRequest, scheduler: str) -> object:
    """Return the first pass's schedule type for another scheduler; None where it takes none.

    As in A1111, a second pass with a sampler of its own keeps the type.
    """
    named = request.schedule_type
    if request.sampler_implementation is SamplerImplementation.DIFFUSERS:
        takes = find_scheduler(scheduler)
        is_taken = takes is not None and named in SCHEDULERS[takes].schedules
        return named if is_taken else None
    first = None if request.scheduler is None else split_label(request.scheduler)
    label = split_label(scheduler)
    if label is None or label.schedule_type is not None or SAMPLERS[label.sampler].walks_timesteps:
        return None
    return named if named is not None or first is None else first.schedule_type


@contextmanager
def named_as_second(second: SecondPass) -> Iterator[None]:
    """Name the fields of `hires` in errors about a second pass.

    Args:
        second: of the request; what it leaves open is named as the request's own.
    """
    try:
        yield
    except RequestError as error:
        named = _FIELDS.get(error.field or "", "")
        if named == _FIELDS["strength"] or getattr(second, named.partition(".")[2], None):
            error.field = named
        raise


def _read(read: Any, field: str) -> object:
    try:
        return read()
    except PydanticCustomError as error:
        named = f"hires.{field}"
        raise InvalidRequestError(f"{named}: {error.message()}", field=named) from error
