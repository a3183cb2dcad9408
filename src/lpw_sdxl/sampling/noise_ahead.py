"""Noise that is drawn before it is needed, by a thread that is not the engine's."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

import torch

from lpw_sdxl.sampling.rehearsal import NoiseRequest
from lpw_sdxl.sampling.walk import Noise

DRAWN_AHEAD = 2  # draws of an image that wait: a quarter of a megabyte each at 1024 x 1024


class NoiseAhead:
    """An image's noise, of which some draws wait until the sampler asks for them.

    It is a `Noise`. Where none waits, asking draws it at once, so an image never depends on how far
    ahead its noise is.

    Args:
        noise: that is drawn.
        requests: of a rehearsal of the same walk.
    """

    def __init__(self, noise: Noise, requests: Sequence[NoiseRequest]) -> None:
        self._noise = noise
        self._requests = deque(requests)
        self._waiting: deque[torch.Tensor] = deque()
        self._lock = threading.Lock()  # draws are in order, so one is made at a time

    def draw_next(self) -> bool:
        """Draw the next noise, if too little waits; return whether it did."""
        with self._lock:
            if not self._requests or len(self._waiting) >= DRAWN_AHEAD:
                return False
            self._draw()
            return True

    def __call__(self, sigma: torch.Tensor, sigma_next: torch.Tensor) -> torch.Tensor:  # noqa: ARG002 - the rehearsal has listed them
        """Take the noise of a step."""
        with self._lock:
            if not self._waiting:
                self._draw()
            return self._waiting.popleft()

    def _draw(self) -> None:
        self._waiting.append(self._noise(*self._requests[0]))
        self._requests.popleft()  # after the draw: one that failed is made again
