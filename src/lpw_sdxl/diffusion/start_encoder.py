"""Pictures, masks and texts to the starts of jobs, for the UNet of one model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from lpw_sdxl.diffusion.decoder import Pixels
from lpw_sdxl.diffusion.encoder import Encoder, LatentDistribution
from lpw_sdxl.diffusion.latents import LATENT_CHANNELS
from lpw_sdxl.diffusion.noise import copy_to_device
from lpw_sdxl.diffusion.start import (
    InpaintingStart,
    LatentStart,
    MaskedStart,
    MaskReduction,
    NoiseStart,
    PictureStart,
    Start,
)
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
        reduction: of the mask to latent cells.
    """

    pixels: Pixels
    mask: Mask | None = None
    content: MaskedContent = MaskedContent.ORIGINAL
    reduction: MaskReduction = MaskReduction.TOP_LEFT

    @property
    def size(self) -> ImageSize:
        """Return the picture's size."""
        return ImageSize(*self.pixels.shape[:2])


class Part(Enum):
    """A picture that a start encodes."""

    PICTURE = auto()  # all of it
    KEPT = auto()  # with the masked part hidden
    GREY = auto()  # with all of it hidden


class StartEncoder:
    """The way of pictures to starts.

    Args:
        encoder: of the model's VAE.
        unet_channels: that the UNet takes: 4, or 9 of an inpainting model.
    """

    def __init__(self, encoder: Encoder, unet_channels: int) -> None:
        self.encoder = encoder
        self.is_inpainting = unet_channels == INPAINTING_CHANNELS
        self._grey: LatentDistribution | None = None  # of the last size; an encoding takes a while

    def begin_text(self, size: ImageSize) -> UnfinishedStart:
        """Begin the start of a job that has no picture."""
        return UnfinishedStart(self, size, None, [Part.GREY] if self.is_inpainting else [])

    def begin_picture(self, picture: StartPicture, *, is_seen: bool = True) -> UnfinishedStart:
        """Begin the start of a job that has a picture.

        Args:
            picture: of the job.
            is_seen: whether the job enters its scheduler after the first timestep; at the first, an
                inpainting UNet sees nothing of the masked part, which is then not encoded.
        """
        parts = [Part.PICTURE] if is_seen or not self.is_inpainting else []
        if self.is_inpainting:
            parts.append(Part.GREY if picture.mask is None else Part.KEPT)
        return UnfinishedStart(self, picture.size, picture, parts)

    def begin_latents(self, latents: torch.Tensor, size: ImageSize) -> UnfinishedStart:
        """Begin the start of a second pass.

        Args:
            latents: of the first pass, in the second one's size, `[1, 4, h, w]`.
            size: of the second pass, pixels.
        """
        parts = [Part.GREY] if self.is_inpainting else []
        return UnfinishedStart(self, size, None, parts, latents)

    def find_grey(self, size: ImageSize) -> LatentDistribution | None:
        """Return the encoding of a picture of which all is hidden, if it is that of the last one.

        Its part is then not to be encoded.
        """
        cells = (size.height // LATENT_SCALE, size.width // LATENT_SCALE)
        is_kept = self._grey is not None and self._grey.mean.shape[-2:] == cells
        return self._grey if is_kept else None

    def encode_grey(self, size: ImageSize, *, in_tiles: bool) -> LatentDistribution:
        """Encode a picture of which all is hidden."""
        nothing = np.zeros((*size, 3), np.uint8)
        grey = self.encoder.encode(nothing, np.ones(size, np.bool_), in_tiles=in_tiles)
        if not in_tiles:  # else a picture would depend on whether memory was short before
            self._grey = grey
        return grey


class UnfinishedStart:
    """The start of one job, whose parts are encoded one at a time: other jobs wait for each.

    Args:
        starts: the encoder.
        size: of the image.
        picture: that the job has; None for a text alone.
        parts: to be encoded.
        latents: instead of a picture's; None where there are none.
    """

    def __init__(
        self,
        starts: StartEncoder,
        size: ImageSize,
        picture: StartPicture | None,
        parts: Sequence[Part],
        latents: torch.Tensor | None = None,
    ) -> None:
        self.size = size
        self._starts = starts
        self._picture = picture
        self._parts = [*parts]
        self._latents = latents
        self._encoded: dict[Part, LatentDistribution] = {}
        if latents is not None and starts.is_inpainting:
            self._encoded[Part.PICTURE] = LatentDistribution(latents, torch.zeros_like(latents))

    @property
    def is_encoded(self) -> bool:
        """Return whether nothing is left to encode."""
        has_grey = self._starts.find_grey(self.size) is not None
        return not self._parts or (has_grey and self._parts == [Part.GREY])

    def encode_next(self, *, in_tiles: bool = False) -> None:
        """Encode one part; if that fails, it can be tried again. The VAE must be on the device.

        Args:
            in_tiles: whether to encode in tiles whatever the size.

        Raises:
            GenerationError: if the encoder's result is not finite.
        """
        if self.is_encoded:
            return
        self._encoded[self._parts[0]] = self._encode(self._parts[0], in_tiles=in_tiles)
        del self._parts[0]

    def make(self) -> Start:
        """Make the start, once all is encoded."""
        assert self.is_encoded
        picture, mask = self._picture, None
        content = MaskedContent.ORIGINAL
        encoded = self._encoded.get(Part.PICTURE)
        if picture is not None and picture.mask is not None:
            content = picture.content
            mask = REDUCTIONS[picture.reduction](picture.mask)
        if self._starts.is_inpainting:
            hidden = self._encoded.get(Part.KEPT) or self._encoded.get(Part.GREY)
            hidden = hidden or self._starts.find_grey(self.size)
            assert hidden is not None
            if mask is None:
                mask = take_top_left(np.full(self.size, 255, np.uint8))
            return InpaintingStart(hidden, _copy_beside(hidden, mask), encoded, content)
        if self._latents is not None:
            return LatentStart(self._latents)
        if encoded is None:
            return NoiseStart()
        if mask is None:
            return PictureStart(encoded)
        return MaskedStart(encoded, _copy_beside(encoded, mask), content)

    def _encode(self, part: Part, *, in_tiles: bool) -> LatentDistribution:
        if part is Part.GREY:
            return self._starts.encode_grey(self.size, in_tiles=in_tiles)
        assert self._picture is not None
        hidden = None
        if part is Part.KEPT:
            assert self._picture.mask is not None
            hidden = is_repainted(self._picture.mask)
        return self._starts.encoder.encode(self._picture.pixels, hidden, in_tiles=in_tiles)


def is_repainted(mask: Mask) -> npt.NDArray[np.bool_]:
    """Return which pixels a mask repaints."""
    return mask >= HALF


def take_top_left(mask: Mask) -> torch.Tensor:
    """Mask the latent cells whose top left pixel is masked, as Diffusers does.

    Returns:
        bool on the CPU, `[1, 1, h, w]`.
    """
    cells = np.ascontiguousarray(is_repainted(mask)[::LATENT_SCALE, ::LATENT_SCALE])
    return torch.tensor(cells)[None, None]


def scale_and_round(mask: Mask) -> torch.Tensor:
    """Scale a mask down to latent cells and round it, as A1111 does.

    It is Pillow's bicubic filter, since a cell that is half masked is decided by how that rounds.

    Returns:
        bool on the CPU, `[1, 1, h, w]`.
    """
    height, width = (side // LATENT_SCALE for side in mask.shape)
    scaled = Image.fromarray(mask).resize((width, height), Image.Resampling.BICUBIC)
    return torch.tensor(is_repainted(np.asarray(scaled)))[None, None]


REDUCTIONS: Mapping[MaskReduction, Callable[[Mask], torch.Tensor]] = {
    MaskReduction.TOP_LEFT: take_top_left,
    MaskReduction.ROUNDED: scale_and_round,
}


def _copy_beside(latents: LatentDistribution, mask: torch.Tensor) -> torch.Tensor:
    """Copy a mask to where latents are: with offloading, the VAE may be in the host's memory."""
    return copy_to_device(mask, latents.mean.device)
