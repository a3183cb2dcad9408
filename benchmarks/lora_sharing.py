"""How can images with different LoRAs share the UNet, and what does each way cost?

One UNet, eight images (16 rows) of as many sets of LoRAs as asked. Every set changes the linear
layers of attention and feed-forward, or every layer of the UNet. Each way makes one step of all
images; the ways take turns in every round, and medians are kept:

    no LoRAs        one call, the base's weights: what the others are compared with
    one set a call  weights made beforehand, exchanged by pointer before each call
    made each time  the same, and the weights are made anew before each call
    divided layers  one call; what a set changes is computed for each set's rows (what we do)
    low-rank terms  one call; each row adds its own up @ (down @ x), gathered from all sets

    python benchmarks/lora_sharing.py [--rounds 9] [--model DIRECTORY] [--size 128] [--rank 16]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from common import demo_model, surroundings, write_result
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from lpw_sdxl.diffusion.attention import PromptProjection
from lpw_sdxl.lora.adapters import Adapters
from lpw_sdxl.lora.library import LoraTensors
from lpw_sdxl.lora.patched import Segment
from lpw_sdxl.lora.sets import NO_LORAS, LoraSet
from lpw_sdxl.weights.component import Component

IMAGES = 8
PROMPT_TOKENS = 77
MANY_BYTES = 1 << 62


class RandomLoras:
    """Stands where the engine has its library: LoRAs of one rank for chosen layers."""

    def __init__(self, unet: nn.Module, rank: int, *, everywhere: bool) -> None:
        self.layers = {
            path: layer
            for path, layer in unet.named_modules()
            if (isinstance(layer, nn.Linear) and ("attn" in path or ".ff." in path))
            or (everywhere and isinstance(layer, nn.Linear | nn.Conv2d))
        }
        self.rank = rank

    def get(self, name: str) -> LoraTensors:
        """Draw a LoRA by its number."""
        generator = torch.Generator().manual_seed(int(name))
        modules: dict[str, dict[str, Tensor]] = {}
        for path, layer in self.layers.items():
            out, *rest = layer.weight.shape
            device = layer.weight.device
            modules[path] = {
                "lora_down": torch.randn(self.rank, *rest, generator=generator).to(device),
                "lora_up": 0.01 * torch.randn(out, self.rank, generator=generator).to(device),
                "alpha": torch.tensor(float(self.rank), device=device),
            }
        return LoraTensors({Component.UNET: modules}, size=1)


def arguments(unet: Any, columns: int, rows: int, pixels: int) -> dict[str, Any]:
    config = unet.config
    pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
    here = {"device": unet.device, "dtype": unet.dtype}
    return {
        "sample": torch.randn(rows, 4, pixels // 8, pixels // 8, **here),
        "timestep": torch.full((rows,), 500.0, device=unet.device),
        "encoder_hidden_states": torch.randn(rows, PROMPT_TOKENS, columns, **here),
        "added_cond_kwargs": {
            "text_embeds": torch.randn(rows, pooled, **here),
            "time_ids": torch.full((rows, 6), float(pixels), **here),
        },
        "return_dict": False,
    }


@contextmanager
def low_rank_terms(loras: RandomLoras, sets: list[LoraSet], rows: list[int]) -> Any:
    """Hook a gathered low-rank term behind every linear layer; convolutions are left out."""
    index = torch.repeat_interleave(torch.arange(len(sets)), torch.tensor(rows))
    tensors = [loras.get(loras_of[0][0]).of(Component.UNET) for loras_of in sets]
    hooks = []
    for path, layer in loras.layers.items():
        if not isinstance(layer, nn.Linear):
            continue
        downs = torch.stack([one[path]["lora_down"] for one in tensors]).to(layer.weight.dtype)
        ups = torch.stack([one[path]["lora_up"] for one in tensors]).to(layer.weight.dtype)

        def add(
            _: nn.Module, inputs: Any, output: Tensor, downs: Tensor = downs, ups: Tensor = ups
        ) -> Tensor:
            (states,) = inputs
            wide = states if states.ndim == 3 else states[:, None]
            small = torch.bmm(wide, downs[index].transpose(1, 2))
            return output + torch.bmm(small, ups[index].transpose(1, 2)).view_as(output)

        hooks.append(layer.register_forward_hook(add))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def seconds(work: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


@torch.inference_mode()
def measure(
    unet: Any, columns: int, options: argparse.Namespace, sets_count: int, *, everywhere: bool
) -> dict[str, float]:
    loras: Any = RandomLoras(unet, options.rank, everywhere=everywhere)
    sets: list[LoraSet] = [((str(number), 1.0),) for number in range(sets_count)]
    images = [IMAGES // sets_count + (number < IMAGES % sets_count) for number in range(sets_count)]
    segments = [Segment(one, 2 * count) for one, count in zip(sets, images, strict=True)]
    rows = [segment.rows for segment in segments]
    networks = {Component.UNET: unet}
    kept = Adapters(networks, loras, unet.device, MANY_BYTES)
    poor = Adapters(networks, loras, unet.device, 1)
    whole = arguments(unet, columns, sum(rows), options.size)
    parts = [arguments(unet, columns, count, options.size) for count in rows]

    def no_loras() -> None:
        kept.use(Component.UNET, NO_LORAS)
        unet(**whole)

    def one_set_a_call(adapters: Adapters) -> None:
        for segment, part in zip(segments, parts, strict=True):
            adapters.use(Component.UNET, segment.loras)
            unet(**part)
        adapters.use(Component.UNET, NO_LORAS)

    def divided() -> None:
        kept.divide(Component.UNET, segments)
        unet(**whole)

    def terms() -> None:
        unet(**whole)

    ways: dict[str, Callable[[], None]] = {
        "no LoRAs": no_loras,
        "one set a call": lambda: one_set_a_call(kept),
        "made each time": lambda: one_set_a_call(poor),
        "divided layers": divided,
        "low-rank terms": terms,
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(options.rounds + 1):  # the first warms up
        for name, way in ways.items():
            if name == "low-rank terms":
                kept.reset()
                with low_rank_terms(loras, sets, rows):
                    took = seconds(way, unet.device)
            else:
                took = seconds(way, unet.device)
            if number:
                times[name].append(took)
    kept.reset()
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {name: round(value / medians["no LoRAs"], 2) for name, value in medians.items()} | {
        "milliseconds without": round(1000 * medians["no LoRAs"], 1)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--model", type=Path, help="model directory; the demo model by default")
    parser.add_argument("--size", type=int, default=128, help="pixels, both sides")
    parser.add_argument("--rank", type=int, default=16)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as home:
        model = options.model or demo_model(Path(home))
        unet = UNet2DConditionModel.from_pretrained(model / "unet", local_files_only=True)
    unet = unet.eval().requires_grad_(False).to(device)
    columns = PromptProjection(unet).width
    result: dict[str, Any] = dict(surroundings(device))
    for everywhere in (False, True):
        layers = "every layer" if everywhere else "attention and feed-forward"
        for sets_count in (2, 3, 4, 8):
            name = f"{layers}, {sets_count} sets"
            result[name] = measure(unet, columns, options, sets_count, everywhere=everywhere)
            print(name, result[name])
    write_result("lora_sharing", result)


if __name__ == "__main__":
    main()
