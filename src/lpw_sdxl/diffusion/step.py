"""One image's steps: its rows of each UNet call, guidance, its scheduler's step.

Every row of a call has its own timestep, guidance, prompt length and scheduler; only the latents'
size is shared. It knows nothing of queues, requests or HTTP.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from lpw_sdxl.conditioning.assembly import Conditioning
from lpw_sdxl.diffusion.latents import draw_noise, seeded_generator, size_embedding
from lpw_sdxl.diffusion.noise import bind_step, copy_to_device
from lpw_sdxl.diffusion.schedulers import Scheduler, begin_at
from lpw_sdxl.diffusion.start import Entry, NoiseStart, Start
from lpw_sdxl.lora.sets import NO_LORAS, LoraSet
from lpw_sdxl.schema import ImageSize


@dataclass(frozen=True)
class Guidance:
    """The extent to which predictions are moved from the negative prompt towards the prompt.

    Attributes:
        scale: classifier-free guidance (arXiv 2207.12598); 1 or less needs no negative row.
        rescale: share of the standard deviation to restore, 0 to 1 (arXiv 2305.08891, 3.4).
    """

    scale: float
    rescale: float = 0.0

    @property
    def is_active(self) -> bool:
        """Return whether the negative prompt is needed at all."""
        return self.scale > 1.0


class Denoising:
    """The denoising of one image, from its start to its final latents.

    Args:
        conditioning: the encoded prompts.
        guidance: by the negative prompt.
        scheduler: made for this image.
        size: pixels.
        seed: of all that is random.
        device: where it runs.
        loras: of the UNet.
        start: what is denoised.
        unet_calls: the number of the scheduler's timesteps that are left; None for all.

    Attributes:
        latents: float32 on the device, `[1, 4, height/8, width/8]`.
        denoised: the scheduler's estimate of the final latents where it gives one, else the
            latents; of the same shape.
        unet_calls_done: so far; some schedulers make nearly two calls a step.
    """

    def __init__(
        self,
        *,
        conditioning: Conditioning,
        guidance: Guidance,
        scheduler: Scheduler,
        size: ImageSize,
        seed: int,
        device: torch.device,
        loras: LoraSet = NO_LORAS,
        start: Start = NoiseStart(),  # noqa: B008 - frozen
        unet_calls: int | None = None,
    ) -> None:
        self.guidance = guidance
        self.size = size
        self.unet_calls_done = 0
        self._scheduler = scheduler
        timesteps = len(scheduler.timesteps)
        self._skipped = 0 if unet_calls is None else timesteps - unet_calls
        begin_at(scheduler, self._skipped)
        generator = seeded_generator(seed)
        beginning = start.begin(
            Entry(scheduler, self._skipped),
            lambda: copy_to_device(draw_noise(size, generator), device),
        )
        self._kept, self._shown = beginning.kept, beginning.shown
        self.latents = beginning.latents
        self.denoised = self.latents
        self._take_step = bind_step(scheduler, generator, self.latents)
        self._time_ids = copy_to_device(size_embedding(size), device)
        negative = PromptSide(
            conditioning.negative_prompt_embeds, conditioning.negative_pooled_prompt_embeds, loras
        )
        positive = PromptSide(conditioning.prompt_embeds, conditioning.pooled_prompt_embeds, loras)
        self._sides = [negative, positive] if guidance.is_active else [positive]

    @property
    def unet_calls(self) -> int:
        """Count this image's UNet calls in all, those done included."""
        return len(self._scheduler.timesteps) - self._skipped

    @property
    def is_done(self) -> bool:
        """Return whether no UNet call is left."""
        return self.unet_calls_done >= self.unet_calls

    @property
    def timestep(self) -> torch.Tensor:
        """Return the timestep of the next UNet call, a scalar on the CPU."""
        return self._scheduler.timesteps[self._skipped + self.unet_calls_done]

    @property
    def row_count(self) -> int:
        """Count this image's rows of a UNet call."""
        return len(self._sides)

    def rows(self) -> list[UnetRow]:
        """Build this image's rows of the next UNet call: negative and positive, or positive."""
        latents = self._scheduler.scale_model_input(self.latents, self.timestep)
        if self._shown is not None:
            latents = torch.cat([latents, self._shown], dim=1)
        return [UnetRow(latents, self.timestep, side, self._time_ids) for side in self._sides]

    def advance(self, predictions: torch.Tensor) -> None:
        """Take the scheduler's step that follows a UNet call.

        Args:
            predictions: the UNet's output for this image's rows, `[rows, 4, h, w]`.
        """
        prediction = guide(predictions.float(), self.guidance)
        stepped = self._take_step(prediction, self.timestep, self.latents)
        self.unet_calls_done += 1
        if self._kept is not None:
            upcoming = None if self.is_done else self.timestep
            stepped = self._kept.put_back(stepped, self._scheduler, upcoming)
        self.latents, self.denoised = stepped


@dataclass(frozen=True)
class UnetRow:
    """One row of a UNet call: one image's line, with its prompt or its negative prompt."""

    latents: torch.Tensor  # [1, 4, h, w], or [1, 9, h, w] with what an inpainting UNet sees
    timestep: torch.Tensor  # scalar, CPU
    prompt: PromptSide
    time_ids: torch.Tensor  # [6]


class PromptSide:
    """A job's prompt or negative prompt, as an argument of the UNet.

    Attributes:
        embeds: `[tokens, 2048]`.
        pooled: `[1280]`.
        loras: of the UNet for this row.
    """

    def __init__(
        self, embeds: torch.Tensor, pooled: torch.Tensor, loras: LoraSet = NO_LORAS
    ) -> None:
        self.embeds = embeds
        self.pooled = pooled
        self.loras = loras
        self._projected: torch.Tensor | None = None

    @property
    def tokens(self) -> int:
        """Count the prompt's tokens, padding included."""
        return len(self.embeds)

    @property
    def is_projected(self) -> bool:
        """Return whether `project_once` was called."""
        return self._projected is not None

    def project_once(self, project: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """Return the embeds' projection, `[tokens, width]`; `project` is called once at most."""
        if self._projected is None:
            self._projected = project(self.embeds)
        return self._projected


def guide(predictions: torch.Tensor, guidance: Guidance) -> torch.Tensor:
    """Combine an image's rows into one prediction.

    Args:
        predictions: `[2, 4, h, w]` (negative, positive), or `[1, 4, h, w]` without guidance.
        guidance: its scale, and its rescale (arXiv 2305.08891, equations 14 to 16).

    Returns:
        `[1, 4, h, w]`.
    """
    if not guidance.is_active:
        return predictions
    negative, positive = predictions[0:1], predictions[1:2]
    guided = negative + guidance.scale * (positive - negative)
    if guidance.rescale > 0:
        over_image = tuple(range(1, guided.ndim))
        positive_deviation = positive.std(dim=over_image, keepdim=True)
        rescaled = guided * (positive_deviation / guided.std(dim=over_image, keepdim=True))
        guided = guidance.rescale * rescaled + (1 - guidance.rescale) * guided
    return guided
