"""Merged weights where components are moved, or memory is short."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from lora.conftest import CPU, CanonicalFile, networks_of, write_canonical
from lpw_sdxl.diffusion.pipeline import Pipeline
from lpw_sdxl.engine.calibration import calibrate
from lpw_sdxl.engine.stages import Stages
from lpw_sdxl.lora.library import LoraLibrary
from lpw_sdxl.lora.sets import LoraSet
from lpw_sdxl.settings import Settings
from lpw_sdxl.weights.component import Component

AWAY = torch.device("meta")  # a device other than the CPU that every machine has
INK: LoraSet = (("ink", 1.0),)


@pytest.fixture
def pipeline(model_directory: Path) -> Pipeline:
    return Pipeline.load(model_directory, CPU, Settings())


def make_stages(pipeline: Pipeline, folder: Path, offload: str) -> Stages:
    file = folder / "ink.safetensors"
    write_canonical(file, networks_of(pipeline), seed=1)
    plan = calibrate(pipeline, None, Settings(device="cpu", offload=offload), has_loras=True)
    library = LoraLibrary({"ink": CanonicalFile("ink", file)}, max_bytes=2**30)
    return Stages(pipeline, plan, library)


def test_the_component_on_an_idle_device_keeps_all_its_weights_there(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    stages = make_stages(dataclasses.replace(pipeline, device=AWAY), tmp_path, "always")
    stages.offloader.require("prompt_encoder")
    assert stages.adapters is not None
    stages.adapters.use_in_encoders(INK)
    stages.release_idle_memory()  # all jobs were cancelled before a step
    stages.release_memory()
    stages.offloader.require("prompt_encoder")  # which is there
    for model in pipeline.prompt_encoder.models:
        assert {parameter.device for parameter in model.parameters()} == {AWAY}


def test_without_offloading_idleness_restores_the_base_and_a_lack_of_memory_frees_the_sets(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    stages = make_stages(pipeline, tmp_path, "never")
    assert stages.adapters is not None
    before = {name: one.data_ptr() for name, one in pipeline.unet.named_parameters()}
    for release, is_kept in ((stages.release_idle_memory, True), (stages.release_memory, False)):
        stages.adapters.use(Component.UNET, INK)
        assert before != {name: one.data_ptr() for name, one in pipeline.unet.named_parameters()}
        release()
        assert before == {name: one.data_ptr() for name, one in pipeline.unet.named_parameters()}
        assert bool(stages.adapters.counters.bytes) is is_kept
