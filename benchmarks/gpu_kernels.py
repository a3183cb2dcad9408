"""Which way of running SDXL's UNet and VAE is the fastest on this GPU?

A random UNet and VAE of full size, made on the device; no checkpoint is needed. Each figure is a
median over calls, timed with the device's own events. Ways that are compared:

    eager / channels last         as Diffusers runs it, in both memory layouts
    cudnn, flash, efficient       the attention kernel that torch is set to use
    masked                        prompts of different lengths in one call
    own norms, own attention      the VAE's layers in diffusion/vae_layers.py
    blocks compiled               each kind of block once (fast to compile)
    compiled                      the UNet as a whole

    python benchmarks/gpu_kernels.py [--size 1024] [--rows 2 16] [--only unet vae own-vae]
        [--profile FOLDER]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from common import surroundings, write_result
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch.nn.attention import SDPBackend, sdpa_kernel

from lpw_sdxl.checkpoint.configs import component_configs
from lpw_sdxl.checkpoint.inspect import SDXL_SIZE
from lpw_sdxl.diffusion.attention import PromptProjection
from lpw_sdxl.diffusion.denoiser import prompt_arguments
from lpw_sdxl.diffusion.feed_forward import split_gates
from lpw_sdxl.diffusion.vae_layers import SpatialAttention, install_fast_layers
from lpw_sdxl.weights.component import Component
from lpw_sdxl.weights.dtypes import CheckpointDtype
from tests.forge.checkpoint import SyntheticSize

BLOCKS = ("BasicTransformerBlock", "ResnetBlock2D", "Downsample2D", "Upsample2D")
BACKENDS = {
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}
CALLS = 7


class Bench:
    """A stopwatch for calls that keeps the figures, milliseconds."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.figures: dict[str, float | str] = {}

    def time(self, name: str, run: Callable[[], object], calls: int = CALLS) -> None:
        """Time some calls; note their median and the excess of the first one."""
        started = time.perf_counter()
        try:
            with torch.inference_mode():
                run()
                self._wait()
                first = time.perf_counter() - started
                run()
                times = [self._once(run) for _ in range(calls)]
        except Exception as error:  # noqa: BLE001 - the other ways are still worth knowing
            self.figures[name] = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
        else:
            median = statistics.median(times)
            self.figures[name] = round(median, 2)
            if first > 5 + median / 1000:
                self.figures[f"{name}, first call (s)"] = round(first, 1)
                print(f"{name}: {first:.1f} s for the first call")
        print(f"{name}: {self.figures[name]}", flush=True)

    def _once(self, run: Callable[[], object]) -> float:
        if self.device.type != "cuda":
            started = time.perf_counter()
            run()
            return (time.perf_counter() - started) * 1000
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def make(model_class: Any, config: dict[str, Any], device: torch.device, dtype: torch.dtype) -> Any:
    with default_dtype(dtype), device:
        return model_class.from_config(config).eval().requires_grad_(False)


def call(unet: Any, rows: int, size: int, columns: int, tokens: int, *, is_masked: bool) -> Any:
    """Make a UNet call as the engine makes it, on random numbers."""
    pooled = unet.config.projection_class_embeddings_input_dim - 6 * (
        unet.config.addition_time_embed_dim
    )

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device=unet.device, dtype=unet.dtype)

    arguments: dict[str, Any] = {
        "sample": draw(rows, 4, size // 8, size // 8),
        "timestep": torch.full((rows,), 500.0, device=unet.device),
        **prompt_arguments(draw(rows, tokens, columns), draw(rows, pooled), draw(rows, 6)),
    }
    if is_masked:
        mask = torch.arange(tokens)[None] < torch.full((rows, 1), tokens)
        mask[::2, tokens // 2 :] = False
        arguments["encoder_attention_mask"] = mask.to(unet.device)
    return arguments


def measure_unet(
    bench: Bench, config: dict[str, Any], options: argparse.Namespace, dtype: torch.dtype
) -> None:
    unet = make(UNet2DConditionModel, config, bench.device, dtype)
    width = PromptProjection(unet).width
    many = max(options.rows)

    def timed(name: str, rows: int, tokens: int = 77, *, is_masked: bool = False) -> None:
        arguments = call(unet, rows, options.size, width, tokens, is_masked=is_masked)
        bench.time(f"unet, {rows} rows, {name}", lambda: unet(**arguments))

    for rows in options.rows:
        timed("eager, gates as in Diffusers", rows)
    split_gates(unet)
    for rows in options.rows:
        timed("eager", rows)
    timed("eager, 154 tokens", many, 154)
    timed("eager, 154 tokens, masked", many, 154, is_masked=True)
    for name, backend in BACKENDS.items():
        with sdpa_kernel([backend, SDPBackend.MATH], set_priority=True):
            timed(f"eager, {name}", many)
    if options.profile:
        arguments = call(unet, many, options.size, width, 77, is_masked=False)
        profile(lambda: unet(**arguments), options.profile, "eager")
    unet.to(memory_format=torch.channels_last)
    for rows in options.rows:
        timed("channels last", rows)
    if not options.quick:
        measure_compiled(bench, unet, width, options)


def measure_compiled(bench: Bench, unet: Any, width: int, options: argparse.Namespace) -> None:
    """Time the UNet compiled block by block, and as a whole."""
    originals = {module: module.forward for module in unet.modules()}
    for module in originals:
        if type(module).__name__ in BLOCKS:
            module.forward = torch.compile(module.forward, dynamic=False)
    torch._dynamo.config.recompile_limit = 64
    # Keys and values that are kept would make another program for each layer.
    _time_compiled(bench, unet, unet.config.cross_attention_dim, "blocks compiled", options)
    for module, forward in originals.items():
        module.forward = forward
    torch._dynamo.reset()
    _time_compiled(bench, torch.compile(unet, dynamic=False), width, "compiled", options)


def _time_compiled(
    bench: Bench, unet: Any, columns: int, way: str, options: argparse.Namespace
) -> None:
    for rows in sorted(options.rows, reverse=True):
        arguments = call(unet, rows, options.size, columns, 77, is_masked=False)
        name = f"unet, {rows} rows, channels last, {way}"
        bench.time(name, lambda arguments=arguments: unet(**arguments))  # type: ignore[misc]
        if options.profile:
            profile(lambda arguments=arguments: unet(**arguments), options.profile, name[6:])  # type: ignore[misc]


def measure_vae(bench: Bench, config: dict[str, Any], options: argparse.Namespace) -> None:
    with torch.inference_mode():
        latents = torch.randn(1, 4, options.size // 8, options.size // 8, device=bench.device)
        vae = make(AutoencoderKL, config, bench.device, torch.float32)
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            for layout in (torch.contiguous_format, torch.channels_last):
                vae.to(dtype=dtype, memory_format=layout)
                some = latents.to(dtype)
                name = f"vae, {str(dtype)[6:]}, {str(layout)[6:].replace('_', ' ')}"
                bench.time(name, lambda some=some: vae.decode(some, return_dict=False))  # type: ignore[misc]
        vae.to(torch.float32)
        torch.set_float32_matmul_precision("high")
        bench.time(
            "vae, float32, channels last, tf32 products too",
            lambda: vae.decode(latents, return_dict=False),
        )
        torch.set_float32_matmul_precision("highest")
        if options.quick:
            return
        decoder = torch.compile(vae.decode, dynamic=False)
        bench.time(
            "vae, float32, channels last, compiled", lambda: decoder(latents, return_dict=False)
        )


def measure_own_vae(
    bench: Bench, config: dict[str, Any], options: argparse.Namespace, size: int
) -> None:
    """Time the VAE with our layers and with Diffusers'; measure how far their pixels differ."""
    latents = torch.randn(1, 4, size // 8, size // 8, device=bench.device)
    vae = make(AutoencoderKL, config, bench.device, torch.float32)

    def timed(name: str) -> torch.Tensor:
        bench.time(f"vae, {size}, {name}", lambda: vae.decode(latents, return_dict=False))
        with torch.inference_mode():
            decoded: torch.Tensor = vae.decode(latents, return_dict=False)[0]
        return decoded

    def compared(name: str) -> None:
        error = (timed(name) - stock).norm() / stock.norm()
        bench.figures[f"vae, {size}, {name}, relative difference"] = float(f"{error:.2e}")

    stock = timed("Diffusers' layers")
    attention = vae.decoder.mid_block.attentions[0]
    before = attention.processor
    install_fast_layers(vae)
    attention.set_processor(before)
    compared("own norms")
    attention.set_processor(SpatialAttention())
    compared("own norms, own attention")
    if options.profile:
        name = f"vae {size} own layers"
        profile(lambda: vae.decode(latents, return_dict=False), options.profile, name)
    vae.to(memory_format=torch.channels_last)
    compared("own norms, own attention, channels last")


def profile(run: Callable[[], object], folder: Path, name: str) -> None:
    """Write a profile of the kernels that a call spends its time in."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.inference_mode(), torch.profiler.profile(activities=activities) as seen:
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    averages = seen.key_averages()
    kernels = [one for one in averages if one.device_type.name == "CUDA"]
    lines = [f"{name}: {sum(one.self_device_time_total for one in kernels) / 1000:.1f} ms"]
    for one in sorted(kernels, key=lambda one: -one.self_device_time_total)[:40]:
        lines.append(f"{one.self_device_time_total / 1000:9.2f} ms {one.count:5} {one.key[:130]}")
    folder.mkdir(parents=True, exist_ok=True)
    text = "\n".join(lines)
    (folder / f"profile-{name.replace(',', '').replace(' ', '-')}.txt").write_text(
        text, encoding="utf-8"
    )
    print("\n".join(lines[:16]), flush=True)


def ceilings(bench: Bench) -> None:
    """Time the limits of the device: a large product and a large copy."""
    side = 8192 if bench.device.type == "cuda" else 512
    dtype = torch.float16 if bench.device.type == "cuda" else torch.float32
    one, other = (torch.randn(side, side, device=bench.device, dtype=dtype) for _ in range(2))
    bench.time(f"product of {side}x{side}", lambda: one @ other)
    bench.time(f"copy of {side}x{side}", one.clone)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=1024, help="pixels, both sides")
    parser.add_argument("--rows", type=int, nargs="+", default=[2, 16])
    parts = ["unet", "vae", "own-vae"]
    parser.add_argument("--only", nargs="+", default=parts, choices=parts)
    parser.add_argument("--tiny", action="store_true", help="a tiny model: does the script run?")
    parser.add_argument("--quick", action="store_true", help="compile nothing")
    parser.add_argument("--profile", type=Path, help="folder for lists of kernels")
    parser.add_argument("--name", default="gpu_kernels", help="of the result's file")
    options = parser.parse_args(arguments)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    kind = SyntheticSize.TINY if options.tiny else SyntheticSize.FULL
    configs = component_configs(kind.value, SDXL_SIZE, CheckpointDtype.FLOAT16)
    bench = Bench(device)
    ceilings(bench)
    if "vae" in options.only:
        measure_vae(bench, configs[Component.VAE], options)
    if "own-vae" in options.only:
        for size in (options.size, options.size * 3 // 2):
            measure_own_vae(bench, configs[Component.VAE], options, size)
    if "unet" in options.only:
        measure_unet(bench, configs[Component.UNET], options, dtype)
    result = surroundings(device) | {"size": options.size, "milliseconds": bench.figures}
    write_result(options.name, result, keep=device.type == "cuda" and not options.tiny)


if __name__ == "__main__":
    main()
