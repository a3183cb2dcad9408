"""Samplers of requests, checked and decided: only here does the engine know their families."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import torch

from lpw_sdxl.diffusion.diffusers_solver import DiffusersPlan
from lpw_sdxl.diffusion.k_diffusion_solver import KDiffusionPlan, NoiseChoice
from lpw_sdxl.diffusion.scheduler_rules import check_scheduler, choose_schedule_type
from lpw_sdxl.diffusion.schedulers import own_scheduler
from lpw_sdxl.diffusion.solver import SolverPlan
from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.sampler_names import SamplerLabel, split_label
from lpw_sdxl.sampler_table import SAMPLERS, SamplerName
from lpw_sdxl.sampling.course import Course, make_course
from lpw_sdxl.sampling.model_sigmas import ModelSigmas
from lpw_sdxl.sampling.noise_generators import Variation
from lpw_sdxl.sampling.rehearsal import Rehearsal, rehearse
from lpw_sdxl.sampling_options import (
    NoiseSource,
    SamplerImplementation,
    SigmaScheduleType,
    TimestepRounding,
)
from lpw_sdxl.schedule_types import ScheduleType
from lpw_sdxl.scheduler_table import SCHEDULERS, SchedulerName
from lpw_sdxl.schema import GenerationRequest, ImageSize, InspectionRequest

DRAWN_SEED_BITS = 32  # a seed that JavaScript and every A1111 tool can hold
_KEPT_COURSES = 64  # of the last requests; each has a few numbers a step


class SamplingChoice(NamedTuple):
    """The sampler of an image, decided.

    Attributes:
        plan: for the engine.
        scheduler: or sampler, by its name.
        schedule_type: None where the sampler has timesteps of its own.
        variation_seed: drawn or requested; None where there is no variation.
    """

    plan: SolverPlan
    scheduler: SchedulerName | SamplerName
    schedule_type: ScheduleType | SigmaScheduleType | None
    variation_seed: int | None = None


class SamplingChooser:
    """The samplers of one model; for any number of threads at a time.

    Args:
        config: the model's own scheduler config.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.own_scheduler = own_scheduler(config)
        self._config = config
        self._sigmas = ModelSigmas.of_sdxl(
            zero_terminal_snr=bool(config.get("rescale_betas_zero_snr", False))
        )
        self._plot = lru_cache(_KEPT_COURSES)(self._plot_course)

    @property
    def own_sampler(self) -> SamplerName | None:
        """Return k-diffusion's sampler of the model's own scheduler's name, if there is one."""
        label = split_label(self.own_scheduler)
        return None if label is None else label.sampler

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
            return self._choose_sampler(request, size, seed)
        return self._choose_scheduler(request, size, seed)

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
            is_second_order = SAMPLERS[self._sampler_of(request).sampler].is_second_order
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
        self, request: GenerationRequest, size: ImageSize, seed: int
    ) -> SamplingChoice:
        scheduler, steps = self._scheduler_of(request), request.num_inference_steps
        check_scheduler(scheduler, self._config, steps)
        wanted = None if request.schedule_type is None else ScheduleType(request.schedule_type)
        schedule_type = choose_schedule_type(scheduler, wanted, self._config)
        strength = None if request.image is None else request.strength
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

    def _choose_sampler(
        self, request: GenerationRequest, size: ImageSize, seed: int
    ) -> SamplingChoice:
        sampler, schedule_type = self._sampler_of(request)
        if request.eta is not None and SAMPLERS[sampler].eta is None:
            raise InvalidRequestError(
                f"eta is {request.eta:g}; with sampler {sampler}, which has none, null would be"
                " right",
                field="eta",
            )
        strength = None if request.image is None else request.strength
        plotted = self._plot(
            sampler, schedule_type, request.num_inference_steps, strength, request.eta
        )
        if not plotted.rehearsal.calls:
            raise _no_step(request, sampler)
        variation_seed = request.variation_seed
        if request.variation_strength and variation_seed is None:
            variation_seed = secrets.randbits(DRAWN_SEED_BITS)
        noise = NoiseChoice(
            request.noise_source or NoiseSource.CPU,
            seed,
            request.eta_noise_seed_delta,
            None
            if variation_seed is None
            else Variation(variation_seed, request.variation_strength),
            request.eta,
        )
        rounding = request.timestep_rounding or TimestepRounding.INTERPOLATE
        plan = KDiffusionPlan(
            plotted.course,
            plotted.rehearsal,
            plotted.rehearsal.timesteps(self._sigmas, rounding),
            self._config["prediction_type"],
            noise,
            size,
            plotted.course.steps_left,
            enters_late=strength is not None,
        )
        return SamplingChoice(plan, sampler, schedule_type, variation_seed)

    def _sampler_of(self, request: GenerationRequest | InspectionRequest) -> _Sampler:
        """Decide the sampler and its schedule type.

        Raises:
            InvalidRequestError: the model's own scheduler is no sampler, or two schedule types are
                named, or one for a sampler with timesteps of its own.
        """
        name = self.own_scheduler if request.scheduler is None else request.scheduler
        label = split_label(name)
        if label is None:
            raise InvalidRequestError(
                f"scheduler is null, and the model's own, {name}, is no sampler of k_diffusion;"
                f" {SamplerName.EULER} would be right",
                field="scheduler",
            )
        wanted = getattr(request, "schedule_type", None)
        return _Sampler(label.sampler, _choose_sigma_type(label, wanted))

    def _plot_course(
        self,
        sampler: SamplerName,
        schedule_type: SigmaScheduleType | None,
        steps: int,
        strength: float | None,
        eta: float | None,
    ) -> _Plotted:
        course = make_course(
            sampler, schedule_type or SigmaScheduleType.AUTOMATIC, steps, self._sigmas
        )
        if strength is not None:
            course = course.late(strength)
        with torch.inference_mode():
            return _Plotted(course, rehearse(course, eta))


class _Sampler(NamedTuple):
    sampler: SamplerName
    schedule_type: SigmaScheduleType | None


class _Plotted(NamedTuple):
    course: Course
    rehearsal: Rehearsal


def _choose_sigma_type(
    label: SamplerLabel, wanted: SigmaScheduleType | None
) -> SigmaScheduleType | None:
    """Decide the schedule type of a sampler; None where it has timesteps of its own.

    Raises:
        InvalidRequestError: the sampler does not take it, or the label names another one.
    """
    recipe, named = SAMPLERS[label.sampler], label.schedule_type
    if named is not None and wanted not in (None, named):
        raise InvalidRequestError(
            f"schedule_type is {wanted}, and scheduler {label.sampler} {named} names another one;"
            f" scheduler {label.sampler} would be right",
            field="schedule_type",
        )
    chosen = wanted or named or SigmaScheduleType.AUTOMATIC
    if recipe.walks_timesteps:
        if chosen is not SigmaScheduleType.AUTOMATIC:
            raise InvalidRequestError(
                f"schedule_type is {chosen}; with sampler {label.sampler}, which has timesteps of"
                f" its own, {SigmaScheduleType.AUTOMATIC} or null would be right",
                field="schedule_type",
            )
        return None
    return recipe.automatic if wanted is named is None else chosen


def _no_step(request: GenerationRequest, sampler: SamplerName) -> InvalidRequestError:
    """Explain that a sampler makes no UNet call: it walks between timesteps."""
    steps = request.num_inference_steps
    if request.image is None or steps == 1:
        return InvalidRequestError(
            f"num_inference_steps is {steps}, in which {sampler} of k_diffusion takes no step; at"
            " least 2 would be right",
            field="num_inference_steps",
        )
    return InvalidRequestError(
        f"strength is {request.strength:g}, with which {sampler} of k_diffusion takes none of"
        f" {steps} steps; at least {math.ceil(1000 / steps) / 1000:g} would be right",
        field="strength",
    )
