"""Samplers of k-diffusion's family by name, in one table: what each needs, and its own schedule.

It imports no torch: `sampling.samplers` has the formulas. A new sampler is a name and a row here,
and a row there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum, auto

from pydantic_core import PydanticCustomError

from lpw_sdxl.sampling_options import SigmaScheduleType
from lpw_sdxl.spelling import Spellings


class SamplerName(StrEnum):
    """Samplers by A1111's names, in the order of its list."""

    DPMPP_2M = "DPM++ 2M"
    DPMPP_SDE = "DPM++ SDE"
    DPMPP_2M_SDE = "DPM++ 2M SDE"
    DPMPP_2M_SDE_HEUN = "DPM++ 2M SDE Heun"
    DPMPP_2S_ANCESTRAL = "DPM++ 2S a"
    DPMPP_3M_SDE = "DPM++ 3M SDE"
    EULER_ANCESTRAL = "Euler a"
    EULER = "Euler"
    LMS = "LMS"
    HEUN = "Heun"
    DPM2 = "DPM2"
    DPM2_ANCESTRAL = "DPM2 a"
    RESTART = "Restart"
    DDIM = "DDIM"
    PLMS = "PLMS"
    UNIPC = "UniPC"
    LCM = "LCM"


class UnservedSampler(StrEnum):
    """Samplers of A1111 that this project has not got: each is refused by its name."""

    DPM_FAST = "DPM fast"
    DPM_ADAPTIVE = "DPM adaptive"
    DDIM_CFGPP = "DDIM CFG++"


class SamplerNoise(Enum):
    """The noise that a sampler adds on its way."""

    NONE = auto()
    DRAWS = auto()  # independent draws of the generator that drew the start
    BROWNIAN = auto()  # increments of one Brownian path over the sigmas


@dataclass(frozen=True)
class SamplerRecipe:
    """The needs of a sampler, beside its formula.

    Attributes:
        automatic: the schedule type that A1111's `Automatic` stands for.
        drops_penultimate: whether one more sigma is computed, and the last but one left out.
        noise: what it adds on its way.
        eta: the share of ancestral noise where a request names none; None where it has no such
            factor.
        is_second_order: whether a step calls the UNet twice; the last step calls it once.
        walks_timesteps: whether it goes by timesteps of its own, on latents that keep their
            variance; it then takes no schedule type.
        knows_50_timesteps: whether it is for models distilled on every 20th timestep.
    """

    automatic: SigmaScheduleType = SigmaScheduleType.UNIFORM
    drops_penultimate: bool = False
    noise: SamplerNoise = SamplerNoise.NONE
    eta: float | None = None
    is_second_order: bool = False
    walks_timesteps: bool = False
    knows_50_timesteps: bool = False


_KARRAS, _EXPONENTIAL = SigmaScheduleType.KARRAS, SigmaScheduleType.EXPONENTIAL
_DRAWS, _BROWNIAN = SamplerNoise.DRAWS, SamplerNoise.BROWNIAN

SAMPLERS: Mapping[SamplerName, SamplerRecipe] = {
    SamplerName.DPMPP_2M: SamplerRecipe(_KARRAS),
    SamplerName.DPMPP_SDE: SamplerRecipe(_KARRAS, noise=_BROWNIAN, eta=1.0, is_second_order=True),
    SamplerName.DPMPP_2M_SDE: SamplerRecipe(_EXPONENTIAL, noise=_BROWNIAN, eta=1.0),
    SamplerName.DPMPP_2M_SDE_HEUN: SamplerRecipe(_EXPONENTIAL, noise=_BROWNIAN, eta=1.0),
    SamplerName.DPMPP_2S_ANCESTRAL: SamplerRecipe(
        _KARRAS, noise=_DRAWS, eta=1.0, is_second_order=True
    ),
    SamplerName.DPMPP_3M_SDE: SamplerRecipe(
        _EXPONENTIAL, drops_penultimate=True, noise=_BROWNIAN, eta=1.0
    ),
    SamplerName.EULER_ANCESTRAL: SamplerRecipe(noise=_DRAWS, eta=1.0),
    SamplerName.EULER: SamplerRecipe(),
    SamplerName.LMS: SamplerRecipe(),
    SamplerName.HEUN: SamplerRecipe(is_second_order=True),
    SamplerName.DPM2: SamplerRecipe(_KARRAS, drops_penultimate=True, is_second_order=True),
    SamplerName.DPM2_ANCESTRAL: SamplerRecipe(
        _KARRAS, drops_penultimate=True, noise=_DRAWS, eta=1.0, is_second_order=True
    ),
    SamplerName.RESTART: SamplerRecipe(_KARRAS, noise=_DRAWS, is_second_order=True),
    SamplerName.DDIM: SamplerRecipe(noise=_DRAWS, eta=0.0, walks_timesteps=True),
    SamplerName.PLMS: SamplerRecipe(walks_timesteps=True),
    SamplerName.UNIPC: SamplerRecipe(walks_timesteps=True),
    SamplerName.LCM: SamplerRecipe(noise=_DRAWS, knows_50_timesteps=True),
}

SAMPLER_ALIASES: Mapping[str, SamplerName] = {
    # ComfyUI's.
    "euler_ancestral": SamplerName.EULER_ANCESTRAL,
    "dpm_2_ancestral": SamplerName.DPM2_ANCESTRAL,
    "dpmpp_2s_ancestral": SamplerName.DPMPP_2S_ANCESTRAL,
    "dpmpp_sde_gpu": SamplerName.DPMPP_SDE,
    "dpmpp_2m_sde_gpu": SamplerName.DPMPP_2M_SDE,
    "dpmpp_3m_sde_gpu": SamplerName.DPMPP_3M_SDE,
}
"""Names of other programs that are no mere spelling of ours."""

_SPELLINGS = Spellings("sampler", SamplerName, SAMPLER_ALIASES)
_UNSERVED = Spellings("sampler", UnservedSampler, {"k_dpm_ad": UnservedSampler.DPM_ADAPTIVE})
find_sampler = _SPELLINGS.find
find_unserved_sampler = _UNSERVED.find


def read_sampler(value: object) -> object:
    """Convert a sampler's name in any spelling to ours; return other values, for pydantic.

    Raises:
        PydanticCustomError: it is no sampler, or one of A1111's that is not served.
    """
    unserved = find_unserved_sampler(value) if isinstance(value, str) else None
    if unserved is not None:
        raise PydanticCustomError(
            "unserved_sampler",
            "{name} is a sampler of AUTOMATIC1111 that is not served; served are {known}",
            {"name": f"'{unserved}'", "known": ", ".join(f"'{name}'" for name in SamplerName)},
        )
    return _SPELLINGS.read(value)
