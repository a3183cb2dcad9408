"""Jobs as the engine's border makes them, for tests that have no engine."""

from __future__ import annotations

import math
import time
from typing import Any

from lpw_sdxl.engine.job import Job, JobSpec, Listener, PromptTexts, TextCount, TextCounts
from lpw_sdxl.imaging import ImageRecord
from lpw_sdxl.prompt import parse
from lpw_sdxl.scheduler_table import SchedulerName
from lpw_sdxl.schema import GenerationRequest, ImageSize

MEGAPIXEL = ImageSize(1000, 1000)
ONE_CHUNK = TextCounts(TextCount(1, 1), TextCount(0, 1))


def make_job(
    size: ImageSize = MEGAPIXEL,
    steps: int = 10,
    time_limit_s: float = math.inf,
    listener: Listener | None = None,
    **fields: Any,
) -> Job:
    """A job that came just now; by default one megapixel and, with guidance, two rows."""
    request = GenerationRequest.model_validate(
        {"prompt": "a", "num_inference_steps": steps, "seed": 1} | fields
    )
    record = ImageRecord(request, 1, size, request.scheduler or SchedulerName.EULER, "demo", "0")
    prompts = PromptTexts(parse(request.prompt), parse(request.negative_prompt))
    spec = JobSpec(record, prompts, ONE_CHUNK, steps)
    return Job(spec, time.monotonic(), time_limit_s, listener)
