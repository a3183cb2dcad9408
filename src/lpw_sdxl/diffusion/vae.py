"""One VAE under two conditions: tiles above a size, and numbers that are finite.

The decoder and the encoder run their halves of it through this. It knows nothing of pictures.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from lpw_sdxl.diffusion.vae_layers import install_fast_layers
from lpw_sdxl.schema import LATENT_SCALE

logger = logging.getLogger(__name__)

# One side of a tile, where a tile of the model's own size takes too much memory.
SMALL_TILE_PIXELS = 512


class CheckedVae:
    """A VAE that tiles large images, and computes in float32 what overflows in its own dtype.

    Args:
        vae: Diffusers' AutoencoderKL, in the dtype to compute in; its layers are made faster.
        tile_above_pixels: larger images are computed in overlapping tiles, which takes less memory
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

    def compute(
        self,
        half: Callable[[torch.Tensor], torch.Tensor],
        images: torch.Tensor,
        pixels: int,
        *,
        in_tiles: bool,
    ) -> torch.Tensor | None:
        """Run one half of the VAE, in its own dtype and then, if that overflows, in float32.

        Args:
            half: the VAE's decoder or encoder, of what `images` is to the result.
            images: float32, on the device.
            pixels: of the image in all.
            in_tiles: whether to compute in tiles whatever the size.

        Returns:
            the result, in the dtype it was computed in; None if it is not finite in float32 either.
        """
        tile_above = 0 if in_tiles else self.tile_above_pixels
        result = self._run(half, images, is_tiled=pixels > tile_above)
        if result is None and self.vae.dtype != torch.float32:
            logger.info(
                "an image overflowed the VAE in %s, and goes through it in float32", self.vae.dtype
            )
            with _in_float32(self.vae):
                # A pixel takes twice the memory.
                result = self._run(half, images, is_tiled=pixels > tile_above // 2)
        return result

    def _run(
        self,
        half: Callable[[torch.Tensor], torch.Tensor],
        images: torch.Tensor,
        *,
        is_tiled: bool,
    ) -> torch.Tensor | None:
        """Run one half of the VAE as it is; None if any of the result is not finite."""
        self.vae.use_tiling = is_tiled
        result = half(images.to(self.vae.dtype))
        return result if torch.isfinite(result).all() else None


@contextmanager
def _in_float32(vae: Any) -> Iterator[None]:
    """Convert a VAE to float32 for a while; there and back no half-precision weight changes."""
    dtype = vae.dtype
    try:
        vae.to(torch.float32)  # inside: if memory ends half-way, the first half is converted back
        yield
    finally:
        vae.to(dtype)
