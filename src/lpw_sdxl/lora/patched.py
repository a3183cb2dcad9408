"""One network whose weights can be exchanged: for a set's, for several sets', for the base's.

Weights are exchanged by pointer, so the base's own are kept and can be put back. It knows nothing
of how a set's weights are computed or cached.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lpw_sdxl.lora.merging import LayerWeights, MergedWeights, Network
from lpw_sdxl.lora.sets import NO_LORAS, LoraSet


class RowRun(NamedTuple):
    """Neighbouring rows of a call that share one set."""

    loras: LoraSet
    rows: int


class PatchedNetwork:
    """A network whose layers have other weights for a while.

    Args:
        network: with its base weights.
        device: where it is when it is called.
    """

    def __init__(self, network: Network, device: torch.device) -> None:
        self.network = network
        self.loras: LoraSet | None = NO_LORAS  # None while it is divided, or inconsistent
        self.runs: tuple[RowRun, ...] = ()
        self._device = device
        self._changed: set[str] = set()  # layers whose weights are not the base's
        self._divided: list[nn.Module] = []

    @property
    def sets(self) -> frozenset[LoraSet]:
        """Return the sets whose merged weights are in use."""
        sets = {run.loras for run in self.runs} | {self.loras or NO_LORAS}
        return frozenset(sets - {NO_LORAS})

    @property
    def is_inconsistent(self) -> bool:
        """Return whether an exchange failed midway, so that its weights belong to no single set."""
        return self.loras is None and not self.runs

    def apply(self, loras: LoraSet, merged: MergedWeights) -> None:
        """Put a set's weights into every layer that it changes, and the base's into the others."""
        self._unite()
        before, self._changed = self._changed, self._changed | merged.keys()
        for path in before - merged.keys():
            self._put(path, self.network.base[path])
        for path, weights in merged.items():
            self._put(path, weights)
        self._changed = set(merged)
        self.loras = loras

    def divide(self, runs: tuple[RowRun, ...], merged: Sequence[MergedWeights]) -> None:
        """Make each layer that some set changes compute the runs one by one."""
        self.apply(NO_LORAS, {})
        self.loras = None
        rows = [run.rows for run in runs]
        for path in sorted(set().union(*merged)):
            base, layer = self.network.base[path], self.network.layers[path]
            parts = [weights.get(path, base) for weights in merged]
            layer.forward = _divided_forward(layer, rows, parts)
            self._divided.append(layer)
        self.runs = runs

    def restore(self) -> None:
        """Put the base's own tensors back, wherever they are."""
        self._unite()
        for path in self._changed:
            _exchange(self.network.layers[path], self.network.base[path])
        self._changed = set()
        self.loras = NO_LORAS

    def _unite(self) -> None:
        for layer in self._divided:
            del layer.forward  # uncovers the method of the class
        self._divided = []
        self.runs = ()
        self.loras = None

    def _put(self, path: str, weights: LayerWeights) -> None:
        # Copies nothing if they are on the device already.
        _exchange(self.network.layers[path], weights.to(self._device))


def _exchange(layer: nn.Module, weights: LayerWeights) -> None:
    assert isinstance(layer.weight, nn.Parameter)
    layer.weight.data = weights.weight
    if weights.bias is not None:
        assert isinstance(layer.bias, nn.Parameter)
        layer.bias.data = weights.bias
    if weights.quantised is not None:
        vars(layer)["quantised"] = weights.quantised


_COMPUTE: Mapping[type[nn.Module], Callable[[Any, Tensor, LayerWeights], Tensor]] = {
    nn.Linear: lambda _, rows, own: F.linear(rows, own.weight, own.bias),
    nn.Conv2d: lambda layer, rows, own: layer._conv_forward(rows, own.weight, own.bias),
    nn.GroupNorm: lambda layer, rows, own: F.group_norm(
        rows, layer.num_groups, own.weight, own.bias, layer.eps
    ),
    nn.LayerNorm: lambda layer, rows, own: F.layer_norm(
        rows, layer.normalized_shape, own.weight, own.bias, layer.eps
    ),
}
"""The computation of each kind of layer in a UNet, with given weights."""


def _divided_forward(
    layer: nn.Module, rows: Iterable[int], parts: Iterable[LayerWeights]
) -> Callable[..., Tensor]:
    """Build a layer's forward with different weights for different rows.

    Args:
        layer: of a kind in `_COMPUTE`.
        rows: number of rows of each run.
        parts: weights of each run.
    """
    compute = _COMPUTE[type(layer)]
    # Neighbouring runs that do not change the layer share the base's weights: one call for both.
    pairs = groupby(zip(parts, rows, strict=True), key=lambda pair: id(pair[0]))
    runs = [list(run) for _, run in pairs]
    sizes = [sum(count for _, count in run) for run in runs]
    weights = [run[0][0] for run in runs]

    def forward(states: Tensor) -> Tensor:
        return torch.cat(
            [
                compute(layer, some, part)
                for some, part in zip(states.split(sizes), weights, strict=True)
            ]
        )

    return forward
