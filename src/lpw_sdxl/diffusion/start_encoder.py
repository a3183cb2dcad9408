"""Pictures, masks and texts to the starts of jobs, for the UNet of one model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from lpw_sdxl.diffusion.decoder import Pixels
from lpw_sdxl.diffusion.encoder import Encoder, LatentDistribution
from lpw_sdxl.diffusion.latents import LATENT_CHANNELS
from lpw_sdxl.diffusion.noise import copy_to_device
from lpw_sdxl.diffusion.start import InpaintingStart, MaskedStart, NoiseStart, PictureStart, Start
from lpw_sdxl.schema import LATENT_SCALE, ImageSize, MaskedContent

INPAINTING_CHANNELS = 2 * LATENT_CHANNELS + 1  # of a UNet that sees a mask and what is not masked
HALF = 128  # the lowest level of a mask that is repainted, as in Diffusers

Mask = npt.NDArray[np.uint8]  # [height, width]


@dataclass(frozen=True)
class StartPicture:
    """A picture that a job starts from, of the job's size.

    Attributes:
        pixels: uint8, `[height, width, 3]`; where `content` is `fill` the masked part is filled.
        mask: repainted where it is 128 or more; None repaints all.
        content: what is in the masked part before it is noised.
    """

    pixels: Pixels
    mask: Mask | None = None
    content: MaskedContent = MaskedContent.ORIGINAL

    @property
    def size(self) -> ImageSize:
        """Return the picture's size."""
        return ImageSize(*self.pixels.shape[:2])


class StartEncoder:
    """The way of pictures to starts.

    Args:
        encoder: of the model's VAE, which must be on the device in each call.
        unet_channels: that the UNet takes: 4, or 9 of an inpainting model.
    """

    def __init__(self, encoder: Encoder, unet_channels: int) -> None:
        self._encoder = encoder
        self._is_inpainting = unet_channels == INPAINTING_CHANNELS
        self._grey: LatentDistribution | None = None  # of the last size; an encoding takes a while

    def encodes_text(self, size: ImageSize) -> bool:
        """Return whether `start_of_text` needs the VAE for an image of this size."""
        return self._is_inpainting and not self._has_grey(size)

    def start_of_text(self, size: ImageSize, *, in_tiles: bool = False) -> Start:
        """Make the start of a job that has no picture.

        Args:
            size: of the image.
            in_tiles: whether to encode in tiles whatever the size.
        """
        if not self._is_inpainting:
            return NoiseStart()
        return InpaintingStart(self._encode_grey(size, in_tiles=in_tiles), self._mask_all(size))

    def start_of_picture(
        self, picture: StartPicture, *, is_seen: bool = True, in_tiles: bool = False
    ) -> Start:
        """Encode a picture, and for an inpainting UNet also what is not masked of it.

        Args:
            picture: of the job.
            is_seen: whether the job enters its scheduler after the first timestep; at the first, an
                inpainting UNet sees nothing of the masked part, which is then not encoded.
            in_tiles: whether to encode in tiles whatever the size.

        Raises:
            GenerationError: if the encoder's result is not finite.
        """
        if self._is_inpainting:
            return self._start_inpainting(picture, is_seen=is_seen, in_tiles=in_tiles)
        encoded = self._encoder.encode(picture.pixels, in_tiles=in_tiles)
        if picture.mask is None:
            return PictureStart(encoded)
        return MaskedStart(encoded, self._to_cells(is_repainted(picture.mask)), picture.content)

    def _start_inpainting(
        self, picture: StartPicture, *, is_seen: bool, in_tiles: bool
    ) -> InpaintingStart:
        encoded = self._encoder.encode(picture.pixels, in_tiles=in_tiles) if is_seen else None
        if picture.mask is None:
            hidden = self._encode_grey(picture.size, in_tiles=in_tiles)
            return InpaintingStart(hidden, self._mask_all(picture.size), encoded)
        repainted = is_repainted(picture.mask)
        hidden = self._encoder.encode(picture.pixels, repainted, in_tiles=in_tiles)
        return InpaintingStart(hidden, self._to_cells(repainted), encoded, picture.content)

    def _encode_grey(self, size: ImageSize, *, in_tiles: bool) -> LatentDistribution:
        """Encode a picture of which all is hidden."""
        if self._grey is not None and self._has_grey(size) and not in_tiles:
            return self._grey
        nothing = np.zeros((*size, 3), np.uint8)
        grey = self._encoder.encode(nothing, np.ones(size, np.bool_), in_tiles=in_tiles)
        if not in_tiles:  # else a picture would depend on whether memory was short before
            self._grey = grey
        return grey

    def _has_grey(self, size: ImageSize) -> bool:
        cells = (size.height // LATENT_SCALE, size.width // LATENT_SCALE)
        return self._grey is not None and self._grey.mean.shape[-2:] == cells

    def _mask_all(self, size: ImageSize) -> torch.Tensor:
        return self._to_cells(np.ones(size, np.bool_))

    def _to_cells(self, repainted: npt.NDArray[np.bool_]) -> torch.Tensor:
        """Mask the latent cells whose top left pixel is masked, as Diffusers does."""
        cells = np.ascontiguousarray(repainted[::LATENT_SCALE, ::LATENT_SCALE])
        return copy_to_device(torch.tensor(cells)[None, None], self._encoder.device)


def is_repainted(mask: Mask) -> npt.NDArray[np.bool_]:
    """Return which pixels a mask repaints."""
    return mask >= HALF
