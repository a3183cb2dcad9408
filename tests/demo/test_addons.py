"""What trains the demo's LoRAs and makes its embedding: files that the import takes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from conftest import Store
from demo.addons import PHRASE, TrainedLora, notes, phrase_vectors
from demo.networks import NATIVE_SIZE, Networks
from demo.words import Vocabulary
from lpw_sdxl.diffusion.latents import size_embedding
from stores import import_here


@pytest.fixture
def own_store(demo_store: Store, tmp_path: Path) -> Store:
    """A copy, so that nothing is added to the one that others serve."""
    return Store(shutil.copytree(demo_store.home, tmp_path / "bentoml"), demo_store.tag)


def call(unet: object) -> torch.Tensor:
    torch.manual_seed(0)
    return unet(
        torch.randn(1, 4, 16, 16),
        torch.tensor([500]),
        encoder_hidden_states=torch.randn(1, 9, 96),
        added_cond_kwargs={
            "text_embeds": torch.randn(1, 64),
            "time_ids": size_embedding(NATIVE_SIZE)[None],
        },
        return_dict=False,
    )[0]


@torch.no_grad()
def test_a_lora_begins_as_nothing_and_is_imported(
    networks: Networks, own_store: Store, tmp_path: Path
) -> None:
    lora = TrainedLora(networks.unet, torch.Generator())
    plain = call(networks.unet)
    assert torch.equal(call(lora), plain)
    for name, parameter in lora.named_parameters():
        if name.startswith("ups"):
            parameter.normal_(std=0.1)
    assert (call(lora) - plain).abs().max() > 0.01
    save_file(lora.tensors(), tmp_path / "taught.safetensors", notes("taught", "0" * 64))
    tag = import_here(own_store.home, "lora", str(tmp_path / "taught.safetensors"))
    assert tag.startswith("lora-taught:")


def test_a_phrase_is_imported_as_an_embedding(
    networks: Networks, own_store: Store, tmp_path: Path
) -> None:
    vectors = phrase_vectors(networks, Vocabulary())
    assert {name: len(rows) for name, rows in vectors.items()} == dict.fromkeys(
        ("clip_l", "clip_g"), len(PHRASE.split())
    )
    save_file(vectors, tmp_path / "phrase.safetensors")
    tag = import_here(own_store.home, "embedding", str(tmp_path / "phrase.safetensors"))
    assert tag.startswith("embedding-phrase:")
