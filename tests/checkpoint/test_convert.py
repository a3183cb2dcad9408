"""Conversion: every value survives, and Diffusers' own converter agrees with all of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from safetensors import safe_open
from safetensors.torch import load_file

from lpw_sdxl.checkpoint.configs import Component
from lpw_sdxl.checkpoint.convert import Conversion, convert
from lpw_sdxl.checkpoint.dtypes import CheckpointDtype
from lpw_sdxl.checkpoint.header import read_header
from lpw_sdxl.checkpoint.synthetic import SyntheticSize, write_checkpoint
from lpw_sdxl.checkpoint.verify import verify_directory
from lpw_sdxl.errors import CheckpointError

from .conftest import silent

FP16 = CheckpointDtype.FLOAT16


@pytest.fixture(scope="module")
def source(tiny_checkpoint: Path) -> dict[str, torch.Tensor]:
    return load_file(tiny_checkpoint)


@pytest.fixture(scope="module")
def written(tiny_directory: tuple[Path, Conversion]) -> dict[Component, dict[str, torch.Tensor]]:
    directory, _ = tiny_directory
    return {component: load_file(directory / component.weights_file) for component in Component}


def _bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(torch.int16).numpy().tobytes()


def test_every_number_of_the_checkpoint_is_in_the_directory_once(source, written):
    # Independent of the key map: the transforms move numbers but change none, so both sides hold
    # the same multiset of bit patterns.
    weights = [tensor for name, tensor in source.items() if not name.endswith(".position_ids")]
    before = torch.cat([tensor.reshape(-1).view(torch.int16) for tensor in weights])
    after = torch.cat(
        [t.reshape(-1).view(torch.int16) for tensors in written.values() for t in tensors.values()]
    )
    assert torch.equal(before.sort().values, after.sort().values)


def test_known_tensors_land_where_they_belong_bit_for_bit(source, written):
    openclip = "conditioner.embedders.1.model."
    layer = "text_model.encoder.layers.3.self_attn."
    fused = source[openclip + "transformer.resblocks.3.attn.in_proj_weight"].chunk(3)
    second = written[Component.TEXT_ENCODER_2]
    for part, name in zip(fused, "qkv", strict=True):
        assert _bits(second[f"{layer}{name}_proj.weight"]) == _bits(part)
    projection = source[openclip + "text_projection"]
    assert _bits(second["text_projection.weight"]) == _bits(projection.T)
    vae = written[Component.VAE]["decoder.mid_block.attentions.0.to_out.0.weight"]
    pointwise = source["first_stage_model.decoder.mid.attn_1.proj_out.weight"]
    assert _bits(vae) == _bits(pointwise[:, :, 0, 0])
    unet = written[Component.UNET]["up_blocks.0.upsamplers.0.conv.bias"]
    assert _bits(unet) == _bits(source["model.diffusion_model.output_blocks.2.2.conv.bias"])


# Diffusers and Transformers warn of their own, of each other's and of torch's old names here.
def test_diffusers_own_converter_gives_the_same_tensors(tiny_checkpoint, tiny_directory, written):
    directory, _ = tiny_directory
    pipeline = StableDiffusionXLPipeline.from_single_file(
        tiny_checkpoint, config=str(directory), local_files_only=True, dtype=torch.float16
    )
    for component in Component:
        theirs = getattr(pipeline, component.value).state_dict()
        ours = written[component]
        assert theirs.keys() == ours.keys()
        assert all(_bits(theirs[key]) == _bits(ours[key]) for key in ours)


def test_diffusers_loads_the_directory_without_a_complaint(tiny_directory, written):
    directory, _ = tiny_directory
    pipeline = StableDiffusionXLPipeline.from_pretrained(
        directory, local_files_only=True, dtype=torch.float16, use_safetensors=True
    )
    assert pipeline.default_sample_size * pipeline.vae_scale_factor == 128
    for component in Component:
        module = getattr(pipeline, component.value)
        assert module.state_dict().keys() == written[component].keys()
        assert not any(tensor.is_meta for tensor in module.state_dict().values())


def test_digests_are_those_of_the_files(tiny_directory: tuple[Path, Conversion]):
    directory, conversion = tiny_directory
    on_disk = {
        path.relative_to(directory).as_posix(): (
            path.stat().st_size,
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in directory.rglob("*")
        if path.is_file()
    }
    assert conversion.files == on_disk
    for component in Component:
        with safe_open(directory / component.weights_file, "pt") as file:
            assert file.metadata() == {"format": "pt"}


@pytest.mark.parametrize("dtype", list(CheckpointDtype))
def test_a_change_of_dtype_rounds_as_torch_does(tmp_path: Path, dtype: CheckpointDtype):
    path = tmp_path / "tiny.safetensors"
    write_checkpoint(path, SyntheticSize.TINY, dtype=CheckpointDtype.FLOAT32)
    convert(read_header(path), tmp_path / "out", dtype=dtype, progress=silent)
    verify_directory(tmp_path / "out", dtype)
    ours = load_file(tmp_path / "out" / Component.VAE.weights_file)["quant_conv.weight"]
    theirs = load_file(path)["first_stage_model.quant_conv.weight"]
    assert torch.equal(ours, theirs.to(getattr(torch, dtype.value)))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_not_finite_is_refused_by_name(
    change_tensor: Callable[..., Path], tmp_path: Path, value: float
):
    name = "model.diffusion_model.middle_block.1.proj_in.weight"
    path = change_tensor(name, lambda tensor: tensor[5].fill_(value))
    with pytest.raises(CheckpointError, match=r"middle_block\.1\.proj_in\.weight holds NaN or inf"):
        convert(read_header(path), tmp_path / "out", dtype=FP16, progress=silent)


def test_a_value_too_large_for_fp16_is_refused_with_the_way_out(tmp_path: Path, monkeypatch):
    path = tmp_path / "tiny.safetensors"
    write_checkpoint(path, SyntheticSize.TINY, dtype=CheckpointDtype.FLOAT32)
    info = read_header(path).tensors["model.diffusion_model.out.2.bias"]
    content = bytearray(path.read_bytes())
    content[info.start : info.start + 4] = torch.tensor([1e5]).numpy().tobytes()
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"out\.2\.bias .*too large for fp16.*--dtype bf16"):
        convert(read_header(path), tmp_path / "out", dtype=FP16, progress=silent)
    convert(read_header(path), tmp_path / "ok", dtype=CheckpointDtype.BFLOAT16, progress=silent)


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (lambda tensors: tensors.pop("quant_conv.bias"), "quant_conv.bias is missing from vae/"),
        (lambda tensors: tensors.update(more=torch.zeros(2)), "more is left over in vae/"),
        (lambda tensors: tensors.update({"quant_conv.bias": torch.zeros(3)}), "would be right"),
        (
            lambda tensors: tensors.update({"quant_conv.bias": torch.zeros(8)}),
            r"is F32 \[8\]; F16 \[8\]",
        ),
    ],
    ids=["missing", "left over", "shape", "dtype"],
)
def test_verification_catches_a_wrong_directory(tiny_directory, tmp_path: Path, edit, complaint):
    import shutil

    from safetensors.torch import save_file

    directory = tmp_path / "copy"
    shutil.copytree(tiny_directory[0], directory)
    path = directory / Component.VAE.weights_file
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match=complaint):
        verify_directory(directory, FP16)


def test_progress_ends_at_the_total(tiny_checkpoint: Path, tmp_path: Path):
    reports: list[tuple[str, int, int]] = []
    convert(
        read_header(tiny_checkpoint),
        tmp_path,
        dtype=FP16,
        progress=lambda *report: reports.append(report),
    )
    done = [report[1] for report in reports]
    assert done == sorted(done)
    assert done[-1] == reports[-1][2]
