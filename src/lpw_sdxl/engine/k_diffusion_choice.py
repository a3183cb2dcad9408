"""K-diffusion's samplers for requests, checked and decided."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import torch

from lpw_sdxl.diffusion.k_diffusion_solver import KDiffusionPlan, NoiseChoice
from lpw_sdxl.engine.sampling_choice import DRAWN_SEED_BITS, SamplingChoice
from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.sampler_names import SamplerLabel, split_label
from lpw_sdxl.sampler_table import SAMPLERS, SamplerName
from lpw_sdxl.sampling.course import Course, make_course, steps_back, steps_for
from lpw_sdxl.sampling.model_sigmas import TRAINED_TIMESTEPS, ModelSigmas
from lpw_sdxl.sampling.noise_generators import Variation
from lpw_sdxl.sampling.rehearsal import NO_CALLS, Rehearsal, rehearse
from lpw_sdxl.sampling_options import NoiseSource, SigmaScheduleType, TimestepRounding
from lpw_sdxl.scheduler_table import SchedulerName
from lpw_sdxl.schema import GenerationRequest, ImageSize, InspectionRequest

_KEPT_COURSES = 64  # of the last requests; each has a few numbers a step


class KDiffusionChooser:
    """The samplers of one model; for any number of threads at a time.

    Args:
        config: the model's own scheduler config.
        own_scheduler: the model's, whose sampler a request without one gets.
    """

    def __init__(self, config: Mapping[str, Any], own_scheduler: SchedulerName) -> None:
        self._prediction_type: str = config["prediction_type"]
        self._own_scheduler = own_scheduler
        self._sigmas = ModelSigmas.of_sdxl(
            zero_terminal_snr=bool(config.get("rescale_betas_zero_snr", False))
        )
        self._plot = lru_cache(_KEPT_COURSES)(self._plot_course)

    @property
    def own_sampler(self) -> SamplerName | None:
        """Return the sampler of the model's own scheduler's name, if there is one."""
        label = split_label(self._own_scheduler)
        return None if label is None else label.sampler

    def is_second_order(self, request: GenerationRequest | InspectionRequest) -> bool:
        """Return whether a request's sampler makes two UNet calls a step.

        Raises:
            InvalidRequestError: as `choose`.
        """
        return SAMPLERS[self._sampler_of(request).sampler].is_second_order

    def choose(
        self,
        request: GenerationRequest,
        size: ImageSize,
        seed: int,
        variation_seed: int | None = None,
        *,
        is_second: bool = False,
    ) -> SamplingChoice:
        """Decide a request's sampler, its course and its noise.

        Args:
            request: of the pass.
            size: of the pass, pixels.
            seed: of the image.
            variation_seed: of the first pass; None for the request's own, or one that is drawn.
            is_second: whether it is a second pass, all of whose steps are taken.

        Raises:
            InvalidRequestError: the sampler can't sample this model so; the error names the field.
        """
        sampler, schedule_type = self._sampler_of(request)
        eta = request.eta
        if is_second and SAMPLERS[sampler].eta is None:
            eta = None  # it was the first pass's
        if eta is not None and SAMPLERS[sampler].eta is None:
            raise InvalidRequestError(
                f"eta is {eta:g}; with sampler {sampler}, which has none, null would be right",
                field="eta",
            )
        steps, back = request.num_inference_steps, None
        if is_second:
            # All of its steps are taken: they are the end of a longer course.
            back, steps = steps - 1, _whole_course(request)
        elif request.image is not None:
            back = steps_back(request.strength, steps)
        plotted = self._plot(sampler, schedule_type, steps, back, eta)
        if not plotted.rehearsal.calls:
            raise _no_step(request, sampler, is_late=back is not None)
        variation_seed = request.variation_seed if variation_seed is None else variation_seed
        if request.variation_strength and variation_seed is None:
            variation_seed = secrets.randbits(DRAWN_SEED_BITS)
        noise = NoiseChoice(
            request.noise_source or NoiseSource.CPU,
            seed,
            request.eta_noise_seed_delta,
            None
            if variation_seed is None
            else Variation(variation_seed, request.variation_strength),
            eta,
        )
        rounding = request.timestep_rounding or TimestepRounding.INTERPOLATE
        plan = KDiffusionPlan(
            plotted.course,
            plotted.rehearsal,
            plotted.rehearsal.timesteps(self._sigmas, rounding),
            self._prediction_type,
            noise,
            size,
            enters_late=back is not None,
        )
        return SamplingChoice(plan, sampler, schedule_type, variation_seed)

    def _sampler_of(self, request: GenerationRequest | InspectionRequest) -> _Sampler:
        """Decide the sampler and its schedule type.

        Raises:
            InvalidRequestError: the model's own scheduler is no sampler, or two schedule types are
                named, or one for a sampler with timesteps of its own.
        """
        name = self._own_scheduler if request.scheduler is None else request.scheduler
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
        back: int | None,
        eta: float | None,
    ) -> _Plotted:
        course = make_course(
            sampler, schedule_type or SigmaScheduleType.AUTOMATIC, steps, self._sigmas
        )
        if back is not None:
            course = course.late(back)
        if course.steps_left < 1:  # its sampler knows fewer timesteps than there are steps
            return _Plotted(course, NO_CALLS)
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


def _whole_course(request: GenerationRequest) -> int:
    """Count the steps of the course whose end a second pass takes.

    Raises:
        InvalidRequestError: the strength is 0, or so small that they are too many.
    """
    taken = request.num_inference_steps
    is_too_small = request.strength <= taken / (TRAINED_TIMESTEPS + 1)
    if is_too_small:
        raise InvalidRequestError(
            f"strength is {request.strength:g}, and {taken} steps would be the end of more than"
            f" {TRAINED_TIMESTEPS}; at least {math.ceil(1000 * taken / TRAINED_TIMESTEPS) / 1000:g}"
            " would be right",
            field="strength",
        )
    return steps_for(request.strength, taken)


def _no_step(
    request: GenerationRequest, sampler: SamplerName, *, is_late: bool
) -> InvalidRequestError:
    """Explain that a sampler makes no UNet call: DDIM and PLMS walk between timesteps.

    With a picture they walk over as many timesteps as `steps_back` says, and one is no way.
    """
    steps, fewest = request.num_inference_steps, 3 if is_late else 2
    if not SAMPLERS[sampler].walks_timesteps:
        return InvalidRequestError(
            f"strength is {request.strength:g}, at which {sampler} of k_diffusion with this"
            " schedule_type has none of its steps left; a larger one would be right",
            field="strength",
        )
    if steps < fewest:
        return InvalidRequestError(
            f"num_inference_steps is {steps}, in which {sampler} of k_diffusion takes no step; at"
            f" least {fewest} would be right",
            field="num_inference_steps",
        )
    return InvalidRequestError(
        f"strength is {request.strength:g}, with which {sampler} of k_diffusion takes none of"
        f" {steps} steps; at least {math.ceil(2000 / steps) / 1000:g} would be right",
        field="strength",
    )
