from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
import torch

from lpw_sdxl.diffusion.step import MAX_KEPT_TOKENS
from lpw_sdxl.engine.description import HardwareDescription
from lpw_sdxl.engine.device_choice import choose_device
from lpw_sdxl.engine.memory import (
    GIB,
    KEPT_CALLS,
    LAUNCH_BOUND_PIXELS,
    MAX_LORA_SETS,
    TILE_ABOVE_PIXELS,
    Footprint,
    MemoryPlan,
    MemoryRequest,
    plan_memory,
)
from lpw_sdxl.engine.offload import DeviceMemory, OffloadRule
from lpw_sdxl.errors import ModelError, SettingsError
from lpw_sdxl.schema import ImageSize

NATIVE = ImageSize(1024, 1024)
GPU = HardwareDescription(
    "cuda:0", "NVIDIA RTX A5000", 24 * GIB, 23 * GIB, "580.159.04", "8.6", threads=None
)
CPU = HardwareDescription("cpu", "AMD EPYC 9354", 64 * GIB, threads=16)
HALF = (torch.float16, torch.float32)
# SDXL in float16 with its VAE in float32; bytes.
SDXL = Footprint(
    weights=6_940_000_000 + 167_000_000,
    largest_component=5_140_000_000,
    vae=334_000_000,
    per_row_pixel=500.0,
    per_decoded_pixel=3700.0,
    per_kept_token=332_800,
)


def plan_for(
    gib: float,
    offload: str = "auto",
    footprint: Footprint = SDXL,
    wanted: MemoryRequest = MemoryRequest(16, NATIVE),  # noqa: B008 - frozen
) -> MemoryPlan:
    """Plan for a GPU of so many GiB, of which CUDA itself takes half of one."""
    memory = DeviceMemory(total=int(gib * GIB), free=int((gib - 0.5) * GIB))
    wanted = replace(wanted, offload=offload)
    hardware = replace(GPU, total_bytes=memory.total, free_bytes=memory.free)
    return plan_memory(wanted, hardware, HALF, footprint.weights, (memory, footprint))


def test_auto_takes_the_gpu_where_there_is_one() -> None:
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert choose_device("auto").type == expected


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(SettingsError, match="LPW_SDXL_DEVICE"):
        choose_device("cuda")


def test_the_cpu_can_be_set() -> None:
    assert choose_device("cpu").type == "cpu"


def test_a_device_that_torch_has_no_code_for_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_90"])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA X")
    assert choose_device("auto").type == "cuda"
    assert choose_device("cpu").type == "cpu"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (6, 1))
    with pytest.raises(SettingsError, match=r"NVIDIA X has compute capability 6\.1.*7\.5 or newer"):
        choose_device("auto")


@pytest.mark.parametrize(
    ("gib", "is_offloading", "rows", "keeps_projections", "tile_megapixels"),
    [
        (8, True, 4, False, 1.9),
        (12, True, 11, False, 2.9),
        (16, True, 16, False, 4.0),
        (24, False, 16, False, 4.19),
        (48, False, 16, True, 4.19),
        (80, False, 16, True, 4.19),
        (141, False, 16, True, 4.19),
    ],
)
def test_every_common_gpu_has_a_plan(
    gib: float, is_offloading: bool, rows: int, keeps_projections: bool, tile_megapixels: float
) -> None:
    plan = plan_for(gib)
    assert plan.is_offloading is is_offloading
    assert plan.max_rows == rows
    assert plan.keeps_projections is keeps_projections
    assert plan.tile_above_pixels / 1e6 == pytest.approx(tile_megapixels, abs=0.1)
    assert (plan.dtype, plan.decode_dtype) == ("float16", "float32")
    assert plan.weight_bytes == SDXL.weights


@pytest.mark.parametrize("gib", [7, 8, 10, 11, 12, 16, 20, 24, 32, 40, 48, 80, 96, 141])
@pytest.mark.parametrize("offload", ["auto", "always", "never"])
@pytest.mark.parametrize("max_rows", [2, 16, 64])
def test_what_is_planned_fits(gib: float, offload: str, max_rows: int) -> None:
    try:
        plan = plan_for(gib, offload, wanted=MemoryRequest(max_rows, NATIVE))
    except ModelError:
        assert gib <= (7 if offload != "never" else 10)
        return
    free = (gib - 0.5) * GIB
    while_stepping = SDXL.largest_component if plan.is_offloading else SDXL.weights
    while_decoding = SDXL.vae if plan.is_offloading else SDXL.weights
    kept = KEPT_CALLS * max_rows * MAX_KEPT_TOKENS * SDXL.per_kept_token
    kept *= plan.keeps_projections
    assert while_stepping + kept + plan.call_pixels * SDXL.per_row_pixel < 0.93 * free
    assert while_decoding + kept + plan.tile_above_pixels * SDXL.per_decoded_pixel < 0.93 * free
    assert 1 <= plan.max_rows <= max_rows
    assert plan.call_pixels <= max_rows * 1024 * 1024
    assert plan.tile_above_pixels <= TILE_ABOVE_PIXELS


@pytest.mark.parametrize("gib", [20, 24, 32, 48, 80, 141])
def test_graphs_take_what_is_left_and_lora_weights_the_rest(gib: float) -> None:
    wanted = MemoryRequest(16, NATIVE, lora_bytes=10**15, unet_bytes=5 * 10**9)
    with_graphs = plan_for(gib, wanted=wanted)
    without = plan_for(gib, wanted=replace(wanted, uses_graphs=False))
    assert without.graph_pixels == 0
    assert 0 <= with_graphs.graph_pixels <= LAUNCH_BOUND_PIXELS
    taken = with_graphs.graph_pixels * SDXL.per_row_pixel
    assert without.merged_bytes - with_graphs.merged_bytes >= taken - 1
    assert with_graphs.call_pixels == without.call_pixels
    assert with_graphs.max_lora_sets == without.max_lora_sets
    assert with_graphs.graph_pixels == LAUNCH_BOUND_PIXELS or gib < 100


@pytest.mark.parametrize("gib", [48, 80, 141])
def test_without_loras_a_large_gpu_records_all_small_calls(gib: float) -> None:
    assert plan_for(gib).graph_pixels == LAUNCH_BOUND_PIXELS


def test_nothing_is_recorded_where_the_unet_comes_and_goes() -> None:
    assert plan_for(12).graph_pixels == 0
    assert plan_for(80, "always").graph_pixels == 0


def test_more_memory_never_gives_a_smaller_call() -> None:
    pixels = [plan_for(gib).call_pixels for gib in (8, 10, 12, 14, 16, 18)]
    assert pixels == sorted(pixels)
    pixels = [plan_for(gib).call_pixels for gib in (19, 24, 32, 48, 80, 141)]
    assert pixels == sorted(pixels)


def test_a_native_image_is_never_decoded_in_tiles_where_it_is_the_vae_alone() -> None:
    assert plan_for(8).tile_above_pixels >= 1024 * 1024


@pytest.mark.parametrize(
    ("gib", "offload", "words"),
    [(5, "auto", "4.5 GiB free"), (9, "never", "8.5 GiB free")],
    ids=["offloading", "all of it"],
)
def test_a_gpu_that_is_too_small_is_refused_in_one_sentence(
    gib: float, offload: str, words: str
) -> None:
    footprint = replace(SDXL, per_decoded_pixel=8000.0) if gib > 5 else SDXL
    with pytest.raises(ModelError, match=words) as refused:
        plan_for(gib, offload, footprint)
    message = str(refused.value)
    assert "GiB for weights" in message
    assert "would be right" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("size", "rows"),
    [
        (ImageSize(1024, 1024), 4),
        (ImageSize(512, 512), 4),
        (ImageSize(64, 64), 4),
        (ImageSize(1536, 1024), 2),
        (ImageSize(2048, 2048), 1),
        (ImageSize(4096, 4096), 1),
    ],
    ids=str,
)
def test_a_call_holds_fewer_rows_of_a_larger_size(size: ImageSize, rows: int) -> None:
    plan = replace(plan_for(24), max_rows=4, call_pixels=4 * 1024 * 1024)
    assert plan.rows_for(size) == rows


def test_a_cpus_memory_is_not_planned() -> None:
    plan = plan_memory(MemoryRequest(8, NATIVE), CPU, (torch.float32,) * 2, 1, None)
    assert not plan.is_offloading
    assert plan.keeps_projections
    assert plan.rows_for(NATIVE) == 8
    assert plan_memory(
        MemoryRequest(8, NATIVE, "always"), CPU, (torch.float32,) * 2, 1, None
    ).is_offloading


def test_a_plan_is_one_line_with_device_dtypes_and_weights() -> None:
    line = str(plan_for(12))
    assert "\n" not in line
    parts = ("cuda:0", "float16", "float32", "6.62 GiB", "11 rows", "one component at a time")
    assert all(part in line for part in parts)
    assert "everything stays" in str(plan_for(80))


@pytest.mark.parametrize(
    ("gib", "offload", "rule", "words"),
    [
        (16, "auto", OffloadRule.SMALL_DEVICE, "(auto: 17.1 GB of device memory are less than"),
        (24, "auto", OffloadRule.EVERYTHING_FITS, "(auto: 25.2 GB free of 25.7 GB"),
        (24, "always", OffloadRule.SETTING, "(LPW_SDXL_OFFLOAD is always)"),
        (24, "never", OffloadRule.SETTING, "(LPW_SDXL_OFFLOAD is never)"),
    ],
)
def test_a_plan_has_its_device_and_why_components_take_turns(
    gib: float, offload: str, rule: OffloadRule, words: str
) -> None:
    plan = plan_for(gib, offload)
    assert plan.offload_rule is rule
    assert words in str(plan)
    assert f"({plan.offload_reason})" in str(plan)
    assert str(plan.hardware) in str(plan)
    assert plan.device == plan.hardware.device == "cuda:0"


def test_a_line_of_the_log_has_every_fact_of_a_device() -> None:
    assert str(GPU) == (
        "cuda:0 is NVIDIA RTX A5000 (25.8 GB of memory, 24.7 GB of it free before the model came,"
        " driver 580.159.04, compute capability 8.6)"
    )
    assert "driver of unknown version" in str(replace(GPU, driver=None))
    assert str(CPU) == "cpu is AMD EPYC 9354 (68.7 GB of memory, 16 threads)"
    assert str(replace(CPU, threads=1)).endswith(" 1 thread)")


def test_a_plan_is_plain_json_too() -> None:
    parsed = json.loads(json.dumps(asdict(plan_for(24))))
    assert (parsed["device"], parsed["dtype"], parsed["decode_dtype"]) == (
        "cuda:0",
        "float16",
        "float32",
    )
    assert parsed["max_rows"] == 16


UNET_BYTES = SDXL.largest_component
WITH_LORAS = MemoryRequest(16, NATIVE, lora_bytes=2**62, unet_bytes=UNET_BYTES)


def test_without_loras_nothing_is_set_aside_for_them() -> None:
    plan = plan_for(24)
    assert (plan.merged_bytes, plan.max_lora_sets) == (0, 1)


@pytest.mark.parametrize("offload", ["auto", "always", "never"])
@pytest.mark.parametrize("max_rows", [2, 16])
@pytest.mark.parametrize("lora_bytes", [0, 10**9, 12 * 10**9, 2**62])
@pytest.mark.parametrize("gib", [8, 12, 16, 24, 32, 40, 48, 80, 141])
def test_what_is_planned_with_loras_fits(
    gib: float, offload: str, max_rows: int, lora_bytes: int
) -> None:
    wanted = replace(WITH_LORAS, max_rows=max_rows, lora_bytes=lora_bytes)
    try:
        plan = plan_for(gib, offload, wanted=wanted)
    except ModelError:
        assert offload == "never"
        assert gib <= 16
        return
    free = (gib - 0.5) * GIB
    if plan.is_offloading:  # what a set changes takes the base's place
        assert (plan.merged_bytes, plan.max_lora_sets) == (0, 1)
        return
    kept = KEPT_CALLS * max_rows * MAX_KEPT_TOKENS * SDXL.per_kept_token
    always = SDXL.weights + kept * plan.keeps_projections + plan.merged_bytes
    assert always + plan.call_pixels * SDXL.per_row_pixel < 0.93 * free
    assert always + plan.tile_above_pixels * SDXL.per_decoded_pixel < 0.93 * free
    assert plan.merged_bytes <= lora_bytes
    assert plan.merged_bytes >= min(lora_bytes, UNET_BYTES)  # one set always has room
    assert 1 <= plan.max_lora_sets <= MAX_LORA_SETS
    assert plan.max_lora_sets == 1 or plan.max_lora_sets * UNET_BYTES <= plan.merged_bytes


@pytest.mark.parametrize(("gib", "sets"), [(12, 1), (24, 1), (48, 2), (80, 8), (141, 8)], ids=str)
def test_a_call_has_as_many_sets_as_there_is_room_for(gib: float, sets: int) -> None:
    assert plan_for(gib, wanted=WITH_LORAS).max_lora_sets == sets


def test_loras_never_cost_a_large_gpu_its_large_calls() -> None:
    for gib in (48, 80, 141):
        plain, plan = plan_for(gib), plan_for(gib, wanted=WITH_LORAS)
        assert plan.call_pixels == plain.call_pixels
        assert plan.tile_above_pixels == plain.tile_above_pixels


def test_on_a_cpu_the_setting_decides() -> None:
    for lora_bytes, sets in ((1, 1), (3 * UNET_BYTES, 3), (100 * UNET_BYTES, MAX_LORA_SETS)):
        wanted = replace(WITH_LORAS, lora_bytes=lora_bytes)
        plan = plan_memory(wanted, CPU, (torch.float32,) * 2, 1, None)
        assert (plan.merged_bytes, plan.max_lora_sets) == (lora_bytes, sets)
