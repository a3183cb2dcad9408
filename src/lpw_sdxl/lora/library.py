"""The imported LoRAs' tensors, read when they are first needed; nothing is applied here."""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from lpw_sdxl.conditioning.cache import ByteCache, CacheCounters
from lpw_sdxl.errors import GenerationError, LpwSdxlError
from lpw_sdxl.lora.formulas import FactorTensors
from lpw_sdxl.lora.request import ResolvedLora
from lpw_sdxl.weights.component import Component

logger = logging.getLogger(__name__)


class LoraEntry(ResolvedLora, Protocol):
    """An imported LoRA: the registry's entry."""

    @property
    def file(self) -> Path:
        """Give the canonical file."""

    def verify(self) -> None:
        """Check that every byte is as it was imported; an error of ours if not."""


@dataclass(frozen=True)
class LoraTensors:
    """One LoRA in the CPU's memory.

    Attributes:
        modules: for each network the factors of every layer that it changes, by `layer_name`.
        size: bytes.
    """

    modules: Mapping[Component, Mapping[str, FactorTensors]]
    size: int

    def of(self, component: Component) -> Mapping[str, FactorTensors]:
        """Give the factors for one network; none if it leaves that as it is."""
        return self.modules.get(component, {})


class LoraLibrary:
    """Reads LoRAs and remembers those used last; any thread may ask.

    Args:
        entries: by the SHA-256 of the file that each was imported from.
        max_bytes: of what is remembered.
    """

    def __init__(self, entries: Mapping[str, LoraEntry], max_bytes: int) -> None:
        self._entries = entries
        self._cache: ByteCache[str, LoraTensors] = ByteCache(max_bytes)
        self._verified: set[str] = set()
        self._lock = threading.Lock()
        self._reading = threading.Lock()  # one at a time: what is read has no other bound

    @property
    def counters(self) -> CacheCounters:
        """What the memory has done."""
        return self._cache.counters

    def get(self, sha256: str) -> LoraTensors:
        """Give a LoRA's tensors, from the disk if they are not at hand.

        The file's bytes are held against its manifest when it is read for the first time. Who asks
        for a LoRA that is at hand never waits for another's file.

        Raises:
            GenerationError: its entry is damaged or gone.
        """
        with self._lock:
            known = self._cache.get(sha256)
        if known is not None:
            return known
        with self._reading:
            with self._lock:  # somebody may have read it meanwhile
                known = self._cache.get(sha256) if sha256 in self._cache else None
            if known is not None:
                return known
            tensors = self._read(sha256)
            with self._lock:
                self._cache.put(sha256, tensors, tensors.size)
            return tensors

    def _read(self, sha256: str) -> LoraTensors:
        entry = self._entries[sha256]
        started = time.monotonic()
        try:
            if sha256 not in self._verified:
                entry.verify()
            # Not mapped into memory: whoever rewrote the file of a mounted folder would end us.
            tensors = _sorted_out(load(entry.file.read_bytes()))
        except (LpwSdxlError, OSError, SafetensorError, ValueError) as error:
            logger.error("LoRA %s can't be read: %s", entry.manifest.name, error)
            raise GenerationError(
                f"the LoRA {entry.manifest.name} is damaged on this server; it has to be imported"
                " again"
            ) from error
        self._verified.add(sha256)
        logger.info(
            "LoRA %s: %.1f MB read in %.2f s",
            entry.manifest.name,
            tensors.size / 1e6,
            time.monotonic() - started,
        )
        return tensors


def layer_name(path: str) -> str:
    """Name a layer by its path, without the level that Transformers 5.6 left out of CLIP."""
    return path.removeprefix("text_model.")


def _sorted_out(tensors: Mapping[str, Tensor]) -> LoraTensors:
    """Sort a canonical file's tensors, `<component>/<path>/<factor>`, by network and layer."""
    modules: dict[Component, dict[str, dict[str, Tensor]]] = defaultdict(lambda: defaultdict(dict))
    for name, tensor in tensors.items():
        component, path, factor = name.split("/")
        modules[Component(component)][layer_name(path)][factor] = tensor
    size = sum(tensor.nbytes for tensor in tensors.values())
    return LoraTensors({component: dict(paths) for component, paths in modules.items()}, size)
