"""How a job's scheduler gets its noise: from the job's own seed, on the CPU, without waiting.

Drawn on the CPU, a seed's noise is the same on every device and whatever the company. It travels
from pinned memory, because a plain copy to a GPU waits until the GPU has done all before it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from diffusers.schedulers.scheduling_dpmsolver_sde import BrownianTreeNoiseSampler
from torch.overrides import TorchFunctionMode


class Stepped(NamedTuple):
    """What a step gives.

    Attributes:
        latents: the next.
        outlook: what the scheduler expects them to become in the end, where it tells; else those.
    """

    latents: torch.Tensor
    outlook: torch.Tensor


TakeStep = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], Stepped]
"""Takes one step from a prediction, its timestep and the latents."""


def bind_step(scheduler: Any, generator: torch.Generator, latents: torch.Tensor) -> TakeStep:
    """Settle, once for a job, how its scheduler takes a step and where its noise comes from.

    Args:
        scheduler: Diffusers' own, made for this job.
        generator: the job's, on the CPU.
        latents: of the job; their shape and device are the noise's.
    """
    takes_generator = "generator" in inspect.signature(scheduler.step).parameters
    keywords = {"generator": generator} if takes_generator else {}
    if hasattr(scheduler, "noise_sampler"):
        scheduler.noise_sampler = BrownianNoise(scheduler.sigmas, generator.initial_seed(), latents)
    # Python is slower under a mode, and on a CPU or without noise there is nothing to send.
    draws_for_device = takes_generator and latents.device.type != "cpu"
    sending = _SendDrawnNoise(latents.device) if draws_for_device else nullcontext()

    def take_step(
        prediction: torch.Tensor, timestep: torch.Tensor, latents: torch.Tensor
    ) -> Stepped:
        with sending:
            stepped = scheduler.step(prediction, timestep, latents, **keywords, return_dict=False)
        return Stepped(stepped[0], stepped[-1])

    return take_step


class BrownianNoise:
    """Noise along one Brownian path, which a seed fixes whatever the steps (DPM++ SDE asks so).

    Diffusers' own would be drawn on the device, from the global generator unless a seed is in the
    scheduler's config. This is the same path as that seed's on a CPU.

    Args:
        sigmas: of the scheduler, descending to 0; the path spans those above 0.
        seed: of the job.
        latents: like which the noise is.
    """

    def __init__(self, sigmas: torch.Tensor, seed: int, latents: torch.Tensor) -> None:
        positive = sigmas[sigmas > 0]
        self._lowest, self._highest = positive.min().item(), positive.max().item()
        self._seed = seed
        self._shape = latents.shape
        self._device = latents.device
        self._path: Any = None  # a job of one step needs none, and torchsde can't make its path

    def __call__(self, sigma: torch.Tensor, sigma_next: torch.Tensor) -> torch.Tensor:
        """Give the path's increment between two sigmas, scaled to unit variance."""
        if self._path is None:
            like = torch.empty(self._shape)
            self._path = BrownianTreeNoiseSampler(like, self._lowest, self._highest, self._seed)
        return send(self._path(self._within(sigma), self._within(sigma_next)), self._device)

    def _within(self, sigma: torch.Tensor) -> torch.Tensor:
        """Clip a sigma to the path as torchsde would, which warns each time that it has to.

        The scheduler's logarithms and exponentials round past the ends, and torchsde rounds those.
        """
        lowest, highest = (round(end, _TORCHSDE_DIGITS) for end in (self._lowest, self._highest))
        return sigma.double().clamp(lowest, highest)


_TORCHSDE_DIGITS = 6  # decimals of the ends of a path: the tolerance that Diffusers asks for


class _SendDrawnNoise(TorchFunctionMode):
    """Sends on what a scheduler's `step` draws on the CPU, before Diffusers copies it and waits.

    Most of Diffusers' schedulers draw inside their step and take no noise from outside.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self._device = device

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        return send(result, self._device) if func is torch.randn else result


def send(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Send a tensor from the CPU to a device without waiting for either."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
