"""One step of a group of images: one UNet call, guidance, one scheduler step for each.

Every row of the call has its own timestep, guidance, prompt length and scheduler; only the latents'
size is shared. Knows nothing of queues, requests or HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from lpw_sdxl.conditioning import Conditioning
from lpw_sdxl.diffusion.latents import draw_noise, seeded_generator, size_embedding
from lpw_sdxl.diffusion.noise import bind_step
from lpw_sdxl.diffusion.schedulers import Scheduler
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
        step_index: steps done.
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
    ) -> None:
        self.conditioning = conditioning
        self.guidance = guidance
        self.size = size
        self.step_index = 0
        self._scheduler = scheduler
        generator = seeded_generator(seed)
        noise = draw_noise(size, generator).to(device)
        self.latents = noise * scheduler.init_noise_sigma
        self._take_step = bind_step(scheduler, generator, self.latents)
        self._time_ids = size_embedding(size).to(device)

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
    def row_lengths(self) -> list[int]:
        """Count the prompt tokens of each of this image's rows, in their order."""
        embeds = self.conditioning
        sides = [embeds.negative_prompt_embeds, embeds.prompt_embeds]
        return [len(side) for side in (sides if self.guidance.is_active else sides[1:])]

    def rows(self) -> list[Row]:
        """List this image's rows of the UNet call: negative and positive, or the positive alone."""
        latents = self._scheduler.scale_model_input(self.latents, self.timestep)
        embeds = self.conditioning
        positive = Row(
            latents,
            self.timestep,
            embeds.prompt_embeds,
            embeds.pooled_prompt_embeds,
            self._time_ids,
        )
        if not self.guidance.is_active:
            return [positive]
        negative = Row(
            latents,
            self.timestep,
            embeds.negative_prompt_embeds,
            embeds.negative_pooled_prompt_embeds,
            self._time_ids,
        )
        return [negative, positive]

    def advance(self, predictions: torch.Tensor) -> None:
        """Take one scheduler step.

        Args:
            predictions: the UNet's output for this image's rows, `[rows, 4, h, w]`.
        """
        prediction = guide(predictions.float(), self.guidance)
        self.latents = self._take_step(prediction, self.timestep, self.latents)
        self.step_index += 1


@dataclass(frozen=True)
class Row:
    """One row of a UNet call."""

    latents: torch.Tensor  # [1, 4, h, w]
    timestep: torch.Tensor  # scalar, CPU
    prompt_embeds: torch.Tensor  # [tokens, 2048]
    pooled: torch.Tensor  # [1280]
    time_ids: torch.Tensor  # [6]


@torch.inference_mode()
def predict(
    unet: Any, group: Sequence[Denoising], calls: Sequence[Sequence[int]]
) -> list[torch.Tensor]:
    """Run the UNet for one step of a group of images of one size; changes nothing.

    Args:
        unet: the network.
        group: the images.
        calls: the rows of each UNet call, as indexes into all rows of the group, which follow one
            another as the images do; each row is in one call.

    Returns:
        for each image the prediction of its rows, `[1 or 2, 4, h, w]`, in the UNet's dtype.
    """
    rows_of = [denoising.rows() for denoising in group]
    rows = [row for rows in rows_of for row in rows]
    predictions: dict[int, torch.Tensor] = {}
    for call in calls:
        arguments = unet_input([rows[index] for index in call], unet.device, unet.dtype)
        output = unet(**arguments, return_dict=False)[0]
        predictions.update(zip(call, output.split(1), strict=True))
    together = torch.cat([predictions[index] for index in range(len(rows))])
    return list(together.split([len(rows) for rows in rows_of]))


def unet_input(rows: Sequence[Row], device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Stack rows into the arguments of one UNet call.

    Prompts of different lengths are padded to the longest and the padding is masked out of the
    cross-attention, which keeps each row what it is alone. Where all lengths agree there is no
    mask, because a mask switches off the fast attention kernels of a GPU.
    """
    lengths = [row.prompt_embeds.shape[0] for row in rows]
    longest = max(lengths)
    arguments: dict[str, Any] = {
        "sample": torch.cat([row.latents for row in rows]).to(dtype),
        "timestep": torch.stack([row.timestep.float() for row in rows]).to(device),
        "encoder_hidden_states": torch.stack(
            [
                F.pad(row.prompt_embeds, (0, 0, 0, longest - row.prompt_embeds.shape[0]))
                for row in rows
            ]
        ),
        "added_cond_kwargs": {
            "text_embeds": torch.stack([row.pooled for row in rows]),
            "time_ids": torch.stack([row.time_ids for row in rows]).to(dtype),
        },
    }
    if min(lengths) < longest:
        positions = torch.arange(longest)
        mask = positions[None, :] < torch.tensor(lengths)[:, None]  # [rows, tokens]
        arguments["encoder_attention_mask"] = mask.to(device)
    return arguments


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
