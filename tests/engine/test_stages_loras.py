"""What becomes of merged weights where a component comes and goes, or memory is short."""

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

AWAY = torch.device("meta")  # a device that a machine without a GPU has, told apart from the CPU
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


def test_a_component_that_rests_on_the_device_keeps_all_its_weights_there(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    stages = make_stages(dataclasses.replace(pipeline, device=AWAY), tmp_path, "always")
    stages.residence.call("prompt_encoder")
    assert stages.adapters is not None
    stages.adapters.use_in_encoders(INK)
    stages.rest()  # everybody left before a step
    stages.make_room()
    stages.residence.call("prompt_encoder")  # which is there
    for model in pipeline.prompt_encoder.models:
        assert {parameter.device for parameter in model.parameters()} == {AWAY}


def test_where_all_are_there_rest_brings_the_base_back_and_no_memory_the_room(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    stages = make_stages(pipeline, tmp_path, "never")
    assert stages.adapters is not None
    before = {name: one.data_ptr() for name, one in pipeline.unet.named_parameters()}
    for let_go, is_kept in ((stages.rest, True), (stages.make_room, False)):
        stages.adapters.use(Component.UNET, INK)
        assert before != {name: one.data_ptr() for name, one in pipeline.unet.named_parameters()}
        let_go()
        assert before == {name: one.data_ptr() for name, one in pipeline.unet.named_parameters()}
        assert bool(stages.adapters.counters.bytes) is is_kept
