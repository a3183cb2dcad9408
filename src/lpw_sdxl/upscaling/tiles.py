"""A picture of any size enlarged by a network, one tile at a time."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from torch import Tensor

from lpw_sdxl.upscaling.network import WHITE, UpscalerNetwork
from lpw_sdxl.upscaling.tiling import Tiling, cut, usual_tiling, weights

Pixels = npt.NDArray[np.uint8]
OnTile = Callable[[int, int], None]

logger = logging.getLogger(__name__)


class TiledPicture:
    """A picture that is enlarged; between two tiles its device is free for other work.

    A row of tiles is summed in float32 and rounded when it is whole, so that beside the result and
    the tile itself, no more than one row is in memory.

    Where the network's half precision gives something that is not finite, the rest of the picture
    is computed in float32; the next picture begins in half precision again.

    Args:
        network: what enlarges it.
        pixels: `[h, w, 3]`.
        tiling: how it is cut.

    Attributes:
        network: as it was given.
        pixels: likewise.
        tiles: how many there are.
        done: how many are enlarged.
    """

    def __init__(self, network: UpscalerNetwork, pixels: Pixels, tiling: Tiling) -> None:
        self.network, self.pixels = network, pixels
        self._height, self._width = (side * network.design.scale for side in pixels.shape[:2])
        multiple = network.design.unshuffle
        self._pixels = pad(pixels, multiple)
        height, width = self._pixels.shape[:2]
        self._rows, self._columns = (cut(side, tiling, multiple) for side in (height, width))
        self.tiles, self.done = len(self._rows) * len(self._columns), 0
        self._is_exact = False
        scale = network.design.scale
        self._large_rows = [part.scaled(scale) for part in self._rows]
        self._large_columns = [part.scaled(scale) for part in self._columns]
        self._result = np.empty((scale * height, scale * width, 3), np.uint8)
        self._strip = np.empty((0, scale * width, 3), np.float32)

    def advance(self) -> None:
        """Enlarge the next tile; where that fails, nothing has changed and it may be tried again.

        Raises:
            GenerationError: the network gave numbers that are not finite.
        """
        row, column = divmod(self.done, len(self._columns))
        there, here = self._rows[row], self._columns[column]
        enlarged = self._call(self._pixels[there.start : there.stop, here.start : here.stop])
        if column == 0:
            self._begin(row)
        down, right = self._large_rows[row], self._large_columns[column]
        kept = enlarged[
            :,
            down.keep_start - down.start : down.keep_stop - down.start,
            right.keep_start - right.start : right.keep_stop - right.start,
        ].permute(1, 2, 0)
        levels = kept.numpy()  # [h, w, 3]
        levels *= weights(self._large_rows, row)[:, None, None]
        levels *= weights(self._large_columns, column)[:, None]
        self._strip[:, right.keep_start : right.keep_stop] += levels
        self.done += 1
        if column + 1 == len(self._columns):
            self._finish(row)

    @property
    def result(self) -> Pixels:
        """Return the enlarged picture, `[scale * h, scale * w, 3]`; all tiles are done."""
        assert self.done == self.tiles
        return np.ascontiguousarray(self._result[: self._height, : self._width])

    def _call(self, tile: Pixels) -> Tensor:
        enlarged = None if self._is_exact else self.network.enlarge(tile)
        if enlarged is not None:
            return enlarged
        if not self._is_exact:
            logger.warning(
                "the upscaler %s gave numbers that %s can't hold; the rest of this picture is"
                " computed in float32",
                self.network.name,
                self.network.dtype,
            )
            self._is_exact = True
        return self.network.enlarge_exactly(tile)

    def _begin(self, row: int) -> None:
        """Make room for a row of tiles, whose first lines the row before it has begun."""
        part = self._large_rows[row]
        before = self._large_rows[row - 1] if row else None
        shared = before.keep_stop - part.keep_start if before is not None else 0
        begun = self._strip[len(self._strip) - shared :]
        self._strip = np.zeros(
            (part.keep_stop - part.keep_start, *self._strip.shape[1:]), np.float32
        )
        self._strip[:shared] = begun

    def _finish(self, row: int) -> None:
        """Round the lines that no later row of tiles has a part in."""
        part = self._large_rows[row]
        last = row + 1 == len(self._rows)
        stop = part.keep_stop if last else self._large_rows[row + 1].keep_start
        whole = self._strip[: stop - part.keep_start]
        np.clip(whole, 0, 1, out=whole)
        whole *= WHITE
        whole += 0.5
        self._result[part.keep_start : stop] = whole  # cut to whole levels


def upscale(
    network: UpscalerNetwork,
    pixels: Pixels,
    tiling: Tiling | None = None,
    on_tile: OnTile = lambda _done, _tiles: None,
) -> Pixels:
    """Enlarge a picture.

    Args:
        network: what enlarges it.
        pixels: `[h, w, 3]`.
        tiling: how it is cut; None for as is usual for the network.
        on_tile: called after every tile with those that are done and with all; what it raises ends
            the work.

    Returns:
        `[scale * h, scale * w, 3]`.

    Raises:
        GenerationError: the network gave numbers that are not finite.
    """
    picture = TiledPicture(network, pixels, tiling or usual_tiling(network.design))
    while picture.done < picture.tiles:
        picture.advance()
        on_tile(picture.done, picture.tiles)
    return picture.result


def pad(pixels: Pixels, multiple: int) -> Pixels:
    """Mirror a picture's last lines where its sides are no multiples."""
    height, width = (-side % multiple for side in pixels.shape[:2])
    if not height and not width:
        return pixels
    can_mirror = pixels.shape[0] > height and pixels.shape[1] > width
    mode = "reflect" if can_mirror else "symmetric"
    return np.pad(pixels, ((0, height), (0, width), (0, 0)), mode)  # type: ignore[call-overload]
