"""The face of every sampler: a walk that pauses wherever it needs the UNet.

A sampler is a generator function. It yields what it wants evaluated, is sent the denoised
prediction, and returns the final latents; so each reads like its formula, and any number of them
can share each UNet call.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import NamedTuple, TypeAlias

import torch


class Evaluation(NamedTuple):
    """A pause of a sampler: latents for the model to evaluate.

    Attributes:
        latents: with noise of the sigma in them, `[…, 4, h, w]`; the UNet sees them divided by
            `sqrt(sigma² + 1)`.
        sigma: a scalar on the CPU, float32.
        timestep: a scalar on the CPU, of a sampler that goes by timesteps; None where the sigma
            decides it.
    """

    latents: torch.Tensor
    sigma: torch.Tensor
    timestep: torch.Tensor | None = None


Walk: TypeAlias = Generator[Evaluation, torch.Tensor, torch.Tensor]
"""A sampler on its way: yields evaluations, takes denoised predictions, returns latents."""

Noise: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""The noise of unit variance for a step from one sigma to the next."""


class Sampling:
    """One image's walk, to be taken a UNet call at a time.

    Args:
        walk: of a sampler that has not begun.

    Attributes:
        wanted: the next evaluation; None when the walk is done.
        calls_done: so far.
    """

    def __init__(self, walk: Walk) -> None:
        self.calls_done = 0
        self.wanted: Evaluation | None = None
        self._walk = walk
        self._result: torch.Tensor | None = None
        self._go_on(None)

    @property
    def is_done(self) -> bool:
        """Return whether no evaluation is left."""
        return self.wanted is None

    @property
    def latents(self) -> torch.Tensor:
        """Return the final latents, or those of the next evaluation."""
        if self.wanted is not None:
            return self.wanted.latents
        assert self._result is not None
        return self._result

    def advance(self, denoised: torch.Tensor) -> None:
        """Take the step that follows an evaluation.

        Args:
            denoised: the model's estimate of the latents without noise, for what was wanted.
        """
        assert self.wanted is not None, "the walk is done"
        self.calls_done += 1
        self._go_on(denoised)

    def _go_on(self, denoised: torch.Tensor | None) -> None:
        try:
            # A generator's first value is sent None.
            self.wanted = self._walk.send(denoised)  # type: ignore[arg-type]
        except StopIteration as end:
            self.wanted, self._result = None, end.value
