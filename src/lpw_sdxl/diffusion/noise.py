"""The noise of a job's scheduler: from the job's own seed, on the CPU, without waiting.

Drawn on the CPU, a seed's noise is the same on every device and beside whatever other jobs. It is
copied from pinned memory, because a plain copy to a GPU waits until the GPU has done all before it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from diffusers.schedulers.scheduling_dpmsolver_sde import BrownianTreeNoiseSampler
from torch.overrides import TorchFunctionMode


class StepResult(NamedTuple):
    """The result of a scheduler's step, each `[1, 4, h, w]`.

    Attributes:
        latents: the next ones.
        denoised: the scheduler's estimate of the final latents where it gives one, else the
            latents.
    """

    latents: torch.Tensor
    denoised: torch.Tensor


TakeStep = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], StepResult]
"""A scheduler's step, from a prediction, its timestep and the latents."""


def bind_step(scheduler: Any, generator: torch.Generator, latents: torch.Tensor) -> TakeStep:
    """Bind a job's scheduler to the job's own noise; return the function that takes its steps.

    Args:
        scheduler: Diffusers' own, made for this job.
        generator: the job's, on the CPU.
        latents: of the job; the noise gets their shape and device.
    """
    takes_generator = "generator" in inspect.signature(scheduler.step).parameters
    keywords = {"generator": generator} if takes_generator else {}
    if hasattr(scheduler, "noise_sampler"):
        scheduler.noise_sampler = BrownianNoise(scheduler.sigmas, generator.initial_seed(), latents)
    # Python is slower under a mode, and on a CPU or without noise there is nothing to copy.
    draws_for_device = takes_generator and latents.device.type != "cpu"
    copying = _CopyDrawnNoise(latents.device) if draws_for_device else nullcontext()

    def take_step(
        prediction: torch.Tensor, timestep: torch.Tensor, latents: torch.Tensor
    ) -> StepResult:
        with copying:
            stepped = scheduler.step(prediction, timestep, latents, **keywords, return_dict=False)
        return StepResult(stepped[0], stepped[-1])

    return take_step


def add_noise(
    scheduler: Any, latents: torch.Tensor, noise: torch.Tensor, timestep: torch.Tensor
) -> torch.Tensor:
    """Add noise to a picture's latents as Diffusers' scheduler does, but without waiting.

    The sum's two factors are asked for on the CPU; Diffusers would move its tables to the device.

    Args:
        scheduler: Diffusers' own, at this timestep.
        latents: `[1, 4, h, w]`.
        noise: like them, of unit variance.
        timestep: a scalar on the CPU.
    """
    one, zero, timesteps = torch.ones(1), torch.zeros(1), timestep.reshape(1)
    signal = scheduler.add_noise(one, zero, timesteps).item()
    deviation = scheduler.add_noise(zero, one, timesteps).item()
    return signal * latents + deviation * noise


class BrownianNoise:
    """Noise along one Brownian path that the seed determines whatever the steps, for DPM++ SDE.

    Diffusers' own would be drawn on the device, and from the global generator unless the config of
    the scheduler holds a seed. This is the path that Diffusers draws from that seed on a CPU.

    Args:
        sigmas: of the scheduler, descending to 0; the path spans those above 0.
        seed: of the job.
        latents: the noise gets their shape and device.
    """

    def __init__(self, sigmas: torch.Tensor, seed: int, latents: torch.Tensor) -> None:
        positive = sigmas[sigmas > 0]
        self._lowest, self._highest = positive.min().item(), positive.max().item()
        self._seed = seed
        self._shape = latents.shape
        self._device = latents.device
        self._path: Any = (
            None  # made when needed: a job of one step needs none, and torchsde can't make it
        )

    def __call__(self, sigma: torch.Tensor, sigma_next: torch.Tensor) -> torch.Tensor:
        """Compute the path's increment between two sigmas, scaled to unit variance."""
        if self._path is None:
            like = torch.empty(self._shape)
            self._path = BrownianTreeNoiseSampler(like, self._lowest, self._highest, self._seed)
        return copy_to_device(
            self._path(self._within(sigma), self._within(sigma_next)), self._device
        )

    def _within(self, sigma: torch.Tensor) -> torch.Tensor:
        """Clip a sigma to the path's ends, as torchsde would, but without its warning.

        The scheduler's logarithms and exponentials round past the ends, which torchsde has rounded.
        """
        lowest, highest = (round(end, _TORCHSDE_DIGITS) for end in (self._lowest, self._highest))
        return sigma.double().clamp(lowest, highest)


_TORCHSDE_DIGITS = 6  # decimals of a path's ends: the tolerance that Diffusers sets


class _CopyDrawnNoise(TorchFunctionMode):
    """A mode that copies to a device, without waiting, the noise that a scheduler's `step` draws.

    Most of Diffusers' schedulers draw noise inside their step, on the CPU, and take none from
    outside. Diffusers itself would copy it to the device and wait.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self._device = device

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        return copy_to_device(result, self._device) if func is torch.randn else result


def copy_to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a tensor from the CPU to a device without waiting."""
    return pin_for(tensor, device).to(device, non_blocking=True)


def pin_for(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Put a tensor of the CPU where it can be copied to a device without waiting."""
    return tensor.pin_memory() if device.type == "cuda" else tensor
