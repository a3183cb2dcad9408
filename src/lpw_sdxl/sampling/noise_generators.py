"""An image's own generator of noise, from its seed and its noise source.

All noise is float32 and drawn on the CPU. In this family the first draw is the start; a picture's
VAE sample has a generator of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from lpw_sdxl.field_types import SEEDS
from lpw_sdxl.sampling.philox import draw_normal
from lpw_sdxl.sampling_options import NoiseSource


class NoiseGenerator:
    """A sequence of draws that its source and seed determine.

    Args:
        source: which generator's numbers these are.
        seed: any integer; its lowest 64 bits count.
    """

    def __init__(self, source: NoiseSource, seed: int) -> None:
        self._seed = seed % SEEDS
        self._draws = 0
        self._torch: torch.Generator | None = None
        if source is NoiseSource.CPU:
            self._torch = torch.Generator("cpu").manual_seed(self._seed)

    def draw(self, shape: Sequence[int]) -> torch.Tensor:
        """Draw the next noise, of unit variance, float32 on the CPU."""
        if self._torch is not None:
            return torch.randn(shape, generator=self._torch, dtype=torch.float32)
        numbers = draw_normal(self._seed, self._draws, torch.Size(shape).numel())
        self._draws += 1
        return numbers.reshape(*shape)


class Variation(NamedTuple):
    """Another noise that an image's start is turned towards.

    Attributes:
        seed: of the other noise.
        strength: 0 for the image's own noise, 1 for the other.
    """

    seed: int
    strength: float


class ImageNoise:
    """All independent draws of an image: its start, then the noise of each ancestral step.

    Args:
        source: of the numbers.
        seed: of the image.
        shape: of a draw, `[…, 4, h, w]`.
        eta_noise_seed_delta: added to the seed for all draws after the first, which then begin a
            generator of their own; 0 goes on with the first one.
        variation: of the start; None for the first draw as it is.

    Attributes:
        shape: of a draw.
    """

    def __init__(
        self,
        source: NoiseSource,
        seed: int,
        shape: Sequence[int],
        eta_noise_seed_delta: int = 0,
        variation: Variation | None = None,
    ) -> None:
        self.shape = shape
        self._source, self._variation = source, variation
        self._first = self._next = NoiseGenerator(source, seed)
        if eta_noise_seed_delta:
            self._next = NoiseGenerator(source, seed + eta_noise_seed_delta)

    def start(self) -> torch.Tensor:
        """Draw the noise of the start; this is the first draw."""
        own = self._first.draw(self.shape)
        if self._variation is None or self._variation.strength == 0:
            return own
        other = NoiseGenerator(self._source, self._variation.seed).draw(self.shape)
        return mix_noise(own, other, self._variation.strength)

    def __call__(self, sigma: torch.Tensor, sigma_next: torch.Tensor) -> torch.Tensor:  # noqa: ARG002 - as for a Brownian path
        """Draw the noise of a step."""
        return self._next.draw(self.shape)


def mix_noise(noise: torch.Tensor, other: torch.Tensor, strength: float) -> torch.Tensor:
    """Turn a noise towards another one, for variations of an image.

    This is spherical interpolation (Shoemake, "Animating Rotation with Quaternion Curves", 1985).
    A vector of it is a column of a channel, because A1111 takes the norms along that axis.

    Args:
        noise: `[…, 4, h, w]`.
        other: like it.
        strength: 0 for `noise`, 1 for `other`.
    """
    vectors = noise / noise.norm(dim=-2, keepdim=True)
    others = other / other.norm(dim=-2, keepdim=True)
    cosine = (vectors * others).sum(-2, keepdim=True)
    if cosine.mean() > _NEARLY_EQUAL:
        return torch.lerp(noise, other, strength)
    angle = cosine.acos()
    shares = ((1 - strength) * angle).sin(), (strength * angle).sin()
    return (shares[0] * noise + shares[1] * other) / angle.sin()


_NEARLY_EQUAL = 0.9995  # the mean cosine above which the angle is too small to divide by
