"""The sizes of an upscaler's network, and the tensors that it has by them; no torch.

Two networks are served. ESRGAN's (Wang et al., arXiv 1809.00219, section 3.1) is a chain of
residual-in-residual dense blocks; Real-ESRGAN (Wang et al., arXiv 2107.10833, section 3.4) gives it
the picture with its pixels unshuffled for the scales 1 and 2. The compact one, which came with
Real-ESRGAN, is a chain of convolutions that works at the picture's own size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

COLOURS = 3
KERNEL = 3
DENSE_BLOCKS = 3
"""Dense blocks of an ESRGAN block."""
DENSE_CONVOLUTIONS = 5
"""Convolutions of a dense block."""

Shape = tuple[int, ...]


class Family(StrEnum):
    """A network; the value is its name for readers."""

    ESRGAN = "ESRGAN"
    COMPACT = "compact Real-ESRGAN"


@dataclass(frozen=True)
class Design:
    """The sizes of a network.

    Attributes:
        family: which network it is.
        scale: how many times larger its picture is on each side.
        channels: of the features between its convolutions.
        blocks: ESRGAN's blocks, or the compact network's inner convolutions.
        growth: channels that each convolution of a dense block adds; 0 for the compact network.
        unshuffle: pixels on each side that become one pixel's channels before ESRGAN's first
            convolution: 1, 2 or 4.
    """

    family: Family
    scale: int
    channels: int
    blocks: int
    growth: int = 0
    unshuffle: int = 1

    @property
    def doublings(self) -> int:
        """Return how many times ESRGAN's network doubles its features."""
        return (self.scale * self.unshuffle).bit_length() - 1

    @property
    def numbers_per_pixel(self) -> int:
        """Return the most numbers that a call holds at once for each pixel that it is given.

        A convolution holds what it reads and what it writes. Of ESRGAN's, those after the last
        doubling are the largest, beside what was doubled; of a network that enlarges little, the
        last of a dense block, which reads what all before it have made.
        """
        width, growth, pixels = self.channels, self.growth, self.unshuffle**2
        if self.family is Family.COMPACT:
            return max(2 * width, width + COLOURS * self.scale**2, 7 * self.scale**2) + COLOURS
        enlarged = 4**self.doublings * width
        at_the_end = 2 * enlarged + (enlarged // 4 if self.doublings else 0)
        in_a_block = 5 * width + 8 * growth
        return -(-max(at_the_end, in_a_block) // pixels) + 2 * COLOURS

    @property
    def multiplications_per_pixel(self) -> float:
        """Return how many numbers a call multiplies for each pixel that it is given."""
        if self.family is Family.COMPACT:
            return sum(math.prod(shape) for shape in self.shapes().values() if len(shape) > 1)
        enlarged = {f"conv_up{number}": 4**number for number in range(1, self.doublings + 1)}
        enlarged |= dict.fromkeys(("conv_hr", "conv_last"), 4**self.doublings)
        weights = ((name, shape) for name, shape in self.shapes().items() if len(shape) > 1)
        counts = (math.prod(one) * enlarged.get(name.split(".")[0], 1) for name, one in weights)
        return sum(counts) / self.unshuffle**2

    def shapes(self) -> Mapping[str, Shape]:
        """Return the shape of each tensor, by the names that entries of the store give them."""
        pairs = self._esrgan() if self.family is Family.ESRGAN else self._compact()
        return dict(pairs)

    def _esrgan(self) -> Iterator[tuple[str, Shape]]:
        width, growth = self.channels, self.growth
        yield from _convolution("conv_first", COLOURS * self.unshuffle**2, width)
        for block in range(self.blocks):
            for dense in range(1, DENSE_BLOCKS + 1):
                for number in range(1, DENSE_CONVOLUTIONS + 1):
                    last = number == DENSE_CONVOLUTIONS
                    name = f"body.{block}.rdb{dense}.conv{number}"
                    inputs = width + (number - 1) * growth
                    yield from _convolution(name, inputs, width if last else growth)
        yield from _convolution("conv_body", width, width)
        for number in range(1, self.doublings + 1):
            yield from _convolution(f"conv_up{number}", width, width)
        yield from _convolution("conv_hr", width, width)
        yield from _convolution("conv_last", width, COLOURS)

    def _compact(self) -> Iterator[tuple[str, Shape]]:
        inputs = COLOURS
        for number in range(self.blocks + 1):
            yield from _convolution(f"body.{2 * number}", inputs, self.channels)
            yield f"body.{2 * number + 1}.weight", (self.channels,)
            inputs = self.channels
        last = f"body.{2 * self.blocks + 2}"
        yield from _convolution(last, self.channels, COLOURS * self.scale**2)


def _convolution(name: str, inputs: int, outputs: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (outputs, inputs, KERNEL, KERNEL)
    yield f"{name}.bias", (outputs,)
