"""A plain service around the stock pipeline, as BentoML's examples write it: one image at a time.

Loaded once, a synchronous endpoint, a PIL image back. BentoML lets one synchronous call run at a
time; the others wait in its queue.
"""

from __future__ import annotations

import bentoml
from PIL.Image import Image
from stock import choose_scheduler, generator, load_pipeline


@bentoml.service(workers=1, traffic={"timeout": 900})
class PlainService:
    """A service that makes one image after the other."""

    def __init__(self) -> None:
        self.pipeline = load_pipeline()

    @bentoml.api
    def txt2img(  # noqa: PLR0917 - the fields of its JSON
        self,
        prompt: str,
        negative_prompt: str = "",
        num_inference_steps: int = 30,
        guidance_scale: float = 5.0,
        width: int = 1024,
        height: int = 1024,
        seed: int = 0,
        scheduler: str = "Euler",
    ) -> Image:
        """Make one image."""
        choose_scheduler(self.pipeline, scheduler)
        return self.pipeline(
            prompt=prompt,
            negative_prompt=negative_prompt,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            width=width,
            height=height,
            generator=generator(seed),
        ).images[0]
