"""Training of the demo's UNet: v-prediction with zero terminal SNR, on latents of drawn pictures.

At the noisiest step nothing shows through, so that the text alone must tell the picture; plain
noise prediction lets a picture shine through there and learns to read it off the noise
(arXiv 2305.08891, section 3).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch

from demo.album import Album
from demo.batches import Batch, caption_batches
from demo.networks import NATIVE_SIZE, Networks, noise_schedule
from demo.schedule import optimiser, steps
from demo.words import Vocabulary
from lpw_sdxl.diffusion.latents import size_embedding

STEPS = 5000
SHOWN_EVERY = 500
RATE = 1.2e-3
EMA = 0.998
TIMESTEPS = 1000


def train_unet(
    networks: Networks,
    vocabulary: Vocabulary,
    album: Album,
    seed: int,
    show: Callable[[int, Any], None],
) -> None:
    """Train the UNet alone; what is kept are its weights averaged over the last steps.

    Args:
        networks: text encoders and VAE are trained already.
        vocabulary: of the captions.
        album: the pictures.
        seed: of captions, noise and timesteps.
        show: called with a step and the UNet as it would be kept then, a few times.
    """
    unet = networks.unet
    generator = torch.Generator().manual_seed(seed)
    batches = caption_batches(networks, vocabulary, album, random.Random(seed))
    adam = optimiser(unet.parameters(), RATE)
    average = deepcopy(unet).requires_grad_(False)
    unet.train()
    for step, told in steps("unet", STEPS, adam):
        loss, noisiest = velocity_loss(unet, next(batches), album, generator)
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        adam.step()
        decay = min(EMA, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(unet.parameters()), 1 - decay)
        told |= {"loss": float(loss.detach()), "noisiest": noisiest}
        if step % SHOWN_EVERY == SHOWN_EVERY - 1:
            show(step + 1, average)
    unet.load_state_dict(average.state_dict())
    unet.eval()


def velocity_loss(
    unet: Any, batch: Batch, album: Album, generator: torch.Generator
) -> tuple[torch.Tensor, float]:
    """Give the loss of one batch, and that of its noisiest quarter."""
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
            "time_ids": size_embedding(NATIVE_SIZE).expand(len(latents), -1),
        },
        return_dict=False,
    )[0]
    errors = ((predicted - velocity).square() * album.weights[batch.pictures]).mean((1, 2, 3))
    quarter = timesteps.argsort(descending=True)[: max(1, len(latents) // 4)]
    return errors.mean(), float(errors[quarter].mean().detach())


def draw_timesteps(count: int, generator: torch.Generator) -> torch.Tensor:
    """Draw timesteps: half of them evenly, half near the noisy end, where the text decides."""
    even = torch.rand(count, generator=generator)
    late = 1 - torch.rand(count, generator=generator).square()
    chosen = torch.where(torch.rand(count, generator=generator) < 0.5, even, late)
    return (chosen * TIMESTEPS).long().clamp(max=TIMESTEPS - 1)
