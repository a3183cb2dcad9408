"""Latents to pixels, one image at a time, and never a black picture for a broken one."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lpw_sdxl.errors import GenerationError

Pixels = npt.NDArray[np.uint8]  # [height, width, 3]


@torch.inference_mode()
def decode(vae: Any, latents: torch.Tensor) -> Pixels:
    """Decode one image.

    Images are decoded singly: the VAE, not the UNet, is the peak of memory, and a decode of one is
    the same whoever else is finishing.

    Args:
        vae: Diffusers' AutoencoderKL.
        latents: `[1, 4, h, w]`.

    Raises:
        GenerationError: if latents or pixels are not finite.
    """
    if not torch.isfinite(latents).all():
        raise GenerationError("the image diverged: its latents are not finite numbers")
    scaled = (latents / vae.config.scaling_factor).to(vae.dtype)
    decoded = vae.decode(scaled, return_dict=False)[0]  # [1, 3, 8h, 8w], about -1 to 1
    if not torch.isfinite(decoded).all():
        raise GenerationError("the image diverged: its decoded pixels are not finite numbers")
    levels = ((decoded.float() / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
    pixels: Pixels = levels[0].permute(1, 2, 0).contiguous().cpu().numpy()
    return pixels
