"""What does a LoRA cost at SDXL's real size, beside one step?

A random UNet of SDXL's shapes; no checkpoint is needed. Factors are at hand, as after a LoRA's
first use. Two rows a step: one image with guidance. Each figure is a median:

    step        one UNet call with the base's weights
    exchange    put a set that is at hand in place of another: pointers
    made anew   make the weights of a set and put them in place

    python benchmarks/lora_full_size.py [--rounds 3] [--size 512] [--rank 32] [--dtype bfloat16]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from common import demo_model, surroundings, write_result
from diffusers import UNet2DConditionModel
from gpu_kernels import call
from torch import Tensor, nn

from lpw_sdxl.lora.adapters import Adapters
from lpw_sdxl.lora.library import LoraTensors
from lpw_sdxl.lora.sets import NO_LORAS
from lpw_sdxl.lora.targets import TargetModule
from lpw_sdxl.weights.component import Component
from tests.forge.lora_factors import Recipe, SyntheticKind, draw_factors

KINDS = tuple(map(SyntheticKind, ("lora", "locon", "dora", "loha", "lokr")))
MANY_BYTES = 1 << 62
PROMPT_WIDTH = 2048
SDXL = {
    "block_out_channels": [320, 640, 1280],
    "attention_head_dim": [5, 10, 20],
    "transformer_layers_per_block": [1, 2, 10],
    "cross_attention_dim": PROMPT_WIDTH,
    "projection_class_embeddings_input_dim": 2816,
    "addition_time_embed_dim": 256,
    "sample_size": 128,
}


class DrawnLoras:
    """A stand-in for the engine's library: one LoRA of each kind, drawn once."""

    def __init__(self, unet: nn.Module, rank: int) -> None:
        self._rank = rank
        self._layers = {
            path: layer
            for path, layer in unet.named_modules()
            if isinstance(layer, nn.Linear | nn.Conv2d)
        }
        self._drawn: dict[str, LoraTensors] = {}

    def get(self, kind: str) -> LoraTensors:
        """Return the LoRA of a kind: of transformer blocks, or for LoCon of all but the ends."""
        if kind not in self._drawn:
            marks = (".attentions.", ".resnets.", ".downsamplers.", ".upsamplers.")
            recipe = Recipe(SyntheticKind(kind), self._rank, self._rank / 2, 0.1, False)
            modules: dict[str, dict[str, Tensor]] = {}
            for number, (path, layer) in enumerate(self._layers.items()):
                if any(mark in f".{path}" for mark in marks[: None if kind == "locon" else 1]):
                    target = TargetModule(tuple(layer.weight.shape), None)
                    modules[path] = {
                        name: factor if name == "alpha" else factor.to(torch.float16)
                        for name, factor in draw_factors(recipe, target, number).items()
                    }
            self._drawn = {kind: LoraTensors({Component.UNET: modules}, size=1)}
        return self._drawn[kind]


def seconds(work: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


@torch.inference_mode()
def measure(unet: Any, options: argparse.Namespace) -> dict[str, Any]:
    library: Any = DrawnLoras(unet, options.rank)
    adapters = Adapters({Component.UNET: unet}, library, unet.device, MANY_BYTES)
    inputs = call(unet, 2, options.size, PROMPT_WIDTH, 77, is_masked=False)
    steps = [seconds(lambda: unet(**inputs), unet.device) for _ in range(options.rounds + 1)][1:]
    step = statistics.median(steps)
    print(f"step {step:.3f} s")
    result: dict[str, Any] = {"step": f"{step:.3f} s"}
    for kind in KINDS:
        library.get(kind)
        loras = ((kind, 0.8),)
        times: dict[str, list[float]] = {"made anew": [], "exchange": []}
        for number in range(options.rounds + 1):  # the first warms up
            adapters.forget()
            for some in times.values():
                adapters.use(Component.UNET, NO_LORAS)
                took = seconds(partial(adapters.use, Component.UNET, loras), unet.device)
                if number:
                    some.append(took)
        adapters.forget()
        medians = {name: statistics.median(values) for name, values in times.items()}
        result[kind] = {
            "layers": len(library.get(kind).of(Component.UNET)),
            **{name: f"{value:.4f} s" for name, value in medians.items()},
            "steps made anew": round(medians["made anew"] / step, 3),
        }
        print(kind, result[kind])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=512, help="pixels, both sides")
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float16", "float32"))
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as home:
        config = json.loads((demo_model(Path(home)) / "unet/config.json").read_text())
    torch.set_default_dtype(getattr(torch, options.dtype))
    with device:
        unet = UNet2DConditionModel.from_config(config | SDXL).eval().requires_grad_(False)
    torch.set_default_dtype(torch.float32)
    about = {"size": f"{options.size}x{options.size}", "rank": options.rank, "dtype": options.dtype}
    write_result("lora_full_size", surroundings(device) | about | measure(unet, options))


if __name__ == "__main__":
    main()
