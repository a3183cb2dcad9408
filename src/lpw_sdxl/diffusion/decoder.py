"""Latents to pixels, one image at a time; an image that is not finite is an error, never black."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lpw_sdxl.diffusion.vae_layers import install_fast_layers
from lpw_sdxl.errors import GenerationError
from lpw_sdxl.schema import LATENT_SCALE

logger = logging.getLogger(__name__)

Pixels = npt.NDArray[np.uint8]  # [height, width, 3]

# One side of a tile, where a tile of the model's own size takes too much memory.
SMALL_TILE_PIXELS = 512


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
        install_fast_layers(vae)
        self.vae = vae
        self.tile_above_pixels = tile_above_pixels
        # Diffusers' tiles are of the model's native size, and no image up to that size is tiled.
        if vae.tile_sample_min_size**2 > max(tile_above_pixels, SMALL_TILE_PIXELS**2):
            vae.tile_sample_min_size = SMALL_TILE_PIXELS
            vae.tile_latent_min_size = SMALL_TILE_PIXELS // LATENT_SCALE

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
        tile_above = 0 if in_tiles else self.tile_above_pixels
        decoded = self._run(latents, tile_above)
        if decoded is None and self.vae.dtype != torch.float32:
            logger.info("an image overflowed in %s and is decoded in float32", self.vae.dtype)
            with _in_float32(self.vae):
                decoded = self._run(latents, tile_above // 2)  # a pixel takes twice the memory
        if decoded is None:
            raise GenerationError("the image diverged: its decoded pixels are not finite numbers")
        levels = ((decoded.float() / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
        pixels: Pixels = levels[0].permute(1, 2, 0).contiguous().cpu().numpy()
        return pixels

    def _run(self, latents: torch.Tensor, tile_above_pixels: int) -> torch.Tensor | None:
        """Decode to `[1, 3, 8h, 8w]`, about -1 to 1; None if any of it is not finite."""
        scaled = (latents / self.vae.config.scaling_factor).to(self.vae.dtype)
        pixels = scaled.shape[-2] * scaled.shape[-1] * LATENT_SCALE**2
        self.vae.use_tiling = pixels > tile_above_pixels
        decoded: torch.Tensor = self.vae.decode(scaled, return_dict=False)[0]
        return decoded if torch.isfinite(decoded).all() else None


@contextmanager
def _in_float32(vae: Any) -> Iterator[None]:
    """Convert a VAE to float32 for a while; there and back no half-precision weight changes."""
    dtype = vae.dtype
    try:
        vae.to(torch.float32)  # inside: if memory ends half-way, the first half is converted back
        yield
    finally:
        vae.to(dtype)
