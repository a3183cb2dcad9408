"""Merging of a set of LoRAs with a network's base weights; the network itself is not changed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lpw_sdxl.lora.formulas import FactorTensors, compute_bias_change, compute_weight_change
from lpw_sdxl.lora.library import LoraLibrary, layer_name
from lpw_sdxl.lora.sets import LoraSet
from lpw_sdxl.weights.component import Component


@dataclass(frozen=True, eq=False)
class LayerWeights:
    """One layer's weight and bias."""

    weight: Tensor
    bias: Tensor | None

    @property
    def size(self) -> int:
        """Return the size in bytes."""
        return self.weight.nbytes + (0 if self.bias is None else self.bias.nbytes)

    def to(self, device: torch.device) -> LayerWeights:
        """Return the same on a device; tensors that are there already are not copied."""
        return LayerWeights(
            self.weight.to(device), None if self.bias is None else self.bias.to(device)
        )


MergedWeights = Mapping[str, LayerWeights]
"""The layers of one network that a set changes, by `layer_name`."""


class Network:
    """One network of a model and its base weights.

    Args:
        component: which network.
        module: its weights now are the base weights; they are never written.

    Attributes:
        layers: every module that has a weight, by `layer_name` of its path.
    """

    def __init__(self, component: Component, module: nn.Module) -> None:
        self.component = component
        self.layers = dict(_layers(module))
        self.base = {path: _weights(layer) for path, layer in self.layers.items()}
        self.device = next(module.parameters()).device

    @property
    def weight_bytes(self) -> int:
        """Return the bytes of all weights that a set may change."""
        return sum(weights.size for weights in self.base.values())

    def merge(self, loras: LoraSet, library: LoraLibrary, device: torch.device) -> MergedWeights:
        """Compute the weights of a set, in the base's dtype and memory format.

        Each LoRA's change is computed from the base, so that their order does not matter:
        `W + sum(strength * change(W))`, summed in float32 and rounded once.

        Args:
            loras: the set.
            library: where its tensors are.
            device: of the result.

        Raises:
            GenerationError: a LoRA of the set can't be read.
        """
        parts: dict[str, list[tuple[float, FactorTensors]]] = defaultdict(list)
        for tag, strength in loras:
            for path, factors in library.get(tag).of(self.component).items():
                parts[path].append((strength, factors))
        return {path: self._merge_layer(path, some, device) for path, some in parts.items()}

    def _merge_layer(
        self, path: str, parts: list[tuple[float, FactorTensors]], device: torch.device
    ) -> LayerWeights:
        with torch.no_grad():
            base = self.base[path].to(device)
            own = base.weight
            weight = own.float().clone(memory_format=torch.preserve_format)
            bias = None if base.bias is None else base.bias.float().clone()
            for strength, stored in parts:
                factors = {name: factor.to(device) for name, factor in stored.items()}
                weight.add_(compute_weight_change(own, factors), alpha=strength)
                shift = compute_bias_change(factors)
                if bias is not None and shift is not None:
                    bias.add_(shift, alpha=strength)
            return LayerWeights(weight.to(own.dtype), None if bias is None else bias.to(own.dtype))


def _layers(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for path, layer in module.named_modules():
        if isinstance(getattr(layer, "weight", None), nn.Parameter):
            yield layer_name(path), layer


def _weights(layer: nn.Module) -> LayerWeights:
    bias = getattr(layer, "bias", None)
    assert isinstance(layer.weight, nn.Parameter)
    return LayerWeights(layer.weight.data, None if bias is None else bias.data)
