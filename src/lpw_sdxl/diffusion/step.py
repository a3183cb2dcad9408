"""One image's steps: the rows that it brings to a UNet call, guidance, its scheduler's step.

Every row of a call has its own timestep, guidance, prompt length and scheduler; only the latents'
size is shared. Knows nothing of queues, requests or HTTP.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from lpw_sdxl.conditioning.assembly import Conditioning
from lpw_sdxl.diffusion.latents import draw_noise, seeded_generator, size_embedding
from lpw_sdxl.diffusion.noise import bind_step, send
from lpw_sdxl.diffusion.schedulers import Scheduler
from lpw_sdxl.lora.sets import NO_LORAS, LoraSet
from lpw_sdxl.schema import ImageSize


@dataclass(frozen=True)
class Guidance:
    """How hard a prediction is pushed from the negative prompt towards the prompt.

    Attributes:
        scale: classifier-free guidance (arXiv 2207.12598); 1 or less needs no negative row.
        rescale: share of the standard deviation to restore, 0 to 1 (arXiv 2305.08891, 3.4).
    """

    scale: float
    rescale: float = 0.0

    @property
    def is_active(self) -> bool:
        """Tell whether the negative prompt is needed at all."""
        return self.scale > 1.0


class Denoising:
    """One image on its way from noise to latents: the only thing here that changes.

    Attributes:
        latents: float32 on the device, `[1, 4, height/8, width/8]`.
        outlook: what they are expected to become, as far as is known; of the same shape.
        step_index: UNet calls done; some schedulers make nearly two a step.
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
    ) -> None:
        self.guidance = guidance
        self.size = size
        self.step_index = 0
        self._scheduler = scheduler
        generator = seeded_generator(seed)
        noise = send(draw_noise(size, generator), device)
        self.latents = noise * scheduler.init_noise_sigma
        self.outlook = self.latents
        self._take_step = bind_step(scheduler, generator, self.latents)
        self._time_ids = send(size_embedding(size), device)
        negative = PromptSide(
            conditioning.negative_prompt_embeds, conditioning.negative_pooled_prompt_embeds, loras
        )
        positive = PromptSide(conditioning.prompt_embeds, conditioning.pooled_prompt_embeds, loras)
        self._sides = [negative, positive] if guidance.is_active else [positive]

    @property
    def steps(self) -> int:
        """Count this image's UNet calls in all: some schedulers make two a step."""
        return len(self._scheduler.timesteps)

    @property
    def is_done(self) -> bool:
        """Tell whether no step is left."""
        return self.step_index >= self.steps

    @property
    def timestep(self) -> torch.Tensor:
        """Give the current timestep, a scalar on the CPU."""
        return self._scheduler.timesteps[self.step_index]

    @property
    def row_count(self) -> int:
        """Count this image's rows of the UNet call."""
        return len(self._sides)

    def rows(self) -> list[Row]:
        """List this image's rows of the UNet call: negative and positive, or the positive alone."""
        latents = self._scheduler.scale_model_input(self.latents, self.timestep)
        return [Row(latents, self.timestep, side, self._time_ids) for side in self._sides]

    def advance(self, predictions: torch.Tensor) -> None:
        """Take one scheduler step.

        Args:
            predictions: the UNet's output for this image's rows, `[rows, 4, h, w]`.
        """
        prediction = guide(predictions.float(), self.guidance)
        self.latents, self.outlook = self._take_step(prediction, self.timestep, self.latents)
        self.step_index += 1


@dataclass(frozen=True)
class Row:
    """One row of a UNet call."""

    latents: torch.Tensor  # [1, 4, h, w]
    timestep: torch.Tensor  # scalar, CPU
    prompt: PromptSide
    time_ids: torch.Tensor  # [6]


class PromptSide:
    """A job's prompt or negative prompt, as the UNet takes it.

    Attributes:
        embeds: `[tokens, 2048]`.
        pooled: `[1280]`.
        loras: that the UNet has when it takes it.
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
        """Count its tokens."""
        return len(self.embeds)

    @property
    def is_projected(self) -> bool:
        """Tell whether `projected` has been asked for."""
        return self._projected is not None

    def projected(self, project: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """Give what `project` makes of the embeds, `[tokens, width]`; it is asked once."""
        if self._projected is None:
            self._projected = project(self.embeds)
        return self._projected


def guide(predictions: torch.Tensor, guidance: Guidance) -> torch.Tensor:
    """Combine an image's rows into one prediction.

    Args:
        predictions: `[2, 4, h, w]` (negative, positive), or `[1, 4, h, w]` without guidance.
        guidance: scale, and the rescale of arXiv 2305.08891, equations 14 to 16.

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
