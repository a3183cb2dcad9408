"""Parts of both baselines: Diffusers' own pipeline, loaded once, and its schedulers by name."""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    SchedulerMixin,
    StableDiffusionXLPipeline,
)

SCHEDULERS: Mapping[str, tuple[type[SchedulerMixin], Mapping[str, object]]] = {
    "Euler": (EulerDiscreteScheduler, {}),
    "Euler a": (EulerAncestralDiscreteScheduler, {}),
    "DPM++ 2M Karras": (DPMSolverMultistepScheduler, {"use_karras_sigmas": True}),
    "DDIM": (DDIMScheduler, {}),
}


def load_pipeline() -> StableDiffusionXLPipeline:
    """Load the model directory that BASELINE_MODEL names, onto a GPU if there is one."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pipeline = StableDiffusionXLPipeline.from_pretrained(
        os.environ["BASELINE_MODEL"],
        torch_dtype=torch.float16 if device == "cuda" else torch.float32,
        use_safetensors=True,
        local_files_only=True,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def choose_scheduler(pipeline: StableDiffusionXLPipeline, name: str) -> None:
    """Set a new scheduler in the pipeline, built from the model's configuration."""
    scheduler_class, overrides = SCHEDULERS[name]
    pipeline.scheduler = scheduler_class.from_config(pipeline.scheduler.config, **overrides)


def generator(seed: int) -> torch.Generator:
    """Create the generator of an image's noise."""
    return torch.Generator("cpu").manual_seed(seed)
