from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lpw_sdxl.diffusion.attention import PromptProjection
from lpw_sdxl.diffusion.pipeline import Pipeline
from lpw_sdxl.engine import calibration
from lpw_sdxl.engine.calibration import calibrate, measure_footprint, read_memory
from lpw_sdxl.engine.memory import Footprint, MemoryRequest
from lpw_sdxl.engine.offload import DeviceMemory
from lpw_sdxl.errors import ModelError
from lpw_sdxl.schema import ImageSize
from lpw_sdxl.settings import Settings

CPU = torch.device("cpu")
ROOMY = DeviceMemory(total=80 * 10**9, free=79 * 10**9)


@pytest.fixture
def pipeline(model_directory: Path) -> Pipeline:
    return Pipeline.load(model_directory, CPU, Settings())


def record(module: Any) -> list[torch.Size]:
    """Note the shape of each input of a module from now on."""
    shapes: list[torch.Size] = []
    module.register_forward_pre_hook(lambda _, inputs: shapes.append(inputs[0].shape))
    return shapes


def test_a_cpu_is_planned_without_a_run(pipeline: Pipeline) -> None:
    shapes = [record(module) for module in (pipeline.unet, pipeline.vae.decoder)]
    assert read_memory(CPU) is None
    plan = calibrate(pipeline, None, Settings(device="cpu", max_rows=6))
    assert shapes == [[], []]
    assert plan.device == str(CPU)
    assert (plan.dtype, plan.decode_dtype) == (pipeline.manifest.dtype, "float32")
    assert plan.weight_bytes == pipeline.weight_bytes
    assert plan.max_rows == 6
    assert plan.call_pixels == 6 * 128 * 128


def peaks(unet_bytes: Callable[[int], int], vae_bytes: int, pipeline: Pipeline) -> Any:
    """Stand in for CUDA's counters, which a CPU has not; the runs themselves are real."""
    rows = record(pipeline.unet)
    decoded = record(pipeline.vae.post_quant_conv)

    def measure_peak(device: torch.device, run: Callable[[], None]) -> int:
        before = len(rows)
        run()
        return unet_bytes(rows[-1][0]) if len(rows) > before else vae_bytes

    return measure_peak, rows, decoded


def test_a_footprint_is_measured_by_real_runs_of_native_size(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = ImageSize(64, 96)
    pixels = 64 * 96
    fixed = 1_000_000  # of a call, whatever its rows
    measure_peak, rows, decoded = peaks(lambda n: fixed + n * 500 * pixels, 3700 * pixels, pipeline)
    monkeypatch.setattr(calibration, "measure_peak", measure_peak)
    found = measure_footprint(pipeline, ROOMY, MemoryRequest(16, size))
    assert rows == [(2, 4, 8, 12), (4, 4, 8, 12)]
    assert decoded == [(1, 4, 8, 12)]
    width = PromptProjection(pipeline.unet).width
    assert found == Footprint(
        weights=pipeline.weight_bytes,
        largest_component=sum(one.nbytes for one in pipeline.unet.parameters()),
        vae=sum(one.nbytes for one in pipeline.vae.parameters()),
        per_row_pixel=pytest.approx((fixed + 4 * 500 * pixels) / 4 / pixels),
        per_decoded_pixel=3700,
        per_kept_token=width * 4,  # float32
    )


@pytest.mark.parametrize(
    ("few", "many", "per_row"), [(100, 900, 400), (800, 900, 225)], ids=["growth", "average"]
)
def test_a_row_is_counted_by_what_it_adds_or_by_the_average_if_that_is_more(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, few: int, many: int, per_row: int
) -> None:
    measure_peak, _, _ = peaks(lambda rows: few if rows == 2 else many, 1, pipeline)
    monkeypatch.setattr(calibration, "measure_peak", measure_peak)
    found = measure_footprint(pipeline, ROOMY, MemoryRequest(16, ImageSize(64, 64)))
    assert found.per_row_pixel * 64 * 64 == pytest.approx(per_row)


@pytest.mark.thorough
def test_where_memory_is_short_less_is_measured(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four rows and an untiled image of native size don't fit; the plan does with less."""

    def bytes_of(rows: int) -> int:
        if rows > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return rows * 500

    measure_peak, rows, decoded = peaks(bytes_of, 3700 * 512 * 512, pipeline)

    def short(device: torch.device, run: Callable[[], None]) -> int:
        taken = measure_peak(device, run)
        if decoded and decoded[-1][-1] > 64:
            raise RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")
        return taken

    monkeypatch.setattr(calibration, "measure_peak", short)
    found = measure_footprint(pipeline, ROOMY, MemoryRequest(16, ImageSize(512, 520)))
    assert [shape[0] for shape in rows] == [2, 4, 1, 2]
    assert [shape[-2:] for shape in decoded] == [(64, 65), (64, 64)]
    assert found.per_row_pixel * 512 * 520 == 500
    assert found.per_decoded_pixel == 3700


def test_a_model_that_does_not_fit_is_refused_in_one_sentence(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lack(device: torch.device, run: Callable[[], None]) -> int:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(calibration, "measure_peak", lack)
    with pytest.raises(ModelError, match=r"4\.0 GB free.*128x128.*would be right") as refused:
        calibrate(pipeline, DeviceMemory(8 * 10**9, 4 * 10**9), Settings(device="cpu"))
    assert refused.value.__context__ is None  # no frames that hold what did not fit
    assert "\n" not in str(refused.value)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("offload", ["never", "always"])
def test_a_gpu_is_measured_and_planned(model_directory: Path, offload: str) -> None:
    device = torch.device("cuda", 0)
    memory = read_memory(device)
    assert memory is not None
    assert 0 < memory.free <= memory.total
    pipeline = Pipeline.load(model_directory, device, Settings())
    wanted = MemoryRequest(16, pipeline.manifest.native_size, offload)
    found = measure_footprint(pipeline, memory, wanted)
    assert found.per_row_pixel > 0
    assert found.per_decoded_pixel > 0
    before = torch.cuda.memory_allocated(device)
    more = calibration.measure_peak(device, lambda: None)
    assert more == 0
    assert torch.cuda.memory_allocated(device) == before
    plan = calibrate(pipeline, memory, Settings(device="cuda", offload=offload))
    assert plan.is_offloading is (offload == "always")
    assert plan.max_rows == 16  # a tiny model fits anywhere
