"""The room's functions by names: whole pictures of a model that is a plain function.

They are for tests, scripts and comparisons with other programs; the engine takes a `Course` and
shares its UNet calls among jobs. Every name is read in any spelling.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from pydantic_core import PydanticCustomError

from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.sampler_table import read_sampler
from lpw_sdxl.sampling.course import make_course
from lpw_sdxl.sampling.model_sigmas import TRAINED_TIMESTEPS, ModelSigmas
from lpw_sdxl.sampling.noise_generators import ImageNoise, NoiseGenerator, Variation
from lpw_sdxl.sampling.schedules import make_sigmas
from lpw_sdxl.sampling.walk import Sampling
from lpw_sdxl.sampling_options import (
    NoiseSource,
    read_noise_source,
    read_sigma_schedule_type,
)


def sample(
    denoised: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    *,
    sampler: str,
    schedule_type: str,
    steps: int,
    seed: int,
    noise_source: str,
    shape: Sequence[int],
    eta: float | None = None,
    eta_noise_seed_delta: int = 0,
) -> torch.Tensor:
    """Sample a picture's latents.

    Args:
        denoised: the model: from latents and their sigma, a float32 scalar, to its estimate of the
            latents without noise.
        sampler: by A1111's name.
        schedule_type: by A1111's label; DDIM, PLMS and UniPC have timesteps of their own.
        steps: 1 to 1000.
        seed: of all that is random.
        noise_source: `cpu` or `nv`.
        shape: of the latents, `[4, h, w]` or `[1, 4, h, w]`.
        eta: share of the noise that ancestral and SDE samplers and DDIM add; None for their own.
        eta_noise_seed_delta: added to the seed for ancestral noise.

    Returns:
        The final latents; of DDIM, PLMS and UniPC those that their loop ends with.

    Raises:
        InvalidRequestError: a name is unknown or not served, or there are too many steps.
    """
    source = _read(read_noise_source, "noise_source", noise_source)
    course = make_course(
        _read(read_sampler, "sampler", sampler),
        _read(read_sigma_schedule_type, "schedule_type", schedule_type),
        _check_steps(steps),
        ModelSigmas.of_sdxl(),
    )
    draws = ImageNoise(source, seed, shape, eta_noise_seed_delta)
    latents = course.start(draws.start())
    sampling = Sampling(course.begin(latents, course.noise(source, seed, draws), eta))
    while sampling.wanted is not None:
        sampling.advance(denoised(sampling.wanted.latents, sampling.wanted.sigma))
    return sampling.latents


def sigmas(
    schedule_type: str,
    steps: int,
    sampler: str | None = None,
    *,
    zero_terminal_snr: bool = False,
) -> torch.Tensor:
    """Compute the sigmas of a schedule type for SDXL.

    Args:
        schedule_type: by A1111's label.
        steps: 1 to 1000.
        sampler: decides what `Automatic` stands for and whether the last sigma but one is left
            out; None for the model's own spacing, with all sigmas.
        zero_terminal_snr: whether the model's noise schedule ends in pure noise.

    Returns:
        Descending, float32, `[steps + 1]`; `DDIM` may have more.

    Raises:
        InvalidRequestError: a name is unknown or not served, or there are too many steps.
    """
    kind = _read(read_sigma_schedule_type, "schedule_type", schedule_type)
    name = None if sampler is None else _read(read_sampler, "sampler", sampler)
    model = ModelSigmas.of_sdxl(zero_terminal_snr=zero_terminal_snr)
    return make_sigmas(kind, _check_steps(steps), model, name)


def noise(source: str, seed: int, shape: Sequence[int], draws: int) -> torch.Tensor:
    """Draw an image's noise: its start, then what ancestral samplers add.

    Returns:
        Float32, `[draws, *shape]`.

    Raises:
        InvalidRequestError: there is no such source.
    """
    generator = NoiseGenerator(_read(read_noise_source, "source", source), seed)
    return torch.stack([generator.draw(shape) for _ in range(draws)])


def variation(
    seed: int,
    variation_seed: int,
    strength: float,
    shape: Sequence[int],
    *,
    noise_source: str = NoiseSource.NV,
) -> torch.Tensor:
    """Draw the start of an image's variation.

    Args:
        seed: of the image.
        variation_seed: of the noise that it is turned towards.
        strength: 0 for the image's own noise, 1 for the other.
        shape: of the latents, `[4, h, w]` or `[1, 4, h, w]`.
        noise_source: `cpu` or `nv`.

    Returns:
        Float32, of this shape.

    Raises:
        InvalidRequestError: there is no such source.
    """
    source = _read(read_noise_source, "noise_source", noise_source)
    return ImageNoise(source, seed, shape, variation=Variation(variation_seed, strength)).start()


def _read(read: Callable[[object], object], field: str, text: str) -> Any:
    """Read a name in any spelling, by the functions that pydantic calls for a request."""
    try:
        return read(text)
    except PydanticCustomError as error:
        raise InvalidRequestError(f"{field}: {error.message()}", field=field) from error


def _check_steps(steps: int) -> int:
    if not 1 <= steps <= TRAINED_TIMESTEPS:
        message = f"steps is {steps}; 1 to {TRAINED_TIMESTEPS} would be right"
        raise InvalidRequestError(message, field="steps")
    return steps
