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
from typing import NamedTuple

from lpw_sdxl.conditioning.explain import state_obstacle
from lpw_sdxl.conditioning.explain_schedule import (
    InspectedPrompt,
    PromptInspection,
    explain_schedules,
)
from lpw_sdxl.diffusion.pipeline import Pipeline
from lpw_sdxl.diffusion.schedulers import own_schedule_type
from lpw_sdxl.diffusion.solver import SolverPlan
from lpw_sdxl.diffusion.step import Guidance
from lpw_sdxl.engine.hires import (
    check_second_loras,
    check_second_memory,
    check_second_size,
    find_second_upscaler,
    named_as_second,
    request_of_second,
)
from lpw_sdxl.engine.job_spec import JobSpec, PassSpec
from lpw_sdxl.engine.offer import Offer
from lpw_sdxl.engine.sampling_choice import DRAWN_SEED_BITS, SamplingChoice
from lpw_sdxl.engine.sampling_chooser import SamplingChooser
from lpw_sdxl.errors import AddonNotReadError, InvalidRequestError, RequestError
from lpw_sdxl.imaging import EmbeddingUse, ImageRecord, PictureUse, check_fits, check_texts
from lpw_sdxl.imaging.picture import PictureLimits
from lpw_sdxl.imaging.start_image import default_size
from lpw_sdxl.lora.request import LoraUse, collect, refuse_in_negative
from lpw_sdxl.lora.sets import sets_of
from lpw_sdxl.prompt import Steps
from lpw_sdxl.request_limits import (
    RequestLimits,
    check_inspection,
    check_limits,
    default_largest_size,
)
from lpw_sdxl.schema import GenerationRequest, ImageSize, InspectionRequest
from lpw_sdxl.second_pass import Enlargement, SecondPass, enlarge
from lpw_sdxl.settings import Settings

A1111_DEFAULT_CLIP_SKIPS = (1, 2)  # of SDXL, in A1111's count; here they leave layers out


logger = logging.getLogger(__name__)


class _FirstPass(NamedTuple):
    """A first pass, as it was decided."""

    sampling: SamplingChoice
    seed: int
    steps: Steps


class RequestResolver:
    """The way of a request to its job; for any number of threads at a time.

    Args:
        pipeline: the loaded model.
        settings: the source of the limits.
        call_pixels: that a UNet call has memory for; infinite where that is not known.
    """

    def __init__(
        self, pipeline: Pipeline, settings: Settings, call_pixels: float = math.inf
    ) -> None:
        self._pipeline = pipeline
        self._call_pixels = call_pixels
        default_size = default_largest_size(
            pipeline.manifest.native_size, is_on_cpu=pipeline.device.type == "cpu"
        )
        self.limits = RequestLimits.from_settings(
            settings, default_size, pipeline.manifest.request_defaults
        )
        self.picture_limits = PictureLimits(max_bytes=settings.max_image_bytes)
        self._settings = settings
        self.sampling = SamplingChooser(pipeline.scheduler_config)
        self.own_schedule_type = own_schedule_type(pipeline.scheduler_config)

    def resolve(self, request: GenerationRequest, offer: Offer) -> JobSpec:
        """Check a request against all limits and fill in its defaults.

        Args:
            request: of the image.
            offer: the LoRAs and embeddings that it may name.

        Raises:
            RequestError: a limit is broken, or a name is unknown; the error names the field.
        """
        request = self.limits.defaults.fill(request)
        check_limits(request, self.limits)
        upscaler = find_second_upscaler(request, offer.registry)
        size = self._choose_size(request)
        seed = secrets.randbits(DRAWN_SEED_BITS) if request.seed is None else request.seed
        sampling = self.sampling.choose(request, size, seed)
        steps = Steps(self.sampling.count_steps(request, request.num_inference_steps))
        first, loras = self._decide_pass(request, sampling.plan, steps, offer)
        passes: tuple[PassSpec, ...] = (first,)
        enlargement: Enlargement | None = None
        second_loras: tuple[LoraUse, ...] = ()
        if request.hires is not None:
            second, enlargement, second_loras = self._decide_second(
                request, request.hires, _FirstPass(sampling, seed, steps), offer
            )
            passes = (first, second)
            check_second_loras(loras, second_loras, self.limits.max_loras)
        registry, manifest = offer.registry, self._pipeline.manifest
        named = {one.name: one for each in passes for one in each.prompts.embeddings}
        record = ImageRecord(
            request=request.without_pictures(),
            seed=seed,
            size=size,
            scheduler=sampling.scheduler,
            schedule_type=sampling.schedule_type,
            variation_seed=sampling.variation_seed,
            model_name=manifest.name,
            model_sha256=manifest.origin.sha256,
            loras=loras,
            second_loras=second_loras,
            embeddings=tuple(
                EmbeddingUse(name, registry.embedding_sha256(name)) for name in sorted(named)
            ),
            picture=_picture_use(request),
            is_float8=self._pipeline.acceleration.quantises,
        )
        check_fits(record)
        spec = JobSpec(record, passes, enlargement, upscaler)
        self.check_cost(spec)
        if request.clip_skip in A1111_DEFAULT_CLIP_SKIPS:
            logger.warning(
                "an image has clip_skip %d, which leaves out that many layers beyond SDXL's"
                " default; where A1111's or Civitai's \"Clip skip\" was meant, whose 1 and 2 are"
                " the default, null would be right",
                request.clip_skip,
            )
        return spec

    def _decide_pass(
        self, request: GenerationRequest, plan: SolverPlan, steps: Steps, offer: Offer
    ) -> tuple[PassSpec, tuple[LoraUse, ...]]:
        """Read a pass's prompts and find its LoRAs.

        Args:
            request: of the pass.
            plan: of its sampler.
            steps: of its prompts.
            offer: the LoRAs and embeddings that it may name.
        """
        style, registry, reader = request.prompt_style, offer.registry, offer.reader
        schedules = reader.parse_schedules(request.prompt, request.negative_prompt, style, steps)
        refuse_in_negative(schedules.negative_prompt)
        loras = collect(
            request.loras, schedules.prompt.lora_tags, registry.lora, self.limits.max_loras
        )
        prompts = reader.read_schedule(schedules, style, request.clip_skip)
        guidance = _guidance_of(request)
        decided = PassSpec(prompts, plan, guidance, sets_of(loras, registry.changed_networks))
        self._check_rows(prompts.part_count, decided.rows)
        return decided, loras

    def _decide_second(
        self,
        request: GenerationRequest,
        second: SecondPass,
        first: _FirstPass,
        offer: Offer,
    ) -> tuple[PassSpec, Enlargement, tuple[LoraUse, ...]]:
        """Decide a second pass.

        Args:
            request: of the image.
            second: of the request.
            first: what was decided for the first pass.
            offer: the LoRAs and embeddings that it may name.

        Raises:
            InvalidRequestError: the error names a field of `hires`.
        """
        with named_as_second(second):
            own = request_of_second(request, second)
            size = first.sampling.plan.size
            enlargement = enlarge(size, second)
            check_second_size(size, enlargement, second, self.limits.max_size)
            check_second_memory(enlargement, self._call_pixels)
            sampling = self.sampling.choose_second(
                own, enlargement.size, first.seed, first.sampling.variation_seed
            )
            count = self.sampling.count_steps(own, own.num_inference_steps)
            decided, loras = self._decide_pass(
                own, sampling.plan, Steps(count, before=first.steps.count), offer
            )
        return decided, enlargement, loras

    def explain(self, request: InspectionRequest, offer: Offer) -> PromptInspection:
        """Describe how two prompts are read, and why they would be refused, if they would be.

        Args:
            request: of the explanation.
            offer: the LoRAs and embeddings that the prompts may name.

        Raises:
            RequestError: a limit is broken, or the scheduler can't sample the model.
        """
        request = self.limits.defaults.fill(request)
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
        count = min(request.num_inference_steps, self.limits.max_steps)
        most = self.sampling.most_steps(request)
        if most is not None and not request.has_own_steps:
            count = min(count, most)
        return Steps(self.sampling.count_steps(request, count))

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

    def check_cost(self, spec: JobSpec, tile_cost: float = 0.0) -> None:
        """Refuse one image that costs more than the whole queue may hold.

        Args:
            spec: of the image.
            tile_cost: of an imported upscaler's work, as in `Work.tiles`.

        Raises:
            InvalidRequestError: naming what would have to be less.
        """
        cost, most = spec.cost + tile_cost, self._settings.max_queued_cost
        if cost <= most:
            return
        own = spec.first.cost_left(0)
        field = "num_inference_steps" if own > most else "hires"
        second = "" if field != "hires" else f", of which the second pass has {cost - own:.0f}"
        raise InvalidRequestError(
            f"an image of {spec.size} in {spec.unet_calls} steps is {cost:.0f} megapixel"
            f" steps{second}; at most {most:.0f} are accepted here; fewer steps or a smaller size"
            " would be right",
            field=field,
        )


def _guidance_of(request: GenerationRequest) -> Guidance:
    interval = request.guidance_interval
    return Guidance(
        request.guidance_scale,
        request.guidance_rescale,
        None if interval is None else (interval[0], interval[1]),
    )


def _picture_use(request: GenerationRequest) -> PictureUse | None:
    if request.image is None:
        return None
    return PictureUse.WHOLE if request.mask_image is None else PictureUse.MASKED


def _add_obstacle(prompt: InspectedPrompt, check: Callable[[], object]) -> InspectedPrompt:
    """Put a check's refusal, if it refuses, before a prompt's warnings."""
    try:
        check()
    except AddonNotReadError as error:  # an image waits for it
        return replace(prompt, warnings=(error.message, *prompt.warnings))
    except RequestError as error:
        return replace(prompt, warnings=(state_obstacle(error.message), *prompt.warnings))
    return prompt
