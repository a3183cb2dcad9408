"""Pictures by Diffusers' own pipelines for pictures and masks, to compare ours with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    TCDScheduler,
)
from PIL import Image

from lpw_sdxl.conditioning.assembly import Conditioning
from lpw_sdxl.diffusion.latents import seeded_generator
from lpw_sdxl.scheduler_table import SchedulerName
from stock_schedulers import stock_scheduler
from tests.forge.scenes import Pixels


class StockPainter:
    """Diffusers' pipelines with one model's parts.

    Args:
        parts: of the model, by the names of the pipelines' arguments; its scheduler is not used.
        config: of the model's scheduler.
    """

    def __init__(self, parts: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        self._parts = parts
        self._config = config

    @classmethod
    def load(cls, directory: Path) -> StockPainter:
        """Load a model directory as Diffusers does."""
        stock = StableDiffusionXLInpaintPipeline.from_pretrained(directory, local_files_only=True)
        return cls(stock.components, stock.scheduler.config)

    def paint(
        self,
        pixels: Pixels,
        mask: Pixels | None,
        texts: Mapping[str, Any],
        scheduler: SchedulerName,
        strength: float,
        *,
        steps: int,
        seed: int,
        guidance: float = 5.0,
    ) -> Pixels:
        """Paint from a picture, or over the masked part of it.

        Args:
            pixels: of the picture, `[h, w, 3]`.
            mask: `[h, w]`, or None for the pipeline that has no mask.
            texts: prompts or their embeddings, by the names of the pipelines' arguments.
            scheduler: by our name.
            strength: 0 to 1.
            steps: of which the strength takes a share.
            seed: of all that is random.
            guidance: the scale.
        """
        theirs = stock_scheduler(scheduler, self._config, seed)
        parts = {**self._parts, "scheduler": theirs}
        arguments: dict[str, Any] = {"image": Image.fromarray(pixels)}
        if mask is None:
            pipeline = StableDiffusionXLImg2ImgPipeline(**parts)
        else:
            pipeline = StableDiffusionXLInpaintPipeline(**parts)
            height, width = mask.shape
            arguments |= {"mask_image": Image.fromarray(mask), "height": height, "width": width}
        pipeline.set_progress_bar_config(disable=True)
        image = pipeline(
            **texts,
            **arguments,
            strength=strength,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=seeded_generator(seed),
            # The pipeline turns off whatever noise `eta` scales; the TCD scheduler's own is 0.3.
            eta=0.3 if isinstance(theirs, TCDScheduler) else 0.0,
            output_type="np",
        ).images[0]
        return (image * 255).round().astype(np.uint8)


def name_embeddings(conditioning: Conditioning) -> dict[str, torch.Tensor]:
    """Name encoded prompts as the pipelines' arguments are named."""
    return {
        "prompt_embeds": conditioning.prompt_embeds[None],
        "negative_prompt_embeds": conditioning.negative_prompt_embeds[None],
        "pooled_prompt_embeds": conditioning.pooled_prompt_embeds[None],
        "negative_pooled_prompt_embeds": conditioning.negative_pooled_prompt_embeds[None],
    }
