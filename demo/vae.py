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
from demo.schedule import optimiser, steps
from lpw_sdxl.schema import LATENT_SCALE

RATE = 3e-3
COLOUR_PULL = 0.2
LATENT_NOISE = 0.05
"""Added to latents of about unit variance, so that the decoder forgives the UNet small errors."""
NO_VARIANCE = -12.0
"""Logarithm of the variance that the encoder tells for every latent: a picture has one latent."""


@dataclass(frozen=True)
class _Phase:
    """A part of the training.

    Attributes:
        steps: of it.
        pictures: in each.
        side: of the squares cut from them, pixels.
        rate: the highest learning rate.
        stretch: by about how much at most latents are moved from their mean before they are
            decoded.
    """

    steps: int
    pictures: int
    side: int
    rate: float
    stretch: float = 1.0


# A quarter of a picture costs a quarter; the norms' means over whole pictures are learned after.
PHASES = (_Phase(4000, 8, PICTURE_PIXELS // 2, RATE), _Phase(400, 5, PICTURE_PIXELS, RATE / 5))
HARDENING = _Phase(1200, 8, PICTURE_PIXELS, 1e-3, stretch=2.2)
"""Guidance of 5 brings the UNet's latents 1.3 to 2.3 times as far from their mean."""
MEASURED = 512
"""Pictures whose latents tell the VAE's scale."""


def train_vae(vae: Any, seed: int) -> None:
    """Train a VAE, then scale its latents to what SDXL's scaling factor expects."""
    chance, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    vae.train()
    for phase in PHASES:
        _train(vae, phase, chance, generator)
    vae.eval()
    standardise(vae, draw(chance.choices(SCENES, k=MEASURED), generator).pixels)


def harden(vae: Any, seed: int) -> None:
    """Train the decoder alone to draw what guidance exaggerates as if it had not.

    Args:
        vae: trained; the latents of a picture stay what they are.
        seed: of the pictures.
    """
    chance, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    coders = [vae.encoder, vae.quant_conv]
    for coder in coders:
        coder.requires_grad_(False)
    vae.train()
    try:
        _train(vae, HARDENING, chance, generator)
    finally:
        vae.eval()
        for coder in coders:
            coder.requires_grad_(True)


def _train(vae: Any, phase: _Phase, chance: random.Random, generator: torch.Generator) -> None:
    trained = [parameter for parameter in vae.parameters() if parameter.requires_grad]
    adam = optimiser(trained, phase.rate)
    is_hardening = phase.stretch > 1
    for _, told in steps("vae, hardening" if is_hardening else "vae", phase.steps, adam):
        drawing = draw_varied(phase.pictures, chance, generator)
        pixels, weights = _cut(drawing, phase.side, chance)
        latents = encode(vae, pixels) * vae.config.scaling_factor
        given = latents + LATENT_NOISE * torch.randn(latents.shape, generator=generator)
        if is_hardening:
            given = _stretch(given, phase.stretch, generator)
        drawn = vae.decode(given / vae.config.scaling_factor, return_dict=False)[0]
        errors = drawn - pixels
        loss = ((errors.abs() + errors.square()) * weights).mean()
        told["loss"] = float(loss.detach())
        if not is_hardening:
            colours = F.avg_pool2d(pixels, LATENT_SCALE)
            pull = F.mse_loss(latents[:, :3], colours) + 0.01 * latents[:, 3].square().mean()
            loss = loss + COLOUR_PULL * pull
            told["pull"] = float(pull.detach())
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        adam.step()


def _stretch(latents: torch.Tensor, most: float, generator: torch.Generator) -> torch.Tensor:
    """Move latents away from their mean, 0, each of the four numbers by its own measure.

    Two thirds of the plain pictures', which come first, and of no other style's: where any colour
    may be, a stretched one is another.
    """
    rows = len(latents) - 2 * _others(len(latents))
    factors = torch.ones(len(latents), latents.shape[1], 1, 1)
    share = (torch.rand(rows, 1, 1, 1, generator=generator) * 1.5 - 0.5).clamp(min=0)
    own = 0.5 + torch.rand(rows, latents.shape[1], 1, 1, generator=generator)
    factors[:rows] = 1 + (most - 1) * share * own
    return latents * factors


def _others(count: int) -> int:
    """Say how many of so many pictures have each of the styles that are not plain."""
    return count // 4


def draw_varied(count: int, chance: random.Random, generator: torch.Generator) -> Drawing:
    """Draw scenes in the plain style, and then in others, which LoRAs and weights lead to."""
    styles: tuple[Style, ...] = ("plain", "any colours", "outlined")
    others = _others(count)
    drawings = [
        draw(chance.choices(SCENES, k=part), generator, style)
        for style, part in zip(styles, (count - 2 * others, others, others), strict=True)
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
    """Give pictures' latents as the VAE has them: `[n, 3, h, w]` to `[n, 4, h/8, w/8]`."""
    latents: torch.Tensor = vae.encode(pixels).latent_dist.mean
    return latents


@torch.no_grad()
def standardise(vae: Any, pixels: torch.Tensor) -> None:
    """Give each of the latents' four numbers a mean of 0 and the deviation that SDXL's has.

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
