"""Schedule types: the sigmas at which the UNet is called, by formula.

Each formula gives descending sigmas, float32 on the CPU, and all but `KL Optimal` end with 0. They
are k-diffusion's and A1111's, computed in the same precision: noise along a Brownian path is other
noise where a sigma differs in its sixth decimal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch
from scipy import special

from lpw_sdxl.sampler_table import SAMPLERS, SamplerName
from lpw_sdxl.sampling.align_your_steps import TABLES, read_table
from lpw_sdxl.sampling.model_sigmas import ModelSigmas
from lpw_sdxl.sampling_options import SigmaScheduleType

KARRAS_RHO = 7.0
_BETA_SHAPE = 0.6  # both parameters of the distribution


def make_sigmas(
    schedule_type: SigmaScheduleType,
    steps: int,
    model: ModelSigmas,
    sampler: SamplerName | None = None,
) -> torch.Tensor:
    """Compute the sigmas of a schedule.

    Args:
        schedule_type: its formula.
        steps: at least 1.
        model: what the model was trained on.
        sampler: decides what `Automatic` stands for and whether the last sigma but one is left
            out; None for the model's own spacing, with all sigmas.

    Returns:
        Descending, float32 on the CPU, `[steps + 1]`.
    """
    if sampler is None:
        return _compute(schedule_type, steps, model)
    recipe = SAMPLERS[sampler]
    if schedule_type is SigmaScheduleType.AUTOMATIC:
        schedule_type = recipe.automatic
    if not recipe.drops_penultimate:
        return _compute(schedule_type, steps, model)
    sigmas = _compute(schedule_type, steps + 1, model)
    return torch.cat([sigmas[:-2], sigmas[-1:]])


def karras(steps: int, smallest: float, largest: float) -> torch.Tensor:
    """Compute the schedule of Karras et al. (arXiv 2206.00364, equation 5), and the 0 at its end.

    Args:
        steps: sigmas above 0.
        smallest: of them.
        largest: of them.
    """
    low, high = smallest ** (1 / KARRAS_RHO), largest ** (1 / KARRAS_RHO)
    return _end((high + torch.linspace(0, 1, steps) * (low - high)) ** KARRAS_RHO)


def _compute(schedule_type: SigmaScheduleType, steps: int, model: ModelSigmas) -> torch.Tensor:
    return _FORMULAS[schedule_type](steps, model)


def _uniform(steps: int, model: ModelSigmas) -> torch.Tensor:
    """Space timesteps evenly from the model's last to its first."""
    return _end(model.sigma_at(torch.linspace(*_ends(model), steps)))


def _sgm_uniform(steps: int, model: ModelSigmas) -> torch.Tensor:
    """Space timesteps evenly, one more than there are steps, and leave the first out."""
    return _end(model.sigma_at(torch.linspace(*_ends(model), steps + 1)[:-1]))


def _ends(model: ModelSigmas) -> tuple[float, float]:
    last, first = model.timestep_at(model.table[[-1, 0]]).tolist()
    return last, first


def _karras(steps: int, model: ModelSigmas) -> torch.Tensor:
    return karras(steps, model.smallest, model.largest)


def _exponential(steps: int, model: ModelSigmas) -> torch.Tensor:
    """Space the logarithms of sigmas evenly."""
    high, low = math.log(model.largest), math.log(model.smallest)
    return _end(torch.linspace(high, low, steps).exp())


def _polyexponential(steps: int, model: ModelSigmas) -> torch.Tensor:
    """Space the logarithms as powers of an even walk; the power, rho, is 1."""
    high, low = math.log(model.largest), math.log(model.smallest)
    return _end((torch.linspace(1, 0, steps) * (high - low) + low).exp())


def _kl_optimal(steps: int, model: ModelSigmas) -> torch.Tensor:
    """Walk evenly between the sigmas' arctangents (arXiv 2404.14507); the end is above 0."""
    low, high = model.table[0].arctan(), model.table[-1].arctan()
    shares = torch.arange(steps + 1) / steps
    return (shares * low + (1 - shares) * high).tan()


def _simple(steps: int, model: ModelSigmas) -> torch.Tensor:
    """Take every so many-th sigma from the top."""
    stride = len(model.table) / steps
    return _end(model.table[[-1 - int(step * stride) for step in range(steps)]])


def _ddim(steps: int, model: ModelSigmas) -> torch.Tensor:
    """Take every so many-th sigma from the second up.

    Where the steps don't divide the timesteps there are more sigmas than steps: all are used.
    """
    stride = max(len(model.table) // steps, 1)
    return _end(model.table[1::stride].flip(0))


def _beta(steps: int, model: ModelSigmas) -> torch.Tensor:
    """Place sigmas at quantiles of a beta distribution (arXiv 2407.12173)."""
    quantiles = special.betaincinv(_BETA_SHAPE, _BETA_SHAPE, 1 - np.linspace(0, 1, steps))
    sigmas = model.smallest + quantiles * (model.largest - model.smallest)
    return _end(torch.from_numpy(sigmas.astype(np.float32)))


def _read_table(steps: int, _: ModelSigmas, *, schedule_type: SigmaScheduleType) -> torch.Tensor:
    return _end(read_table(schedule_type, steps))


def _end(sigmas: torch.Tensor) -> torch.Tensor:
    return torch.cat([sigmas, sigmas.new_zeros(1)])


_FORMULAS: Mapping[SigmaScheduleType, Callable[[int, ModelSigmas], torch.Tensor]] = {
    SigmaScheduleType.AUTOMATIC: _uniform,  # where no sampler decides
    SigmaScheduleType.UNIFORM: _uniform,
    SigmaScheduleType.KARRAS: _karras,
    SigmaScheduleType.EXPONENTIAL: _exponential,
    SigmaScheduleType.POLYEXPONENTIAL: _polyexponential,
    SigmaScheduleType.SGM_UNIFORM: _sgm_uniform,
    SigmaScheduleType.KL_OPTIMAL: _kl_optimal,
    SigmaScheduleType.SIMPLE: _simple,
    SigmaScheduleType.NORMAL: _uniform,  # the same by way of sigmas
    SigmaScheduleType.DDIM: _ddim,
    SigmaScheduleType.BETA: _beta,
    **{kind: partial(_read_table, schedule_type=kind) for kind in TABLES},
}
