"""Training of the demo's VAE: pictures to latents of an eighth of their height and width and back.

Three of a latent's four numbers are pulled towards its pixels' mean colour, as SDXL's own latents
are nearly linear in colour; the fourth is left for the shape's edge.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from demo.scene import PICTURE_PIXELS, SCENES, Drawing, Style, draw
from demo.schedule import optimiser, seeded, steps
from lpw_sdxl.schema import LATENT_SCALE

RATE = 3e-3
COLOUR_PULL = 0.2
LATENT_NOISE = 0.05
"""Noise added to latents of about unit variance, for the decoder to tolerate the UNet's errors."""
NO_VARIANCE = -12.0
"""Log variance that the encoder outputs for every latent: a picture has exactly one latent."""


@dataclass(frozen=True)
class _Phase:
    """A part of the training: steps, pictures in each, the side of the squares cut from them."""

    steps: int
    pictures: int
    side: int
    rate: float


# A quarter of a picture costs a quarter; the norms' means over whole pictures are learned later.
PHASES = (_Phase(4000, 8, PICTURE_PIXELS // 2, RATE), _Phase(1200, 5, PICTURE_PIXELS, RATE / 3))
MEASURED = 512
"""Number of pictures from whose latents the VAE's scale is measured."""


def train_vae(vae: Any, seed: int) -> None:
    """Train a VAE, then scale its latents to what SDXL's scaling factor expects."""
    chance, generator = random.Random(seed), seeded(seed)
    vae.train()
    for phase in PHASES:
        adam = optimiser(vae.parameters(), phase.rate)
        for _, report in steps("vae", phase.steps, adam):
            drawing = draw_varied(phase.pictures, chance, generator)
            pixels, weights = _cut(drawing, phase.side, chance)
            latents = encode(vae, pixels) * vae.config.scaling_factor
            noisy = latents + LATENT_NOISE * torch.randn(latents.shape, generator=generator)
            drawn = vae.decode(noisy / vae.config.scaling_factor, return_dict=False)[0]
            errors = drawn - pixels
            loss = ((errors.abs() + errors.square()) * weights).mean()
            colours = F.avg_pool2d(pixels, LATENT_SCALE)
            pull = F.mse_loss(latents[:, :3], colours) + 0.01 * latents[:, 3].square().mean()
            adam.zero_grad()
            (loss + COLOUR_PULL * pull).backward()
            torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
            adam.step()
            report |= {"loss": float(loss.detach()), "pull": float(pull.detach())}
    vae.eval()
    standardise(vae, draw(chance.choices(SCENES, k=MEASURED), generator).pixels)


def draw_varied(count: int, chance: random.Random, generator: torch.Generator) -> Drawing:
    """Draw scenes in the plain style and in those that LoRAs and weights produce."""
    styles: tuple[Style, ...] = ("plain", "any colours", "outlined")
    drawings = [
        draw(chance.choices(SCENES, k=part), generator, style)
        for style, part in zip(
            styles, (count - 2 * (count // 4), count // 4, count // 4), strict=True
        )
    ]
    return Drawing(
        torch.cat([drawing.pixels for drawing in drawings]),
        torch.cat([drawing.coverage for drawing in drawings]),
    )


def _cut(drawing: Drawing, side: int, chance: random.Random) -> tuple[torch.Tensor, torch.Tensor]:
    """Cut a square out of each picture; edges, a few pixels of it, weigh a third of the whole.

    Returns:
        pixels `[n, 3, side, side]` and weights `[n, 1, side, side]`.
    """
    inside = F.max_pool2d(drawing.coverage, 5, stride=1, padding=2)
    outside = F.max_pool2d(1 - drawing.coverage, 5, stride=1, padding=2)
    edges = ((inside > 0) & (outside > 0)).float()
    weights = 1 + 0.5 * edges / edges.mean((1, 2, 3), keepdim=True)
    squares = [
        (slice(None), *(slice(start, start + side) for start in starts))
        for starts in (
            [chance.randrange(PICTURE_PIXELS - side + 1) for _ in range(2)]
            for _ in range(len(edges))
        )
    ]
    cut = [
        torch.stack([one[square] for one, square in zip(picture, squares, strict=True)])
        for picture in (drawing.pixels, weights)
    ]
    return cut[0], cut[1]


def encode(vae: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Encode pictures as the VAE's own latents: `[n, 3, h, w]` to `[n, 4, h/8, w/8]`."""
    latents: torch.Tensor = vae.encode(pixels).latent_dist.mean
    return latents


@torch.no_grad()
def standardise(vae: Any, pixels: torch.Tensor) -> None:
    """Scale each of the latents' four channels to a mean of 0 and the deviation of SDXL's.

    The first and last layers around the latents take up the change, so no picture changes.
    """
    latents = torch.cat([encode(vae, batch) for batch in pixels.split(32)])
    mean = latents.mean((0, 2, 3))
    scale = 1 / (latents.std((0, 2, 3)) * vae.config.scaling_factor)
    into, out_of = vae.quant_conv, vae.post_quant_conv  # 1 x 1 kernels
    into.weight[:4] *= scale[:, None, None, None]
    into.bias[:4] = (into.bias[:4] - mean) * scale
    into.weight[4:] = 0
    into.bias[4:] = NO_VARIANCE
    out_of.bias += (out_of.weight[:, :, 0, 0] * mean).sum(1)
    out_of.weight /= scale[None, :, None, None]
