"""Imported upscalers for second passes: files read in threads, networks on the device."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from torch import Tensor

from lpw_sdxl.addon.registry import Addon
from lpw_sdxl.conditioning.cache import ByteCache
from lpw_sdxl.errors import LpwSdxlError, UpscalerUnavailableError
from lpw_sdxl.upscaling.network import UpscalerNetwork
from lpw_sdxl.weights.text import clean_text

logger = logging.getLogger(__name__)

FILES_BYTES = 256 * 1024 * 1024  # of files that are kept in the host's memory; one has 67 MB
NETWORKS = 2  # that are kept on the device


class ReadUpscaler(NamedTuple):
    """An upscaler whose file is read.

    Attributes:
        key: of these bytes.
        name: as it was imported.
        tensors: of its network.
    """

    key: str
    name: str
    tensors: Mapping[str, Tensor]


class UpscalerFiles:
    """The upscalers' files that were read last; thread-safe."""

    def __init__(self) -> None:
        self._cache: ByteCache[str, ReadUpscaler] = ByteCache(FILES_BYTES)
        self._reading = threading.Lock()  # one file at a time: nothing else bounds their memory

    def read(self, addon: Addon) -> ReadUpscaler:
        """Return an upscaler's tensors, read from the disk if they are not kept.

        Raises:
            UpscalerUnavailableError: its file is damaged or missing.
        """
        with self._reading:
            known = self._cache.get(addon.key)
            if known is not None:
                return known
            name = addon.manifest.name
            try:
                tensors = addon.load(addon.file, is_checked=False)
            except (LpwSdxlError, OSError, SafetensorError, ValueError) as error:
                logger.error("upscaler %s can't be read: %s", clean_text(name), error)
                raise UpscalerUnavailableError(
                    f"the upscaler {name!r} can't be read on this server any more"
                ) from error
            read = ReadUpscaler(addon.key, name, tensors)
            self._cache.put(addon.key, read, sum(tensor.nbytes for tensor in tensors.values()))
            return read


class UpscalerNetworks:
    """The networks that were used last, on the device; for the engine's thread.

    Args:
        device: where they work.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._networks: OrderedDict[str, UpscalerNetwork] = OrderedDict()

    def get(self, upscaler: ReadUpscaler) -> UpscalerNetwork:
        """Return an upscaler's network; one that was used less lately gives it its place."""
        if upscaler.key not in self._networks:
            while len(self._networks) >= NETWORKS:
                self._networks.popitem(last=False)
            dtype = torch.float32 if self._device.type == "cpu" else torch.float16
            self._networks[upscaler.key] = UpscalerNetwork(
                upscaler.tensors, upscaler.name, self._device, dtype
            )
        self._networks.move_to_end(upscaler.key)
        return self._networks[upscaler.key]

    def clear(self) -> None:
        """Free the networks' memory."""
        self._networks.clear()
