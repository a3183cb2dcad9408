"""Pixels to the distribution of their latents, one picture at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lpw_sdxl.diffusion.decoder import Pixels
from lpw_sdxl.diffusion.noise import copy_to_device
from lpw_sdxl.diffusion.vae import CheckedVae
from lpw_sdxl.errors import GenerationError

Hidden = npt.NDArray[np.bool_]  # [height, width]


@dataclass(frozen=True)
class LatentDistribution:
    """The latents that may stand for one picture: a normal distribution for each number.

    Attributes:
        mean: float32 on the device, `[1, 4, h, w]`, of the latents that the UNet is trained on.
        deviation: its standard deviation, like it.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def sample(self, noise: torch.Tensor) -> torch.Tensor:
        """Return the latents that a drawing of unit variance, `[1, 4, h, w]`, chooses."""
        return self.mean + self.deviation * noise


class Encoder:
    """An encoder of pictures with one VAE, shared with its decoder.

    It takes less memory than the decoder for the same picture, and tiles from the same size on.

    Args:
        vae: Diffusers' AutoencoderKL, in the dtype to encode in; its layers are made faster. A
            picture that overflows in a half precision is encoded again in float32.
        tile_above_pixels: larger pictures are encoded in overlapping tiles.
    """

    def __init__(self, vae: Any, tile_above_pixels: int) -> None:
        self._vae = vae
        self._checked = CheckedVae(vae, tile_above_pixels)

    @torch.inference_mode()
    def encode(
        self, pixels: Pixels, hidden: Hidden | None = None, *, in_tiles: bool = False
    ) -> LatentDistribution:
        """Encode one picture.

        Args:
            pixels: `[h * 8, w * 8, 3]`.
            hidden: the pixels that are made grey first, as inpainting models are shown a picture.
            in_tiles: whether to encode in tiles whatever the size: the last resort where memory is
                short.

        Raises:
            GenerationError: if the result is not finite.
        """
        images = _normalise(copy_to_device(torch.tensor(pixels), self._vae.device))
        if hidden is not None:
            shown = copy_to_device(torch.tensor(~hidden), self._vae.device)
            images = images * shown
        height, width = pixels.shape[:2]
        moments = self._checked.compute(self._encode, images, height * width, in_tiles=in_tiles)
        if moments is None:
            raise GenerationError(
                "the picture can't be encoded: its latents are not finite numbers"
            )
        mean, log_variance = moments.float().chunk(2, dim=1)
        scale = self._vae.config.scaling_factor
        # Diffusers bounds the variance to the same two numbers.
        deviation = torch.exp(log_variance.clamp(-30.0, 20.0) / 2)
        return LatentDistribution(mean * scale, deviation * scale)

    def _encode(self, images: torch.Tensor) -> torch.Tensor:
        """Encode `[1, 3, 8h, 8w]` to means and logarithms of variances, `[1, 8, h, w]`."""
        moments: torch.Tensor = self._vae.encode(images, return_dict=False)[0].parameters
        return moments


def _normalise(pixels: torch.Tensor) -> torch.Tensor:
    """Make `[1, 3, h, w]` of `[h, w, 3]`: levels of 0 to 255 become -1 to 1, in float32."""
    return pixels.permute(2, 0, 1)[None].float() / 255 * 2 - 1
