"""Noise along one Brownian path over the sigmas, for the SDE solvers of DPM++.

The path depends on the seed alone, wherever it is asked for. It is torchsde's BrownianTree (Li et
al., arXiv 2001.01328, section 4): a path is known at its ends, and between two known points the
middle one is drawn by the Brownian bridge. Here it is computed anew, because torchsde takes its
numbers from torch's generators only, and keeps up to 45 tensors of each image.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch

from lpw_sdxl.field_types import SEEDS
from lpw_sdxl.sampling.noise_generators import NoiseGenerator
from lpw_sdxl.sampling_options import NoiseSource

_DIGITS = 6  # decimals of a sigma at which the path is halved no further
_POOL_SIZE = 24  # words of entropy that a numpy seed sequence mixes, as torchsde has it


class BrownianNoise:
    """Noise between two sigmas: the path's increment, scaled to unit variance.

    Args:
        source: of the numbers.
        seed: of the image.
        shape: of the noise, `[…, 4, h, w]`.
        sigmas: of the schedule; the path spans those above 0.
    """

    def __init__(
        self, source: NoiseSource, seed: int, shape: Sequence[int], sigmas: torch.Tensor
    ) -> None:
        above = sigmas[sigmas > 0]
        self._path = BrownianPath(source, seed, shape, above.min().item(), above.max().item())

    def __call__(self, sigma: torch.Tensor, sigma_next: torch.Tensor) -> torch.Tensor:
        """Compute the noise of a step from a sigma down to the next one."""
        fall = (sigma - sigma_next).abs().sqrt()
        return -self._path.increment(sigma_next.item(), sigma.item()) / fall


@dataclass(frozen=True)
class _Span:
    """A part of the path that halving leads to, and how much the path rises in it.

    Attributes:
        start: rounded.
        end: rounded.
        number: of the span among those of its depth, from the left.
        depth: 0 for the whole path.
        rise: of the path from start to end.
    """

    start: float
    end: float
    number: int
    depth: int
    rise: torch.Tensor

    @property
    def middle(self) -> float:
        """Return where the span is halved."""
        return round(0.5 * (self.end + self.start), _DIGITS)

    def left(self, rise: torch.Tensor) -> _Span:
        """Return the half below the middle, in which the path has this rise."""
        return _Span(self.start, self.middle, 2 * self.number, self.depth + 1, rise)

    def right(self, rise: torch.Tensor) -> _Span:
        """Return the half above the middle, in which the path has this rise."""
        return _Span(self.middle, self.end, 2 * self.number + 1, self.depth + 1, rise)


_Rises: TypeAlias = dict[tuple[int, int], torch.Tensor]
"""How much the path rises up to the middle of a span, by the span's depth and number."""


class BrownianPath:
    """A path that is drawn where it is asked for.

    Args:
        source: of the numbers.
        seed: entropy of the path.
        shape: of the path at each point.
        start: smallest sigma.
        end: largest sigma.
    """

    def __init__(
        self, source: NoiseSource, seed: int, shape: Sequence[int], start: float, end: float
    ) -> None:
        self._source, self._seed, self._shape = source, seed % SEEDS, shape
        rise = self._draw(()) * math.sqrt(end - start)
        self._whole = _Span(round(start, _DIGITS), round(end, _DIGITS), 0, 0, rise)
        # Only those that the last increment needed: the next one begins near its ends, and more
        # would be megabytes of each image.
        self._known: _Rises = {}

    def increment(self, start: float, end: float) -> torch.Tensor:
        """Compute the rise of the path between two points; beyond its ends the path is level."""
        start, end = self._place(start), self._place(end)
        if start == end:
            return torch.zeros(*self._shape)
        used: _Rises = {}
        first, *others = self._cover(self._whole, start, end, used)
        self._known = used
        return sum((span.rise for span in others), start=first.rise)

    def _place(self, point: float) -> float:
        return round(min(max(point, self._whole.start), self._whole.end), _DIGITS)

    def _cover(self, span: _Span, start: float, end: float, used: _Rises) -> Iterator[_Span]:
        """Find the parts of a span that lead from one of its points to another, by its halves."""
        if (start, end) == (span.start, span.end):
            yield span
            return
        key, middle = (span.depth, span.number), span.middle
        if key not in used:
            used[key] = self._known[key] if key in self._known else self._draw_middle(span)
        if start < middle:
            yield from self._cover(span.left(used[key]), start, min(end, middle), used)
        if end > middle:
            right = span.right(span.rise - used[key])
            yield from self._cover(right, max(start, middle), end, used)

    def _draw_middle(self, span: _Span) -> torch.Tensor:
        """Draw how much the path rises to the middle of a span, by the Brownian bridge."""
        length = 1 / (span.end - span.start)
        below, above = span.middle - span.start, span.end - span.middle
        mean = below * span.rise * length
        return mean + math.sqrt(below * above * length) * self._draw((span.number, span.depth))

    def _draw(self, key: tuple[int, ...]) -> torch.Tensor:
        """Draw the numbers of one span from a generator of its own; `()` stands for the ends."""
        entropy = np.random.SeedSequence(self._seed, spawn_key=key, pool_size=_POOL_SIZE)
        seed = int(entropy.generate_state(1)[0])
        return NoiseGenerator(self._source, seed).draw(self._shape)
