"""Networks by our loader beside the libraries' own, and files that are no network's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from lpw_sdxl.conditioning.loading import load_text_encoders
from lpw_sdxl.diffusion.pipeline import Pipeline
from lpw_sdxl.errors import ModelError
from lpw_sdxl.settings import Settings
from lpw_sdxl.weights.network import load_network, map_tensors

CPU = torch.device("cpu")


def assert_equal(ours: torch.nn.Module, theirs: torch.nn.Module) -> None:
    """Compare parameters and buffers bit for bit."""
    assert not ours.training
    for kind in ("named_parameters", "named_buffers"):
        own, other = (dict(getattr(one, kind)()) for one in (ours, theirs))
        assert own.keys() == other.keys()
        for name, tensor in own.items():
            assert not tensor.is_meta, name
            assert not tensor.requires_grad, name
            assert tensor.dtype == other[name].dtype, name
            assert torch.equal(tensor, other[name]), name


@pytest.mark.parametrize("is_half", [False, True])
def test_diffusers_networks_are_those_of_its_own_loader(
    model_directory: Path, is_half: bool
) -> None:
    ours = Pipeline.load(model_directory, CPU, Settings(half_decode=is_half))
    for network, kind, folder in (
        (ours.unet, UNet2DConditionModel, "unet"),
        (ours.vae, AutoencoderKL, "vae"),
    ):
        theirs = kind.from_pretrained(model_directory / folder, torch_dtype=network.dtype)
        assert_equal(network, theirs)
        public = {key: value for key, value in theirs.config.items() if not key.startswith("_")}
        assert public == {key: network.config[key] for key in public}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_text_encoders_are_those_of_transformers_own_loader(
    model_directory: Path, dtype: torch.dtype
) -> None:
    ids = torch.tensor([[49406, 320, 2368, 49407]])
    kinds = (CLIPTextModel, CLIPTextModelWithProjection)
    folders = ("text_encoder", "text_encoder_2")
    encoders = load_text_encoders(model_directory, "cpu", dtype)
    for encoder, kind, folder in zip(encoders, kinds, folders, strict=True):
        theirs = kind.from_pretrained(model_directory / folder, dtype=dtype)
        assert encoder.model.dtype == dtype
        assert not any(
            one.is_meta for one in (*encoder.model.parameters(), *encoder.model.buffers())
        )
        assert encoder.model.config._attn_implementation == theirs.config._attn_implementation
        ours, other = (one(ids, output_hidden_states=True) for one in (encoder.model, theirs))
        assert torch.equal(ours[0], other[0])
        pairs = zip(ours.hidden_states, other.hidden_states, strict=True)
        assert all(torch.equal(mine, its) for mine, its in pairs)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "unet").mkdir()
    path = tmp_path / "unet" / "weights.safetensors"
    save_file({"weight": torch.arange(6.0).view(2, 3), "bias": torch.ones(2)}, path)
    return path


def build() -> torch.nn.Module:
    return torch.nn.Linear(3, 2)


def test_what_else_is_in_the_file_is_left_out_and_names_may_differ(file: Path) -> None:
    save_file({f"old.{k}": v for k, v in load_file(file).items()} | {"x": torch.ones(1)}, file)
    network = load_network(build, file, torch.float32, lambda name: name.removeprefix("old."))
    assert torch.equal(network(torch.ones(1, 3)), torch.tensor([[4.0, 13.0]]))


@pytest.mark.parametrize(
    ("tensors", "fault"),
    [
        ({"weight": torch.ones(2, 3)}, r"lacks tensors \(1, such as bias\)"),
        (
            {"weight": torch.ones(3, 2), "bias": torch.ones(2)},
            r"other shapes \(1, such as weight\)",
        ),
        (None, "can't be read"),
    ],
    ids=["missing", "shape", "no file"],
)
def test_weights_of_another_network_are_refused(
    file: Path, tensors: dict[str, torch.Tensor] | None, fault: str
) -> None:
    if tensors is None:
        file.unlink()
    else:
        save_file(tensors, file)
    with pytest.raises(ModelError, match=f"^unet/ of the model directory .*{fault}.*import"):
        load_network(build, file, torch.float32)


def test_nothing_is_written_to_the_file(file: Path) -> None:
    before = file.read_bytes()
    map_tensors(file)["weight"].fill_(7)
    assert file.read_bytes() == before


def test_tensors_that_are_not_aligned_are_read_too(tmp_path: Path) -> None:
    values = torch.arange(3.0)
    entry = {"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}}
    header = json.dumps(entry).encode()
    header += b" " * ((1 - len(header)) % 4)
    path = tmp_path / "odd.safetensors"
    content = len(header).to_bytes(8, "little") + header + values.numpy().tobytes()
    path.write_bytes(content)
    assert (8 + len(header)) % 4 == 1
    assert torch.equal(map_tensors(path)["a"], values)
