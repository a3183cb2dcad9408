"""What a UNet sees of latents under noise, and the denoised latents that its prediction means.

The scalings are those of Karras et al. (arXiv 2206.00364, table 1, column VP), as Forge has them;
with zero terminal SNR they are the same, at a largest sigma of 4518.76. It knows no samplers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch


def scale_input(latents: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Scale latents with noise of a sigma to the unit variance that the UNet was trained on.

    Args:
        latents: of the size of a picture's latents, `[…, 4, h, w]`.
        sigma: a scalar.
    """
    return latents / (sigma**2 + 1).sqrt()


def denoise(
    prediction: torch.Tensor, latents: torch.Tensor, sigma: torch.Tensor, prediction_type: str
) -> torch.Tensor:
    """Compute the latents without noise that a UNet's prediction means.

    Args:
        prediction: the UNet's, after guidance, `[…, 4, h, w]`.
        latents: that were evaluated, not scaled.
        sigma: of their noise, a scalar.
        prediction_type: Diffusers' name of what the UNet predicts: `epsilon`, `v_prediction` or
            `sample`.
    """
    return _FORMULAS[prediction_type](prediction, latents, sigma)


def _from_noise(
    prediction: torch.Tensor, latents: torch.Tensor, sigma: torch.Tensor
) -> torch.Tensor:
    return latents - sigma * prediction


def _from_velocity(
    prediction: torch.Tensor, latents: torch.Tensor, sigma: torch.Tensor
) -> torch.Tensor:
    """Take the velocity of Salimans and Ho (arXiv 2202.00512, appendix D) off the latents."""
    variance = sigma**2 + 1
    return latents / variance - prediction * (sigma / variance.sqrt())


def _as_it_is(
    prediction: torch.Tensor,
    latents: torch.Tensor,  # noqa: ARG001 - as of the others
    sigma: torch.Tensor,  # noqa: ARG001
) -> torch.Tensor:
    return prediction


_FORMULAS: Mapping[str, Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "epsilon": _from_noise,
    "v_prediction": _from_velocity,
    "sample": _as_it_is,
}
