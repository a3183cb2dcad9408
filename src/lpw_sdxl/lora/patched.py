"""One network of the model, and which weights are in it now: a set's, several sets', the base's.

Weights are put into a network by exchanging pointers, so the base's own are there to come back. It
knows nothing of how a set's weights are made, or of what is remembered of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lpw_sdxl.lora.merging import LayerWeights, MergedWeights, Network
from lpw_sdxl.lora.sets import NO_LORAS, LoraSet


class Segment(NamedTuple):
    """Neighbouring rows of a call that have one set."""

    loras: LoraSet
    rows: int


class PatchedNetwork:
    """A network whose layers are given other weights, and its own again.

    Args:
        network: with its base weights.
        device: where it is when it is called.
    """

    def __init__(self, network: Network, device: torch.device) -> None:
        self.network = network
        self.loras: LoraSet | None = NO_LORAS  # None while it is divided, or torn
        self.segments: tuple[Segment, ...] = ()
        self._device = device
        self._changed: set[str] = set()  # layers that have not the base's weights
        self._divided: list[nn.Module] = []

    @property
    def sets(self) -> frozenset[LoraSet]:
        """Give the sets whose merged weights are in it."""
        sets = {segment.loras for segment in self.segments} | {self.loras or NO_LORAS}
        return frozenset(sets - {NO_LORAS})

    @property
    def is_torn(self) -> bool:
        """Tell whether an exchange broke off, so that the weights are of no one set."""
        return self.loras is None and not self.segments

    def take(self, loras: LoraSet, merged: MergedWeights) -> None:
        """Put a set's weights into every layer that it changes, and the base's into the others."""
        self._unite()
        before, self._changed = self._changed, self._changed | merged.keys()
        for path in before - merged.keys():
            self._put(path, self.network.base[path])
        for path, weights in merged.items():
            self._put(path, weights)
        self._changed = set(merged)
        self.loras = loras

    def divide(self, segments: tuple[Segment, ...], merged: Sequence[MergedWeights]) -> None:
        """Have each layer that some set changes compute the segments one by one."""
        self.take(NO_LORAS, {})
        self.loras = None
        rows = [segment.rows for segment in segments]
        for path in sorted(set().union(*merged)):
            base, layer = self.network.base[path], self.network.layers[path]
            parts = [weights.get(path, base) for weights in merged]
            layer.forward = _divided_forward(layer, rows, parts)
            self._divided.append(layer)
        self.segments = segments

    def restore(self) -> None:
        """Put the base's own tensors back, wherever they are."""
        self._unite()
        for path in self._changed:
            _exchange(self.network.layers[path], self.network.base[path])
        self._changed = set()
        self.loras = NO_LORAS

    def _unite(self) -> None:
        for layer in self._divided:
            del layer.forward  # the class's own comes to light again
        self._divided = []
        self.segments = ()
        self.loras = None

    def _put(self, path: str, weights: LayerWeights) -> None:
        at_work = [tensor.to(self._device) for tensor in weights]  # no copy if it is there
        _exchange(self.network.layers[path], LayerWeights(*at_work, *[None] * (2 - len(at_work))))


def _exchange(layer: nn.Module, weights: LayerWeights) -> None:
    assert isinstance(layer.weight, nn.Parameter)
    layer.weight.data = weights.weight
    if weights.bias is not None:
        assert isinstance(layer.bias, nn.Parameter)
        layer.bias.data = weights.bias


def _linear(_: nn.Module, rows: Tensor, weights: LayerWeights) -> Tensor:
    return F.linear(rows, weights.weight, weights.bias)


def _convolution(layer: nn.Module, rows: Tensor, weights: LayerWeights) -> Tensor:
    assert isinstance(layer, nn.Conv2d)
    return layer._conv_forward(rows, weights.weight, weights.bias)


def _group_norm(layer: nn.Module, rows: Tensor, weights: LayerWeights) -> Tensor:
    assert isinstance(layer, nn.GroupNorm)
    return F.group_norm(rows, layer.num_groups, weights.weight, weights.bias, layer.eps)


def _layer_norm(layer: nn.Module, rows: Tensor, weights: LayerWeights) -> Tensor:
    assert isinstance(layer, nn.LayerNorm)
    return F.layer_norm(rows, layer.normalized_shape, weights.weight, weights.bias, layer.eps)


_COMPUTE: Mapping[type[nn.Module], Callable[[nn.Module, Tensor, LayerWeights], Tensor]] = {
    nn.Linear: _linear,
    nn.Conv2d: _convolution,
    nn.GroupNorm: _group_norm,
    nn.LayerNorm: _layer_norm,
}
"""How a layer of a UNet computes with given weights."""


def _divided_forward(
    layer: nn.Module, rows: Iterable[int], parts: Iterable[LayerWeights]
) -> Callable[..., Tensor]:
    """Make a layer's forward that has other weights for other rows."""
    compute = _COMPUTE[type(layer)]
    sizes: list[int] = []
    weights: list[LayerWeights] = []
    for count, part in zip(rows, parts, strict=True):
        if weights and weights[-1] is part:  # the base's, for neighbours that leave it as it is
            sizes[-1] += count
        else:
            sizes.append(count)
            weights.append(part)

    def forward(states: Tensor) -> Tensor:
        return torch.cat(
            [
                compute(layer, some, part)
                for some, part in zip(states.split(sizes), weights, strict=True)
            ]
        )

    return forward
