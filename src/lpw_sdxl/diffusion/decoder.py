"""Latents to pixels, one image at a time; an image that is not finite is an error, never black."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lpw_sdxl.diffusion.vae import CheckedVae
from lpw_sdxl.errors import GenerationError
from lpw_sdxl.schema import LATENT_SCALE

Pixels = npt.NDArray[np.uint8]  # [height, width, 3]


class Decoder:
    """A decoder of latents with one VAE.

    Images are decoded singly: the VAE, not the UNet, is the peak of memory, and an image decoded
    alone does not depend on which others are finished at the same time.

    Args:
        vae: Diffusers' AutoencoderKL, in the dtype to decode in; its layers are made faster. An
            image that overflows in a half precision is decoded again in float32.
        tile_above_pixels: larger images are decoded in overlapping tiles, which takes less memory
            and changes tones a little. The size alone decides, so that an image is always the same.
    """

    def __init__(self, vae: Any, tile_above_pixels: int) -> None:
        self.vae = vae
        self._checked = CheckedVae(vae, tile_above_pixels)

    @torch.inference_mode()
    def decode(self, latents: torch.Tensor, *, in_tiles: bool = False) -> Pixels:
        """Decode one image.

        Args:
            latents: `[1, 4, h, w]`.
            in_tiles: whether to decode in tiles whatever the size: the last resort where memory is
                short.

        Returns:
            `[h * 8, w * 8, 3]`.

        Raises:
            GenerationError: if latents or pixels are not finite.
        """
        if not torch.isfinite(latents).all():
            raise GenerationError("the image diverged: its latents are not finite numbers")
        scaled = latents / self.vae.config.scaling_factor
        pixels = scaled.shape[-2] * scaled.shape[-1] * LATENT_SCALE**2
        decoded = self._checked.compute(self._decode, scaled, pixels, in_tiles=in_tiles)
        if decoded is None:
            raise GenerationError("the image diverged: its decoded pixels are not finite numbers")
        levels = ((decoded.float() / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
        image: Pixels = levels[0].permute(1, 2, 0).contiguous().cpu().numpy()
        return image

    def _decode(self, scaled: torch.Tensor) -> torch.Tensor:
        """Decode to `[1, 3, 8h, 8w]`, about -1 to 1."""
        decoded: torch.Tensor = self.vae.decode(scaled, return_dict=False)[0]
        return decoded
