"""Training of the demo's UNet: v-prediction with zero terminal SNR, on latents of drawn pictures.

At the noisiest step nothing shows through, so that only the text determines the picture; plain
noise prediction lets a picture shine through there and learns to read it off the noise
(arXiv 2305.08891, section 3).
"""

from __future__ import annotations

import random
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch

from demo.album import Album
from demo.batches import Batch, caption_batches
from demo.networks import NATIVE_SIZE, Networks, noise_schedule
from demo.parts import Part
from demo.schedule import optimiser, seeded, steps
from demo.words import Vocabulary
from lpw_sdxl.diffusion.latents import size_embedding

LEG = 500
"""Number of steps after which the training state is saved."""
EMA = 0.998
TIMESTEPS = 1000
LATE = 0.25
"""Share of the timesteps that are drawn near the noisy end."""


@dataclass(frozen=True)
class Cycle:
    """A part of the training: the rate rises, and falls to nearly nothing.

    Attributes:
        steps: of it.
        rate: the highest learning rate.
    """

    steps: int
    rate: float


CYCLES = (Cycle(18000, 1.2e-3), Cycle(5000, 6e-4))
"""Shapes are learned last in each, when the rate is low: README.md has the result of each."""


def train_unet(
    networks: Networks,
    vocabulary: Vocabulary,
    album: Album,
    cycle: Cycle,
    *,
    seed: int,
    so_far: Part,
) -> None:
    """Train the UNet alone for a cycle; it then has the average weights of the last steps.

    Args:
        networks: text encoders and VAE are trained already.
        vocabulary: of the captions.
        album: the pictures.
        cycle: how long, and how fast.
        seed: of captions, noise and timesteps.
        so_far: written after every leg; a run that was stopped goes on with it.
    """
    training = _Training(networks.unet, cycle.rate)
    so_far.load(training)
    generator = seeded(seed)
    networks.unet.train()
    for step, report in steps("unet", cycle.steps, training.adam, first=training.steps):
        if step % LEG == 0:  # so that a leg depends on nothing but its number
            generator.manual_seed(seed + step)
            batches = caption_batches(networks, vocabulary, album, random.Random(f"{seed} {step}"))
        loss, noisiest = velocity_loss(networks.unet, next(batches), album, generator)
        training.step(loss)
        report |= {"loss": float(loss.detach()), "noisiest": noisiest}
        if training.steps % LEG == 0:
            so_far.keep(training)
    networks.unet.load_state_dict(training.average.state_dict())
    networks.unet.eval()


class _Training:
    """A UNet under training, with all the state to continue it.

    Attributes:
        average: the UNet with its weights averaged over the last steps.
        adam: the optimiser.
        steps: that are done.
    """

    def __init__(self, unet: Any, rate: float) -> None:
        self._unet = unet
        self.average = deepcopy(unet).requires_grad_(False)
        self.adam = optimiser(unet.parameters(), rate)
        self.steps = 0

    def step(self, loss: torch.Tensor) -> None:
        """Update the weights to reduce this loss."""
        self.adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._unet.parameters(), 1.0)
        self.adam.step()
        decay = min(EMA, (1 + self.steps) / (10 + self.steps))
        averages, weights = ([*unet.parameters()] for unet in (self.average, self._unet))
        with torch.no_grad():
            torch._foreach_lerp_(averages, weights, 1 - decay)
        self.steps += 1

    def state_dict(self) -> dict[str, Any]:
        """Return the state: tensors and numbers."""
        stateful = {"unet": self._unet, "average": self.average, "adam": self.adam}
        return {name: one.state_dict() for name, one in stateful.items()} | {"steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a state."""
        for name, one in (
            ("unet", self._unet), ("average", self.average), ("adam", self.adam),
        ):  # fmt: skip
            one.load_state_dict(state[name])
        self.steps = state["steps"]


def velocity_loss(
    unet: Any, batch: Batch, album: Album, generator: torch.Generator
) -> tuple[torch.Tensor, float]:
    """Compute the loss of one batch, and that of its noisiest quarter."""
    signal_power = noise_schedule()
    latents = album.latents[batch.pictures]
    timesteps = draw_timesteps(len(latents), generator)
    signal = signal_power[timesteps].sqrt()[:, None, None, None]
    sigma = (1 - signal_power[timesteps]).sqrt()[:, None, None, None]
    noise = torch.randn(latents.shape, generator=generator)
    velocity = signal * noise - sigma * latents
    predicted = unet(
        signal * latents + sigma * noise,
        timesteps,
        encoder_hidden_states=batch.embeds,
        encoder_attention_mask=batch.is_token,
        added_cond_kwargs={
            "text_embeds": batch.pooled,
            "time_ids": size_embedding(NATIVE_SIZE).to(latents).expand(len(latents), -1),
        },
        return_dict=False,
    )[0]
    errors = ((predicted - velocity).square() * album.weights[batch.pictures]).mean((1, 2, 3))
    quarter = timesteps.argsort(descending=True)[: max(1, len(latents) // 4)]
    return errors.mean(), float(errors[quarter].mean().detach())


def draw_timesteps(count: int, generator: torch.Generator) -> torch.Tensor:
    """Draw timesteps, more of them near the noisy end, where the text decides."""
    even = torch.rand(count, generator=generator)
    late = 1 - torch.rand(count, generator=generator).square()
    chosen = torch.where(torch.rand(count, generator=generator) < LATE, late, even)
    return (chosen * TIMESTEPS).long().clamp(max=TIMESTEPS - 1)
