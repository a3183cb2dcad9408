"""The choices of k-diffusion's family beside the sampler, by name; it imports no torch.

Schedule types are AUTOMATIC1111's and say at which sigmas the UNet is called; `sampling.schedules`
has their formulas. The schedule types of Diffusers' schedulers are in `schedule_types`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from lpw_sdxl.spelling import Spellings


class SigmaScheduleType(StrEnum):
    """Schedule types by A1111's labels, in the order of its list; Forge's own come last."""

    AUTOMATIC = "Automatic"
    UNIFORM = "Uniform"
    KARRAS = "Karras"
    EXPONENTIAL = "Exponential"
    POLYEXPONENTIAL = "Polyexponential"
    SGM_UNIFORM = "SGM Uniform"
    KL_OPTIMAL = "KL Optimal"
    ALIGN_YOUR_STEPS = "Align Your Steps"
    SIMPLE = "Simple"
    NORMAL = "Normal"
    DDIM = "DDIM"
    BETA = "Beta"
    ALIGN_YOUR_STEPS_GITS = "Align Your Steps GITS"
    ALIGN_YOUR_STEPS_11 = "Align Your Steps 11"
    ALIGN_YOUR_STEPS_32 = "Align Your Steps 32"


class SamplerImplementation(StrEnum):
    """The family of samplers that a request's names are of.

    `diffusers` are Diffusers' schedulers, equal to its pipelines; `k_diffusion` are the samplers of
    k-diffusion as A1111 and Forge have them, with their schedules and their noise.
    """

    DIFFUSERS = "diffusers"
    K_DIFFUSION = "k_diffusion"


OF_K_DIFFUSION = (
    "eta",
    "noise_source",
    "timestep_rounding",
    "eta_noise_seed_delta",
    "variation_seed",
    "variation_strength",
)
"""The fields of a request that are about k-diffusion's family alone."""


class NoiseSource(StrEnum):
    """The generator whose numbers an image's noise is.

    Both are computed on the CPU: `cpu` is torch's CPU generator, `nv` draws what CUDA's would.
    """

    CPU = "cpu"
    NV = "nv"


class TimestepRounding(StrEnum):
    """The timestep that the UNet sees for a sigma between two of its own.

    `interpolate` is a fraction of a timestep, as in A1111; `nearest` a whole one, as in Forge and
    ComfyUI.
    """

    INTERPOLATE = "interpolate"
    NEAREST = "nearest"


SIGMA_SCHEDULE_TYPE_ALIASES: Mapping[str, SigmaScheduleType] = {
    "ddim_uniform": SigmaScheduleType.DDIM,  # ComfyUI's
}
"""Names of other programs that are no mere spelling of ours."""

_SCHEDULE_TYPES = Spellings("schedule type", SigmaScheduleType, SIGMA_SCHEDULE_TYPE_ALIASES)
find_sigma_schedule_type = _SCHEDULE_TYPES.find
read_sigma_schedule_type = _SCHEDULE_TYPES.read

_NOISE_SOURCES = Spellings("noise source", NoiseSource, {})
find_noise_source = _NOISE_SOURCES.find
read_noise_source = _NOISE_SOURCES.read
