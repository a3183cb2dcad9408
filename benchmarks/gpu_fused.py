"""What do fused kernels, channels-last memory, cudnn.benchmark and fp8 gain on this GPU?

A random UNet and VAE of full size, made on the device; no checkpoint is needed. The parts, in the
order in which they decide what the next ones are worth:

    check    every kernel beside plain torch at the networks' widths; a wrong one ends the run
    shapes   the ceiling of a product in fp16 and bf16; the UNet's products in fp16 and fp8
    conv     its convolutions in both layouts, with and without cudnn.benchmark
    fused    the UNet: as it is, fused, with cudnn.benchmark, as a graph; errors; rows in company
    fp8      the fused UNet with its large products in fp8
    vae      one image decoded: float32, half precision scaled down, and that fused

    python benchmarks/gpu_fused.py [--parts check shapes conv …] [--rows 16] [--profile FOLDER]

`--tiny` runs all of it with a tiny model, on a CPU with the plain operations: does it run?
"""

from __future__ import annotations

import argparse
import copy
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from common import surroundings, write_result
from diffusers import AutoencoderKL, UNet2DConditionModel
from gpu_kernels import Bench, call, make, profile

from lpw_sdxl.checkpoint.configs import component_configs
from lpw_sdxl.checkpoint.inspect import SDXL_SIZE
from lpw_sdxl.diffusion.attention import PromptProjection
from lpw_sdxl.diffusion.feed_forward import split_gates
from lpw_sdxl.diffusion.float8 import Float8Products, quantise_unet
from lpw_sdxl.diffusion.fused_unet import Fusion, arrange_weights, fuse_unet
from lpw_sdxl.diffusion.fused_vae import fuse_vae, scale_down_stream
from lpw_sdxl.diffusion.graphs import Recording
from lpw_sdxl.diffusion.kernels.choice import choose_operations, find_device_obstacle
from lpw_sdxl.diffusion.kernels.operations import Operations
from lpw_sdxl.diffusion.kernels.plain import PlainOperations
from lpw_sdxl.diffusion.kernels.trial import find_wrong_kernel, relative_error
from lpw_sdxl.diffusion.vae_layers import install_fast_layers
from lpw_sdxl.weights.component import Component
from lpw_sdxl.weights.dtypes import CheckpointDtype
from lpw_sdxl.weights.float8 import quantise_rows
from tests.forge.checkpoint import SyntheticSize

SIZE = 1024
TOKENS = 77
LAUNCHES = 20  # of one short kernel between two events
# A UNet call's products: rows of one image, outputs, inputs, and how many times.
PRODUCTS = [
    (1024, 10240, 1280, 60), (1024, 3840, 1280, 60), (1024, 1280, 1280, 366),
    (1024, 1280, 5120, 60), (4096, 5120, 640, 10), (4096, 1920, 640, 10), (4096, 640, 640, 65),
    (4096, 640, 2560, 10),
]  # fmt: skip
# Its 3x3 convolutions: channels in and out, latent pixels of a side, and how many times.
CONVOLUTIONS = [
    (1280, 1280, 32, 10), (320, 320, 128, 7), (640, 640, 64, 6), (2560, 1280, 32, 2),
    (1280, 1280, 64, 1), (640, 640, 128, 1), (640, 320, 128, 2), (1920, 640, 64, 1),
    (960, 320, 128, 1), (1280, 640, 64, 1), (1920, 1280, 32, 1), (960, 640, 64, 1),
]  # fmt: skip


class Run:
    """One run: its device, model sizes, stopwatch and figures."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        is_cuda = torch.cuda.is_available() and not options.tiny
        self.device = torch.device("cuda", 0) if is_cuda else torch.device("cpu")
        self.dtype = torch.float16 if is_cuda else torch.float32
        self.shrink = 16 if options.tiny else 1
        kind = SyntheticSize.TINY if options.tiny else SyntheticSize.FULL
        self.configs = component_configs(kind.value, SDXL_SIZE, CheckpointDtype.FLOAT16)
        self.bench = Bench(self.device)

    def unet(self) -> Any:
        """Make a random UNet, the same one each time."""
        torch.manual_seed(0)
        return make(UNet2DConditionModel, self.configs[Component.UNET], self.device, self.dtype)

    def arguments(self, unet: Any, width: int, rows: int) -> dict[str, Any]:
        """Make the arguments of a call, the same ones each time."""
        torch.manual_seed(1)
        size = SIZE // self.shrink
        arguments: dict[str, Any] = call(unet, rows, size, width, TOKENS, is_masked=False)
        return arguments

    def operations(self, network: Any, *, quantises: bool = False) -> Operations:
        """Choose the operations; end the run where a GPU has none."""
        if self.device.type != "cuda":
            return PlainOperations()
        choice = choose_operations(self.device, [network], quantises=quantises)
        if choice.operations is None:
            sys.exit(f"the kernels can't be used because {choice.obstacle}")
        return choice.operations

    def note(self, name: str, figure: float | str) -> None:
        """Note a figure, and print it."""
        self.bench.figures[name] = figure
        print(f"{name}: {figure}", flush=True)

    def error(self, name: str, result: torch.Tensor, expected: torch.Tensor) -> None:
        """Note how far a result is from another."""
        self.note(name, f"relative error {relative_error(result, expected):.1e}")

    def time(self, name: str, run: Callable[[], object], tflop: float = 0.0) -> None:
        """Time a short run, many times in a row; note TFLOP/s where its work is given."""
        self.bench.time(name, lambda: [run() for _ in range(LAUNCHES)])
        total = self.bench.figures[name]
        if isinstance(total, float):
            self.note(name, round(total / LAUNCHES, 4))
            if tflop and total:
                self.note(f"{name}, TFLOP/s", round(tflop / (total / LAUNCHES / 1000), 1))


def check(run: Run) -> None:
    quantises = find_device_obstacle(run.device, quantises=True) is None
    unet = run.unet()
    operations = run.operations(unet, quantises=quantises)
    vae = make(AutoencoderKL, run.configs[Component.VAE], run.device, run.dtype)
    wrong = find_wrong_kernel(operations, [unet, vae], run.device, quantises=quantises)
    run.note("kernels", wrong or f"right at all widths{', fp8 too' if quantises else ''}")
    if wrong:
        sys.exit(wrong)


def shapes(run: Run) -> None:
    side = 8192 // run.shrink**2
    dtypes = (torch.float16, torch.bfloat16) if run.device.type == "cuda" else (run.dtype,)
    for dtype in dtypes:
        one = torch.randn(side, side, device=run.device, dtype=dtype)
        name, tflop = f"product of {side}x{side} in {dtype}", 2 * side**3 / 1e12
        run.time(name, lambda: one @ one, tflop)  # noqa: B023
    has_float8 = find_device_obstacle(run.device, quantises=True) is None or run.options.tiny
    products = Float8Products(run.dtype)
    if has_float8:
        products.choose_result(run.device)
    for tokens, outputs, inputs, count in PRODUCTS:
        rows = run.options.rows * tokens // run.shrink**2
        given = torch.randn(rows, inputs, device=run.device, dtype=run.dtype)
        weight = torch.randn(outputs, inputs, device=run.device, dtype=run.dtype)
        bias = torch.randn(outputs, device=run.device, dtype=run.dtype)
        name = f"{rows}x{outputs}x{inputs}, {count} times"
        tflop = 2 * rows * outputs * inputs / 1e12
        run.time(name, lambda: F.linear(given, weight, bias), tflop)  # noqa: B023
        if has_float8:
            small, kept = quantise_rows(given), quantise_rows(weight)
            run.time(f"{name}, fp8", lambda: products.multiply(small, kept, bias), tflop)  # noqa: B023


def conv(run: Run) -> None:
    for is_tuned in (False, True):
        torch.backends.cudnn.benchmark = is_tuned
        for layout in (torch.contiguous_format, torch.channels_last):
            for inputs, outputs, side, count in CONVOLUTIONS:
                side //= run.shrink  # noqa: PLW2901
                shape = (run.options.rows, inputs, side, side)
                given = torch.randn(shape, device=run.device, dtype=run.dtype)
                weight = torch.randn(outputs, inputs, 3, 3, device=run.device, dtype=run.dtype)
                given, weight = (one.contiguous(memory_format=layout) for one in (given, weight))
                name = f"convolution {inputs}-{outputs} at {side}, {count} times, {str(layout)[6:]}"
                tflop = 2 * run.options.rows * side * side * inputs * outputs * 9 / 1e12
                tuned = ", cudnn.benchmark" if is_tuned else ""
                run.time(name + tuned, lambda: F.conv2d(given, weight, None, 1, 1), tflop)  # noqa: B023
    torch.backends.cudnn.benchmark = False


def fused(run: Run) -> None:
    unet = run.unet()
    operations = run.operations(unet)
    width = PromptProjection(unet).width
    changed = copy.deepcopy(unet)
    split_gates(unet)
    given = run.arguments(unet, width, run.options.rows)
    few = run.arguments(unet, width, 2)
    expected = unet(**given)[0]
    run.bench.time("UNet as it is", lambda: unet(**given))
    run.error("UNet as it is, 2 rows alone", unet(**_rows(given, 2))[0], expected[:2])
    run.bench.time("UNet as it is, 2 rows", lambda: unet(**few))
    arrange_weights(changed)
    split_gates(changed)
    fuse_unet(changed, Fusion(operations))
    run.error("UNet fused", changed(**given)[0], expected)
    run.bench.time("UNet fused", lambda: changed(**given))
    run.bench.time("UNet fused, 2 rows", lambda: changed(**few))
    _compare_company(run, "UNet fused", changed, given)
    if run.device.type == "cuda":
        recording = Recording(changed, given, torch.cuda.graph_pool_handle())
        run.bench.time("UNet fused, as a graph", lambda: recording.replay(given))
        torch.backends.cudnn.benchmark = True
        run.bench.time("UNet fused, cudnn.benchmark", lambda: changed(**given))
        torch.backends.cudnn.benchmark = False
    if run.options.profile:
        profile(lambda: changed(**given), run.options.profile, "fused")


def fp8(run: Run) -> None:
    unet = run.unet()
    operations = run.operations(unet, quantises=True)
    arrange_weights(unet)
    quantise_unet(unet)
    width = PromptProjection(unet).width
    products = Float8Products(run.dtype)
    products.choose_result(run.device)
    given = run.arguments(unet, width, run.options.rows)
    expected = unet(**given)[0]
    fuse_unet(unet, Fusion(operations, products))
    run.error("UNet in fp8, random weights", unet(**given)[0], expected)
    run.bench.time("UNet in fp8", lambda: unet(**given))
    _compare_company(run, "UNet in fp8", unet, given)
    if run.device.type == "cuda":
        recording = Recording(unet, given, torch.cuda.graph_pool_handle())
        run.bench.time("UNet in fp8, as a graph", lambda: recording.replay(given))


def _compare_company(run: Run, name: str, unet: Any, given: dict[str, Any]) -> None:
    """Note how far a row's numbers depend on the rows beside it."""
    together = unet(**given)[0]
    run.error(f"{name}, 2 rows alone", unet(**_rows(given, 2))[0], together[:2])
    others = {**given, "sample": given["sample"].clone()}
    others["sample"][1:] *= 1.5
    is_same = torch.equal(unet(**others)[0][:1], together[:1])
    run.note(f"{name}, other mates", "the same bits" if is_same else "OTHER BITS")


def _rows(value: Any, count: int) -> Any:
    if isinstance(value, dict):
        return {name: _rows(inner, count) for name, inner in value.items()}
    return value[:count] if isinstance(value, torch.Tensor) else value


def vae(run: Run) -> None:
    stock = make(AutoencoderKL, run.configs[Component.VAE], run.device, torch.float32)
    side = SIZE // run.shrink // 8
    latents = torch.randn(1, 4, side, side, device=run.device)
    half_dtype = torch.float16 if run.device.type == "cuda" else torch.bfloat16
    half = copy.deepcopy(stock).to(half_dtype)
    install_fast_layers(stock)
    expected = stock.decode(latents, return_dict=False)[0]
    run.bench.time("VAE in float32", lambda: stock.decode(latents, return_dict=False))
    scale_down_stream(half)
    some = latents.to(half_dtype)
    for name in ("scaled down", "scaled down, fused"):
        if name.endswith("fused"):
            fuse_vae(half, run.operations(half))
        decoded = half.decode(some, return_dict=False)[0]
        run.bench.time(f"VAE in {half_dtype}, {name}", lambda: half.decode(some, return_dict=False))
        run.error(f"VAE in {half_dtype}, {name}, beside float32", decoded, expected)
        levels = (decoded.float() - expected).abs().max().item() * 127.5
        run.note(f"VAE in {half_dtype}, {name}, grey levels", round(levels, 2))


PARTS = {one.__name__: one for one in (check, shapes, conv, fused, fp8, vae)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parts", nargs="+", default=[*PARTS], choices=[*PARTS])
    parser.add_argument("--rows", type=int, default=16, help="of a UNet call")
    parser.add_argument("--tiny", action="store_true", help="a tiny model on a CPU")
    parser.add_argument("--profile", type=Path, help="folder for lists of kernels")
    parser.add_argument("--name", default="gpu_fused", help="of the result's file")
    options = parser.parse_args()
    run = Run(options)
    if run.device.type == "cpu" and not options.tiny:
        sys.exit("this machine has no CUDA device; --tiny shows whether the script runs")
    with torch.inference_mode():
        for part in options.parts:
            try:
                PARTS[part](run)
            except Exception as error:  # noqa: BLE001 - the other parts are still worth knowing
                traceback.print_exc()
                run.note(f"part {part}", f"{type(error).__name__}: {str(error)[:200]}")
            if run.device.type == "cuda":
                torch.cuda.empty_cache()
            result = surroundings(run.device) | {"rows": options.rows, "figures": run.bench.figures}
            write_result(options.name, result, keep=run.device.type == "cuda")


if __name__ == "__main__":
    main()
