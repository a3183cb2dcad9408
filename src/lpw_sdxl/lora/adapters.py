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

REMEMBERED_COUNTS = 1000
TEXT_ENCODERS = (Component.TEXT_ENCODER, Component.TEXT_ENCODER_2)


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
        """What the memory of merged weights has done."""
        return self._merged.counters

    def use(self, component: Component, loras: LoraSet) -> None:
        """Give a network the weights of one set.

        Raises:
            GenerationError: a LoRA can't be read; the network is as it was.
        """
        patched = self._networks[component]
        if patched.loras != loras:
            [weights] = self._gather([(component, loras)])
            patched.apply(loras, weights)

    def use_in_encoders(self, loras: LoraSet) -> None:
        """Give both text encoders the weights of one set.

        Raises:
            GenerationError: a LoRA can't be read.
        """
        if any(self._networks[encoder].loras != loras for encoder in TEXT_ENCODERS):
            weights = self._gather([(encoder, loras) for encoder in TEXT_ENCODERS])
            for encoder, some in zip(TEXT_ENCODERS, weights, strict=True):
                self._networks[encoder].apply(loras, some)

    def divide(self, component: Component, runs: Sequence[RowRun]) -> None:
        """Give a network the weights of several sets, each for its rows of the next calls.

        Args:
            component: the network; its layers take rows as their first dimension.
            runs: in the order of the rows; neighbours differ.

        Raises:
            GenerationError: a LoRA can't be read; the network is as it was.
        """
        if len(runs) == 1:
            self.use(component, runs[0].loras)
            return
        patched = self._networks[component]
        if patched.runs != tuple(runs):
            weights = self._gather([(component, run.loras) for run in runs])
            patched.divide(tuple(runs), weights)

    def reset(self) -> None:
        """Give every network its base weights, without moving any: it leaves, or is idle."""
        for patched in self._networks.values():
            patched.restore()

    def forget(self) -> None:
        """Let go of all merged weights, as memory is short; all networks are on the device."""
        self._merged.make_room(self._merged.max_bytes + 1)
        self.reset()

    def is_at_hand(self, component: Component, loras: LoraSet) -> bool:
        """Tell whether a set's weights are there, or none are needed."""
        patched = self._networks[component]
        return not loras or patched.loras == loras or (component, loras) in self._merged

    def changed_layers(self, component: Component, loras: LoraSet) -> int:
        """Count the layers that a set changes, as far as that is at hand; else 0.

        Where sets that change few layers are neighbours, more layers have the base's weights for
        all of them, and are computed together.
        """
        return self._layer_counts.get((component, loras), 0)

    def _gather(self, wanted: Sequence[tuple[Component, LoraSet]]) -> list[MergedWeights]:
        """Get the weights of sets that shall be in use together; others may go out of use."""
        for other, patched in self._networks.items():
            for loras in patched.sets:
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
        network = self._networks[component].network
        self._make_room(network.weight_bytes)
        merged = network.merge(loras, self.library, self._device)
        self._merged.put(key, merged, sum(weights.size for weights in merged.values()))
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
        for component, patched in self._networks.items():
            is_kept = all((component, loras) in self._merged for loras in patched.sets)
            if patched.is_inconsistent or not is_kept:
                patched.apply(NO_LORAS, {})
