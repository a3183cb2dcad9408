"""Noise that is drawn before it is needed, by a thread that is not the engine's."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable

import torch

DRAWN_AHEAD = 2  # draws of an image that wait: a quarter of a megabyte each at 1024 x 1024

Draw = Callable[[], torch.Tensor]


class NoiseAhead:
    """An image's draws in their order, of which some wait until they are needed.

    It is a `Noise`. Where none waits, taking one draws it at once, so an image never depends on how
    far ahead its noise is.

    Args:
        draws: all that will be needed, in order.
        on_taken: called after each is taken, to have the next one drawn.
    """

    def __init__(
        self, draws: Iterable[Draw], on_taken: Callable[[NoiseAhead], None] | None = None
    ) -> None:
        self._draws = deque(draws)
        self._on_taken = on_taken
        self._waiting: deque[torch.Tensor] = deque()
        self._lock = threading.Lock()  # draws are in order, so one is made at a time

    def draw_next(self) -> bool:
        """Draw the next noise, if too little waits; return whether it did."""
        with self._lock:
            if not self._draws or len(self._waiting) >= DRAWN_AHEAD:
                return False
            self._draw()
            return True

    def take(self) -> torch.Tensor:
        """Take the next noise."""
        with self._lock:
            if not self._waiting:
                self._draw()
            taken = self._waiting.popleft()
        if self._on_taken is not None and self._draws:
            self._on_taken(self)
        return taken

    def __call__(self, sigma: torch.Tensor, sigma_next: torch.Tensor) -> torch.Tensor:  # noqa: ARG002 - the draws know them
        """Take the noise of a step."""
        return self.take()

    def _draw(self) -> None:
        self._waiting.append(self._draws[0]())
        self._draws.popleft()  # after the draw: one that failed is made again
