"""A plain service around Diffusers' text-to-image and image-to-image pipelines, one at a time.

Like `plain_service.py`; both pipelines share one model, and a picture comes as base64. A second
pass is a call of each pipeline.
"""

from __future__ import annotations

import base64
import io
from typing import Any

import bentoml
from diffusers import StableDiffusionXLImg2ImgPipeline
from PIL import Image as Pillow
from PIL.Image import Image
from stock import choose_scheduler, generator, load_pipeline


@bentoml.service(workers=1, traffic={"timeout": 900})
class PictureService:
    """A service that makes one image after the other, from noise or from a picture."""

    def __init__(self) -> None:
        self.from_noise = load_pipeline()
        self.from_picture = StableDiffusionXLImg2ImgPipeline(**self.from_noise.components)
        self.from_picture.set_progress_bar_config(disable=True)

    @bentoml.api
    def make(  # noqa: PLR0917 - the fields of its JSON
        self,
        prompt: str,
        negative_prompt: str = "",
        num_inference_steps: int = 30,
        guidance_scale: float = 5.0,
        width: int = 1024,
        height: int = 1024,
        seed: int = 0,
        scheduler: str = "Euler",
        image: str = "",
        strength: float = 0.75,
        hires: dict[str, Any] | None = None,
    ) -> Image:
        """Make one image."""
        common = {
            "prompt": prompt,
            "negative_prompt": negative_prompt,
            "num_inference_steps": num_inference_steps,
            "guidance_scale": guidance_scale,
            "generator": generator(seed),
        }
        if not image:
            choose_scheduler(self.from_noise, scheduler)
            drawn = self.from_noise(**common, width=width, height=height).images[0]
            if hires is None:
                return drawn
            width, height = (int(side * hires["scale"]) // 8 * 8 for side in drawn.size)
            choose_scheduler(self.from_picture, scheduler)
            larger = drawn.resize((width, height), Pillow.Resampling.LANCZOS)
            return self.from_picture(
                **common | {"generator": generator(seed)},
                image=larger,
                strength=hires["strength"],
            ).images[0]
        picture = Pillow.open(io.BytesIO(base64.b64decode(image))).convert("RGB")
        choose_scheduler(self.from_picture, scheduler)
        return self.from_picture(
            **common, image=picture.resize((width, height)), strength=strength
        ).images[0]
