"""A model directory that is missing a part or damaged stops with one sentence."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTokenizer

from lpw_sdxl.conditioning import PromptEncoder
from lpw_sdxl.errors import ModelError


@pytest.fixture
def copied(model_directory, tmp_path):
    return shutil.copytree(model_directory, tmp_path / "model")


def test_directories_saved_by_transformers_load(encoder, copied):
    for name in ("tokenizer", "tokenizer_2"):
        tokenizer = CLIPTokenizer.from_pretrained(copied / name)
        shutil.rmtree(copied / name)
        tokenizer.save_pretrained(copied / name)
    loaded = PromptEncoder.from_model_directory(str(copied)).encode("a (cat:1.2)", "dog")
    expected = encoder.encode("a (cat:1.2)", "dog")
    assert torch.equal(loaded.prompt_embeds, expected.prompt_embeds)


def test_weights_with_the_old_names_load(encoder, copied):
    path = copied / "text_encoder" / "model.safetensors"
    tensors = load_file(path)
    old = {f"text_model.{name.removeprefix('text_model.')}": tensors[name] for name in tensors}
    save_file(old, path, metadata={"format": "pt"})
    loaded = PromptEncoder.from_model_directory(copied).encode("a cat")
    assert torch.equal(loaded.prompt_embeds, encoder.encode("a cat").prompt_embeds)


@pytest.mark.parametrize("part", ["tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2"])
def test_missing_part_is_named(copied, part):
    shutil.rmtree(copied / part)
    with pytest.raises(ModelError, match=f"^{part}/ of the model directory"):
        PromptEncoder.from_model_directory(copied)


DAMAGED = [
    ("tokenizer/vocab.json", b"{"),
    ("tokenizer/vocab.json", b""),
    ("tokenizer/merges.txt", None),
    ("text_encoder/config.json", None),
    ("text_encoder/config.json", b"{"),
    ("text_encoder_2/model.safetensors", None),
    ("text_encoder_2/model.safetensors", b"{"),
]


@pytest.mark.parametrize(("path", "content"), DAMAGED)
def test_damaged_file_is_a_model_error(copied, path, content):
    file = copied / path
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ModelError, match=f"^{file.parent.name}/ of the model directory") as caught:
        PromptEncoder.from_model_directory(copied)
    assert str(copied) not in str(caught.value)


def test_missing_tensor_is_never_filled_with_noise(copied):
    path = copied / "text_encoder_2" / "model.safetensors"
    tensors = load_file(path)
    del tensors["text_projection.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks tensors \(1, such as text_projection\.weight\)"):
        PromptEncoder.from_model_directory(copied)
