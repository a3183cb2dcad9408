"""The face of both families of samplers: Diffusers' schedulers and k-diffusion's samplers.

What was decided for an image is a plan, and each run of it a solver, which is taken a UNet call at
a time. Nothing outside of the two modules that implement it knows the family.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch

from lpw_sdxl.diffusion.start import MaskReduction, Start
from lpw_sdxl.schema import ImageSize


class Solver(Protocol):
    """One image's way from its start to its final latents."""

    @property
    def latents(self) -> torch.Tensor:
        """Return the latents of the next UNet call, or the final ones: `[1, 4, h, w]`, float32."""

    @property
    def denoised(self) -> torch.Tensor:
        """Return the last estimate of the final latents, where there is one; else the latents."""

    @property
    def shown(self) -> torch.Tensor | None:
        """Return what an inpainting UNet sees beside the latents, `[1, 5, h, w]`."""

    @property
    def timestep(self) -> torch.Tensor:
        """Return the timestep of the next UNet call, a scalar on the CPU."""

    def model_input(self) -> torch.Tensor:
        """Scale the latents to what the UNet was trained to see at this timestep."""

    def advance(self, prediction: torch.Tensor) -> None:
        """Take the step that follows a UNet call.

        Args:
            prediction: the UNet's after guidance, float32, `[1, 4, h, w]`.
        """


class NoiseSupply(Protocol):
    """An image's noise, which can be drawn before it is needed, in another thread."""

    def draw_next(self) -> bool:
        """Draw some of it, if too little waits; return whether it did."""


AskForNoise = Callable[[NoiseSupply], None]
"""Has noise drawn in another thread, some time."""


class SolverPlan(Protocol):
    """The decisions for one image; immutable, and for any thread."""

    @property
    def size(self) -> ImageSize:
        """Return the image's size, pixels."""

    @property
    def calls(self) -> int:
        """Count the UNet calls."""

    @property
    def steps(self) -> int:
        """Count the steps of denoising; some samplers make nearly two calls a step."""

    @property
    def enters_late(self) -> bool:
        """Return whether it begins with a picture's latents under noise."""

    @property
    def mask_reduction(self) -> MaskReduction:
        """Return the way of a mask to latent cells."""

    def prompt_step(self, call: int) -> int:
        """Return the step of a prompt's schedule that is in force at a call, by its index."""

    def open_noise(self, device: torch.device, ask: AskForNoise) -> NoiseSupply | None:
        """Begin the noise of a run, for `begin`; None where `begin` draws it.

        Args:
            device: where the run is.
            ask: is called with the noise whenever some of it was taken.
        """

    def begin(self, start: Start, device: torch.device, noise: NoiseSupply | None = None) -> Solver:
        """Begin a run: draw its noise, and make its first latents.

        Args:
            start: what is denoised.
            device: where it runs.
            noise: of `open_noise`; None has it drawn here.
        """
