"""Inpainting checkpoints are imported like others, and Diffusers loads them as what they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionXLInpaintPipeline, UNet2DConditionModel
from safetensors.torch import load_file

from lpw_sdxl.importing.checkpoints import summary_rows
from lpw_sdxl.store import entries
from lpw_sdxl.store.manifest import read_manifest
from lpw_sdxl.store.verification import verify_files
from lpw_sdxl.weights.dtypes import CheckpointDtype
from tests.forge.checkpoint import SyntheticSize, write_checkpoint

from .conftest import MINE, import_file, mine

pytestmark = pytest.mark.thorough


@pytest.mark.parametrize("dtype", CheckpointDtype)
def test_an_import_ends_in_a_verified_entry_that_says_what_it_is(
    store_home: Path, inpainting_checkpoint: Path, dtype: CheckpointDtype
) -> None:
    result = import_file(inpainting_checkpoint, mine(dtype=dtype))
    entry = entries.find(result.tag)
    manifest = read_manifest(entry.path)
    verify_files(entry.path, manifest)
    assert manifest.inpainting
    assert manifest.describe()["inpainting"] is True
    torch_dtype = getattr(torch, manifest.dtype)
    unet = UNet2DConditionModel.from_pretrained(
        entry.path / "unet", dtype=torch_dtype, local_files_only=True
    )
    assert unet.config.in_channels == 9
    assert unet.config.out_channels == 4
    source = load_file(inpainting_checkpoint)["model.diffusion_model.input_blocks.0.0.weight"]
    assert torch.equal(unet.conv_in.weight, source.to(torch_dtype))


def test_diffusers_finds_the_pipeline_that_draws_with_it(
    store_home: Path, inpainting_checkpoint: Path
) -> None:
    entry = entries.find(import_file(inpainting_checkpoint).tag)
    index = json.loads((entry.path / "model_index.json").read_bytes())
    assert index["_class_name"] == StableDiffusionXLInpaintPipeline.__name__
    StableDiffusionXLInpaintPipeline.from_pretrained(entry.path, local_files_only=True)


def test_other_models_are_no_inpainting_models(store_home: Path, tiny_checkpoint: Path) -> None:
    manifest = read_manifest(entries.find(import_file(tiny_checkpoint).tag).path)
    assert not manifest.inpainting


def test_a_manifest_of_an_earlier_version_is_of_no_inpainting_model(
    store_home: Path, tiny_checkpoint: Path
) -> None:
    path = entries.find(import_file(tiny_checkpoint).tag).path / "manifest.json"
    values = json.loads(path.read_bytes())
    del values["inpainting"]
    path.write_text(json.dumps(values))
    assert not read_manifest(path.parent).inpainting


def test_its_facts_name_it_and_refuse_nothing(inpainting_checkpoint: Path) -> None:
    opened = MINE.open(inpainting_checkpoint)
    rows = dict(summary_rows("a", 1, opened.summary))
    assert rows["is"] == "an SDXL inpainting checkpoint"
    assert "can't be imported" not in rows


def test_its_vae_can_be_put_into_another_checkpoint(
    store_home: Path, inpainting_checkpoint: Path, tmp_path: Path
) -> None:
    from lpw_sdxl.checkpoint.selection import Selection

    path = tmp_path / "other.safetensors"
    write_checkpoint(path, SyntheticSize.TINY, seed=2)
    tag = import_file(path, mine(selection=Selection(vae=inpainting_checkpoint))).tag
    written = load_file(entries.find(tag).path / "vae" / "diffusion_pytorch_model.safetensors")
    source = load_file(inpainting_checkpoint)["first_stage_model.post_quant_conv.bias"]
    assert torch.equal(written["post_quant_conv.bias"], source.half())
