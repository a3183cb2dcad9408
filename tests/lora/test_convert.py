"""The canonical file holds the source's numbers under the model's names, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lpw_sdxl.errors import AddonError, CheckpointError
from lpw_sdxl.lora import convert as module
from lpw_sdxl.lora.convert import convert
from lpw_sdxl.lora.preflight import examine
from lpw_sdxl.lora.targets import LORA_COMPONENTS, read_targets, targets_of
from lpw_sdxl.weights.component import Component
from lpw_sdxl.weights.files import FileRecord, record_file
from lpw_sdxl.weights.header import read_header

from .making import CONV, MODULE, QUERY, Shapes, pair, save, targets

KOHYA_CONV = "lora_unet_input_blocks_4_0_in_layers_2"
DIFFUSERS = f"unet.{QUERY}"
FIRST_KOHYA = "lora_te1_text_model_encoder_layers_0_mlp_fc1"
FIRST_PATH = "encoder.layers.0.mlp.fc1"

Reports = list[tuple[str, int, int]]


def converted(
    source: Path, written: Path, reports: Reports | None = None
) -> tuple[FileRecord, dict[str, torch.Tensor]]:
    def progress(stage: str, done: int, total: int) -> None:
        if reports is not None:
            reports.append((stage, done, total))

    record = convert(examine(read_header(source), targets()), written, progress)
    return record, load_file(written)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "source.safetensors"


@pytest.fixture
def written(tmp_path: Path) -> Path:
    return tmp_path / "lora.safetensors"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_numbers_are_those_of_the_source_bit_for_bit(
    source: Path, written: Path, dtype: torch.dtype
) -> None:
    shapes: Shapes = {
        **pair(MODULE),
        f"{KOHYA_CONV}.lora_down.weight": (4, 288),
        f"{KOHYA_CONV}.lora_up.weight": (64, 4),
        f"{FIRST_KOHYA}.diff": (128, 32),
    }
    alpha = torch.tensor(2.5, dtype=dtype)
    given = save(source, shapes, dtype=dtype, values={f"{MODULE}.alpha": alpha})
    record, found = converted(source, written)
    expected = {
        f"unet/{QUERY}/lora_down": given[f"{MODULE}.lora_down.weight"],
        f"unet/{QUERY}/lora_up": given[f"{MODULE}.lora_up.weight"],
        f"unet/{QUERY}/alpha": torch.tensor(2.5),
        f"unet/{CONV}/lora_down": given[f"{KOHYA_CONV}.lora_down.weight"].reshape(4, 32, 3, 3),
        f"unet/{CONV}/lora_up": given[f"{KOHYA_CONV}.lora_up.weight"].reshape(64, 4, 1, 1),
        f"unet/{CONV}/alpha": torch.tensor(4.0),
        f"text_encoder/{FIRST_PATH}/diff": given[f"{FIRST_KOHYA}.diff"],
    }
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name
    assert record == record_file(written)
    assert list(read_header(written).tensors) == sorted(expected)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_double_precision_becomes_single_and_eight_bits_become_sixteen(
    source: Path, written: Path, dtype: torch.dtype
) -> None:
    eight_bits = torch.randn(64, 4, generator=torch.Generator().manual_seed(1))
    values = {
        f"{MODULE}.lora_down.weight": torch.full((4, 64), 0.1, dtype=torch.float64),
        f"{MODULE}.lora_up.weight": eight_bits.to(torch.float8_e4m3fn),
        f"{MODULE}.alpha": torch.tensor([3], dtype=dtype),
    }
    save(source, {}, values=values)
    _, found = converted(source, written)
    assert torch.equal(found[f"unet/{QUERY}/lora_down"], torch.full((4, 64), 0.1))
    up = found[f"unet/{QUERY}/lora_up"]
    assert up.dtype == torch.float16
    assert torch.equal(up.float(), values[f"{MODULE}.lora_up.weight"].float())
    assert found[f"unet/{QUERY}/alpha"].dtype == torch.float32
    assert found[f"unet/{QUERY}/alpha"].item() == 3


def test_every_naming_of_one_lora_gives_the_same_file(tmp_path: Path) -> None:
    namings: list[tuple[str, str, str]] = [
        (MODULE, "lora_down", "lora_up"),
        (f"lora_unet_{QUERY}".replace(".", "_"), "lora_down", "lora_up"),
        (DIFFUSERS, "lora_A", "lora_B"),
        (DIFFUSERS, "lora.down", "lora.up"),
        (f"base_model.model.{QUERY}", "lora_A.default", "lora_B.default"),
        (f"{DIFFUSERS.removesuffix('.to_q')}.processor", "to_q_lora.down", "to_q_lora.up"),
        ("diffusion_model.input_blocks.4.1.transformer_blocks.0.attn1.to_q", "lora_A", "lora_B"),
    ]
    records = set()
    for number, (name, down, up) in enumerate(namings):
        path = tmp_path / f"{number}.safetensors"
        made = save(path, pair(name, down=down, up=up))
        assert len(made) == 2
        records.add(converted(path, tmp_path / "lora.safetensors")[0])
    assert len(records) == 1


def test_magnitudes_of_peft_become_a_column(source: Path, written: Path) -> None:
    shapes = pair(DIFFUSERS, down="lora_A", up="lora_B")
    given = save(source, shapes | {f"{DIFFUSERS}.lora_magnitude_vector": (64,)})
    _, found = converted(source, written)
    magnitudes = given[f"{DIFFUSERS}.lora_magnitude_vector"]
    assert torch.equal(found[f"unet/{QUERY}/dora_scale"], magnitudes[:, None])


def test_progress_ends_with_everything_written_and_read(source: Path, written: Path) -> None:
    save(source, pair(MODULE))
    reports: Reports = []
    converted(source, written, reports)
    total = 2 * 4 * 64 * 2 + 4
    assert {stage for stage, _, _ in reports} == {"convert", "verify"}
    for stage in ("convert", "verify"):
        done = [d for s, d, t in reports if s == stage and t == total]
        assert done == sorted(done)
        assert done[-1] == total


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["lora_up.weight", "alpha"])
def test_numbers_that_are_not_finite_are_refused(
    source: Path, written: Path, name: str, value: float
) -> None:
    shape = (64, 4) if name == "lora_up.weight" else ()
    tensor = torch.zeros(shape)
    tensor.reshape(-1)[-1] = value
    save(source, pair(MODULE), values={f"{MODULE}.{name}": tensor})
    with pytest.raises(CheckpointError, match=rf"tensor {MODULE}.{name} holds NaN or infinity"):
        converted(source, written)


def test_alpha_of_zero_is_refused(source: Path, written: Path) -> None:
    save(source, pair(MODULE), values={f"{MODULE}.alpha": torch.tensor(0.0)})
    with pytest.raises(AddonError, match=rf"alpha {MODULE}.alpha is 0, which some tools read as"):
        converted(source, written)


def test_source_that_shrinks_meanwhile_is_refused(source: Path, written: Path) -> None:
    save(source, pair(MODULE))
    plan = examine(read_header(source), targets())
    source.write_bytes(source.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match=r"source.safetensors changed while it was read"):
        convert(plan, written, lambda *_: None)


def test_what_the_disk_spoilt_is_noticed(
    source: Path, written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(source, pair(MODULE))
    write = module.write_safetensors

    def spoil(path: Path, *rest: object) -> FileRecord:
        record = write(path, *rest)  # type: ignore[arg-type]
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        return record

    monkeypatch.setattr(module, "write_safetensors", spoil)
    with pytest.raises(CheckpointError, match=r"lora_up is not read as it was written"):
        converted(source, written)


def test_targets_are_read_from_a_model_directory(tmp_path: Path) -> None:
    files: Mapping[Component, str] = {
        Component.UNET: "unet/diffusion_pytorch_model.safetensors",
        Component.TEXT_ENCODER: "text_encoder/model.safetensors",
        Component.TEXT_ENCODER_2: "text_encoder_2/model.safetensors",
    }
    shapes = {
        component: {"one.weight": (4, 2), "one.bias": (4,), "two.weight": (3,)}
        for component in LORA_COMPONENTS
    }
    for component, name in files.items():
        (tmp_path / name).parent.mkdir()
        save(tmp_path / name, shapes[component])
    found = read_targets(tmp_path)
    assert found == targets_of(shapes)
    assert found[Component.UNET]["one"] == ((4, 2), (4,))
    assert found[Component.UNET]["two"] == ((3,), None)
    (tmp_path / files[Component.UNET]).unlink()
    with pytest.raises(CheckpointError, match=r"can't be read"):
        read_targets(tmp_path)
