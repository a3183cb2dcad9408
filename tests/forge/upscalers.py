"""Random, seeded upscalers under the names that real files have; of no use but for tests.

It imports nothing of the product, so that another program's environment can run it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

NAMINGS = ("first", "trunk", "basic")
GROWTH = 32
"""Channels that each convolution of a dense block adds, in every file that is known."""


@dataclass(frozen=True)
class EsrganRecipe:
    """An ESRGAN network.

    Attributes:
        naming: `first` (ESRGAN's first code), `trunk` (BSRGAN, RealSR) or `basic` (BasicSR).
        doublings: how many times it doubles its features.
        unshuffle: as in `Design`.
        channels: of its features.
        blocks: of three dense blocks.
        seed: the same seed gives the same network under every naming.
    """

    naming: str = "basic"
    doublings: int = 2
    unshuffle: int = 1
    channels: int = 8
    blocks: int = 1
    seed: int = 0

    def tensors(self) -> dict[str, Tensor]:
        """Draw the tensors, float32, by this naming's names."""
        return _drawn(self._shapes(), self.seed)

    def _shapes(self) -> Iterator[tuple[str, tuple[int, int]]]:
        width = self.channels
        yield self._layer("conv_first"), (3 * self.unshuffle**2, width)
        for block in range(self.blocks):
            for dense in range(1, 4):
                for number in range(1, 6):
                    outputs = width if number == 5 else GROWTH
                    inputs = width + (number - 1) * GROWTH
                    yield self._dense(block, dense, number), (inputs, outputs)
        yield self._layer("conv_body"), (width, width)
        for number in range(1, self.doublings + 1):
            yield self._layer(f"conv_up{number}"), (width, width)
        yield self._layer("conv_hr"), (width, width)
        yield self._layer("conv_last"), (width, 3)

    def _dense(self, block: int, dense: int, number: int) -> str:
        return {
            "first": f"model.1.sub.{block}.RDB{dense}.conv{number}.0",
            "trunk": f"RRDB_trunk.{block}.RDB{dense}.conv{number}",
            "basic": f"body.{block}.rdb{dense}.conv{number}",
        }[self.naming]

    def _layer(self, name: str) -> str:
        if self.naming == "trunk":
            theirs = {"conv_body": "trunk_conv", "conv_hr": "HRconv"}
            return theirs.get(name, name.replace("conv_up", "upconv"))
        if self.naming == "first":
            theirs = {"conv_first": "model.0", "conv_body": f"model.1.sub.{self.blocks}"}
            theirs |= {f"conv_up{number}": f"model.{3 * number}" for number in range(1, 9)}
            theirs["conv_hr"] = f"model.{3 * self.doublings + 2}"
            theirs["conv_last"] = f"model.{3 * self.doublings + 4}"
            return theirs[name]
        return name


@dataclass(frozen=True)
class CompactRecipe:
    """A compact Real-ESRGAN network.

    Attributes:
        scale: 1 to 4.
        channels: of its features.
        blocks: convolutions between the first and the last one.
        seed: the same seed gives the same network.
    """

    scale: int = 4
    channels: int = 8
    blocks: int = 3
    seed: int = 0

    def tensors(self) -> dict[str, Tensor]:
        """Draw the tensors, float32, by the names of all such files."""
        sizes = [3, *[self.channels] * (self.blocks + 1), 3 * self.scale**2]
        layers = ((f"body.{2 * number}", pair) for number, pair in enumerate(pairwise(sizes)))
        tensors = _drawn(layers, self.seed)
        generator = torch.Generator().manual_seed(self.seed + 1)
        for number in range(self.blocks + 1):
            slopes = 0.1 + 0.3 * torch.rand(self.channels, generator=generator)
            tensors[f"body.{2 * number + 1}.weight"] = slopes
        return tensors


def picture(height: int, width: int, seed: int = 0) -> Tensor:
    """Draw a picture, `[3, height, width]` float32, in levels of 255."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), generator=generator) / 255


def _drawn(layers: Iterator[tuple[str, tuple[int, int]]], seed: int) -> dict[str, Tensor]:
    """Draw convolutions that neither let numbers grow nor vanish."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, (inputs, outputs) in layers:
        weight = torch.randn(outputs, inputs, 3, 3, generator=generator)
        tensors[f"{name}.weight"] = weight * (2 / (9 * inputs)) ** 0.5
        tensors[f"{name}.bias"] = 0.1 * torch.randn(outputs, generator=generator)
    return tensors


CASES: Mapping[str, EsrganRecipe | CompactRecipe] = {
    "first_x1": EsrganRecipe("first", doublings=0, seed=1),
    "first_x2": EsrganRecipe("first", doublings=1, seed=2),
    "first_x4": EsrganRecipe("first", doublings=2, blocks=2, seed=3),
    "first_x4_unshuffled": EsrganRecipe("first", doublings=3, unshuffle=2, seed=5),
    "trunk_x4": EsrganRecipe("trunk", seed=6),
    "basic_x4": EsrganRecipe("basic", blocks=2, seed=7),
    "basic_x2": EsrganRecipe("basic", unshuffle=2, seed=8),
    "basic_x1": EsrganRecipe("basic", unshuffle=4, seed=9),
    "compact_x1": CompactRecipe(1, seed=10),
    "compact_x2": CompactRecipe(2, seed=11),
    "compact_x3": CompactRecipe(3, blocks=2, seed=12),
    "compact_x4": CompactRecipe(4, seed=13),
}
"""The networks of which `tests/golden/upscalers.safetensors` has spandrel's results."""
