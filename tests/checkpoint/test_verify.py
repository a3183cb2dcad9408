"""Verification: what lies on the disk must be what the source holds, and must run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lpw_sdxl.checkpoint.selection import Selection
from lpw_sdxl.checkpoint.verify import verify_directory
from lpw_sdxl.errors import CheckpointError
from lpw_sdxl.weights.component import Component
from lpw_sdxl.weights.dtypes import CheckpointDtype
from lpw_sdxl.weights.header import read_header

from .conftest import BF16, FP16, Converted, Save, Tensors, convert_file, silent

pytestmark = pytest.mark.thorough

UNET, VAE = "model.diffusion_model.", "first_stage_model."
DECODER = VAE + "decoder."


def _verify(path: Path, out: Path, dtype: CheckpointDtype = FP16, vae: Path | None = None) -> None:
    """Convert and verify a file."""
    converted = convert_file(path, out, dtype, Selection(vae=vae))
    verify_directory(out, converted.conversion, silent)


@pytest.mark.parametrize("dtype", list(CheckpointDtype), ids=lambda dtype: dtype.flag)
def test_what_was_just_written_passes(
    tiny_checkpoint: Path, tmp_path: Path, dtype: CheckpointDtype
):
    _verify(tiny_checkpoint, tmp_path / "out", dtype)


def test_progress_ends_at_all_bytes_and_one_step(converted: Converted):
    reports: list[tuple[str, int, int]] = []
    verify_directory(converted.directory, converted.conversion, lambda *r: reports.append(r))
    total = converted.conversion.weight_bytes
    verified = [report for report in reports if report[0] == "verify"]
    assert [done for _, done, _ in verified] == sorted(done for _, done, _ in verified)
    assert verified[-1] == ("verify", total, total)
    assert reports[len(verified) :] == [("generate", 0, 1), ("generate", 1, 1)]


@pytest.mark.parametrize("component", list(Component))
def test_one_flipped_bit_is_caught_and_named(
    converted: Converted, model_copy: Path, component: Component
):
    path = model_copy / component.weights_file
    name, info = list(read_header(path).tensors.items())[-1]
    with path.open("r+b") as file:
        file.seek(info.start)
        byte = file.read(1)[0]
        file.seek(info.start)
        file.write(bytes([byte ^ 1]))  # the last bit of its first number
    with pytest.raises(CheckpointError) as refused:
        verify_directory(model_copy, converted.conversion, silent)
    assert f"other values for {name} of {component.value} than tiny.safetensors" in str(
        refused.value
    )


def test_two_tensors_that_changed_places_are_caught(converted: Converted, model_copy: Path):
    path = model_copy / Component.UNET.weights_file
    tensors = load_file(path)
    one, other = (f"down_blocks.1.resnets.{i}.norm2.weight" for i in (0, 1))
    tensors[one], tensors[other] = tensors[other], tensors[one]
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"other values for down_blocks\.1\.resnets\.0\.norm"):
        verify_directory(model_copy, converted.conversion, silent)


def test_the_sign_of_a_zero_counts(tiny_tensors: Tensors, save: Save, tmp_path: Path):
    name = UNET + "out.2.bias"
    tiny_tensors[name] = torch.zeros_like(tiny_tensors[name])
    converted = convert_file(save(tiny_tensors), tmp_path / "out")
    path = tmp_path / "out" / Component.UNET.weights_file
    tensors = load_file(path)
    tensors["conv_out.bias"] = -tensors["conv_out.bias"]
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"other values for conv_out\.bias"):
        verify_directory(tmp_path / "out", converted.conversion, silent)


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
def test_a_wrong_set_of_tensors_is_caught(converted, model_copy: Path, edit, complaint: str):
    path = model_copy / Component.VAE.weights_file
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match=complaint):
        verify_directory(model_copy, converted.conversion, silent)


def test_a_truncated_file_is_caught(converted: Converted, model_copy: Path):
    path = model_copy / Component.TEXT_ENCODER.weights_file
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged: it is truncated"):
        verify_directory(model_copy, converted.conversion, silent)


def test_a_source_that_became_shorter_is_caught(tiny_tensors, save: Save, tmp_path: Path):
    path = save(tiny_tensors)
    converted = convert_file(path, tmp_path / "out")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="changed while it was read"):
        verify_directory(tmp_path / "out", converted.conversion, silent)


def test_a_first_step_that_overflows_is_refused_with_advice_that_helps(
    tiny_tensors: Tensors, save: Save, tmp_path: Path
):
    """Every weight is finite in fp16; their products aren't."""
    name = UNET + "out.2.weight"
    path = save({**tiny_tensors, name: torch.full_like(tiny_tensors[name], 60000.0)})
    with pytest.raises(
        CheckpointError, match=r"first step gave NaN or infinity in fp16.*--dtype b"
    ):
        _verify(path, tmp_path / "no")
    _verify(path, tmp_path / "yes", BF16)


def test_a_vae_that_decodes_to_infinity_is_refused_with_the_way_out(
    tiny_tensors: Tensors, tiny_checkpoint: Path, save: Save, tmp_path: Path
):
    """Every weight is finite, and their products are too large even for float32."""
    # No norm stands between these, so their factors multiply.
    unnormed = [
        DECODER + name
        for name in (
            "conv_in.weight",
            "up.3.upsample.conv.weight",
            "up.2.upsample.conv.weight",
            "up.1.block.0.nin_shortcut.weight",
            "up.1.upsample.conv.weight",
        )
    ]
    huge = {name: torch.full_like(tiny_tensors[name], 60000.0) for name in unnormed}
    path = save({**tiny_tensors, **huge}, "odd.safetensors")
    with pytest.raises(CheckpointError, match=r"VAE decoded its first step to NaN or inf.*--vae F"):
        _verify(path, tmp_path / "no")
    _verify(path, tmp_path / "yes", vae=tiny_checkpoint)


@pytest.mark.parametrize(
    "edit",
    [
        lambda d: (d / "model_index.json").unlink(),
        lambda d: (d / "tokenizer_2" / "vocab.json").write_text("{}"),
        lambda d: (d / "scheduler" / "scheduler_config.json").write_text("{"),
        lambda d: (d / "unet" / "config.json").write_text("{"),
    ],
    ids=["no index", "no vocabulary", "scheduler", "UNet's configuration"],
)
def test_small_files_that_do_not_load_are_one_sentence(
    converted: Converted, model_copy: Path, edit: Callable[[Path], object]
):
    edit(model_copy)
    with pytest.raises(CheckpointError):
        verify_directory(model_copy, converted.conversion, silent)


def test_the_index_names_the_pipeline_that_is_served(converted: Converted, model_copy: Path):
    path = model_copy / "model_index.json"
    index = json.loads(path.read_text())
    assert index["_class_name"] == "StableDiffusionXLPipeline"
    path.write_text(json.dumps({**index, "_class_name": "StableDiffusionPipeline"}))
    with pytest.raises(CheckpointError, match=r"model_index\.json is not as it was written"):
        verify_directory(model_copy, converted.conversion, silent)


def test_nothing_is_printed(converted: Converted, capfd: pytest.CaptureFixture[str]):
    verify_directory(converted.directory, converted.conversion, silent)
    assert capfd.readouterr() == ("", "")


def test_the_libraries_logs_are_given_back(converted: Converted):
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    logs = (diffusers_logging, transformers_logging)
    before = [log.get_verbosity() for log in logs]
    verify_directory(converted.directory, converted.conversion, silent)
    assert [log.get_verbosity() for log in logs] == before


def test_progress_bars_that_were_off_stay_off(converted: Converted):
    from diffusers.utils import logging

    logging.disable_progress_bar()
    try:
        verify_directory(converted.directory, converted.conversion, silent)
        assert not logging.is_progress_bar_enabled()
    finally:
        logging.enable_progress_bar()
