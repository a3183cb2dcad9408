"""A measurement of the memory that a model takes on a CUDA device, and the plan made from it."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Sequence
from functools import partial

import torch

from lpw_sdxl.diffusion.denoiser import prompt_arguments
from lpw_sdxl.diffusion.latents import LATENT_CHANNELS
from lpw_sdxl.diffusion.offloader import Offloader
from lpw_sdxl.diffusion.pipeline import Pipeline
from lpw_sdxl.diffusion.vae import SMALL_TILE_PIXELS
from lpw_sdxl.engine.faults import Fault, classify
from lpw_sdxl.engine.hardware import describe_hardware
from lpw_sdxl.engine.memory import Footprint, MemoryPlan, MemoryRequest, plan_memory
from lpw_sdxl.engine.offload import DeviceMemory, decide_offload
from lpw_sdxl.engine.upscalers import NETWORK_BYTES
from lpw_sdxl.errors import ModelError
from lpw_sdxl.schema import LATENT_SCALE, ImageSize
from lpw_sdxl.settings import Settings

PROMPT_TOKENS = 77
DEFAULT_LORA_BYTES = 1024**3  # of weights with LoRAs, in the host's memory
CALIBRATED_ROWS = ((2, 4), (1, 2))  # of two compared calls; the second pair if memory is short


def read_memory(device: torch.device) -> DeviceMemory | None:
    """Read a CUDA device's total and free memory; None for the CPU, whose memory is not planned."""
    if device.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(device)
    return DeviceMemory(total=total, free=free)


def calibrate(
    pipeline: Pipeline,
    memory: DeviceMemory | None,
    settings: Settings,
    *,
    has_loras: bool = False,
    has_upscalers: bool = False,
) -> MemoryPlan:
    """Plan the memory for a loaded pipeline.

    Args:
        pipeline: in the host's memory.
        memory: of the device before the model is moved there, or None.
        settings: the operator's.
        has_loras: whether requests may name LoRAs, whose weights take memory.
        has_upscalers: whether they may name imported upscalers, likewise.

    Raises:
        ModelError: if the model does not fit.
    """
    wanted = MemoryRequest(
        settings.max_rows,
        pipeline.manifest.native_size,
        settings.offload,
        _lora_bytes(settings, pipeline.device) if has_loras else 0,
        _bytes(pipeline.unet) + pipeline.quantised_bytes,
        settings.cuda_graphs,
        network_bytes=NETWORK_BYTES if has_upscalers else 0,
        acceleration=pipeline.acceleration,
    )
    measured = None
    if memory is not None:
        try:
            measured = (memory, measure_footprint(pipeline, memory, wanted))
        except Exception as error:
            if classify(error) is not Fault.OUT_OF_MEMORY:
                raise
        if measured is None:
            raise ModelError(
                f"the device has {memory.free / 1e9:.1f} GB free, and this model"
                f" ({pipeline.weight_bytes / 1e9:.1f} GB of weights) can't make one image of"
                f" {wanted.native_size} in it; a larger GPU, or one that no other program uses,"
                " would be right"
            )
    return plan_memory(
        wanted,
        describe_hardware(pipeline.device, memory),
        (pipeline.dtype, pipeline.vae.dtype),
        pipeline.weight_bytes,
        measured,
    )


def _lora_bytes(settings: Settings, device: torch.device) -> int:
    if settings.lora_weights_bytes is not None:
        return settings.lora_weights_bytes
    return DEFAULT_LORA_BYTES if device.type == "cpu" else sys.maxsize


@torch.inference_mode()
def measure_footprint(pipeline: Pipeline, memory: DeviceMemory, wanted: MemoryRequest) -> Footprint:
    """Measure what the UNet and the VAE take in runs at native size.

    Where those runs do not fit, the UNet runs with fewer rows and the VAE on a smaller image. The
    layers are Diffusers' own: ours take no more where a UNet call or a decode is at its peak.

    Raises:
        torch.OutOfMemoryError: if not even the smaller runs fit.
    """
    size = wanted.native_size
    small = ImageSize(min(size.height, SMALL_TILE_PIXELS), min(size.width, SMALL_TILE_PIXELS))
    decision = decide_offload(memory, pipeline.weight_bytes, wanted.offload)
    offloader = Offloader(pipeline, is_offloading=decision.is_offloading)
    offloader.require("unet")
    per_row = _run_first_that_fits(
        [partial(_measure_row, pipeline, size, rows) for rows in CALIBRATED_ROWS]
    )
    offloader.require("vae")
    per_decoded_pixel = _run_first_that_fits(
        [partial(_measure_decoded_pixel, pipeline, one) for one in (size, small)]
    )
    cross_attention = [
        module.to_k.out_features
        for name, module in pipeline.unet.named_modules()
        if name.endswith("attn2")
    ]
    return Footprint(
        weights=pipeline.weight_bytes,
        largest_component=_bytes(pipeline.unet) + pipeline.quantised_bytes,
        vae=_bytes(pipeline.vae),
        per_row_pixel=per_row / wanted.native_pixels,
        per_decoded_pixel=per_decoded_pixel,
        per_kept_token=2 * sum(cross_attention) * pipeline.dtype.itemsize,
    )


def _run_first_that_fits(runs: Sequence[Callable[[], float]]) -> float:
    """Return the result of the first run that fits into the memory."""
    for run in runs[:-1]:
        try:
            return run()
        except Exception as error:
            if classify(error) is not Fault.OUT_OF_MEMORY:
                raise
        gc.collect()  # outside of the except block, where the failed run's frames are gone
    return runs[-1]()


def _measure_row(pipeline: Pipeline, size: ImageSize, rows: tuple[int, int]) -> float:
    """Measure the bytes of a row: what it adds to a call, or its share of one, the larger."""
    few, many = (measure_peak(pipeline.device, partial(_run_unet, pipeline, size, n)) for n in rows)
    return max((many - few) / (rows[1] - rows[0]), many / rows[1])


def _measure_decoded_pixel(pipeline: Pipeline, size: ImageSize) -> float:
    decoding = measure_peak(pipeline.device, partial(_run_vae, pipeline, size))
    return decoding / (size.height * size.width)


def measure_peak(device: torch.device, run: Callable[[], None]) -> int:
    """Measure the bytes that a run takes at its peak, beside those in use on the CUDA device."""
    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    run()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _run_unet(pipeline: Pipeline, size: ImageSize, rows: int) -> None:
    config = pipeline.unet.config
    pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
    zeros = partial(torch.zeros, device=pipeline.device, dtype=pipeline.dtype)
    pipeline.unet(
        zeros(rows, config.in_channels, size.height // LATENT_SCALE, size.width // LATENT_SCALE),
        torch.full((rows,), 500.0, device=pipeline.device),
        **prompt_arguments(
            zeros(rows, PROMPT_TOKENS, config.cross_attention_dim),
            zeros(rows, pooled),
            zeros(rows, 6),
        ),
    )


def _run_vae(pipeline: Pipeline, size: ImageSize) -> None:
    shape = (1, LATENT_CHANNELS, size.height // LATENT_SCALE, size.width // LATENT_SCALE)
    latents = torch.zeros(shape, device=pipeline.device, dtype=pipeline.vae.dtype)
    pipeline.vae.decode(latents, return_dict=False)


def _bytes(module: torch.nn.Module) -> int:
    return sum(parameter.nbytes for parameter in module.parameters())
