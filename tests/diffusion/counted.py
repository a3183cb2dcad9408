"""Operations that count their calls, so that no test passes by what is computed as before."""

from __future__ import annotations

from collections import Counter
from typing import Any

from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import nn

from lpw_sdxl.diffusion.kernels.plain import PlainOperations


class CountedOperations(PlainOperations):
    """The plain operations, and how often each was called."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if callable(found) and not name.startswith("_"):
            self.counts[name] += 1
        return found


def calls_of(network: nn.Module, *, quantises: bool = False) -> dict[str, int]:
    """Return the operations of one call of a network all of whose blocks are fused."""

    def count(kind: type) -> int:
        return sum(isinstance(one, kind) for one in network.modules())

    blocks, resnets = count(BasicTransformerBlock), count(ResnetBlock2D)
    transformers = count(Transformer2DModel)
    calls = {
        "group_norm": 2 * resnets + transformers,
        "add_residual": resnets + transformers,
        "add_layer_norm": 3 * blocks,
        "gate": blocks,
        "quantise": 2 * blocks if quantises else 0,
    }
    return {name: number for name, number in calls.items() if number}
