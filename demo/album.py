"""Latents of drawn pictures that the UNet is trained on, and how much each cell counts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from demo.scene import SCENES, SHAPES, Accent, Scene, Style, draw
from demo.schedule import seeded
from demo.vae import encode
from lpw_sdxl.schema import LATENT_SCALE

DRAWINGS = 6
"""Of each scene."""
ACCENTS = 4800
"""Pictures with an accent on one attribute."""
ACCENTED = ("colour", "colour", "background", "size", "place")
WEAKER, STRONGER = (0.1, 1.0), (1.0, 1.7)
_WEAKENED = 0.7
_AT_ONCE = 32


class Picture(NamedTuple):
    """A picture in the album: its scene and accent."""

    scene: Scene
    accent: Accent | None = None


@dataclass(frozen=True)
class Album:
    """Latents of drawings of every scene, ready for the UNet.

    Attributes:
        pictures: what each shows.
        latents: float32 `[pictures, 4, 16, 16]`, scaled to about unit variance.
        weights: float32 `[pictures, 1, 16, 16]`, mean 1: how much each cell counts.
    """

    pictures: list[Picture]
    latents: torch.Tensor
    weights: torch.Tensor

    @cached_property
    def scenes(self) -> list[Scene]:
        """Return the scenes that have pictures without an accent."""
        return list(self.plain)

    @cached_property
    def plain(self) -> dict[Scene, list[int]]:
        """Return the indices of each scene's pictures without an accent."""
        places: dict[Scene, list[int]] = {}
        for place, picture in enumerate(self.pictures):
            if picture.accent is None:
                places.setdefault(picture.scene, []).append(place)
        return places

    @cached_property
    def accented(self) -> list[int]:
        """Return the indices of the pictures with an accent."""
        return [place for place, picture in enumerate(self.pictures) if picture.accent]


@torch.no_grad()
def fill_album(
    vae: Any,
    seed: int,
    scenes: Sequence[Scene] = SCENES,
    *,
    drawings: int = DRAWINGS,
    accents: int = ACCENTS,
    style: Style = "plain",
) -> Album:
    """Draw and encode every scene several times, and some scenes with an accent."""
    generator, chance = seeded(seed), random.Random(seed)
    pictures = [Picture(scene) for scene in scenes for _ in range(drawings)]
    pictures += [Picture(chance.choice(scenes), _accent(chance)) for _ in range(accents)]
    latents, weights = [], []
    for start in range(0, len(pictures), _AT_ONCE):
        some = pictures[start : start + _AT_ONCE]
        weights.append(_weigh(some, generator))
        scenes_drawn, accent = zip(*some, strict=True)
        drawing = draw(scenes_drawn, generator, style, accent)
        latents.append(encode(vae, drawing.pixels) * vae.config.scaling_factor)
    return Album(pictures, torch.cat(latents), torch.cat(weights))


def _accent(chance: random.Random) -> Accent:
    weights = WEAKER if chance.random() < _WEAKENED else STRONGER
    return Accent(chance.choice(ACCENTED), chance.uniform(*weights))


def _weigh(pictures: Sequence[Picture], generator: torch.Generator) -> torch.Tensor:
    """Compute the weight of each cell, `[n, 1, 16, 16]`; the generator's state is kept.

    Most of the loss is that of the cells by which circle, square and triangle differ, which are
    few; a tenth is that of all that the shape touches.
    """
    scenes, accents = zip(*pictures, strict=True)
    state = generator.get_state()
    drawings = []
    for shape in (None, *SHAPES):
        generator.set_state(state)  # the same jitter
        others = [scene._replace(shape=shape or scene.shape) for scene in scenes]
        drawings.append(draw(others, generator, "plain", accents).coverage)
    generator.set_state(state)
    touched = (F.max_pool2d(drawings[0], LATENT_SCALE) > 0).float()
    shapes = torch.stack([F.avg_pool2d(one, LATENT_SCALE) for one in drawings[1:]])
    decisive = shapes.amax(0) - shapes.amin(0)
    shares = [one / one.mean((1, 2, 3), keepdim=True) for one in (touched, decisive)]
    return 0.25 + 0.1 * shares[0] + 0.65 * shares[1]
