"""Latents of a first pass enlarged for the start of a second, larger one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch

from lpw_sdxl.field_types import LATENT_SCALE, ImageSize
from lpw_sdxl.second_pass import Enlargement, Upscaler


class Interpolation(NamedTuple):
    """Arguments of torch's `interpolate`."""

    mode: str
    antialias: bool = False


INTERPOLATIONS: Mapping[Upscaler, Interpolation] = {
    Upscaler.LATENT: Interpolation("bilinear"),
    Upscaler.LATENT_ANTIALIASED: Interpolation("bilinear", antialias=True),
    Upscaler.LATENT_BICUBIC: Interpolation("bicubic"),
    Upscaler.LATENT_BICUBIC_ANTIALIASED: Interpolation("bicubic", antialias=True),
    Upscaler.LATENT_NEAREST: Interpolation("nearest"),
    Upscaler.LATENT_NEAREST_EXACT: Interpolation("nearest-exact"),
}
"""Those of latents; they are A1111's."""


def enlarge_latents(
    latents: torch.Tensor, enlargement: Enlargement, upscaler: Upscaler
) -> torch.Tensor:
    """Scale latents to a second pass's size, and cut what is over around their middle.

    Args:
        latents: of the first pass, `[1, 4, h, w]`.
        enlargement: the sizes.
        upscaler: one of latents.

    Returns:
        `[1, 4, height/8, width/8]`.
    """
    cells = [side // LATENT_SCALE for side in enlargement.covering]
    mode, antialias = INTERPOLATIONS[upscaler]
    scaled = torch.nn.functional.interpolate(latents, cells, mode=mode, antialias=antialias)
    return cut_middle(scaled, ImageSize(*(side // LATENT_SCALE for side in enlargement.size)))


def cut_middle(values: torch.Tensor, size: ImageSize) -> torch.Tensor:
    """Cut `[…, h, w]` to a size; of an odd rest one more is cut at the end."""
    top = (values.shape[-2] - size.height) // 2
    left = (values.shape[-1] - size.width) // 2
    return values[..., top : top + size.height, left : left + size.width]
