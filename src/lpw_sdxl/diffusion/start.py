"""What a job denoises: noise, a noised picture, or a picture of which a part is repainted.

Everything random comes from the job's own noise. It is drawn in the order in which Diffusers'
pipelines draw it, so that with Diffusers' schedulers a seed gives the pictures that it gives there.
Encoding pictures is not done here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple, Protocol

import torch

from lpw_sdxl.diffusion.encoder import LatentDistribution
from lpw_sdxl.schema import MaskedContent

DrawNoise = Callable[[], torch.Tensor]
"""Draws a job's next noise: float32 on the device, `[1, 4, h, w]`, of unit variance."""


class Draws(NamedTuple):
    """The two kinds of noise that a start needs.

    Diffusers' pipelines take both from one generator, each the next draw. In k-diffusion's family
    a picture's latents have a generator of their own, and the start is the job's first draw.

    Attributes:
        sample: of a picture's latents.
        start: of what is denoised.
    """

    sample: DrawNoise
    start: DrawNoise


class Entry(Protocol):
    """The place at which a job enters its sampler's way."""

    @property
    def is_first(self) -> bool:
        """Return whether all of the way is ahead, so that a picture is not seen."""

    def scale(self, noise: torch.Tensor) -> torch.Tensor:
        """Make the first latents of noise alone."""

    def add(self, latents: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Add as much noise to a picture's latents as this place has."""


class MaskReduction(Enum):
    """The way of a mask's pixels to latent cells."""

    TOP_LEFT = auto()  # a cell's top left pixel decides, as in Diffusers
    ROUNDED = auto()  # the mask is scaled down and rounded, as in A1111


@dataclass(frozen=True)
class KeptPicture:
    """The part of a picture that is put back after each step, for a UNet that knows no masks.

    Attributes:
        latents: of the picture, without noise, `[1, 4, h, w]`.
        noise: of the job's start, like it.
        mask: true where the picture is repainted, bool, `[1, 1, h, w]`.
    """

    latents: torch.Tensor
    noise: torch.Tensor
    mask: torch.Tensor

    def put_back(self, painted: torch.Tensor, kept: torch.Tensor | None = None) -> torch.Tensor:
        """Replace latents where the picture is kept.

        Args:
            painted: that are kept where the mask is true.
            kept: what is put there; None for the picture's own latents.
        """
        return torch.where(self.mask, painted, self.latents if kept is None else kept)


@dataclass(frozen=True)
class Beginning:
    """A job's state before its first UNet call.

    Attributes:
        latents: `[1, 4, h, w]`.
        kept: what is put back after each step; None where nothing is.
        shown: what the UNet sees beside the latents: the mask and the latents of what is kept,
            `[1, 5, h, w]`; None for a UNet of 4 channels.
    """

    latents: torch.Tensor
    kept: KeptPicture | None = None
    shown: torch.Tensor | None = None


class Start(Protocol):
    """A start of a job."""

    def begin(self, entry: Entry, draws: Draws) -> Beginning:
        """Draw a job's noise, and make its first latents."""


@dataclass(frozen=True)
class NoiseStart:
    """Noise alone, from which a text draws all of a picture."""

    def begin(self, entry: Entry, draws: Draws) -> Beginning:
        """Draw the noise."""
        return Beginning(entry.scale(draws.start()))


@dataclass(frozen=True)
class PictureStart:
    """A picture that is noised and denoised again, as by StableDiffusionXLImg2ImgPipeline."""

    picture: LatentDistribution

    def begin(self, entry: Entry, draws: Draws) -> Beginning:
        """Draw the picture's latents, then its noise.

        The picture shines through even where a job enters at the first timestep.
        """
        latents = self.picture.sample(draws.sample())
        return Beginning(entry.add(latents, draws.start()))


@dataclass(frozen=True)
class LatentStart:
    """Latents that are noised and denoised again, as of a first pass: `[1, 4, h, w]`."""

    latents: torch.Tensor

    def begin(self, entry: Entry, draws: Draws) -> Beginning:
        """Draw the noise."""
        return Beginning(entry.add(self.latents, draws.start()))


@dataclass(frozen=True)
class MaskedStart:
    """A picture of which a part is repainted, as by StableDiffusionXLInpaintPipeline.

    Attributes:
        picture: all of it.
        mask: true where it is repainted, bool on the device, `[1, 1, h, w]`.
        content: what is in that part before it is noised.
    """

    picture: LatentDistribution
    mask: torch.Tensor
    content: MaskedContent = MaskedContent.ORIGINAL

    def begin(self, entry: Entry, draws: Draws) -> Beginning:
        """Draw the picture's latents, then its noise.

        A third drawing is not used: Diffusers encodes the picture with its masked part hidden too,
        and drops the result.
        """
        latents, noise = self.picture.sample(draws.sample()), draws.start()
        draws.sample()
        kept = KeptPicture(latents, noise, self.mask)
        if entry.is_first:
            return Beginning(entry.scale(noise), kept)
        filled = fill_mask(latents, self.mask, self.content, noise)
        return Beginning(entry.add(filled, noise), kept)


@dataclass(frozen=True)
class InpaintingStart:
    """A start for an inpainting UNet of 9 channels, which sees a mask and what is not masked.

    Where no mask is given, all is masked, and what the UNet sees is grey.

    Attributes:
        hidden: the picture with its masked part hidden.
        mask: true where it is repainted, bool on the device, `[1, 1, h, w]`.
        picture: all of it; None for a job that enters at the first timestep, where it isn't seen.
        content: what is in the masked part before it is noised.
    """

    hidden: LatentDistribution
    mask: torch.Tensor
    picture: LatentDistribution | None = None
    content: MaskedContent = MaskedContent.ORIGINAL

    def begin(self, entry: Entry, draws: Draws) -> Beginning:
        """Draw the picture's latents, if it is seen, then the noise, then what is not masked."""
        if entry.is_first:
            latents = entry.scale(draws.start())
        else:
            assert self.picture is not None, "a job that enters later needs a picture"
            picture, noise = self.picture.sample(draws.sample()), draws.start()
            latents = entry.add(fill_mask(picture, self.mask, self.content, noise), noise)
        shown = torch.cat([self.mask.float(), self.hidden.sample(draws.sample())], dim=1)
        return Beginning(latents, shown=shown)


def fill_mask(
    latents: torch.Tensor, mask: torch.Tensor, content: MaskedContent, noise: torch.Tensor
) -> torch.Tensor:
    """Fill the masked part of a picture's latents with what it is to be painted from.

    Pixels that replace others (`fill`) were replaced before the picture was encoded.
    """
    match content:
        case MaskedContent.LATENT_NOISE:
            return torch.where(mask, noise, latents)
        case MaskedContent.LATENT_NOTHING:
            return latents.masked_fill(mask, 0.0)
        case _:
            return latents
