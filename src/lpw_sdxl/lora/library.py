"""The LoRAs' tensors, read when they are first needed, not yet applied.

A job holds the files of its LoRAs open. What is removed or replaced meanwhile, by a rename as tools
do it, is still read as it was when the job began; what is written over in place is noticed.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Protocol
from weakref import WeakValueDictionary

from safetensors import SafetensorError
from torch import Tensor

from lpw_sdxl.conditioning.cache import ByteCache, CacheCounters
from lpw_sdxl.errors import LoraUnavailableError, LpwSdxlError
from lpw_sdxl.lora.formulas import FactorTensors
from lpw_sdxl.lora.request import ResolvedLora
from lpw_sdxl.weights.component import Component
from lpw_sdxl.weights.files import stamp_of
from lpw_sdxl.weights.text import clean_text

logger = logging.getLogger(__name__)

MAX_CHECKED = 10_000  # files whose stamp is remembered


class LoraEntry(ResolvedLora, Protocol):
    """A registry's entry of a LoRA."""

    @property
    def file(self) -> Path:
        """Return its file of tensors."""

    def is_current(self) -> bool:
        """Return whether its file is there and the same, without reading it."""

    def load(self, file: Path, *, is_checked: bool) -> Mapping[str, Tensor]:
        """Read the canonical tensors; raise an error of ours if they are not as they should be.

        Args:
            file: a name of the opened file, which may no longer be at `self.file`.
            is_checked: whether these bytes were found to be the right ones before.
        """


class OpenLora:
    """A LoRA whose file is open, so that nothing takes it away; closed with its last holder."""

    def __init__(self, entry: LoraEntry) -> None:
        """Open the file.

        Raises:
            OSError: it is not there, or can't be read.
        """
        self.entry = entry
        self._file: BufferedReader = entry.file.open("rb")

    @property
    def stamp(self) -> str:
        """Return the stamp of the open file, wherever it is by now."""
        return stamp_of(os.fstat(self._file.fileno()))

    def load(self, *, is_checked: bool) -> Mapping[str, Tensor]:
        """Read its tensors, as `LoraEntry.load` does."""
        # Linux opens this name anew, though the file has another name by now, or none.
        path = Path(f"/proc/self/fd/{self._file.fileno()}")
        return self.entry.load(path, is_checked=is_checked)

    def __del__(self) -> None:
        if hasattr(self, "_file"):  # it may not have been opened
            self._file.close()


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
        entries: by their keys, those that can be used now; it may change.
        max_bytes: limit of the cache.
    """

    def __init__(self, entries: Mapping[str, LoraEntry], max_bytes: int) -> None:
        self._entries = entries
        self._cache: ByteCache[str, LoraTensors] = ByteCache(max_bytes)
        self._held: WeakValueDictionary[str, OpenLora] = WeakValueDictionary()
        self._checked: dict[str, str] = {}  # by key, the file's stamp when its bytes were checked
        self._lock = threading.Lock()
        self._reading = threading.Lock()  # one file at a time: nothing else bounds their memory

    @property
    def counters(self) -> CacheCounters:
        """Return the counters of the cache."""
        return self._cache.counters

    def hold(self, entry: LoraEntry) -> OpenLora:
        """Open a LoRA's file, unless it is open, and read its tensors, unless they are cached.

        As long as the result is kept, `get` needs neither the entry nor its folder.

        Raises:
            LoraUnavailableError: the file is damaged or missing, or is another one by now.
        """
        with self._lock:
            held = self._held.get(entry.key)
        if held is None:
            try:
                held = OpenLora(entry)
            except OSError as error:
                raise _unavailable(entry) from error
        if not entry.is_current():  # asked last: what was opened is what the entry means
            raise _unavailable(entry)
        with self._lock:
            held = self._held.setdefault(entry.key, held)
        self.get(entry.key)
        return held

    def name_of(self, key: str) -> str:
        """Return the name of a LoRA that is held or can be used."""
        return self._find(key).manifest.name

    def get(self, key: str) -> LoraTensors:
        """Return a LoRA's tensors, read from the disk if they are not cached.

        When a file is read for the first time, or has changed since, its bytes are checked. A
        caller whose LoRA is cached never waits for another's file.

        Raises:
            LoraUnavailableError: its file is damaged or missing.
        """
        with self._lock:
            known = self._cache.get(key)
        if known is not None:
            return known
        with self._reading:
            with self._lock:  # another thread may have read it meanwhile
                known = self._cache.get(key) if key in self._cache else None
                held = self._held.get(key)
            if known is not None:
                return known
            tensors = self._read(key, held)
            with self._lock:
                self._cache.put(key, tensors, tensors.size)
            return tensors

    def _find(self, key: str) -> LoraEntry:
        with self._lock:
            held = self._held.get(key)
        return self._entries[key] if held is None else held.entry

    def _read(self, key: str, held: OpenLora | None) -> LoraTensors:
        entry = self._entries[key] if held is None else held.entry
        started = time.monotonic()
        try:
            opened = OpenLora(entry) if held is None else held
            stamp = opened.stamp
            tensors = _group_by_layer(opened.load(is_checked=self._checked.get(key) == stamp))
        except (LpwSdxlError, OSError, SafetensorError, ValueError) as error:
            logger.error("LoRA %s can't be read: %s", clean_text(entry.manifest.name), error)
            raise _unavailable(entry) from error
        if len(self._checked) >= MAX_CHECKED:
            self._checked.clear()
        self._checked[key] = stamp
        logger.info(
            "LoRA %s: %.1f MB read in %.2f s",
            clean_text(entry.manifest.name),
            tensors.size / 1e6,
            time.monotonic() - started,
        )
        return tensors


def _unavailable(entry: LoraEntry) -> LoraUnavailableError:
    return LoraUnavailableError(
        f"the LoRA {entry.manifest.name} was removed or damaged on this server while it ran; it has"
        " to be imported or put there again, and other LoRAs can be used meanwhile"
    )


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
