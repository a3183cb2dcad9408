"""The sigmas that a model was trained on, and the way between a sigma and its timestep.

A sigma is the noise's standard deviation beside latents of their own size: the UNet sees latents
plus sigma times noise, scaled to unit variance. It knows nothing of schedules or samplers.
"""

from __future__ import annotations

import torch

from lpw_sdxl.sampling_options import TimestepRounding

TRAINED_TIMESTEPS = 1000
BETA_START, BETA_END = 0.00085, 0.012
"""SDXL's own noise schedule: betas whose square roots are spaced evenly."""
LAST_ALPHA_OF_ZERO_SNR = 4.8973451890853435e-08
"""A stand-in for the 0 of zero terminal SNR, with which the largest sigma is finite, 4518.76."""
_DISTILLED_STRIDE = 20  # timesteps between two that a model distilled for LCM knows


class ModelSigmas:
    """Sigmas at timesteps that a model knows, and what is between them.

    Args:
        sigmas: ascending, float64, `[n]`.
        first: timestep of the first one.
        stride: timesteps from one to the next.

    Attributes:
        table: the sigmas, ascending, float32 on the CPU, `[n]`.
    """

    def __init__(self, sigmas: torch.Tensor, first: int = 0, stride: int = 1) -> None:
        self.table = sigmas.float()
        self._exact = sigmas
        self._logarithms = self.table.log()
        self._first, self._stride = first, stride

    @classmethod
    def of_sdxl(cls, *, zero_terminal_snr: bool = False) -> ModelSigmas:
        """Compute the sigmas of SDXL's noise schedule.

        Args:
            zero_terminal_snr: whether the schedule is rescaled to end in pure noise (Lin et al.,
                arXiv 2305.08891, algorithm 1).
        """
        roots = torch.linspace(
            BETA_START**0.5, BETA_END**0.5, TRAINED_TIMESTEPS, dtype=torch.float64
        )
        alphas = torch.cumprod(1 - roots**2, dim=0)
        sigmas = ((1 - alphas) / alphas).sqrt()
        return cls(_end_in_noise(sigmas) if zero_terminal_snr else sigmas)

    @property
    def smallest(self) -> float:
        """Return the sigma of the first timestep."""
        return self.table[0].item()

    @property
    def largest(self) -> float:
        """Return the sigma of the last timestep."""
        return self.table[-1].item()

    def distilled(self) -> ModelSigmas:
        """Return the sigmas at timesteps 19, 39, … 999, which models distilled for LCM know."""
        return ModelSigmas(
            self._exact[_DISTILLED_STRIDE - 1 :: _DISTILLED_STRIDE],
            first=_DISTILLED_STRIDE - 1,
            stride=_DISTILLED_STRIDE,
        )

    def sigma_at(self, timestep: torch.Tensor) -> torch.Tensor:
        """Compute the sigma at a timestep, log-linearly between those that the model knows.

        Args:
            timestep: float32, of any shape; fractions are allowed.
        """
        return self._between(self._logarithms, timestep).exp()

    def alpha_at(self, timestep: torch.Tensor) -> torch.Tensor:
        """Compute the signal's share of the variance at a timestep, log-linearly as well.

        At whole timesteps it is Diffusers' `alphas_cumprod`.

        Args:
            timestep: float32, of any shape; fractions are allowed.
        """
        logarithms = -torch.log1p(self._exact**2)
        return self._between(logarithms.float(), timestep).exp()

    def timestep_at(
        self, sigma: torch.Tensor, rounding: TimestepRounding = TimestepRounding.INTERPOLATE
    ) -> torch.Tensor:
        """Compute the timestep of a sigma, float32; sigmas beyond the ends have the end's.

        Args:
            sigma: of any shape, on the CPU.
            rounding: whether a timestep may be a fraction.
        """
        logarithm = sigma.log().to(self._logarithms)
        high = torch.searchsorted(self._logarithms, logarithm).clamp(1, len(self.table) - 1)
        below, above = self._logarithms[high - 1], self._logarithms[high]
        share = ((logarithm - below) / (above - below)).clamp(0, 1)
        if rounding is TimestepRounding.NEAREST:
            share = share.round()
        return self._first + self._stride * (high - 1 + share)

    def _between(self, values: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """Interpolate between what the model knows at its timesteps."""
        place = ((timestep - self._first) / self._stride).clamp(0, len(values) - 1)
        low, high, share = place.floor().long(), place.ceil().long(), place.frac()
        return (1 - share) * values[low] + share * values[high]


def _end_in_noise(sigmas: torch.Tensor) -> torch.Tensor:
    """Shift and scale the signal so that none is left at the last timestep.

    It is computed in float32, as Forge does: near sigma 0 that makes a difference of 6e-5. The root
    alone is rounded once, because in float32 some machines round it otherwise than others.
    """
    signal = 1 / (1 + sigmas.float() ** 2).double().sqrt().float()
    alphas = ((signal - signal[-1]) * (signal[0] / (signal[0] - signal[-1]))) ** 2
    alphas[-1] = LAST_ALPHA_OF_ZERO_SNR
    return ((1 - alphas) / alphas).sqrt().double()
