"""Conversion: every value survives, and Diffusers' own converter agrees with all of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from blake3 import blake3
from diffusers import StableDiffusionXLPipeline
from safetensors import safe_open
from safetensors.torch import load_file

from lpw_sdxl.errors import CheckpointError
from lpw_sdxl.weights.component import Component
from lpw_sdxl.weights.dtypes import CheckpointDtype
from lpw_sdxl.weights.files import FileRecord
from tests.forge.checkpoint import SyntheticSize, write_checkpoint

from .conftest import (
    BF16,
    FP32,
    Converted,
    Save,
    Tensors,
    Weights,
    bits,
    by_diffusers,
    convert_file,
    same_bits,
    weights_of,
)

UNET, VAE = "model.diffusion_model.", "first_stage_model."
FIRST, SECOND = "conditioner.embedders.0.", "conditioner.embedders.1."
PREFIXES = {
    Component.UNET: UNET,
    Component.VAE: VAE,
    Component.TEXT_ENCODER: FIRST,
    Component.TEXT_ENCODER_2: SECOND,
}
FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)


def test_every_number_of_the_checkpoint_is_in_the_directory_once(tiny_tensors, written):
    # Independent of the key map: the transforms move numbers but change none, so both sides hold
    # the same multiset of bit patterns.
    weights = [t for name, t in tiny_tensors.items() if not name.endswith(".position_ids")]
    before = torch.cat([tensor.reshape(-1).view(torch.int16) for tensor in weights])
    after = torch.cat(
        [t.reshape(-1).view(torch.int16) for tensors in written.values() for t in tensors.values()]
    )
    assert torch.equal(before.sort().values, after.sort().values)


def test_known_tensors_land_where_they_belong_bit_for_bit(tiny_tensors, written):
    openclip = SECOND + "model."
    layer = "text_model.encoder.layers.3.self_attn."
    fused = tiny_tensors[openclip + "transformer.resblocks.3.attn.in_proj_weight"].chunk(3)
    second = written[Component.TEXT_ENCODER_2]
    for part, name in zip(fused, "qkv", strict=True):
        assert bits(second[f"{layer}{name}_proj.weight"]) == bits(part)
    projection = tiny_tensors[openclip + "text_projection"]
    assert bits(second["text_projection.weight"]) == bits(projection.T)
    vae = written[Component.VAE]["decoder.mid_block.attentions.0.to_out.0.weight"]
    pointwise = tiny_tensors[VAE + "decoder.mid.attn_1.proj_out.weight"]
    assert bits(vae) == bits(pointwise[:, :, 0, 0])
    unet = written[Component.UNET]["up_blocks.0.upsamplers.0.conv.bias"]
    assert bits(unet) == bits(tiny_tensors[UNET + "output_blocks.2.2.conv.bias"])


def test_diffusers_own_converter_gives_the_same_tensors(reference: Weights, written: Weights):
    for component in Component:
        assert same_bits(written[component], reference[component])


def test_diffusers_loads_the_directory_without_a_complaint(converted: Converted, written):
    pipeline = StableDiffusionXLPipeline.from_pretrained(
        converted.directory, local_files_only=True, dtype=torch.float16, use_safetensors=True
    )
    assert pipeline.default_sample_size * pipeline.vae_scale_factor == 128
    for component in Component:
        module = getattr(pipeline, component.value)
        assert module.state_dict().keys() == written[component].keys()
        assert not any(tensor.is_meta for tensor in module.state_dict().values())


def test_digests_are_those_of_the_files(converted: Converted):
    on_disk = {
        path.relative_to(converted.directory).as_posix(): FileRecord(
            path.stat().st_size,
            hashlib.sha256(path.read_bytes()).hexdigest(),
            blake3(path.read_bytes()).hexdigest(),
        )
        for path in converted.directory.rglob("*")
        if path.is_file()
    }
    assert converted.files == on_disk
    for component in Component:
        with safe_open(converted.directory / component.weights_file, "pt") as file:
            assert file.metadata() == {"format": "pt"}


def test_the_size_of_all_weights_is_known_before(converted: Converted, written: Weights):
    tensors = [tensor for tensors in written.values() for tensor in tensors.values()]
    assert converted.conversion.weight_bytes == sum(t.nbytes for t in tensors)


@pytest.fixture(scope="module")
def precise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model in float32, with more digits than any of the smaller dtypes keeps."""
    path = tmp_path_factory.mktemp("precise") / "tiny.safetensors"
    write_checkpoint(path, SyntheticSize.TINY, seed=7, dtype=FP32)
    return path


@pytest.fixture(scope="module")
def precise_tensors(precise: Path) -> Tensors:
    return load_file(precise)


@pytest.fixture(scope="module")
def precise_reference(precise: Path, converted: Converted) -> Weights:
    """Where Diffusers puts each number. Casts are by number, so they may follow afterwards."""
    return by_diffusers(precise, converted.directory, torch.float32)


Cast = Callable[[torch.Tensor], torch.Tensor]

ONE_DTYPE: dict[str, Cast] = {
    "fp16": lambda t: t.half(),
    "bf16": lambda t: t.bfloat16(),
    "fp32": lambda t: t,
    "fp64": lambda t: t.double() * 1.000000012345,  # digits that float32 hasn't
    "fp8 e4m3": lambda t: t.to(torch.float8_e4m3fn),
    "fp8 e5m2": lambda t: t.to(torch.float8_e5m2),
}
SOURCES: dict[str, dict[Component, Cast]] = {
    name: dict.fromkeys(Component, cast) for name, cast in ONE_DTYPE.items()
} | {
    "mixed": {
        Component.UNET: ONE_DTYPE["fp8 e4m3"],
        Component.VAE: ONE_DTYPE["fp32"],
        Component.TEXT_ENCODER: ONE_DTYPE["bf16"],
        Component.TEXT_ENCODER_2: ONE_DTYPE["fp16"],
    }
}


@pytest.mark.thorough
@pytest.mark.parametrize("dtype", list(CheckpointDtype), ids=lambda dtype: dtype.flag)
@pytest.mark.parametrize("casts", SOURCES.values(), ids=SOURCES.keys())
def test_every_dtype_becomes_the_one_asked_for_as_torch_rounds(
    precise_tensors: Tensors,
    precise_reference: Weights,
    save: Save,
    tmp_path: Path,
    casts: dict[Component, Cast],
    dtype: CheckpointDtype,
):
    wanted = getattr(torch, dtype.value)
    source = {
        name: cast(tensor) if tensor.is_floating_point() else tensor
        for component, cast in casts.items()
        for name, tensor in precise_tensors.items()
        if name.startswith(PREFIXES[component])
    }
    convert_file(save(source), tmp_path / "out", dtype)
    ours = weights_of(tmp_path / "out")
    for component, cast in casts.items():
        theirs = {
            key: cast(tensor).to(wanted) for key, tensor in precise_reference[component].items()
        }
        assert same_bits(ours[component], theirs)


@pytest.mark.parametrize("dtype", FLOAT8, ids=str)
def test_every_8_bit_number_is_kept_exactly_in_fp16(
    tiny_tensors: Tensors, save: Save, tmp_path: Path, dtype: torch.dtype
):
    """All 256 patterns but those of NaN and infinity, by the definition of the format."""
    every = torch.arange(256, dtype=torch.int32).to(torch.uint8).view(dtype)
    finite = every[torch.isfinite(every.float())]
    assert len(finite) == {torch.float8_e4m3fn: 254, torch.float8_e5m2: 248}[dtype]
    name = UNET + "label_emb.0.0.weight"
    shape = tiny_tensors[name].shape
    tiny_tensors[name] = finite.repeat(shape.numel() // len(finite) + 1)[: shape.numel()].view(
        shape
    )
    convert_file(save(tiny_tensors), tmp_path / "out")
    ours = weights_of(tmp_path / "out")[Component.UNET]["add_embedding.linear_1.weight"]
    assert torch.equal(ours.double(), tiny_tensors[name].double())


@pytest.mark.parametrize(
    ("dtype", "pattern"),
    [
        (torch.float8_e4m3fn, 0x7F),
        (torch.float8_e4m3fn, 0xFF),
        (torch.float8_e5m2, 0x7C),
        (torch.float8_e5m2, 0xFC),
        (torch.float8_e5m2, 0x7E),
    ],
    ids=["e4m3 NaN", "e4m3 -NaN", "e5m2 infinity", "e5m2 -infinity", "e5m2 NaN"],
)
def test_an_8_bit_number_that_is_not_finite_is_refused_by_name(
    tiny_tensors: Tensors, save: Save, tmp_path: Path, dtype: torch.dtype, pattern: int
):
    name = UNET + "middle_block.1.proj_in.weight"
    small = tiny_tensors[name].to(dtype)
    small.view(torch.uint8)[3, 5] = pattern
    path = save({**tiny_tensors, name: small})
    with pytest.raises(CheckpointError, match=r"middle_block\.1\.proj_in\.weight holds NaN or inf"):
        convert_file(path, tmp_path / "out")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    ("name", "cure"),
    [(UNET + "middle_block.1.proj_in.weight", "copy."), (VAE + "quant_conv.weight", "--vae FILE")],
)
def test_a_value_that_is_not_finite_is_refused_by_name(
    change_tensor: Callable[..., Path], tmp_path: Path, value: float, name: str, cure: str
):
    path = change_tensor(name, lambda tensor: tensor[5].fill_(value))
    with pytest.raises(CheckpointError, match=rf"{name} holds NaN or inf.*{cure}"):
        convert_file(path, tmp_path / "out")


def test_a_broken_vae_under_another_name_has_the_same_cure(
    tiny_tensors: Tensors, save: Save, tmp_path: Path
):
    name = VAE + "quant_conv.weight"
    tiny_tensors[name] = torch.full_like(tiny_tensors[name], float("nan"))
    path = save({f"module.{name}": tensor for name, tensor in tiny_tensors.items()})
    with pytest.raises(CheckpointError, match="name another VAE with --vae FILE"):
        convert_file(path, tmp_path / "out")


def test_a_value_too_large_for_fp16_is_refused_with_the_way_out(
    precise_tensors: Tensors, save: Save, tmp_path: Path
):
    large = precise_tensors[UNET + "out.2.bias"].clone()
    large[0] = 1e5
    path = save({**precise_tensors, UNET + "out.2.bias": large})
    with pytest.raises(CheckpointError, match=r"out\.2\.bias .*too large for fp16.*--dtype bf16"):
        convert_file(path, tmp_path / "out")
    convert_file(path, tmp_path / "ok", BF16)


def test_progress_ends_at_the_total(tiny_checkpoint: Path, tmp_path: Path):
    reports: list[tuple[str, int, int]] = []
    convert_file(tiny_checkpoint, tmp_path, progress=lambda *report: reports.append(report))
    done = [report[1] for report in reports]
    assert {report[0] for report in reports} == {"convert"}
    assert done == sorted(done)
    assert done[-1] == reports[-1][2]
