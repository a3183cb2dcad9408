"""The stock pipeline behind BentoML's adaptive batching, with care.

BentoML hands over whatever waits as one list, one list at a time. A call of the pipeline shares
size, steps, guidance and scheduler; so the list is grouped by these, and each group is one call
with a prompt and a seed for each image. One image's error stays in its group. Images leave as
base64, for a list of PIL images can't cross HTTP, and are encoded here, off the event loop.
"""

from __future__ import annotations

import base64
import io
import logging
import os
from collections import defaultdict
from typing import NamedTuple

import bentoml
from PIL.Image import Image
from pydantic import BaseModel
from stock import choose_scheduler, generator, load_pipeline

logger = logging.getLogger(__name__)

MAX_LIST = int(os.environ.get("BASELINE_LIST", "16"))
MAX_CALL = 8  # images: 16 UNet rows with guidance, as many as LPW-SDXL takes by default


class Shared(NamedTuple):
    """The parameters that the images of one pipeline call share."""

    width: int
    height: int
    num_inference_steps: int
    guidance_scale: float
    scheduler: str


class Item(BaseModel):
    """One image to make."""

    prompt: str
    negative_prompt: str = ""
    num_inference_steps: int = 30
    guidance_scale: float = 5.0
    width: int = 1024
    height: int = 1024
    seed: int = 0
    scheduler: str = "Euler"

    @property
    def shared(self) -> Shared:
        """Return the parameters that it must share with the others of its call."""
        return Shared(**{name: getattr(self, name) for name in Shared._fields})


@bentoml.service(workers=1, traffic={"timeout": 900})
class BatchableService:
    """A service that makes a list of images, those that can share a call together."""

    def __init__(self) -> None:
        self.pipeline = load_pipeline()

    # BentoML drops requests whose predicted wait nears max_latency_ms: far above the measured ones.
    @bentoml.api(batchable=True, max_batch_size=MAX_LIST, max_latency_ms=900_000)
    def txt2img(self, requests: list[Item]) -> list[dict[str, str]]:
        """Make a list of images; the answers are in its order."""
        groups: defaultdict[Shared, list[int]] = defaultdict(list)
        for index, item in enumerate(requests):
            groups[item.shared].append(index)
        answers: dict[int, dict[str, str]] = {}
        for shared, members in groups.items():
            for first in range(0, len(members), MAX_CALL):
                indices = members[first : first + MAX_CALL]
                made = self._make(shared, [requests[index] for index in indices])
                answers.update(zip(indices, made, strict=True))
        return [answers[index] for index in range(len(requests))]

    def _make(self, shared: Shared, items: list[Item]) -> list[dict[str, str]]:
        settings = shared._asdict()
        try:
            choose_scheduler(self.pipeline, settings.pop("scheduler"))
            images = self.pipeline(
                prompt=[item.prompt for item in items],
                negative_prompt=[item.negative_prompt for item in items],
                generator=[generator(item.seed) for item in items],
                **settings,
            ).images
            return [{"image": _encode(image)} for image in images]
        except Exception as error:
            logger.exception("a call of %d images failed", len(items))
            return [{"error": type(error).__name__} for _ in items]


def _encode(image: Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
