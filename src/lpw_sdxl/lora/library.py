"""The imported LoRAs' tensors, read when they are first needed, not yet applied."""

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
from lpw_sdxl.errors import LoraUnavailableError, LpwSdxlError
from lpw_sdxl.lora.formulas import FactorTensors
from lpw_sdxl.lora.request import ResolvedLora
from lpw_sdxl.weights.component import Component
from lpw_sdxl.weights.files import file_stamp

logger = logging.getLogger(__name__)


class LoraEntry(ResolvedLora, Protocol):
    """A registry's entry of an imported LoRA."""

    @property
    def file(self) -> Path:
        """Return the canonical file."""

    def verify(self) -> None:
        """Check that every byte is as it was imported; raise an error of ours if not."""


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
        """Return the factors for one network; none if it does not change that network."""
        return self.modules.get(component, {})


class LoraLibrary:
    """The tensors of all LoRAs, with a cache of those used last; thread-safe.

    Args:
        entries: by their tags in the store.
        max_bytes: limit of the cache.
    """

    def __init__(self, entries: Mapping[str, LoraEntry], max_bytes: int) -> None:
        self._entries = entries
        self._cache: ByteCache[str, LoraTensors] = ByteCache(max_bytes)
        self._verified: dict[str, str] = {}  # the file's stamp when its bytes were checked
        self._lock = threading.Lock()
        self._reading = threading.Lock()  # one file at a time: nothing else bounds their memory

    @property
    def counters(self) -> CacheCounters:
        """Return the counters of the cache."""
        return self._cache.counters

    def name_of(self, tag: str) -> str:
        """Return the name under which a LoRA was imported."""
        return self._entries[tag].manifest.name

    def get(self, tag: str) -> LoraTensors:
        """Return a LoRA's tensors, read from the disk if they are not cached.

        When a file is read for the first time, or has changed since, its bytes are checked against
        its manifest. A caller whose LoRA is cached never waits for another's file.

        Raises:
            LoraUnavailableError: its file is damaged or missing.
        """
        with self._lock:
            known = self._cache.get(tag)
        if known is not None:
            return known
        with self._reading:
            with self._lock:  # another thread may have read it meanwhile
                known = self._cache.get(tag) if tag in self._cache else None
            if known is not None:
                return known
            tensors = self._read(tag)
            with self._lock:
                self._cache.put(tag, tensors, tensors.size)
            return tensors

    def _read(self, tag: str) -> LoraTensors:
        entry = self._entries[tag]
        started = time.monotonic()
        try:
            stamp = file_stamp(entry.file)
            if self._verified.get(tag) != stamp:
                entry.verify()
            # Not mapped into memory: if a mounted file were rewritten, the process would be killed.
            tensors = _group_by_layer(load(entry.file.read_bytes()))
        except (LpwSdxlError, OSError, SafetensorError, ValueError) as error:
            logger.error("LoRA %s can't be read: %s", entry.manifest.name, error)
            raise LoraUnavailableError(
                f"the LoRA {entry.manifest.name} was removed or damaged on this server while it"
                " ran; it has to be imported again, and other LoRAs can be used meanwhile"
            ) from error
        self._verified[tag] = stamp
        logger.info(
            "LoRA %s: %.1f MB read in %.2f s",
            entry.manifest.name,
            tensors.size / 1e6,
            time.monotonic() - started,
        )
        return tensors


def layer_name(path: str) -> str:
    """Return a layer's path without the level that Transformers 5.6 removed from CLIP."""
    return path.removeprefix("text_model.")


def _group_by_layer(tensors: Mapping[str, Tensor]) -> LoraTensors:
    """Group a canonical file's tensors, `<component>/<path>/<factor>`, by network and layer."""
    modules: dict[Component, dict[str, dict[str, Tensor]]] = defaultdict(lambda: defaultdict(dict))
    for name, tensor in tensors.items():
        component, path, factor = name.split("/")
        modules[Component(component)][layer_name(path)][factor] = tensor
    size = sum(tensor.nbytes for tensor in tensors.values())
    return LoraTensors({component: dict(paths) for component, paths in modules.items()}, size)
