"""The samplers and schedule types of this project, as A1111 lists its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, with_config
from typing_extensions import TypedDict  # pydantic needs it before Python 3.12

from lpw_sdxl.sampler_table import SAMPLERS, SamplerName, SamplerNoise, SamplerRecipe
from lpw_sdxl.sampling_options import SigmaScheduleType

YES = "True"  # options are texts, written as Python does


@with_config(extra="forbid")
class SamplerItem(TypedDict):
    """A sampler."""

    name: Annotated[str, Field(description="What txt2img takes as sampler_name.")]
    aliases: Annotated[list[str], Field(description="Other names that are taken.")]
    options: dict[str, str]


@with_config(extra="forbid")
class SchedulerItem(TypedDict):
    """A schedule type."""

    name: Annotated[str, Field(description="What txt2img takes as scheduler.")]
    label: Annotated[str, Field(description="Taken too.")]
    aliases: list[str]
    default_rho: float
    need_inner_model: bool


SAMPLER_ALIASES: Mapping[SamplerName, tuple[str, ...]] = {
    SamplerName.DPMPP_2M: ("k_dpmpp_2m",),
    SamplerName.DPMPP_SDE: ("k_dpmpp_sde",),
    SamplerName.DPMPP_2M_SDE: ("k_dpmpp_2m_sde",),
    SamplerName.DPMPP_2M_SDE_HEUN: ("k_dpmpp_2m_sde_heun",),
    SamplerName.DPMPP_2S_ANCESTRAL: ("k_dpmpp_2s_a",),
    SamplerName.DPMPP_3M_SDE: ("k_dpmpp_3m_sde",),
    SamplerName.EULER_ANCESTRAL: ("k_euler_a", "k_euler_ancestral"),
    SamplerName.EULER: ("k_euler",),
    SamplerName.LMS: ("k_lms",),
    SamplerName.HEUN: ("k_heun",),
    SamplerName.DPM2: ("k_dpm_2",),
    SamplerName.DPM2_ANCESTRAL: ("k_dpm_2_a",),
    SamplerName.RESTART: ("restart",),
    SamplerName.DDIM: ("ddim",),
    SamplerName.PLMS: ("plms",),
    SamplerName.UNIPC: ("unipc",),
    SamplerName.LCM: ("k_lcm",),
}
"""The short names that A1111 lists."""

# Its names of schedule types are their labels in small letters but for these.
_NAMES: Mapping[SigmaScheduleType, str] = {
    SigmaScheduleType.ALIGN_YOUR_STEPS_GITS: "align_your_steps_GITS",
}
_ALIASES: Mapping[SigmaScheduleType, tuple[str, ...]] = {
    SigmaScheduleType.SGM_UNIFORM: ("SGMUniform",),
}
_RHO: Mapping[SigmaScheduleType, float] = {
    SigmaScheduleType.KARRAS: 7.0,
    SigmaScheduleType.POLYEXPONENTIAL: 1.0,
}
_NO_RHO = -1.0
_OF_MODELS_SIGMAS = frozenset(
    {
        SigmaScheduleType.UNIFORM,
        SigmaScheduleType.SGM_UNIFORM,
        SigmaScheduleType.SIMPLE,
        SigmaScheduleType.NORMAL,
        SigmaScheduleType.DDIM,
        SigmaScheduleType.BETA,
    }
)


def list_samplers() -> list[SamplerItem]:
    """List the samplers in A1111's order."""
    return [
        {"name": str(name), "aliases": [*SAMPLER_ALIASES[name]], "options": _options(recipe)}
        for name, recipe in SAMPLERS.items()
    ]


def list_schedulers() -> list[SchedulerItem]:
    """List the schedule types in A1111's order."""
    return [
        {
            "name": scheduler_name(one),
            "label": str(one),
            "aliases": [*_ALIASES.get(one, ())],
            "default_rho": _RHO.get(one, _NO_RHO),
            "need_inner_model": one in _OF_MODELS_SIGMAS,
        }
        for one in SigmaScheduleType
    ]


def scheduler_name(schedule_type: SigmaScheduleType) -> str:
    """Return A1111's name of a schedule type, such as `sgm_uniform`."""
    return _NAMES.get(schedule_type, schedule_type.lower().replace(" ", "_"))


def _options(recipe: SamplerRecipe) -> dict[str, str]:
    """Return what A1111 states of a sampler."""
    stated = {
        "discard_next_to_last_sigma": recipe.drops_penultimate,
        "second_order": recipe.is_second_order,
        "brownian_noise": recipe.noise is SamplerNoise.BROWNIAN,
        "uses_ensd": recipe.noise is SamplerNoise.DRAWS,
    }
    options = {name: YES for name, is_so in stated.items() if is_so}
    if recipe.automatic is not SigmaScheduleType.UNIFORM:
        options["scheduler"] = scheduler_name(recipe.automatic)
    return options
