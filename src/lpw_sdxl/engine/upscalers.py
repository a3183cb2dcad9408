"""Imported upscalers: files read in threads, their work on a picture, networks on the device."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from safetensors import SafetensorError
from torch import Tensor

from lpw_sdxl.addon.registry import Addon
from lpw_sdxl.conditioning.cache import ByteCache
from lpw_sdxl.engine.cost import tile_cost
from lpw_sdxl.errors import InvalidRequestError, LpwSdxlError, UpscalerUnavailableError
from lpw_sdxl.schema import ImageSize
from lpw_sdxl.upscaling.design import Design
from lpw_sdxl.upscaling.network import UpscalerNetwork
from lpw_sdxl.upscaling.preflight import read_design
from lpw_sdxl.upscaling.tiling import Tiling, count_tiles, tiling_within
from lpw_sdxl.weights.text import clean_text

logger = logging.getLogger(__name__)

FILES_BYTES = 256 * 1024 * 1024  # of files that are kept in the host's memory; one has 67 MB
NETWORK_BYTES = 128 * 1024 * 1024  # that are kept on the device; one has 33 MB there
MOST_PIXELS_ON_THE_WAY = 2**26  # 8192 x 8192: four times a side of the largest image
MOST_ROUNDS = 3  # of one picture through the same network, as in A1111


class ReadUpscaler(NamedTuple):
    """An upscaler whose file is read.

    Attributes:
        key: of these bytes.
        name: as it was imported.
        tensors: of its network.
        design: likewise, its sizes.
    """

    key: str
    name: str
    tensors: Mapping[str, Tensor]
    design: Design


class TileRoom(NamedTuple):
    """The room that one call of a network has.

    Attributes:
        most_bytes: that it may hold at once.
        number_bytes: of each number in it.
    """

    most_bytes: int
    number_bytes: int

    def tiling(self, design: Design) -> Tiling:
        """Choose the tiles of a network."""
        return tiling_within(design, *self)


@dataclass(frozen=True)
class NetworkUpscaling:
    """An imported upscaler's work on one picture, as it is known before.

    Attributes:
        upscaler: that works.
        tiling: how pictures are cut.
        sizes: of the pictures that its network is given one after the other; a result that is
            still too small is the next one.
        counts: of the tiles of each of these pictures.
        cost: of all their tiles, as in `Work.tiles`.
    """

    upscaler: ReadUpscaler
    tiling: Tiling
    sizes: tuple[ImageSize, ...]
    counts: tuple[int, ...]
    cost: float

    @classmethod
    def plan(
        cls, upscaler: ReadUpscaler, picture: ImageSize, covering: ImageSize, room: TileRoom
    ) -> Self:
        """Plan the work.

        Args:
            upscaler: that works.
            picture: the size of what it is given, pixels.
            covering: the size that it is to reach, within MOST_ROUNDS rounds.
            room: of a call.
        """
        design = upscaler.design
        tiling = room.tiling(design)
        sizes = [picture]
        while len(sizes) < MOST_ROUNDS and design.scale > 1:
            larger = _times(sizes[-1], design.scale)
            if all(have >= need for have, need in zip(larger, covering, strict=True)):
                break
            sizes.append(larger)
        cuttings = [count_tiles(size, tiling, design.unshuffle) for size in sizes]
        pixels = sum(one.pixels for one in cuttings)
        cost = tile_cost(pixels * design.multiplications_per_pixel)
        return cls(upscaler, tiling, tuple(sizes), tuple(one.tiles for one in cuttings), cost)

    @property
    def tiles(self) -> int:
        """Count the tiles of all pictures."""
        return sum(self.counts)

    @property
    def result_size(self) -> ImageSize:
        """Return the size of what the network makes last, the largest picture on the way."""
        return _times(self.sizes[-1], self.upscaler.design.scale)

    @property
    def cost_per_tile(self) -> float:
        """Return the cost of one tile."""
        return self.cost / self.tiles


def _times(size: ImageSize, scale: int) -> ImageSize:
    return ImageSize(*(scale * side for side in size))


def check_way(network: NetworkUpscaling, field: str) -> None:
    """Refuse an enlarging that makes too large a picture on its way.

    Args:
        network: an imported upscaler's work.
        field: of the request, that is blamed.

    Raises:
        InvalidRequestError: it does.
    """
    size = network.result_size
    if size.height * size.width > MOST_PIXELS_ON_THE_WAY:
        raise InvalidRequestError(
            f"the upscaler {network.upscaler.name!r} would make a picture of {size} on the way; at"
            f" most {MOST_PIXELS_ON_THE_WAY} pixels are made here, so that a smaller picture or"
            " another upscaler would be right",
            field=field,
        )


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
                shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
                design = read_design(shapes, name)
            except (LpwSdxlError, OSError, SafetensorError, ValueError) as error:
                logger.error("upscaler %s can't be read: %s", clean_text(name), error)
                raise UpscalerUnavailableError(
                    f"the upscaler {name!r} can't be read on this server any more"
                ) from error
            read = ReadUpscaler(addon.key, name, tensors, design)
            self._cache.put(addon.key, read, sum(tensor.nbytes for tensor in tensors.values()))
            return read


class UpscalerNetworks:
    """The networks that were used last, on the device; for the engine's thread.

    Args:
        device: where they work.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._dtype = upscaler_dtype(device)
        self._networks: OrderedDict[str, UpscalerNetwork] = OrderedDict()

    def get(self, upscaler: ReadUpscaler) -> UpscalerNetwork:
        """Return an upscaler's network; those used less lately give it their place."""
        if upscaler.key not in self._networks:
            numbers = sum(tensor.numel() for tensor in upscaler.tensors.values())
            self._make_room(numbers * self._dtype.itemsize)
            self._networks[upscaler.key] = UpscalerNetwork(
                upscaler.tensors, upscaler.name, self._device, self._dtype
            )
        self._networks.move_to_end(upscaler.key)
        return self._networks[upscaler.key]

    def clear(self) -> None:
        """Free the networks' memory."""
        self._networks.clear()

    def _make_room(self, size: int) -> None:
        while self._networks:
            kept = sum(network.weight_bytes for network in self._networks.values())
            if kept + size <= NETWORK_BYTES:
                return
            self._networks.popitem(last=False)


def upscaler_dtype(device: torch.device) -> torch.dtype:
    """Return the dtype that networks work in on a device."""
    return torch.float32 if device.type == "cpu" else torch.float16
