"""LoRAs in the networks of one model, each image with its own set.

The weights of a set are made beside the base's and put in its place by exchanging pointers: a
base's tensor is never written, so it is bit for bit what was loaded, and a set that is at hand
costs a fraction of a millisecond. Rows of different sets share a call of the network: the layers
that a set changes are then computed for each set's rows, and all else for all rows together.
(A low-rank term for each row costs more on a CPU, and can't stand for DoRA, LoHa or LoKr;
benchmarks/README.md has the figures.)
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lpw_sdxl.conditioning.cache import ByteCache, CacheCounters
from lpw_sdxl.lora.library import LoraLibrary
from lpw_sdxl.lora.merging import LayerWeights, MergedWeights, Network, count_bytes
from lpw_sdxl.lora.sets import NO_LORAS, LoraSet
from lpw_sdxl.weights.component import Component

logger = logging.getLogger(__name__)

REMEMBERED_COUNTS = 1000
TEXT_ENCODERS = (Component.TEXT_ENCODER, Component.TEXT_ENCODER_2)


class Segment(NamedTuple):
    """Neighbouring rows of a call that have one set."""

    loras: LoraSet
    rows: int


class Adapters:
    """Puts sets of LoRAs into a model's networks; for the thread that owns the device.

    Args:
        networks: of the model, with their base weights, where they stay or come home to.
        library: the LoRAs.
        device: where the networks are when they are called.
        max_merged_bytes: of the merged weights that are kept, those in use among them. Where not
            even one set fits, the one in use is there all the same.
    """

    def __init__(
        self,
        networks: Mapping[Component, nn.Module],
        library: LoraLibrary,
        device: torch.device,
        max_merged_bytes: int,
    ) -> None:
        self._places = {
            component: _Place(Network(component, module), device)
            for component, module in networks.items()
        }
        self._library = library
        self._device = device
        self._merged: ByteCache[tuple[Component, LoraSet], MergedWeights] = ByteCache(
            max_merged_bytes
        )
        self._layer_counts: dict[tuple[Component, LoraSet], int] = {}

    @property
    def counters(self) -> CacheCounters:
        """What the memory of merged weights has done."""
        return self._merged.counters

    @property
    def library(self) -> LoraLibrary:
        """Give the LoRAs."""
        return self._library

    def use(self, component: Component, loras: LoraSet) -> None:
        """Give a network the weights of one set.

        Raises:
            GenerationError: a LoRA can't be read; the network is as it was.
        """
        place = self._places[component]
        if place.loras != loras:
            [weights] = self._gather([(component, loras)])
            place.take(loras, weights)

    def use_in_encoders(self, loras: LoraSet) -> None:
        """Give both text encoders the weights of one set.

        Raises:
            GenerationError: a LoRA can't be read.
        """
        if any(self._places[encoder].loras != loras for encoder in TEXT_ENCODERS):
            weights = self._gather([(encoder, loras) for encoder in TEXT_ENCODERS])
            for encoder, some in zip(TEXT_ENCODERS, weights, strict=True):
                self._places[encoder].take(loras, some)

    def divide(self, component: Component, segments: Sequence[Segment]) -> None:
        """Give a network the weights of several sets, each for its rows of the next calls.

        Args:
            component: the network; its layers take rows as their first dimension.
            segments: in the order of the rows; neighbours differ.

        Raises:
            GenerationError: a LoRA can't be read; the network is as it was.
        """
        if len(segments) == 1:
            self.use(component, segments[0].loras)
            return
        place = self._places[component]
        if place.segments != tuple(segments):
            weights = self._gather([(component, segment.loras) for segment in segments])
            place.divide(tuple(segments), weights)

    def reset(self) -> None:
        """Give every network its base weights, without moving any: it leaves, or is idle."""
        for place in self._places.values():
            place.restore()

    def forget(self) -> None:
        """Let go of all merged weights, as memory is short; all networks are on the device."""
        self._merged.make_room(self._merged.max_bytes + 1)
        self.reset()

    def is_at_hand(self, component: Component, loras: LoraSet) -> bool:
        """Tell whether a set's weights are there, or none are needed."""
        place = self._places[component]
        return not loras or place.loras == loras or (component, loras) in self._merged

    def changed_layers(self, component: Component, loras: LoraSet) -> int:
        """Count the layers that a set changes, as far as that is at hand; else 0.

        Where sets that change few layers are neighbours, more layers have the base's weights for
        all of them, and are computed together.
        """
        return self._layer_counts.get((component, loras), 0)

    def _gather(self, wanted: Sequence[tuple[Component, LoraSet]]) -> list[MergedWeights]:
        """Get the weights of sets that shall be in use together; others may go out of use."""
        for other, place in self._places.items():
            for loras in place.sets:
                self._merged.touch((other, loras))  # a network at work goes on with them
        return [self._weights(component, loras) for component, loras in wanted]

    def _weights(self, component: Component, loras: LoraSet) -> MergedWeights:
        if not loras:
            return {}
        key = component, loras
        known = self._merged.get(key)
        if known is not None:
            return known
        started = time.monotonic()
        network = self._places[component].network
        self._make_room(network.weight_bytes)
        merged = network.merge(loras, self._library, self._device)
        self._merged.put(key, merged, sum(map(count_bytes, merged.values())))
        if len(self._layer_counts) >= REMEMBERED_COUNTS:
            self._layer_counts.clear()
        self._layer_counts[key] = len(merged)
        logger.debug(
            "%s: %d LoRAs merged into %d layers in %.3f s",
            component,
            len(loras),
            len(merged),
            time.monotonic() - started,
        )
        return merged

    def _make_room(self, size: int) -> None:
        """Forget as many sets as must go for one of `size` bytes, and take them out of use."""
        self._merged.make_room(size)
        for component, place in self._places.items():
            is_kept = all((component, loras) in self._merged for loras in place.sets)
            if place.is_torn or not is_kept:
                place.take(NO_LORAS, {})


class _Place:
    """A network, and which weights are in it now."""

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
