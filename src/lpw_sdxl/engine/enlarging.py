"""A picture on its way to a larger size: tile by tile on the device, then by Pillow in a thread."""

from __future__ import annotations

from concurrent.futures import Executor, Future

import numpy as np

from lpw_sdxl.engine.upscalers import NetworkUpscaling, UpscalerNetworks
from lpw_sdxl.imaging.resizing import Pixels, enlarge_pixels
from lpw_sdxl.schema import ImageSize
from lpw_sdxl.second_pass import Enlargement, Upscaler
from lpw_sdxl.upscaling.tiles import TiledPicture
from lpw_sdxl.upscaling.tiling import smaller_tiling

_NOTHING = np.empty((0, 0, 3), np.uint8)


class Enlarging:
    """One picture's enlarging; for the engine's thread, between whose calls it stands still.

    Where an imported upscaler's scale is too small it works again on its result, as in A1111; what
    is over or missing then is Lanczos's.

    Args:
        pixels: `[h, w, 3]`.
        enlargement: the sizes to reach.
        upscaler: one of pixels, after a network too.
        network: an imported upscaler's work; None for none.
    """

    def __init__(
        self,
        pixels: Pixels,
        enlargement: Enlargement,
        upscaler: Upscaler = Upscaler.LANCZOS,
        network: NetworkUpscaling | None = None,
    ) -> None:
        self.network = network
        self._pixels = pixels
        self._enlargement = enlargement
        self._upscaler = upscaler
        self._tiling = None if network is None else network.tiling
        self._rounds_done = 0
        self._tiled: TiledPicture | None = None
        self._tiles_before = 0  # of earlier rounds
        self._planned_tiles = 0  # of this one
        self._resizing: Future[Pixels] | None = None

    @property
    def wants_tile(self) -> bool:
        """Return whether a network has tiles left to enlarge."""
        return self.network is not None and self._rounds_done < len(self.network.sizes)

    @property
    def tiles_done(self) -> float:
        """Count the tiles done of all that were planned; in smaller ones, as a share."""
        tiled = self._tiled  # another thread may ask while the engine's takes it away
        if tiled is None:
            return self._tiles_before
        return self._tiles_before + self._planned_tiles * tiled.done / tiled.tiles

    @property
    def tile_cost(self) -> float:
        """Compute the cost of the tiles that are left, as in `Work.tiles`."""
        if self.network is None:
            return 0.0
        return self.network.cost_per_tile * (self.network.tiles - self.tiles_done)

    @property
    def is_resizing(self) -> bool:
        """Return whether it waits for a thread."""
        return self._resizing is not None and not self._resizing.done()

    @property
    def is_ready(self) -> bool:
        """Return whether `result` returns or raises at once."""
        return self._resizing is not None and self._resizing.done()

    def advance(self, networks: UpscalerNetworks, *, in_small_tiles: bool = False) -> None:
        """Enlarge the next tile; where that fails, it may be tried again.

        Args:
            networks: of the device.
            in_small_tiles: whether memory is short: the picture is cut anew into smaller tiles,
                once.

        Raises:
            GenerationError: the network gave numbers that are not finite.
        """
        assert self.network is not None
        assert self._tiling is not None
        if in_small_tiles and self._tiling == self.network.tiling:
            self._tiled = None
            self._tiling = smaller_tiling(self._tiling, self._tiling.tile // 2)
        if self._tiled is None:
            network = networks.get(self.network.upscaler)
            self._planned_tiles = self.network.counts[self._rounds_done]
            self._tiled = TiledPicture(network, self._pixels, self._tiling)
        self._tiled.advance()
        if self._tiled.done == self._tiled.tiles:
            self._pixels = self._tiled.result
            self._tiled = None
            self._tiles_before += self._planned_tiles
            self._rounds_done += 1

    def resize(self, threads: Executor) -> None:
        """Begin the last part in a thread; a picture that has its size already is done."""
        if self._resizing is not None:
            return
        covering, size = self._enlargement
        if self._pixels.shape[:2] == covering == size:
            self._resizing = Future()
            self._resizing.set_result(self._pixels)
        else:
            self._resizing = threads.submit(
                enlarge_pixels, self._pixels, self._enlargement, self._upscaler
            )
        self._pixels = _NOTHING  # the thread has it

    @property
    def result(self) -> Pixels:
        """Return the enlarged picture, `[height, width, 3]`, or raise what its thread raised."""
        assert self._resizing is not None
        return self._resizing.result()

    def release(self) -> None:
        """Drop what no thread has begun yet."""
        if self._resizing is not None:
            self._resizing.cancel()


def largest_pixels(enlargement: Enlargement, network: NetworkUpscaling | None) -> int:
    """Count the pixels of the largest picture that an enlarging makes on its way.

    Args:
        enlargement: the sizes to reach.
        network: an imported upscaler's work; None for none.
    """
    sizes: list[ImageSize] = [enlargement.covering]
    if network is not None:
        sizes.append(network.result_size)
    return max(size.height * size.width for size in sizes)
