"""Kernels and fp8 as settings: what a CPU does with them, and what the plan makes of them."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lpw_sdxl.diffusion import acceleration
from lpw_sdxl.diffusion.acceleration import Acceleration
from lpw_sdxl.diffusion.float8 import count_quantised_bytes
from lpw_sdxl.diffusion.kernels.choice import KernelChoice
from lpw_sdxl.diffusion.kernels.plain import PlainOperations
from lpw_sdxl.diffusion.pipeline import Pipeline
from lpw_sdxl.engine import Engine
from lpw_sdxl.engine.calibration import calibrate
from lpw_sdxl.engine.job import GeneratedImage
from lpw_sdxl.errors import SettingsError
from lpw_sdxl.imaging.record import parameters_text
from lpw_sdxl.schema import GenerationRequest
from lpw_sdxl.settings import Settings

CPU = torch.device("cpu")
REQUEST = GenerationRequest(
    prompt="a red circle", negative_prompt="blue", num_inference_steps=4, seed=3
)


async def draw(model_directory: Path, **settings: Any) -> tuple[Engine, GeneratedImage]:
    engine = Engine.load(model_directory, Settings(device="cpu", **settings))
    try:
        return engine, await engine.generate(REQUEST)
    finally:
        engine.close()


@pytest.fixture
def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Make the plain operations pass for kernels that this device can run."""
    choice = KernelChoice(PlainOperations())
    return lambda: monkeypatch.setattr(acceleration, "choose_operations", lambda *_, **__: choice)


@pytest.mark.thorough
async def test_on_a_cpu_the_kernels_change_no_bit_and_the_log_says_why_once(
    model_directory: Path, caplog: pytest.LogCaptureFixture, on_a_gpu: Callable[[], None]
) -> None:
    with caplog.at_level(logging.WARNING):
        _, plain = await draw(model_directory)
        assert "KERNELS" not in caplog.text
        engine, wanted = await draw(model_directory, fused_kernels=True)
    assert np.array_equal(plain.pixels, wanted.pixels)
    assert engine.plan.kernels == "plain"
    assert caplog.text.count("LPW_SDXL_FUSED_KERNELS") == 1
    assert "has no effect because the device is cpu" in caplog.text

    on_a_gpu()
    engine, fused = await draw(model_directory, fused_kernels=True)
    assert engine.plan.kernels == "fused"
    assert "with fused kernels" in str(engine.plan)
    assert engine.describe().memory.precision == "model"
    assert abs(fused.pixels.astype(int) - plain.pixels.astype(int)).max() <= 1


def test_fp8_is_refused_where_it_can_not_be_had(model_directory: Path) -> None:
    with pytest.raises(SettingsError, match=r"LPW_SDXL_PRECISION is fp8.*the device is cpu"):
        Engine.load(model_directory, Settings(device="cpu", precision="fp8"))


def test_fp8_is_refused_where_torch_has_no_product_for_it(
    model_directory: Path, on_a_gpu: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("torch._scaled_mm is only supported on\nsomething else")

    on_a_gpu()
    monkeypatch.setattr(torch, "_scaled_mm", refuse)
    with pytest.raises(SettingsError, match=r"has no product for it there \(torch\._scaled_mm is"):
        Engine.load(model_directory, Settings(device="cpu", precision="fp8"))


def test_fp8_needs_the_whole_model_on_the_device(
    model_directory: Path, on_a_gpu: Callable[[], None]
) -> None:
    on_a_gpu()
    with pytest.raises(SettingsError, match=r"take turns there \(LPW_SDXL_OFFLOAD is always\)"):
        Engine.load(model_directory, Settings(device="cpu", precision="fp8", offload="always"))


@pytest.mark.thorough
async def test_in_fp8_pictures_differ_and_everything_says_so(
    model_directory: Path, on_a_gpu: Callable[[], None]
) -> None:
    _, plain = await draw(model_directory)
    assert "UNet precision" not in parameters_text(plain.record)
    on_a_gpu()
    engine, quantised = await draw(model_directory, precision="fp8")
    difference = abs(quantised.pixels.astype(int) - plain.pixels.astype(int))
    assert 0 < difference.mean() < 8
    assert engine.plan.precision == engine.describe().memory.precision == "fp8"
    assert engine.plan.kernels == "fused"
    assert "large products in fp8" in str(engine.plan)
    assert "UNet precision: fp8" in parameters_text(quantised.record)


def test_fp8_weights_are_counted_and_sets_of_loras_do_not_share_calls(
    model_directory: Path,
) -> None:
    pipeline = Pipeline.load(model_directory, CPU, Settings())
    settings = Settings(device="cpu", lora_weights_bytes=2**40)
    plain = calibrate(pipeline, None, settings, has_loras=True)
    chosen = Acceleration(PlainOperations(), quantises=True)
    quantised = dataclasses.replace(pipeline, acceleration=chosen)
    plan = calibrate(quantised, None, settings, has_loras=True)
    assert plan.weight_bytes - plain.weight_bytes == count_quantised_bytes(pipeline.unet)
    assert (plain.max_lora_sets, plan.max_lora_sets) == (8, 1)
