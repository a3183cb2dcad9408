"""A1111's schedules and starts, written from their formulas for `plain_samplers`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

DROPS_PENULTIMATE = {"DPM2", "DPM2 a", "DPM++ 3M SDE"}
"""Of one more sigma, the last but one is left out."""
Tensor = torch.Tensor


def trained_alphas(*, zero_snr: bool = False) -> Tensor:
    """SDXL's share of the signal's variance at each timestep, `[1000]`."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    alphas = (1 - betas).cumprod(0)
    if zero_snr:  # in float32, as in Forge
        # Not all machines round a root in float32 alike.
        roots = 1 / (1 + trained_sigmas(alphas) ** 2).double().sqrt().float()
        alphas = ((roots - roots[-1]) * (roots[0] / (roots[0] - roots[-1]))) ** 2
        alphas[-1] = 4.8973451890853435e-08
    return alphas


def trained_sigmas(alphas: Tensor) -> Tensor:
    return ((1 - alphas) / alphas).sqrt().float()


def sigma_at(timesteps: Tensor, trained: Tensor) -> Tensor:
    """Log-linearly between whole timesteps."""
    low, high, share = timesteps.floor().long(), timesteps.ceil().long(), timesteps.frac()
    return ((1 - share) * trained[low].log() + share * trained[high].log()).exp()


def timestep_of(sigma: Tensor, trained: Tensor, *, is_rounded: bool = False) -> Tensor:
    """The inverse of `sigma_at`; in Forge the nearest whole one."""
    if is_rounded:
        return (sigma.log() - trained.log()).abs().argmin().float()
    distances = sigma.log() - trained.log()
    low = int((distances >= 0).cumsum(0).argmax().clamp(max=998))
    share = distances[low] / (distances[low] - distances[low + 1])
    return (low + share.clamp(0, 1)).float()


def uniform(steps: int, trained: Tensor) -> Tensor:
    return _to_zero(sigma_at(torch.linspace(999, 0, steps), trained))


def sgm_uniform(steps: int, trained: Tensor) -> Tensor:
    return _to_zero(sigma_at(torch.linspace(999, 0, steps + 1)[:-1], trained))


def karras(steps: int, trained: Tensor) -> Tensor:
    return karras_between(steps, trained[0].item(), trained[-1].item())


def karras_between(steps: int, low: float, high: float) -> Tensor:
    ramp = torch.linspace(0, 1, steps)
    return _to_zero((high ** (1 / 7) + ramp * (low ** (1 / 7) - high ** (1 / 7))) ** 7)


def exponential(steps: int, trained: Tensor) -> Tensor:
    ends = trained[-1].log().item(), trained[0].log().item()
    return _to_zero(torch.linspace(*ends, steps).exp())


def kl_optimal(steps: int, trained: Tensor) -> Tensor:
    """It has a sigma more than steps too, but ends above 0."""
    share = torch.arange(steps + 1) / steps
    return (share * trained[0].atan() + (1 - share) * trained[-1].atan()).tan()


SCHEDULES: Mapping[str, Callable[[int, Tensor], Tensor]] = {
    "Uniform": uniform,
    "SGM Uniform": sgm_uniform,
    "Karras": karras,
    "Exponential": exponential,
    "KL Optimal": kl_optimal,
}
AUTOMATIC: Mapping[str, str] = {
    **dict.fromkeys(("DPM++ 2M", "DPM++ SDE", "DPM++ 2S a", "DPM2", "DPM2 a", "Restart"), "Karras"),
    **dict.fromkeys(("DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ 3M SDE"), "Exponential"),
}
"""Samplers whose own schedule is not uniform."""


def make_sigmas(sampler: str, schedule: str, steps: int, trained: Tensor) -> Tensor:
    if schedule == "Automatic":
        schedule = AUTOMATIC.get(sampler, "Uniform")
    if sampler not in DROPS_PENULTIMATE:
        return SCHEDULES[schedule](steps, trained)
    sigmas = SCHEDULES[schedule](steps + 1, trained)
    return torch.cat([sigmas[:-2], sigmas[-1:]])


def timesteps_of_ddim(steps: int) -> list[int]:
    """Ascending; the first one is where the walk ends."""
    return [min(time + 1, 999) for time in range(0, 1000, 1000 // steps)]


def times_of_unipc(steps: int, top: float = 999.0) -> Tensor:
    return torch.linspace(top, 0, steps + 1)


def turn(noise: Tensor, other: Tensor, strength: float) -> Tensor:
    """Turn noise towards another one, each column of a channel by itself, as A1111's variations."""
    unit, other_unit = (each / each.norm(dim=-2, keepdim=True) for each in (noise, other))
    cosine = (unit * other_unit).sum(-2, keepdim=True)
    if cosine.mean() > 0.9995:
        return (1 - strength) * noise + strength * other
    angle = cosine.acos()
    turned = ((1 - strength) * angle).sin() * noise + (strength * angle).sin() * other
    return turned / angle.sin()


def _to_zero(sigmas: Tensor) -> Tensor:
    return torch.cat([sigmas, torch.zeros(1)])
