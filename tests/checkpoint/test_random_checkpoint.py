"""Random checkpoints: the same bytes by seed, and a model that makes noise with contrast."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionXLPipeline

from lpw_sdxl.weights.header import read_header
from tests.forge.checkpoint import SyntheticSize, write_checkpoint

from .conftest import FP32, convert_file


def test_the_seed_decides_the_bytes(tmp_path: Path, tiny_checkpoint: Path):
    records = [
        write_checkpoint(tmp_path / f"{index}.safetensors", SyntheticSize.TINY, seed=seed)
        for index, seed in enumerate((1, 1, 2))
    ]
    assert records[0].sha256 == records[1].sha256 != records[2].sha256


def test_it_has_the_original_layouts_names(tiny_checkpoint: Path):
    tensors = read_header(tiny_checkpoint).tensors
    expected = {
        "model.diffusion_model.input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": (64, 96),
        "model.diffusion_model.label_emb.0.0.weight": (128, 1600),
        "first_stage_model.decoder.mid.attn_1.q.weight": (64, 64, 1, 1),
        "conditioner.embedders.0.transformer.text_model.embeddings.position_ids": (1, 77),
        "conditioner.embedders.1.model.transformer.resblocks.11.attn.in_proj_weight": (192, 64),
        "conditioner.embedders.1.model.text_projection": (64, 64),
    }
    assert {name: tensors[name].shape for name in expected} == expected


@pytest.mark.thorough
def test_its_pictures_are_finite_noise_that_depends_on_the_prompt(tmp_path: Path):
    path = tmp_path / "tiny.safetensors"
    write_checkpoint(path, SyntheticSize.TINY, dtype=FP32)
    directory = tmp_path / "model"
    convert_file(path, directory, FP32)
    pipeline = StableDiffusionXLPipeline.from_pretrained(directory, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    pictures = [
        pipeline(
            prompt,
            guidance_scale=12.0,
            num_inference_steps=30,
            height=128,
            width=128,
            generator=torch.Generator().manual_seed(0),
            output_type="pt",
        ).images
        for prompt in ("a cat", "a house on a hill")
    ]
    for picture in pictures:
        assert torch.isfinite(picture).all()
        assert 0.1 < float(picture.std()) < 0.4
    assert float((pictures[0] - pictures[1]).abs().mean()) > 0.05
