"""LoRAs in the networks of one model, each image with its own set.

A set's weights are computed as new tensors and exchanged for the base's by pointer. A base tensor
is never written, so it stays bit for bit as it was loaded, and a set whose weights are kept is in
use after a fraction of a millisecond. Rows of different sets share a call of the network: the
layers that a set changes are computed for each set's rows, and all others for all rows together. (A
low-rank term for each row costs more on a CPU, and can't express DoRA, LoHa or LoKr;
benchmarks/README.md has the figures.)
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from lpw_sdxl.conditioning.cache import ByteCache, CacheCounters
from lpw_sdxl.lora.library import LoraLibrary
from lpw_sdxl.lora.merging import MergedWeights, Network
from lpw_sdxl.lora.patched import PatchedNetwork, RowRun
from lpw_sdxl.lora.sets import NO_LORAS, LoraSet
from lpw_sdxl.weights.component import Component

logger = logging.getLogger(__name__)

MAX_LAYER_COUNTS = 1000
TEXT_ENCODERS = (Component.TEXT_ENCODER, Component.TEXT_ENCODER_2)


class Adapters:
    """The LoRA sets in a model's networks; for the thread that owns the device.

    Args:
        networks: of the model, with their base weights, on the device where they stay or to which
            they return.
        library: the LoRAs.
        device: where the networks are when they are called.
        max_merged_bytes: limit of the merged weights that are kept, those in use included. A single
            set in use may be larger.
    """

    def __init__(
        self,
        networks: Mapping[Component, nn.Module],
        library: LoraLibrary,
        device: torch.device,
        max_merged_bytes: int,
    ) -> None:
        self._networks = {
            component: PatchedNetwork(Network(component, module), device)
            for component, module in networks.items()
        }
        self.library = library
        self._device = device
        self._merged: ByteCache[tuple[Component, LoraSet], MergedWeights] = ByteCache(
            max_merged_bytes
        )
        self._layer_counts: dict[tuple[Component, LoraSet], int] = {}

    @property
    def counters(self) -> CacheCounters:
        """Return the counters of the cache of merged weights."""
        return self._merged.counters

    def use(self, component: Component, loras: LoraSet) -> None:
        """Put the weights of one set into a network.

        Raises:
            LoraUnavailableError: a LoRA can't be read; the network is as it was.
            InvalidRequestError: a LoRA overflows at its strength; likewise.
        """
        patched = self._networks[component]
        if patched.loras != loras:
            [weights] = self._gather([(component, loras)])
            patched.apply(loras, weights)

    def use_in_encoders(self, loras: LoraSet) -> None:
        """Put the weights of one set into both text encoders.

        Raises:
            LoraUnavailableError: a LoRA can't be read.
            InvalidRequestError: a LoRA overflows at its strength.
        """
        if any(self._networks[encoder].loras != loras for encoder in TEXT_ENCODERS):
            weights = self._gather([(encoder, loras) for encoder in TEXT_ENCODERS])
            for encoder, some in zip(TEXT_ENCODERS, weights, strict=True):
                self._networks[encoder].apply(loras, some)

    def divide(self, component: Component, runs: Sequence[RowRun]) -> None:
        """Put the weights of several sets into a network, each for its own rows of the next calls.

        Args:
            component: the network; the first dimension of its layers' input is the rows.
            runs: in the order of the rows; neighbouring runs have different sets.

        Raises:
            LoraUnavailableError: a LoRA can't be read; the network is as it was.
            InvalidRequestError: a LoRA overflows at its strength; likewise.
        """
        if len(runs) == 1:
            self.use(component, runs[0].loras)
            return
        patched = self._networks[component]
        if patched.runs != tuple(runs):
            weights = self._gather([(component, run.loras) for run in runs])
            patched.divide(tuple(runs), weights)

    def reset(self) -> None:
        """Put the base weights back into every network, on the device where each of them is."""
        for patched in self._networks.values():
            patched.restore()

    def forget(self) -> None:
        """Free all merged weights because memory is short; all networks are on the device."""
        self._merged.make_room(self._merged.max_bytes + 1)
        self.reset()

    def is_at_hand(self, component: Component, loras: LoraSet) -> bool:
        """Return whether a set's weights are kept, or none are needed."""
        patched = self._networks[component]
        return not loras or patched.loras == loras or (component, loras) in self._merged

    def count_changed_layers(self, component: Component, loras: LoraSet) -> int:
        """Count the layers that a set changes; 0 if it was not merged lately.

        If sets that change few layers are neighbours, more layers have the base's weights for all
        of their rows, and are computed together.
        """
        return self._layer_counts.get((component, loras), 0)

    def _gather(self, wanted: Sequence[tuple[Component, LoraSet]]) -> list[MergedWeights]:
        """Return the weights of sets to be used together; other sets may be taken out of use."""
        for other, patched in self._networks.items():
            for loras in patched.sets:
                self._merged.touch((other, loras))  # most recently used, as networks still use them
        return [self._weights(component, loras) for component, loras in wanted]

    def _weights(self, component: Component, loras: LoraSet) -> MergedWeights:
        if not loras:
            return {}
        key = component, loras
        known = self._merged.get(key)
        if known is not None:
            return known
        started = time.monotonic()
        network = self._networks[component].network
        self._make_room(network.weight_bytes)
        merged = network.merge(loras, self.library, self._device)
        self._merged.put(key, merged, sum(weights.size for weights in merged.values()))
        if len(self._layer_counts) >= MAX_LAYER_COUNTS:
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
        """Drop as many sets as it takes to keep one of `size` bytes, and take them out of use."""
        self._merged.make_room(size)
        for component, patched in self._networks.items():
            is_kept = all((component, loras) in self._merged for loras in patched.sets)
            if patched.is_inconsistent or not is_kept:
                patched.apply(NO_LORAS, {})
