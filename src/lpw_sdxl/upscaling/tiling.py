"""How a picture is cut into tiles that overlap, and how much each counts where two do; no torch.

A network sees less at a tile's edge than in the whole picture, so what it makes there is thrown
away: of an overlap, each tile keeps its own half, and both are blended in a narrow band between.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lpw_sdxl.upscaling.design import Design, Family

TILE = 592
"""Pixels; four tiles for 1024 x 1024."""
ESRGAN_OVERLAP = 144
BLEND_SHARE = 4
"""Overlap by blended band. A wider one would use what is nearer to the edges."""


@dataclass(frozen=True)
class Tiling:
    """How tiles are cut, in pixels of what the network's convolutions see.

    Those are the picture's, or where pixels are unshuffled, squares of 4 or 16 of them: how far a
    network sees and how much memory it takes are the same in both.

    Attributes:
        tile: the longest side of a tile; memory follows its square.
        overlap: of two tiles side by side, at least; less than a tile.
    """

    tile: int
    overlap: int

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < self.tile:
            raise ValueError(f"an overlap of {self.overlap} pixels in tiles of {self.tile}")


def usual_tiling(design: Design) -> Tiling:
    """Return tiles that show no seam, of a size that a small GPU holds.

    A compact network sees no farther than its convolutions reach, so its tiles are exactly the
    whole. ESRGAN's reaches 15 pixels for each block, which is too far, but what is farther away
    counts for less and less: RealESRGAN_x4plus needs 128 pixels for two grey levels, and 144 leave
    one (benchmarks/README.md, upscaling.py).
    """
    reach = design.blocks + 2
    exact = -(-2 * reach * BLEND_SHARE // (BLEND_SHARE - 1)) + 2
    overlap = exact if design.family is Family.COMPACT else ESRGAN_OVERLAP
    return Tiling(max(TILE, 2 * overlap), overlap)


def tiling_within(design: Design, most_bytes: int, number_bytes: int) -> Tiling:
    """Return the usual tiles of a network, or smaller ones where a call has less memory.

    Args:
        design: of the network.
        most_bytes: that a call may hold at once.
        number_bytes: of each number in it.

    Returns:
        tiles that fit, but never smaller than their overlaps leave of use.
    """
    usual = usual_tiling(design)
    bytes_per_unit = design.numbers_per_pixel * design.unshuffle**2 * number_bytes
    fitting = math.isqrt(most_bytes // bytes_per_unit)
    return smaller_tiling(usual, fitting) if fitting < usual.tile else usual


def smaller_tiling(tiling: Tiling, tile: int) -> Tiling:
    """Return smaller tiles with the same overlap, of which a half of it more is left at least."""
    least = tiling.overlap * 3 // 2
    return Tiling(min(tiling.tile, max(tile, least)), tiling.overlap)


class Cutting(NamedTuple):
    """A picture in tiles, as a network has it.

    Attributes:
        tiles: how many there are.
        pixels: of all of them; those of an overlap count for each tile.
    """

    tiles: int
    pixels: int


def count_tiles(size: tuple[int, int], tiling: Tiling, multiple: int) -> Cutting:
    """Count the tiles of a picture.

    Args:
        size: height and width, pixels.
        tiling: how it is cut.
        multiple: to which its sides are padded, as in `cut`.
    """
    rows, columns = (cut(side + -side % multiple, tiling, multiple) for side in size)
    height, width = (sum(part.stop - part.start for part in parts) for parts in (rows, columns))
    return Cutting(len(rows) * len(columns), height * width)


class Part(NamedTuple):
    """A tile along one side of a picture, in pixels.

    Attributes:
        start: its first pixel.
        stop: the first one behind it.
        keep_start: the first one that counts.
        keep_stop: the first one behind those that count.
    """

    start: int
    stop: int
    keep_start: int
    keep_stop: int

    def scaled(self, scale: int) -> Part:
        """Return its place in the enlarged picture."""
        return Part(*(scale * place for place in self))


def cut(length: int, tiling: Tiling, multiple: int = 1) -> list[Part]:
    """Cut one side of a picture into tiles, all of one size and no larger than is needed.

    Args:
        length: pixels; a multiple of `multiple`.
        tiling: the limits.
        multiple: pixels on each side that a convolution sees as one; tiles begin and end at it.
    """
    units = length // multiple
    if units <= tiling.tile:
        return [Part(0, length, 0, length)]
    count = -(-(units - tiling.overlap) // (tiling.tile - tiling.overlap))
    size = -(-(units + (count - 1) * tiling.overlap) // count)
    starts = [number * (units - size) // (count - 1) * multiple for number in range(count)]
    size *= multiple
    parts, keep_start = [], 0
    for start, following in zip(starts, [*starts[1:], length], strict=True):
        shared = max(0, start + size - following)
        blended = min(shared // BLEND_SHARE, (following - start) // 2)  # of two tiles, not three
        keep_stop = following + (shared + blended) // 2
        parts.append(Part(start, start + size, keep_start, min(keep_stop, length)))
        keep_start = keep_stop - blended
    return parts


def weights(parts: list[Part], index: int) -> npt.NDArray[np.float32]:
    """Return how much each kept pixel of a tile counts along one side.

    Args:
        parts: of the side, all of one picture; those of all tiles together are 1 at each pixel.
        index: of the tile.

    Returns:
        `[keep_stop - keep_start]`, 0 to 1.
    """
    part = parts[index]
    values = np.ones(part.keep_stop - part.keep_start, np.float32)
    if index > 0 and (shared := parts[index - 1].keep_stop - part.keep_start) > 0:
        values[:shared] *= _ramp(shared)
    if index + 1 < len(parts) and (shared := part.keep_stop - parts[index + 1].keep_start) > 0:
        values[-shared:] *= _ramp(shared)[::-1]
    return values


def _ramp(length: int) -> npt.NDArray[np.float32]:
    return ((np.arange(length) + 0.5) / length).astype(np.float32)
