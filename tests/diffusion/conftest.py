"""The demo model's real parts, fresh for each test: tests change them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from lpw_sdxl.conditioning.assembly import Conditioning
from lpw_sdxl.conditioning.scheduled import ScheduledConditioning
from lpw_sdxl.diffusion.diffusers_solver import DiffusersPlan
from lpw_sdxl.diffusion.pipeline import Pipeline
from lpw_sdxl.diffusion.solver import SolverPlan
from lpw_sdxl.diffusion.step import Denoising, Guidance
from lpw_sdxl.scheduler_table import SchedulerName
from lpw_sdxl.schema import ImageSize
from lpw_sdxl.settings import Settings

CPU = torch.device("cpu")

MakeDenoising = Callable[..., Denoising]


@pytest.fixture
def pipeline(model_directory: Path) -> Pipeline:
    return Pipeline.load(model_directory, CPU, Settings())


@pytest.fixture
def unet(model_directory: Path) -> Any:
    model = UNet2DConditionModel.from_pretrained(model_directory / "unet", local_files_only=True)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def stock_unet(model_directory: Path) -> Any:
    """The UNet with Diffusers' own attention; no test changes it."""
    model = UNet2DConditionModel.from_pretrained(model_directory / "unet", local_files_only=True)
    return model.eval().requires_grad_(False)


@pytest.fixture
def vae(model_directory: Path) -> Any:
    model = AutoencoderKL.from_pretrained(model_directory / "vae", local_files_only=True)
    return model.eval().requires_grad_(False)


@pytest.fixture
def make_denoising(stock_unet: Any) -> MakeDenoising:
    """Builds denoisings with random prompts of given lengths."""
    features = stock_unet.config.cross_attention_dim
    config = stock_unet.config
    pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim

    def make(
        tokens: int = 77,
        negative_tokens: int = 77,
        guidance: Guidance = Guidance(5.0),  # noqa: B008 - frozen
        size: ImageSize = ImageSize(64, 64),  # noqa: B008 - frozen
        seed: int = 0,
        steps: int = 4,
        scheduler: SchedulerName = SchedulerName.EULER,
        strength: float | None = None,
        plan: SolverPlan | None = None,
        **options: Any,
    ) -> Denoising:
        drawn = torch.Generator().manual_seed(seed)
        conditioning = Conditioning(
            torch.randn(tokens, features, generator=drawn),
            torch.randn(negative_tokens, features, generator=drawn),
            torch.randn(pooled, generator=drawn),
            torch.randn(pooled, generator=drawn),
        )
        betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
        return Denoising(
            conditioning=ScheduledConditioning.constant(conditioning),
            guidance=guidance,
            plan=plan or DiffusersPlan(scheduler, betas, steps, size, seed, strength=strength),
            **{"device": CPU, **options},
        )

    return make
