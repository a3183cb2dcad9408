"""Requests to specifications of jobs: checked against all limits, with their defaults filled in.

It knows the model's pipeline and what is offered, but no queue, no device's memory and no thread.
"""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from lpw_sdxl.conditioning.explain import state_obstacle
from lpw_sdxl.conditioning.explain_schedule import (
    InspectedPrompt,
    PromptInspection,
    explain_schedules,
)
from lpw_sdxl.diffusion.pipeline import Pipeline
from lpw_sdxl.diffusion.scheduler_rules import check_scheduler, choose_schedule_type
from lpw_sdxl.diffusion.schedulers import own_schedule_type, own_scheduler, unet_calls
from lpw_sdxl.engine.cost import step_cost
from lpw_sdxl.engine.job import JobSpec
from lpw_sdxl.engine.offer import Offer
from lpw_sdxl.errors import AddonNotReadError, InvalidRequestError, RequestError
from lpw_sdxl.imaging import EmbeddingUse, ImageRecord, PictureUse, check_fits, check_texts
from lpw_sdxl.imaging.picture import PictureLimits
from lpw_sdxl.imaging.start_image import default_size
from lpw_sdxl.lora.request import collect, refuse_in_negative
from lpw_sdxl.lora.sets import sets_of
from lpw_sdxl.prompt import Steps
from lpw_sdxl.request_limits import (
    RequestLimits,
    check_inspection,
    check_limits,
    default_largest_size,
)
from lpw_sdxl.scheduler_table import SCHEDULERS, SchedulerName
from lpw_sdxl.schema import GenerationRequest, ImageSize, InspectionRequest
from lpw_sdxl.settings import Settings

A1111_DEFAULT_CLIP_SKIPS = (1, 2)  # of SDXL, in A1111's count; here they leave layers out
DRAWN_SEED_BITS = 32  # a seed that JavaScript and every A1111 tool can hold


logger = logging.getLogger(__name__)


class RequestResolver:
    """The way of a request to its job; for any number of threads at a time.

    Args:
        pipeline: the loaded model.
        settings: the source of the limits.
    """

    def __init__(self, pipeline: Pipeline, settings: Settings) -> None:
        self._pipeline = pipeline
        default_size = default_largest_size(
            pipeline.manifest.native_size, is_on_cpu=pipeline.device.type == "cpu"
        )
        self.limits = RequestLimits.from_settings(settings, default_size)
        self.picture_limits = PictureLimits(max_bytes=settings.max_image_bytes)
        self._settings = settings
        self.own_scheduler = own_scheduler(pipeline.scheduler_config)
        self.own_schedule_type = own_schedule_type(pipeline.scheduler_config)

    def resolve(self, request: GenerationRequest, offer: Offer) -> JobSpec:
        """Check a request against all limits and fill in its defaults.

        Args:
            request: of the image.
            offer: the LoRAs and embeddings that it may name.

        Raises:
            RequestError: a limit is broken, or a name is unknown; the error names the field.
        """
        check_limits(request, self.limits)
        size = self._choose_size(request)
        scheduler = request.scheduler or self.own_scheduler
        config = self._pipeline.scheduler_config
        check_scheduler(scheduler, config, request.num_inference_steps)
        schedule_type = choose_schedule_type(scheduler, request.schedule_type, config)
        style = request.prompt_style
        registry, reader = offer.registry, offer.reader
        schedules = reader.parse_schedules(
            request.prompt,
            request.negative_prompt,
            style,
            prompt_steps(scheduler, request.num_inference_steps),
        )
        refuse_in_negative(schedules.negative_prompt)
        loras = collect(
            request.loras, schedules.prompt.lora_tags, registry.lora, self.limits.max_loras
        )
        prompts = reader.read_schedule(schedules, style, request.clip_skip)
        manifest = self._pipeline.manifest
        record = ImageRecord(
            request=request.without_pictures(),
            seed=secrets.randbits(DRAWN_SEED_BITS) if request.seed is None else request.seed,
            size=size,
            scheduler=scheduler,
            schedule_type=schedule_type,
            model_name=manifest.name,
            model_sha256=manifest.origin.sha256,
            loras=loras,
            embeddings=tuple(
                EmbeddingUse(one.name, registry.embedding_sha256(one.name))
                for one in prompts.embeddings
            ),
            picture=_picture_use(request),
        )
        check_fits(record)
        spec = JobSpec(
            record,
            prompts,
            _count_calls(record),
            sets_of(loras, registry.changed_networks),
        )
        self._check_rows(prompts.part_count, spec.rows)
        self._check_cost(spec)
        if request.clip_skip in A1111_DEFAULT_CLIP_SKIPS:
            logger.warning(
                "an image has clip_skip %d, which leaves out that many layers beyond SDXL's"
                " default; where A1111's or Civitai's \"Clip skip\" was meant, whose 1 and 2 are"
                " the default, null would be right",
                request.clip_skip,
            )
        return spec

    def explain(self, request: InspectionRequest, offer: Offer) -> PromptInspection:
        """Describe how two prompts are read, and why they would be refused, if they would be.

        Args:
            request: of the explanation.
            offer: the LoRAs and embeddings that the prompts may name.

        Raises:
            RequestError: a limit is broken, or the scheduler can't sample the model.
        """
        check_inspection(request, self.limits)
        check_texts(request)
        style, reader = request.prompt_style, offer.reader
        steps = self._choose_steps(request)
        schedules = reader.parse_schedules(request.prompt, request.negative_prompt, style, steps)
        inspection = explain_schedules(reader, schedules, style)
        limit = self.limits.max_loras
        positive = partial(collect, (), schedules.prompt.lora_tags, offer.registry.lora, limit)
        parts = len(schedules.prompt.parts)
        side_by_side = partial(self._check_rows, parts, parts + 1)
        negative = partial(refuse_in_negative, schedules.negative_prompt)
        return replace(
            inspection,
            prompt=_add_obstacle(_add_obstacle(inspection.prompt, positive), side_by_side),
            negative_prompt=_add_obstacle(inspection.negative_prompt, negative),
        )

    def _choose_steps(self, request: InspectionRequest) -> Steps:
        """Choose the steps of a prompt to explain: the request's, or as many as are accepted.

        Raises:
            InvalidRequestError: the scheduler can't sample the model in so many.
        """
        scheduler = request.scheduler or self.own_scheduler
        count = min(request.num_inference_steps, self.limits.max_steps)
        if not request.has_own_steps:
            count = min(count, SCHEDULERS[scheduler].max_steps)
        check_scheduler(scheduler, self._pipeline.scheduler_config, count)
        return prompt_steps(scheduler, count)

    def _choose_size(self, request: GenerationRequest) -> ImageSize:
        """Choose the size: the request's, else its picture's, else the model's native one.

        Raises:
            InvalidRequestError: it is over the limit, or the picture can't be read.
        """
        native = self._pipeline.manifest.native_size
        if request.image is None:
            owner = "the model's native"
            size = ImageSize(request.height or native.height, request.width or native.width)
        else:
            owner = "the picture's"
            size = default_size(request, self.picture_limits)
        for field, side in size._asdict().items():
            most = getattr(self.limits.max_size, field)
            if side > most:
                raise InvalidRequestError(
                    f"{field} is {side}, {owner}; at most {most} is accepted here", field=field
                )
        return size

    def _check_rows(self, parts: int, rows: int) -> None:
        """Refuse one image whose parts, with the negative prompt, are more rows than a call has."""
        most = self._settings.max_rows
        if rows > most:
            raise InvalidRequestError(
                f"prompt has {parts} parts, which with the negative prompt are {rows} rows of a"
                f" UNet call; at most {most} are accepted here",
                field="prompt",
            )

    def _check_cost(self, spec: JobSpec) -> None:
        """Refuse one image that costs more than the whole queue may hold."""
        cost = step_cost(spec.size, spec.rows_left(0))
        if cost > (most := self._settings.max_queued_cost):
            raise InvalidRequestError(
                f"an image of {spec.size} in {spec.unet_calls} steps is {cost:.0f} megapixel"
                f" steps; at most {most:.0f} are accepted here; fewer steps or a smaller size would"
                " be right",
                field="num_inference_steps",
            )


def prompt_steps(scheduler: SchedulerName, num_inference_steps: int) -> Steps:
    """Count the steps of a prompt's schedule, as A1111 does: a second-order scheduler has two.

    They are counted from the first UNet call that is made, also of a picture.
    """
    return Steps(num_inference_steps * (2 if SCHEDULERS[scheduler].is_second_order else 1))


def _picture_use(request: GenerationRequest) -> PictureUse | None:
    if request.image is None:
        return None
    return PictureUse.WHOLE if request.mask_image is None else PictureUse.MASKED


def _count_calls(record: ImageRecord) -> int:
    """Count the UNet calls of an image.

    Raises:
        InvalidRequestError: a picture's strength leaves none.
    """
    request = record.request
    if record.picture is None:
        return unet_calls(record.scheduler, request.num_inference_steps)
    calls = unet_calls(record.scheduler, request.num_inference_steps, request.strength)
    if not calls:
        steps = request.num_inference_steps
        raise InvalidRequestError(
            f"strength is {request.strength:g}, which takes none of {steps} steps; at least"
            f" {math.ceil(1000 / steps) / 1000:g} would be right",
            field="strength",
        )
    return calls


def _add_obstacle(prompt: InspectedPrompt, check: Callable[[], object]) -> InspectedPrompt:
    """Put a check's refusal, if it refuses, before a prompt's warnings."""
    try:
        check()
    except AddonNotReadError as error:  # an image waits for it
        return replace(prompt, warnings=(error.message, *prompt.warnings))
    except RequestError as error:
        return replace(prompt, warnings=(state_obstacle(error.message), *prompt.warnings))
    return prompt
