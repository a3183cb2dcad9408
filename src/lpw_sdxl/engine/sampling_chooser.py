"""Samplers of requests, checked and decided: only here does the engine know their families."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lpw_sdxl.diffusion.diffusers_solver import DiffusersPlan
from lpw_sdxl.diffusion.scheduler_rules import check_scheduler, choose_schedule_type
from lpw_sdxl.diffusion.schedulers import own_scheduler
from lpw_sdxl.engine.k_diffusion_choice import KDiffusionChooser
from lpw_sdxl.engine.sampling_choice import SamplingChoice
from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.sampler_table import SamplerName
from lpw_sdxl.sampling_options import SamplerImplementation
from lpw_sdxl.schedule_types import ScheduleType
from lpw_sdxl.scheduler_table import SCHEDULERS, SchedulerName
from lpw_sdxl.schema import GenerationRequest, ImageSize, InspectionRequest


class SamplingChooser:
    """The samplers of one model; for any number of threads at a time.

    Args:
        config: the model's own scheduler config.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.own_scheduler = own_scheduler(config)
        self._config = config
        self._k_diffusion = KDiffusionChooser(config, self.own_scheduler)

    @property
    def own_sampler(self) -> SamplerName | None:
        """Return k-diffusion's sampler of the model's own scheduler's name, if there is one."""
        return self._k_diffusion.own_sampler

    def choose(self, request: GenerationRequest, size: ImageSize, seed: int) -> SamplingChoice:
        """Decide a request's sampler.

        Args:
            request: of the image.
            size: pixels.
            seed: drawn or requested.

        Raises:
            InvalidRequestError: the sampler can't sample this model so; the error names the field.
        """
        if request.sampler_implementation is SamplerImplementation.K_DIFFUSION:
            return self._k_diffusion.choose(request, size, seed)
        return self._choose_scheduler(request, size, seed)

    def choose_second(
        self, request: GenerationRequest, size: ImageSize, seed: int, variation_seed: int | None
    ) -> SamplingChoice:
        """Decide the sampler of a second pass.

        Args:
            request: of the second pass: its steps, strength, scheduler and schedule type are those
                of `hires`.
            size: of the second pass, pixels.
            seed: of the image.
            variation_seed: of the first pass.

        Raises:
            InvalidRequestError: as `choose`; the error names a field of `hires`.
        """
        if request.sampler_implementation is SamplerImplementation.K_DIFFUSION:
            return self._k_diffusion.choose(request, size, seed, variation_seed, is_second=True)
        return self._choose_scheduler(request, size, seed, is_second=True)

    def count_steps(self, request: GenerationRequest | InspectionRequest, steps: int) -> int:
        """Count the steps of a prompt's schedule, as A1111 does: a second-order sampler has two.

        They are counted from the first UNet call that is made, also of a picture.

        Args:
            request: that names the sampler.
            steps: of denoising.

        Raises:
            InvalidRequestError: the sampler can't sample this model in so many steps.
        """
        if request.sampler_implementation is SamplerImplementation.K_DIFFUSION:
            is_second_order = self._k_diffusion.is_second_order(request)
        else:
            scheduler = self._scheduler_of(request)
            check_scheduler(scheduler, self._config, steps)
            is_second_order = SCHEDULERS[scheduler].is_second_order
        return 2 * steps if is_second_order else steps

    def most_steps(self, request: InspectionRequest) -> int | None:
        """Return the most steps that a request's sampler takes; None where there is no such limit.

        Raises:
            InvalidRequestError: the model's own scheduler is no sampler of the request's family.
        """
        if request.sampler_implementation is SamplerImplementation.K_DIFFUSION:
            return None
        return SCHEDULERS[self._scheduler_of(request)].max_steps

    def _scheduler_of(self, request: GenerationRequest | InspectionRequest) -> SchedulerName:
        # A name of the other family was refused by the schema.
        return self.own_scheduler if request.scheduler is None else SchedulerName(request.scheduler)

    def _choose_scheduler(
        self, request: GenerationRequest, size: ImageSize, seed: int, *, is_second: bool = False
    ) -> SamplingChoice:
        scheduler, steps = self._scheduler_of(request), request.num_inference_steps
        check_scheduler(scheduler, self._config, steps)
        wanted = None if request.schedule_type is None else ScheduleType(request.schedule_type)
        schedule_type = choose_schedule_type(scheduler, wanted, self._config)
        strength = request.strength if is_second or request.image is not None else None
        plan = DiffusersPlan(
            scheduler, self._config, steps, size, seed, schedule_type, strength=strength
        )
        if not plan.calls:
            raise InvalidRequestError(
                f"strength is {request.strength:g}, which takes none of {steps} steps; at least"
                f" {math.ceil(1000 / steps) / 1000:g} would be right",
                field="strength",
            )
        return SamplingChoice(plan, scheduler, schedule_type)
