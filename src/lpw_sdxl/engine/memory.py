"""The plan for the device's memory: made once from measurements, and written as one line."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lpw_sdxl.diffusion.decoder import SMALL_TILE_PIXELS
from lpw_sdxl.diffusion.denoiser import MAX_KEPT_TOKENS
from lpw_sdxl.diffusion.graphs import MAX_GRAPHS
from lpw_sdxl.engine.description import MemoryDescription
from lpw_sdxl.engine.policy import ACTIVE_CALLS
from lpw_sdxl.errors import ModelError, SettingsError
from lpw_sdxl.schema import ImageSize

GIB = 1024**3
EVERYTHING_FITS_BYTES = 20_000_000_000  # of the device; a smaller one has one component at a time
SPARE_SHARE = 0.08  # of the free memory, for gaps of the allocator and for CUDA itself
TILE_ABOVE_PIXELS = 2048 * 2048  # only larger images are tiled, because tiles change tones a little
MAX_LORA_SETS = 8  # in a UNet call; each set divides the layers that it changes once more
# An H100 computes a smaller call in less time than a CPU takes to launch it (gpu_kernels.json).
LAUNCH_BOUND_PIXELS = 6 * 1024 * 1024
KEPT_CALLS = ACTIVE_CALLS + 1  # calls' rows with kept projections: all under way, and one stacked


def choose_device(wanted: str, workers: int = 1) -> torch.device:
    """Choose the device that a setting means.

    Args:
        wanted: `auto`, `cpu` or `cuda`.
        workers: how many devices are needed, where CUDA is used.

    Raises:
        SettingsError: if a CUDA device is wanted that this machine does not have.
    """
    has_cuda = torch.cuda.is_available()
    if wanted == "cuda" and not has_cuda:
        raise SettingsError(
            "LPW_SDXL_DEVICE is cuda, and this machine has no CUDA device that torch can use;"
            " auto or cpu would be right"
        )
    is_cuda = has_cuda and wanted != "cpu"
    if is_cuda and workers > (count := torch.cuda.device_count()):
        raise SettingsError(
            f"LPW_SDXL_WORKERS is {workers}, and {count} CUDA devices are visible; a worker needs"
            f" one of its own, so at most {count} would be right"
        )
    # To a worker only its own GPU is visible, as number 0.
    return torch.device("cuda", 0) if is_cuda else torch.device("cpu")


@dataclass(frozen=True)
class DeviceMemory:
    """The memory of a CUDA device before the model is moved there; bytes."""

    total: int
    free: int


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


@dataclass(frozen=True)
class MemoryPlan(MemoryDescription):
    """The plan: what the engine may do at once.

    Attributes:
        device: where it computes, by torch's name.
        dtype: of UNet and text encoders, by torch's name.
        decode_dtype: of the VAE, likewise.
        weight_bytes: of all components.
        is_offloading: whether only the component at work is on the device.
        max_rows: rows of one UNet call at native size or below.
        call_pixels: pixels of all rows of one UNet call.
        tile_above_pixels: larger images are decoded in tiles.
        keeps_projections: whether prompts' keys and values are kept over their steps.
        merged_bytes: of the weights with LoRAs that are kept beside the model's own.
        max_lora_sets: that one UNet call may have, no LoRAs at all counted as one.
        graph_pixels: of all rows of a UNet call that is replayed as a CUDA graph, at most; 0 for
            none.
    """

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
            f"{place}, in {self.dtype} ({self.weight_bytes / GIB:.2f} GiB of weights), up to"
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
    """

    max_rows: int
    native_size: ImageSize
    offload: str = "auto"
    lora_bytes: int = 0
    unet_bytes: int = 1
    uses_graphs: bool = True

    @property
    def native_pixels(self) -> int:
        """Count the pixels of the native size."""
        return self.native_size.height * self.native_size.width


def must_offload(memory: DeviceMemory | None, weights: int, offload: str) -> bool:
    """Return whether only the component at work is on the device.

    Args:
        memory: of the device; None for the CPU.
        weights: bytes of all of them.
        offload: the setting, `auto`, `always` or `never`.
    """
    if offload != "auto":
        return offload == "always"
    if memory is None:
        return False
    return memory.total < EVERYTHING_FITS_BYTES or memory.free < 1.5 * weights


def plan_memory(
    wanted: MemoryRequest,
    device: torch.device,
    dtypes: tuple[torch.dtype, torch.dtype],
    weight_bytes: int,
    measured: tuple[DeviceMemory, Footprint] | None,
) -> MemoryPlan:
    """Compute the plan; a pure function.

    Args:
        wanted: by the settings and the model.
        device: where everything runs.
        dtypes: of the UNet, and of the VAE.
        weight_bytes: of all components.
        measured: the device's memory and the model's footprint; None on a CPU, whose memory is not
            planned: there a call is as large as `max_rows` rows of native size.

    Raises:
        ModelError: if not even one row or one tile fits.
    """
    memory = measured[0] if measured else None
    is_offloading = must_offload(memory, weight_bytes, wanted.offload)
    pixels = wanted.max_rows * wanted.native_pixels
    tile_above = TILE_ABOVE_PIXELS
    keeps_projections = not is_offloading
    merged_bytes = wanted.lora_bytes
    graph_pixels = 0
    if measured:
        memory, footprint = measured
        resident = footprint.largest_component if is_offloading else footprint.weights
        room = memory.free * (1 - SPARE_SHARE) - resident
        # One set of LoRAs can always be there; one that is offloaded takes the base's place.
        one_set = 0 if is_offloading else min(wanted.lora_bytes, footprint.largest_component)
        room -= one_set
        kept = KEPT_CALLS * wanted.max_rows * MAX_KEPT_TOKENS * footprint.per_kept_token
        keeps_projections &= room - kept >= pixels * footprint.per_row_pixel
        room -= kept if keeps_projections else 0
        pixels = min(pixels, int(room / footprint.per_row_pixel))
        step_room = pixels * footprint.per_row_pixel
        if is_offloading:  # only the VAE is there
            room = memory.free * (1 - SPARE_SHARE) - footprint.vae
        tile_above = min(tile_above, int(room / footprint.per_decoded_pixel))
        left = max(0.0, room - max(step_room, tile_above * footprint.per_decoded_pixel))
        left *= 1 - SPARE_SHARE
        if wanted.uses_graphs and not is_offloading:
            # Sets of LoRAs that share calls save more. All graphs work in one room, and each keeps
            # its rows' projections.
            sets = min(MAX_LORA_SETS, int(one_set + left) // wanted.unet_bytes)
            room_of_sets = max(0, min(wanted.lora_bytes, sets * wanted.unet_bytes) - one_set)
            kept_of_a_row = MAX_GRAPHS * MAX_KEPT_TOKENS * footprint.per_kept_token
            kept_of_a_row *= keeps_projections
            per_pixel = footprint.per_row_pixel + kept_of_a_row / wanted.native_pixels
            graph_pixels = min(LAUNCH_BOUND_PIXELS, int((left - room_of_sets) / per_pixel))
            left -= graph_pixels * per_pixel
        merged_bytes = 0 if is_offloading else min(wanted.lora_bytes, one_set + int(left))
        if pixels < wanted.native_pixels or tile_above < SMALL_TILE_PIXELS**2:
            raise ModelError(
                f"the device has {memory.free / GIB:.1f} GiB free, and this model needs"
                f" {resident / GIB:.1f} GiB for weights and"
                f" {wanted.native_pixels * footprint.per_row_pixel / GIB:.1f} GiB for one image;"
                " a larger GPU, or one that no other program uses, would be right"
            )
    return MemoryPlan(
        device=str(device),
        dtype=_name(dtypes[0]),
        decode_dtype=_name(dtypes[1]),
        weight_bytes=weight_bytes,
        is_offloading=is_offloading,
        max_rows=min(wanted.max_rows, max(1, pixels // wanted.native_pixels)),
        call_pixels=pixels,
        tile_above_pixels=tile_above,
        keeps_projections=keeps_projections,
        merged_bytes=merged_bytes,
        max_lora_sets=max(1, min(MAX_LORA_SETS, merged_bytes // wanted.unet_bytes)),
        graph_pixels=graph_pixels,
    )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
