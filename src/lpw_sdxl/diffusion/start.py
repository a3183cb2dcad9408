"""What a job denoises: noise, a noised picture, or a picture of which a part is repainted.

Everything random comes from the job's own noise, drawn in the order in which Diffusers' pipelines
draw it, so that a seed gives the pictures that it gives there. Encoding pictures is not done here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

from lpw_sdxl.diffusion.encoder import LatentDistribution
from lpw_sdxl.diffusion.noise import StepResult, add_noise
from lpw_sdxl.diffusion.schedulers import Scheduler
from lpw_sdxl.schema import MaskedContent

DrawNoise = Callable[[], torch.Tensor]
"""Draws a job's next noise: float32 on the device, `[1, 4, h, w]`, of unit variance."""


@dataclass(frozen=True)
class Entry:
    """The timestep at which a job enters its scheduler.

    Attributes:
        scheduler: of the job; it begins at this timestep.
        index: of the timestep; 0 is that of noise alone.
    """

    scheduler: Scheduler
    index: int

    @property
    def is_first(self) -> bool:
        """Return whether all timesteps are ahead."""
        return self.index == 0

    def scale(self, noise: torch.Tensor) -> torch.Tensor:
        """Make the first latents of noise alone."""
        return noise * self.scheduler.init_noise_sigma

    def add(self, latents: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Add as much noise to a picture's latents as this timestep has."""
        return add_noise(self.scheduler, latents, noise, self.scheduler.timesteps[self.index])


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

    def put_back(
        self, stepped: StepResult, scheduler: Scheduler, timestep: torch.Tensor | None
    ) -> StepResult:
        """Replace what was denoised where the picture is kept.

        Args:
            stepped: result of the step.
            scheduler: that took it.
            timestep: the next one, for which the picture is noised; None after the last step.
        """
        kept = self.latents
        if timestep is not None:
            kept = add_noise(scheduler, kept, self.noise, timestep)
        return StepResult(
            torch.where(self.mask, stepped.latents, kept),
            torch.where(self.mask, stepped.denoised, self.latents),
        )


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

    def begin(self, entry: Entry, draw: DrawNoise) -> Beginning:
        """Draw a job's noise, and make its first latents."""


@dataclass(frozen=True)
class NoiseStart:
    """Noise alone, from which a text draws all of a picture."""

    def begin(self, entry: Entry, draw: DrawNoise) -> Beginning:
        """Draw the noise."""
        return Beginning(entry.scale(draw()))


@dataclass(frozen=True)
class PictureStart:
    """A picture that is noised and denoised again, as by StableDiffusionXLImg2ImgPipeline."""

    picture: LatentDistribution

    def begin(self, entry: Entry, draw: DrawNoise) -> Beginning:
        """Draw the picture's latents, then its noise.

        The picture shines through even where a job enters at the first timestep.
        """
        latents = self.picture.sample(draw())
        return Beginning(entry.add(latents, draw()))


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

    def begin(self, entry: Entry, draw: DrawNoise) -> Beginning:
        """Draw the picture's latents, then its noise.

        A third drawing is not used: Diffusers encodes the picture with its masked part hidden too,
        and drops the result.
        """
        latents, noise = self.picture.sample(draw()), draw()
        draw()
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

    def begin(self, entry: Entry, draw: DrawNoise) -> Beginning:
        """Draw the picture's latents, if it is seen, then the noise, then what is not masked."""
        if entry.is_first:
            latents = entry.scale(draw())
        else:
            assert self.picture is not None, "a job that enters later needs a picture"
            picture, noise = self.picture.sample(draw()), draw()
            latents = entry.add(fill_mask(picture, self.mask, self.content, noise), noise)
        shown = torch.cat([self.mask.float(), self.hidden.sample(draw())], dim=1)
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
