"""Which way of compiling SDXL's UNet and VAE is the best on this GPU, and what does it cost?

A random UNet and VAE of full size, made on the device. Each way has a process of its own; all
compile at the same time, and then each is timed alone, with the device's own events. A way is
compiled for one size, or once for all: with its number of rows, its prompt's length, its height and
its width left open.

    python benchmarks/gpu_compile.py [--only "unet whole, rows open" …] [--profile FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import surroundings, write_result
from diffusers import AutoencoderKL, UNet2DConditionModel
from gpu_kernels import BLOCKS, Bench, call, make, profile

from lpw_sdxl.checkpoint.configs import component_configs
from lpw_sdxl.checkpoint.inspect import SDXL_SIZE
from lpw_sdxl.diffusion.attention import PromptProjection
from lpw_sdxl.diffusion.feed_forward import part_gates
from lpw_sdxl.diffusion.graphs import tensors_of
from lpw_sdxl.weights.dtypes import CheckpointDtype
from tests.forge.checkpoint import SyntheticSize

NATIVE = (1024, 1024)
LANDSCAPE = (832, 1216)
LARGE = (1536, 1536)
UNET_WAYS = {
    "unet eager": None,
    "unet whole, fixed": set(),
    "unet whole, rows open": {"rows", "tokens"},
    "unet whole, all open": {"rows", "tokens", "size"},
    "unet blocks, all open": {"rows", "tokens", "size"},
}
VAE_WAYS = {
    "vae eager": None,
    "vae whole, fixed": set(),
    "vae whole, all open": {"size"},
}
TURN = "turn"


def mark(arguments: dict[str, Any], open_axes: set[str]) -> dict[str, Any]:
    """Leave axes open in what a call is given."""

    def leave_open(tensor: torch.Tensor, *axes: int) -> None:
        for axis in axes:
            torch._dynamo.mark_dynamic(tensor, axis)

    if "rows" in open_axes:
        for tensor in tensors_of(arguments):
            leave_open(tensor, 0)
    if "tokens" in open_axes:
        leave_open(arguments["encoder_hidden_states"], 1)
        if "encoder_attention_mask" in arguments:
            leave_open(arguments["encoder_attention_mask"], 1)
    if "size" in open_axes:
        leave_open(arguments["sample"], 2, 3)
    return arguments


def resized(arguments: dict[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    sample = arguments["sample"]
    shape = (*sample.shape[:2], size[0] // 8, size[1] // 8)
    return arguments | {"sample": torch.randn(shape, device=sample.device, dtype=sample.dtype)}


class Way:
    """One way, in a process of its own.

    Args:
        name: of UNET_WAYS or VAE_WAYS.
        options: the command line's.
    """

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        self.name = name
        self.options = options
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.bench = Bench(self.device)
        self.scale = 8 if options.tiny else 1
        kind = SyntheticSize.TINY if options.tiny else SyntheticSize.FULL
        self.configs = component_configs(kind.value, SDXL_SIZE, CheckpointDtype.FLOAT16)
        self.backend = "eager" if options.tiny else "inductor"

    def run(self) -> None:
        """Compile; wait for all others; time, alone."""
        torch.manual_seed(0)
        with torch.inference_mode():
            measure = self.unet() if self.name.startswith("unet") else self.vae()
            (self.options.folder / f"{self.name}.ready").touch()
            while not (self.options.folder / f"{TURN} {self.name}").exists():
                time.sleep(0.05)
            measure()
        text = json.dumps(self.bench.figures)
        (self.options.folder / f"{self.name}.json").write_text(text, encoding="utf-8")

    def unet(self) -> Callable[[], None]:
        """Make the UNet and compile it; give what times it."""
        dtype = torch.float16 if self.device.type == "cuda" else torch.float32
        unet = make(UNet2DConditionModel, self.configs["unet"], self.device, dtype)
        width = PromptProjection(unet).width
        part_gates(unet)
        open_axes = UNET_WAYS[self.name]
        is_in_blocks = "blocks" in self.name
        columns = unet.config.cross_attention_dim if is_in_blocks else width
        native, landscape = (
            (height // self.scale, width_ // self.scale) for height, width_ in (NATIVE, LANDSCAPE)
        )

        def arguments(
            rows: int, tokens: int = 77, *, is_masked: bool = False, size: tuple[int, int] = native
        ) -> dict[str, Any]:
            made = call(unet, rows, 128, columns, tokens, is_masked=is_masked)
            made = resized(made, size)
            return made if open_axes is None or is_in_blocks else mark(made, open_axes)

        first = arguments(16)
        expected = unet(**first)[0]
        run: Any = unet
        if open_axes is not None:
            torch._dynamo.config.recompile_limit = 64
            unet.to(memory_format=torch.channels_last)
            if is_in_blocks:
                for module in unet.modules():
                    if type(module).__name__ in BLOCKS:
                        module.forward = torch.compile(
                            module.forward, dynamic=True, backend=self.backend
                        )
            else:
                run = torch.compile(unet, dynamic=False, backend=self.backend)
        started = time.perf_counter()
        result = run(**first)[0]
        self.bench._wait()
        if open_axes is not None:
            self.bench.figures["first call (s)"] = round(time.perf_counter() - started, 1)
            error = (result.float() - expected.float()).norm() / expected.float().norm()
            self.bench.figures["error beside eager"] = float(f"{error:.2e}")
        cases = {
            **{f"{rows} rows": {"rows": rows} for rows in (16, 2, 4, 8, 6)},
            "16 rows, 154 tokens": {"rows": 16, "tokens": 154},
            "16 rows, 154 tokens, masked": {"rows": 16, "tokens": 154, "is_masked": True},
            "16 rows, 1216 x 832": {"rows": 16, "size": landscape},
        }
        if "fixed" in self.name:
            cases = {"16 rows": {"rows": 16}}
        elif "whole" in self.name:
            if "size" not in (open_axes or ()):
                del cases["16 rows, 1216 x 832"]
            started = time.perf_counter()
            run(**arguments(16, 154, is_masked=True))
            self.bench._wait()
            self.bench.figures["first call, masked (s)"] = round(time.perf_counter() - started, 1)

        def measure() -> None:
            for name, case in cases.items():
                made = arguments(**case)
                self.bench.time(f"{self.name}: {name}", lambda made=made: run(**made))
            if self.options.profile:
                made = arguments(16)
                profile(lambda: run(**made), self.options.profile, self.name)

        return measure

    def vae(self) -> Callable[[], None]:
        """Make the VAE in several dtypes and compile it; give what times it."""
        vae = make(AutoencoderKL, self.configs["vae"], self.device, torch.float32)
        open_axes = VAE_WAYS[self.name]
        sizes = [tuple(side // self.scale for side in size) for size in (NATIVE, LANDSCAPE, LARGE)]
        layouts = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}
        dtypes = [torch.float32, torch.bfloat16, torch.float16]
        if self.device.type != "cuda":
            dtypes = dtypes[:1]
        decoders: dict[str, tuple[Any, torch.dtype]] = {}
        latents = torch.randn(1, 4, sizes[0][0] // 8, sizes[0][1] // 8, device=self.device)
        expected = vae.decode(latents, return_dict=False)[0]
        for dtype in dtypes:
            for layout_name, layout in layouts.items():
                if open_axes is not None and layout_name == "contiguous" and dtype != torch.float32:
                    continue
                one = make(AutoencoderKL, self.configs["vae"], self.device, torch.float32)
                one.load_state_dict(vae.state_dict())
                one = one.to(dtype=dtype, memory_format=layout)
                run = one.decode
                if open_axes is not None:
                    torch._dynamo.config.recompile_limit = 64
                    decoder = torch.compile(one.decoder, dynamic=False, backend=self.backend)
                    run = self._marked(one, decoder, open_axes)
                name = f"{str(dtype)[6:]}, {layout_name}"
                started = time.perf_counter()
                result = run(latents.to(dtype), return_dict=False)[0]
                self.bench._wait()
                if open_axes is not None:
                    self.bench.figures[f"{name}: first call (s)"] = round(
                        time.perf_counter() - started, 1
                    )
                error = (result.float() - expected).norm() / expected.norm()
                self.bench.figures[f"{name}: error"] = float(f"{error:.2e}")
                decoders[name] = (run, dtype)

        def measure() -> None:
            for name, (run, dtype) in decoders.items():
                for size in sizes if "fixed" not in self.name else sizes[:1]:
                    some = torch.randn(1, 4, size[0] // 8, size[1] // 8, device=self.device)
                    some = some.to(dtype)
                    title = f"{self.name}: {name}, {size[1]} x {size[0]}"
                    self.bench.time(title, lambda run=run, some=some: run(some, return_dict=False))
                if self.options.profile and name.startswith("float32"):
                    some = latents.to(dtype)
                    profile(
                        lambda run=run, some=some: run(some, return_dict=False),
                        self.options.profile,
                        f"{self.name} {name}",
                    )

        return measure

    def _marked(self, vae: Any, decoder: Any, open_axes: set[str]) -> Any:
        """Decode with a compiled decoder whose height and width are left open."""

        def run(latents: torch.Tensor, **_: Any) -> tuple[torch.Tensor]:
            inner = vae.post_quant_conv(latents) if vae.post_quant_conv is not None else latents
            if "size" in open_axes:
                torch._dynamo.mark_dynamic(inner, 2)
                torch._dynamo.mark_dynamic(inner, 3)
            return (decoder(inner),)

        return run


def start(name: str, arguments: list[str], folder: Path) -> subprocess.Popen[bytes]:
    log = (folder / f"{name}.log").open("wb")
    command = [sys.executable, __file__, "--way", name, "--folder", str(folder), *arguments]
    environment = os.environ | {
        "TORCHINDUCTOR_CACHE_DIR": str(folder / f"cache {name}".replace(" ", "-").replace(",", "")),
        "TORCHINDUCTOR_COMPILE_THREADS": "6",
    }
    return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[*UNET_WAYS, *VAE_WAYS])
    parser.add_argument("--tiny", action="store_true", help="a tiny model: does the script run?")
    parser.add_argument("--profile", type=Path, help="folder for lists of kernels")
    parser.add_argument("--wait", type=float, default=240, help="seconds for all to compile")
    parser.add_argument("--name", default="gpu_compile", help="of the result's file")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        Way(options.way, options).run()
        return
    passed = ["--tiny"] * options.tiny
    passed += ["--profile", str(options.profile)] if options.profile else []
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    result: dict[str, Any] = surroundings(device) | {"milliseconds": {}}
    with tempfile.TemporaryDirectory(prefix="lpw-sdxl-compile-") as temporary:
        folder = options.folder or Path(temporary)
        processes = {name: start(name, passed, folder) for name in options.only}
        deadline = time.monotonic() + options.wait
        while time.monotonic() < deadline and any(
            process.poll() is None and not (folder / f"{name}.ready").exists()
            for name, process in processes.items()
        ):
            time.sleep(0.2)
        print(f"all compiled with {deadline - time.monotonic():.0f} s to spare", flush=True)
        for name, process in processes.items():
            if process.poll() is None and not (folder / f"{name}.ready").exists():
                print(f"{name}: not compiled in time")
                process.kill()
        for name, process in processes.items():
            (folder / f"{TURN} {name}").touch()
            process.wait()
            file = folder / f"{name}.json"
            log = (folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")
            print(f"== {name}\n{log[-1500:]}", flush=True)
            if file.exists():
                result["milliseconds"][name] = json.loads(file.read_text(encoding="utf-8"))
    write_result(options.name, result, keep=device.type == "cuda" and not options.tiny)


if __name__ == "__main__":
    main()
