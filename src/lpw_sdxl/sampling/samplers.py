"""Samplers by name, and the formula of each.

A new sampler is a row here and one in `sampler_table`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeAlias

from lpw_sdxl.sampler_table import SamplerName
from lpw_sdxl.sampling import (
    ancestral_samplers,
    lcm,
    ode_samplers,
    restart,
    sde_samplers,
    timestep_samplers,
    unipc,
)
from lpw_sdxl.sampling.walk import Walk

Sampler: TypeAlias = Callable[..., Walk]
"""Takes latents and where it goes; then noise and eta, by name, if it adds noise and has an eta."""

FORMULAS: Mapping[SamplerName, Sampler] = {
    SamplerName.EULER: ode_samplers.euler,
    SamplerName.HEUN: ode_samplers.heun,
    SamplerName.DPM2: ode_samplers.dpm2,
    SamplerName.LMS: ode_samplers.lms,
    SamplerName.DPMPP_2M: ode_samplers.dpmpp_2m,
    SamplerName.EULER_ANCESTRAL: ancestral_samplers.euler_ancestral,
    SamplerName.DPM2_ANCESTRAL: ancestral_samplers.dpm2_ancestral,
    SamplerName.DPMPP_2S_ANCESTRAL: ancestral_samplers.dpmpp_2s_ancestral,
    SamplerName.RESTART: restart.restart,
    SamplerName.LCM: lcm.lcm,
    SamplerName.DPMPP_SDE: sde_samplers.dpmpp_sde,
    SamplerName.DPMPP_2M_SDE: sde_samplers.dpmpp_2m_sde,
    SamplerName.DPMPP_2M_SDE_HEUN: partial(sde_samplers.dpmpp_2m_sde, is_heun=True),
    SamplerName.DPMPP_3M_SDE: sde_samplers.dpmpp_3m_sde,
    SamplerName.DDIM: timestep_samplers.ddim,
    SamplerName.PLMS: timestep_samplers.plms,
    SamplerName.UNIPC: unipc.unipc,
}
