"""Merging of a set of LoRAs with a network's base weights; the network itself is not changed."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

import torch
from torch import Tensor, nn

from lpw_sdxl.errors import AddonError, InvalidRequestError
from lpw_sdxl.lora.formulas import FactorTensors, compute_bias_change, compute_weight_change
from lpw_sdxl.lora.library import LoraLibrary, layer_name
from lpw_sdxl.lora.sets import LoraSet
from lpw_sdxl.lora.targets import latent_inputs
from lpw_sdxl.weights.component import Component
from lpw_sdxl.weights.float8 import Quantised, quantise_rows

logger = logging.getLogger(__name__)

_FAINT = 1e-3
"""A strength below those in use: what overflows at it is a flaw of the LoRA, not of a request."""


@dataclass(frozen=True, eq=False)
class LayerWeights:
    """One layer's weight and bias.

    Attributes:
        quantised: the weight in fp8, of a layer that computes in it.
    """

    weight: Tensor
    bias: Tensor | None
    quantised: Quantised | None = None

    @property
    def size(self) -> int:
        """Return the size in bytes."""
        others = (self.bias.nbytes if self.bias is not None else 0) + (
            self.quantised.size if self.quantised is not None else 0
        )
        return self.weight.nbytes + others

    def to(self, device: torch.device) -> LayerWeights:
        """Return the same on a device; tensors that are there already are not copied."""
        return LayerWeights(
            self.weight.to(device),
            None if self.bias is None else self.bias.to(device),
            None if self.quantised is None else self.quantised.to(device),
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
            LoraUnavailableError: a LoRA of the set can't be read.
            InvalidRequestError: a LoRA overflows at its strength, or its factors have no formula.
        """
        parts: dict[str, list[_Part]] = defaultdict(list)
        for tag, strength in loras:
            for path, factors in library.get(tag).of(self.component).items():
                parts[path].append(_Part(library.name_of(tag), strength, factors))
        merged = {path: self._merge_layer(path, some, device) for path, some in parts.items()}
        if not _is_finite(merged.values()):
            self._refuse_overflow(parts, merged, device)
        return merged

    def _merge_layer(self, path: str, parts: Sequence[_Part], device: torch.device) -> LayerWeights:
        with torch.no_grad():
            base = self.base[path].to(device)
            own = self._changed_part(path, base.weight)
            weight = base.weight.float().clone(memory_format=torch.preserve_format)
            changed = self._changed_part(path, weight)
            bias = None if base.bias is None else base.bias.float().clone()
            for name, strength, stored in parts:
                factors = {factor: tensor.to(device) for factor, tensor in stored.items()}
                try:
                    changed.add_(compute_weight_change(own, factors), alpha=strength)
                except AddonError as error:  # of an earlier version's import
                    logger.warning("the LoRA %s can't be used: %s", name, error)
                    raise _unusable(name) from error
                shift = compute_bias_change(factors)
                if bias is not None and shift is not None:
                    bias.add_(shift, alpha=strength)
            dtype = base.weight.dtype
            merged = weight.to(dtype)
            # Of the rounded weight: the base's was made of such a one too.
            quantised = None if base.quantised is None else quantise_rows(merged)
            return LayerWeights(merged, None if bias is None else bias.to(dtype), quantised)

    def _changed_part(self, path: str, weight: Tensor) -> Tensor:
        """View the part of a layer's weight that LoRAs change: all of it, or some inputs."""
        inputs = latent_inputs(self.component, path, tuple(weight.shape))
        return weight if inputs is None else weight[:, :inputs]

    def _refuse_overflow(
        self, parts: Mapping[str, Sequence[_Part]], merged: MergedWeights, device: torch.device
    ) -> NoReturn:
        """Name the LoRAs of the first layer that is not finite: those that overflow it alone.

        Where none does it alone, they do it together.
        """
        path = next(path for path, weights in merged.items() if not _is_finite([weights]))
        together = parts[path]
        alone = [
            one for one in together if not _is_finite([self._merge_layer(path, [one], device)])
        ]
        faint = [one._replace(strength=_FAINT) for one in alone]
        for one in faint:
            if not _is_finite([self._merge_layer(path, [one], device)]):
                logger.warning("the LoRA %s overflows at any weight, in %s", one.name, path)
                raise _unusable(one.name)
        named = " and ".join(f"{one.name} at {one.strength:g}" for one in alone or together)
        dtype = str(merged[path].weight.dtype).removeprefix("torch.")
        raise InvalidRequestError(
            f"the weight of the LoRA {named} makes numbers beyond {dtype}; weights nearer to 0"
            " would be right",
            field="loras",
        )


class _Part(NamedTuple):
    """One LoRA's part in the change of a layer."""

    name: str
    strength: float
    factors: FactorTensors


def _unusable(name: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"the LoRA {name} overflows or is damaged and can't be used at any weight; the request"
        " without it would be right, and on the server a new import, which says what is wrong",
        field="loras",
    )


def _is_finite(layers: Iterable[LayerWeights]) -> bool:
    """Return whether every number is finite; the device is waited for once."""
    tensors = [
        tensor
        for weights in layers
        for tensor in (weights.weight, weights.bias)
        # torch's meta device has shapes without numbers.
        if tensor is not None and tensor.numel() and not tensor.is_meta
    ]
    # A NaN anywhere makes both extremes NaN.
    extremes = [extreme.float() for tensor in tensors for extreme in torch.aminmax(tensor)]
    return not extremes or bool(torch.isfinite(torch.stack(extremes)).all())


def _layers(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for path, layer in module.named_modules():
        if isinstance(getattr(layer, "weight", None), nn.Parameter):
            yield layer_name(path), layer


def _weights(layer: nn.Module) -> LayerWeights:
    bias = getattr(layer, "bias", None)
    assert isinstance(layer.weight, nn.Parameter)
    quantised = getattr(layer, "quantised", None)
    return LayerWeights(layer.weight.data, None if bias is None else bias.data, quantised)
