"""The plan for the device's memory: made once from measurements, and written as one line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch

from lpw_sdxl.diffusion.graphs import MAX_GRAPHS
from lpw_sdxl.diffusion.step import MAX_KEPT_TOKENS
from lpw_sdxl.diffusion.vae import SMALL_TILE_PIXELS
from lpw_sdxl.engine.description import HardwareDescription, MemoryDescription
from lpw_sdxl.engine.offload import DeviceMemory, decide_offload
from lpw_sdxl.engine.policy import ACTIVE_CALLS
from lpw_sdxl.engine.upscalers import TileRoom, upscaler_dtype
from lpw_sdxl.errors import ModelError
from lpw_sdxl.schema import ImageSize

GIB = 1024**3
SPARE_SHARE = 0.08  # of the free memory, for gaps of the allocator and for CUDA itself
TILE_ABOVE_PIXELS = 2048 * 2048  # only larger images are tiled, because tiles change tones a little
MAX_LORA_SETS = 8  # in a UNet call; each set divides the layers that it changes once more
# An H100 computes a smaller call in less time than a CPU takes to launch it (gpu_kernels.json).
LAUNCH_BOUND_PIXELS = 6 * 1024 * 1024
CPU_UPSCALING_BYTES = 4 * GIB  # a usual tile of RealESRGAN_x4plus takes 3.2 GB in float32
KEPT_CALLS = ACTIVE_CALLS + 1  # calls' rows with kept projections: all under way, and one stacked


@dataclass(frozen=True)
class Footprint:
    """The memory that a model takes on a CUDA device.

    Attributes:
        weights: bytes of all of them.
        largest_component: bytes of the largest one's weights.
        vae: bytes of the VAE's weights.
        per_row_pixel: bytes that a UNet call takes for each pixel of each row.
        per_decoded_pixel: bytes that a decode takes for each pixel.
        per_kept_token: bytes of a prompt's keys and values, for each of its tokens.
    """

    weights: int
    largest_component: int
    vae: int
    per_row_pixel: float
    per_decoded_pixel: float
    per_kept_token: float

    def resident(self, *, is_offloading: bool) -> int:
        """Return the bytes of weights that are on the device during a UNet call."""
        return self.largest_component if is_offloading else self.weights


@dataclass(frozen=True)
class MemoryPlan(MemoryDescription):
    """The plan: what the engine may do at once.

    Attributes:
        device: where it computes, by torch's name.
        hardware: what that is.
        dtype: of UNet and text encoders, by torch's name.
        decode_dtype: of the VAE, likewise.
        weight_bytes: of all components.
        is_offloading: whether only the component at work is on the device.
        offload_rule: the rule that decided so.
        offload_reason: that rule with its numbers, for a reader.
        max_rows: rows of one UNet call at native size or below.
        call_pixels: pixels of all rows of one UNet call.
        tile_above_pixels: larger images are decoded in tiles.
        keeps_projections: whether prompts' keys and values are kept over their steps.
        merged_bytes: of the weights with LoRAs that are kept beside the model's own.
        max_lora_sets: that one UNet call may have, no LoRAs at all counted as one.
        graph_pixels: of all rows of a UNet call that is replayed as a CUDA graph, at most; 0 for
            none.
        upscaling_bytes: that one tile of an upscaler may take: it has its turn in the memory of
            UNet calls and decodes.
    """

    @property
    def tile_room(self) -> TileRoom:
        """Return the room of one call of an upscaler's network."""
        dtype = upscaler_dtype(torch.device(self.device))
        return TileRoom(self.upscaling_bytes, dtype.itemsize)

    def rows_for(self, size: ImageSize) -> int:
        """Compute how many rows of a size one UNet call may have, at least 1."""
        return max(1, min(self.max_rows, self.call_pixels // (size.height * size.width)))

    def __str__(self) -> str:
        """Write the plan as one line of a log."""
        place = (
            f"one component at a time on {self.device}, the others in the host's memory"
            if self.is_offloading
            else f"everything stays on {self.device}"
        )
        return (
            f"{self.hardware}; {place} ({self.offload_reason}), in {self.dtype}"
            f" ({self.weight_bytes / GIB:.2f} GiB of weights), up to"
            f" {self.max_rows} rows and {self.call_pixels / 1e6:.2f} megapixels a UNet call, images"
            f" decoded one by one in {self.decode_dtype}, in tiles above"
            f" {self.tile_above_pixels / 1e6:.2f} megapixels"
        )


@dataclass(frozen=True)
class MemoryRequest:
    """The memory that the settings and the model ask for.

    Attributes:
        max_rows: rows of one UNet call.
        native_size: of the model; `max_rows` counts rows of this size.
        offload: `auto`, `always` or `never`.
        lora_bytes: for weights with LoRAs, at most; 0 where there are none.
        unet_bytes: of the UNet's weights: one set of LoRAs takes as many at most.
        uses_graphs: whether small UNet calls are replayed as CUDA graphs, on a CUDA device.
        network_bytes: of upscalers' networks that are kept; 0 where there are none.
    """

    max_rows: int
    native_size: ImageSize
    offload: str = "auto"
    lora_bytes: int = 0
    unet_bytes: int = 1
    uses_graphs: bool = True
    network_bytes: int = 0

    @property
    def native_pixels(self) -> int:
        """Count the pixels of the native size."""
        return self.native_size.height * self.native_size.width

    @property
    def full_call_pixels(self) -> int:
        """Count the pixels of `max_rows` rows of native size."""
        return self.max_rows * self.native_pixels


def plan_memory(
    wanted: MemoryRequest,
    hardware: HardwareDescription,
    dtypes: tuple[torch.dtype, torch.dtype],
    weight_bytes: int,
    measured: tuple[DeviceMemory, Footprint] | None,
) -> MemoryPlan:
    """Compute the plan; a pure function.

    Args:
        wanted: by the settings and the model.
        hardware: where everything runs.
        dtypes: of the UNet, and of the VAE.
        weight_bytes: of all components.
        measured: the device's memory and the model's footprint; None on a CPU, whose memory is not
            planned: there a call is as large as `max_rows` rows of native size.

    Raises:
        ModelError: if not even one row or one tile fits.
    """
    decision = decide_offload(measured[0] if measured else None, weight_bytes, wanted.offload)
    is_offloading = decision.is_offloading
    if measured:
        shares = _divide(wanted, *measured, is_offloading=is_offloading)
        _check_one_image_fits(wanted, *measured, shares, is_offloading=is_offloading)
    else:
        shares = Shares(
            wanted.full_call_pixels,
            TILE_ABOVE_PIXELS,
            not is_offloading,
            wanted.lora_bytes,
            graph_pixels=0,
            upscaling_bytes=CPU_UPSCALING_BYTES,
        )
    return MemoryPlan(
        device=hardware.device,
        hardware=hardware,
        dtype=_name(dtypes[0]),
        decode_dtype=_name(dtypes[1]),
        weight_bytes=weight_bytes,
        is_offloading=is_offloading,
        offload_rule=decision.rule,
        offload_reason=decision.reason,
        max_rows=min(wanted.max_rows, max(1, shares.call_pixels // wanted.native_pixels)),
        max_lora_sets=max(1, min(MAX_LORA_SETS, shares.merged_bytes // wanted.unet_bytes)),
        **shares._asdict(),
    )


class Shares(NamedTuple):
    """The parts of the memory that a plan gives to each purpose, as in MemoryPlan."""

    call_pixels: int
    tile_above_pixels: int
    keeps_projections: bool
    merged_bytes: int
    graph_pixels: int
    upscaling_bytes: int


class Budget:
    """A budget: the bytes of a device that are free for further purposes."""

    def __init__(self, free: float) -> None:
        self.free = free

    def withdraw(self, size: float) -> None:
        """Take bytes out for one purpose."""
        self.free -= size

    def count(self, unit: float, most: int) -> int:
        """Compute how many units of so many bytes are free, at most `most`."""
        return min(most, int(self.free / unit))


def _divide(
    wanted: MemoryRequest, memory: DeviceMemory, footprint: Footprint, *, is_offloading: bool
) -> Shares:
    """Divide a CUDA device's free memory among its purposes, the most important first."""
    usable = memory.free * (1 - SPARE_SHARE)
    # One set of LoRAs always has room; with offloading its weights replace the base's.
    one_set = 0 if is_offloading else min(wanted.lora_bytes, footprint.largest_component)
    projections = KEPT_CALLS * wanted.max_rows * MAX_KEPT_TOKENS * footprint.per_kept_token
    full_call = wanted.full_call_pixels * footprint.per_row_pixel

    budget = Budget(usable)
    budget.withdraw(footprint.resident(is_offloading=is_offloading))
    budget.withdraw(one_set)
    if not is_offloading:  # else they are there in the VAE's turn
        budget.withdraw(wanted.network_bytes)
    keeps_projections = not is_offloading and budget.free - projections >= full_call
    if keeps_projections:
        budget.withdraw(projections)
    call_pixels = budget.count(footprint.per_row_pixel, wanted.full_call_pixels)
    if is_offloading:  # the VAE is alone on the device when it decodes
        budget = Budget(usable)
        budget.withdraw(footprint.vae + wanted.network_bytes)
    tile_above = budget.count(footprint.per_decoded_pixel, TILE_ABOVE_PIXELS)
    # A UNet call, a decode and an upscaler's tile follow each other in the same memory.
    decode_bytes = tile_above * footprint.per_decoded_pixel
    working = max(call_pixels * footprint.per_row_pixel, decode_bytes)
    # With offloading, a tile has its turn with the VAE.
    upscaling_bytes = int(decode_bytes if is_offloading else working)
    budget.withdraw(working)
    left = Budget(max(0.0, budget.free) * (1 - SPARE_SHARE))
    graph_pixels = 0
    if wanted.uses_graphs and not is_offloading:
        # Sets of LoRAs that share calls save more than graphs, so that their room comes first.
        sets = min(MAX_LORA_SETS, int(one_set + left.free) // wanted.unet_bytes)
        more_sets = max(0, min(wanted.lora_bytes, sets * wanted.unet_bytes) - one_set)
        # All graphs share the memory of one call, but each keeps its rows' projections.
        kept_per_row = MAX_GRAPHS * MAX_KEPT_TOKENS * footprint.per_kept_token * keeps_projections
        per_pixel = footprint.per_row_pixel + kept_per_row / wanted.native_pixels
        graph_pixels = Budget(left.free - more_sets).count(per_pixel, LAUNCH_BOUND_PIXELS)
        left.withdraw(graph_pixels * per_pixel)
    merged_bytes = 0 if is_offloading else min(wanted.lora_bytes, one_set + int(left.free))
    return Shares(
        call_pixels,
        tile_above,
        keeps_projections,
        merged_bytes,
        graph_pixels,
        upscaling_bytes,
    )


def _check_one_image_fits(
    wanted: MemoryRequest,
    memory: DeviceMemory,
    footprint: Footprint,
    shares: Shares,
    *,
    is_offloading: bool,
) -> None:
    """Refuse a device that has no room for one row of native size, or for one small tile."""
    has_row = shares.call_pixels >= wanted.native_pixels
    has_tile = shares.tile_above_pixels >= SMALL_TILE_PIXELS**2
    if not (has_row and has_tile):
        raise ModelError(
            f"the device has {memory.free / GIB:.1f} GiB free, and this model needs"
            f" {footprint.resident(is_offloading=is_offloading) / GIB:.1f} GiB for weights and"
            f" {wanted.native_pixels * footprint.per_row_pixel / GIB:.1f} GiB for one image;"
            " a larger GPU, or one that no other program uses, would be right"
        )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
