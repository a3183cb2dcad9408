"""Jobs as the engine's border makes them, for tests that have no engine."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any

from lpw_sdxl.conditioning.chunking import TokenChunks
from lpw_sdxl.conditioning.read_prompts import ReadPrompts, ReadText
from lpw_sdxl.conditioning.read_schedule import ReadSchedule
from lpw_sdxl.conditioning.windows import Window
from lpw_sdxl.diffusion.diffusers_solver import DiffusersPlan
from lpw_sdxl.diffusion.step import Guidance
from lpw_sdxl.engine.job import Job, Listener
from lpw_sdxl.engine.job_spec import JobSpec, PassSpec
from lpw_sdxl.imaging import ImageRecord, PictureUse
from lpw_sdxl.prompt import PromptStyle
from lpw_sdxl.scheduler_table import SchedulerName
from lpw_sdxl.schema import GenerationRequest, ImageSize

MEGAPIXEL = ImageSize(1000, 1000)
_BOS, _EOS, _WORD = 49406, 49407, 320


def read_text(tokens: int) -> ReadText:
    """A text of up to 75 equal tokens, read for one encoder."""
    ids = [_BOS, *[_WORD] * tokens, _EOS]
    window = Window.pack(ids, [1.0] * len(ids), tokens)
    return ReadText((TokenChunks((window,), 0, 1),), is_empty=not tokens)


ONE_TOKEN = ReadPrompts(read_text(1), read_text(0), PromptStyle.LPW, 0)


def make_job(
    size: ImageSize = MEGAPIXEL,
    steps: int = 10,
    time_limit_s: float = math.inf,
    listener: Listener | None = None,
    picture: PictureUse | None = None,
    **fields: Any,
) -> Job:
    """A job that came just now; by default one megapixel and, with guidance, two rows.

    Of a picture, so many calls are made as the strength takes of the steps.
    """
    request = GenerationRequest.model_validate(
        {"prompt": "a", "num_inference_steps": steps, "seed": 1} | fields
    )
    record = ImageRecord(request, 1, size, request.scheduler or SchedulerName.EULER, "demo", "0")
    record = replace(record, picture=picture)
    strength = None if picture is None else request.strength
    scheduler = SchedulerName(record.scheduler)
    plan = DiffusersPlan(scheduler, {}, steps, size, 1, strength=strength)
    guidance = Guidance(request.guidance_scale)
    prompts = ReadSchedule.constant(ONE_TOKEN, plan.calls)
    spec = JobSpec(record, (PassSpec(prompts, plan, guidance),))
    return Job(spec, time.monotonic(), time_limit_s, listener)
