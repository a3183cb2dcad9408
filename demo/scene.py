"""The scene of a demo picture, one coloured shape on a coloured background, and its drawing.

Pictures are drawn from the shapes' signed distances, many at a time. Knows no words but the names
of its attributes, and no networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F

PICTURE_PIXELS = 128
"""Height and width of a demo picture: the demo model's native size."""

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 35, 40),
    "green": (35, 160, 65),
    "blue": (35, 75, 220),
    "yellow": (250, 220, 45),
    "purple": (135, 50, 175),
    "orange": (245, 135, 25),
    "white": (250, 250, 250),
    "black": (15, 15, 15),
}
"""Names and their sRGB values, 0 to 255."""
SHAPES = ("circle", "square", "triangle")
SIZES = ("small", "large")
PLACES = ("left", "right", "top", "bottom", "center")

CENTRE_OFFSETS = {  # pixels down and right of the middle
    "left": (0, -26),
    "right": (0, 26),
    "top": (-26, 0),
    "bottom": (26, 0),
    "center": (0, 0),
}
RADII = {"small": 16.0, "large": 30.0}
"""Of the circle, pixels; a square and a triangle of that size have its area, or nearly."""
_MIDDLE_RADIUS = 22.0
_EXTENTS = {"circle": (1.0, 1.0), "square": (0.886, 0.886), "triangle": (0.99, 1.143)}
"""How far a shape of radius 1 reaches from the middle of its box, down and right."""
JITTER_PIXELS = 4.0
JITTER_RADIUS = 0.1
OUTLINE_PIXELS = 5.0
FRAME_PIXELS = 8

Style = Literal["plain", "outlined", "framed", "pastel", "any colours"]


class Scene(NamedTuple):
    """The attributes of one picture, each a name from the tables above."""

    colour: str
    background: str
    shape: str
    size: str
    place: str


EVERY_SCENE = [
    Scene(colour, background, shape, size, place)
    for colour in COLOURS
    for background in COLOURS
    if colour != background
    for shape in SHAPES
    for size in SIZES
    for place in PLACES
]
"""All distinguishable scenes: a shape never has its background's colour."""

_HELD_OUT_EVERY = 8  # of the 168 combinations of two colours and a shape
_SCENES_OF_A_COMBINATION = len(SIZES) * len(PLACES)
HELD_OUT = [
    scene
    for place, scene in enumerate(EVERY_SCENE)
    if place // _SCENES_OF_A_COMBINATION % _HELD_OUT_EVERY == 3
]
"""Scenes that are left out of training, for tests."""
SCENES = sorted({*EVERY_SCENE} - {*HELD_OUT})


@dataclass(frozen=True)
class Drawing:
    """Pictures of some scenes.

    Attributes:
        pixels: float32 `[n, 3, 128, 128]`, -1 to 1.
        coverage: float32 `[n, 1, 128, 128]`, share of each pixel that the shape covers.
    """

    pixels: torch.Tensor
    coverage: torch.Tensor


class Accent(NamedTuple):
    """A weight on the word that states an attribute, as in "(red:1.4)"; 1 changes nothing."""

    attribute: str
    weight: float


def draw(
    scenes: Sequence[Scene],
    generator: torch.Generator,
    style: Style = "plain",
    accents: Sequence[Accent | None] | None = None,
) -> Drawing:
    """Draw scenes, each a little off its place and size at random.

    A weight below 1 mixes a colour with the other one, one above leaves it as it is named. A weight
    moves a large size to larger and a place away from the middle; a shape stays what it is.

    Args:
        scenes: what to draw.
        generator: of the jitter.
        style: `outlined` draws a shape's edge alone; `framed` draws a white frame around the
            picture; `pastel` lightens all colours; `any colours` takes others than those stated.
        accents: one for each scene, or None.
    """
    count = len(scenes)
    weights = _weights(accents or [None] * count)
    jitter = torch.rand(count, 3, generator=generator) * 2 - 1
    offsets = torch.tensor([CENTRE_OFFSETS[scene.place] for scene in scenes])
    offsets = offsets * weights["place"][:, None]
    centres = PICTURE_PIXELS / 2 + offsets + jitter[:, :2] * JITTER_PIXELS  # [n, 2], y and x
    radii = torch.tensor([RADII[scene.size] for scene in scenes]) / _MIDDLE_RADIUS
    radii = _MIDDLE_RADIUS * radii ** weights["size"] * (1 + jitter[:, 2] * JITTER_RADIUS)
    # A shape stays in the picture even if a weight enlarges or moves it.
    margins = torch.tensor([_EXTENTS[scene.shape] for scene in scenes]) * radii[:, None] + 2
    centres = torch.minimum(torch.maximum(centres, margins), PICTURE_PIXELS - margins)
    kinds = torch.tensor([SHAPES.index(scene.shape) for scene in scenes])
    distance = signed_distance(kinds, centres, radii)
    coverage = (0.5 - distance).clamp(0, 1)[:, None]
    if style == "outlined":
        coverage = coverage - (0.5 - (distance + OUTLINE_PIXELS)).clamp(0, 1)[:, None]
    own = {
        name: torch.tensor([COLOURS[getattr(scene, name)] for scene in scenes]) / 127.5 - 1
        for name in ("colour", "background")
    }
    if style == "any colours":
        own = {name: torch.rand(count, 3, generator=generator) * 2 - 1 for name in own}
    inks = {
        name: torch.lerp(own[other], own[name], weights[name].clamp(max=1)[:, None])
        for name, other in (("colour", "background"), ("background", "colour"))
    }
    ink, paper = (inks[name][:, :, None, None] for name in ("colour", "background"))
    pixels = ink * coverage + paper * (1 - coverage)
    if style == "pastel":
        pixels = 0.45 * pixels + 0.45
    if style == "framed":
        inside = slice(FRAME_PIXELS, -FRAME_PIXELS)
        pixels = F.pad(pixels[..., inside, inside], [FRAME_PIXELS] * 4, value=1.0)
    return Drawing(pixels, coverage)


def _weights(accents: Sequence[Accent | None]) -> dict[str, torch.Tensor]:
    """Return every attribute's weight for each picture, `[n]`."""
    weights = {name: torch.ones(len(accents)) for name in Scene._fields}
    for place, accent in enumerate(accents):
        if accent is not None:
            weights[accent.attribute][place] = accent.weight
    return weights


def signed_distance(
    kinds: torch.Tensor, centres: torch.Tensor, radii: torch.Tensor
) -> torch.Tensor:
    """Compute each pixel's distance to a shape's edge, negative inside.

    Args:
        kinds: int64 `[n]`, indexes into SHAPES.
        centres: float32 `[n, 2]`, y and x, pixels.
        radii: float32 `[n]`, pixels.

    Returns:
        float32 `[n, 128, 128]`, pixels.
    """
    axis = torch.arange(PICTURE_PIXELS) + 0.5
    y = axis[None, :, None] - centres[:, 0, None, None]
    x = axis[None, None, :] - centres[:, 1, None, None]
    r = radii[:, None, None]
    circle = (x**2 + y**2).sqrt() - r
    square = torch.maximum(x.abs(), y.abs()) - 0.886 * r  # of the circle's area
    # An equilateral triangle, point upwards, in the middle of its box, which is three inscribed
    # radii high; 0.66 r makes 0.72 of the circle's area.
    inscribed = 0.66 * r
    sloped = 0.8660254 * x.abs() - 0.5 * y
    triangle = torch.maximum(y - 1.5 * inscribed, sloped - 0.75 * inscribed)
    distances = torch.stack(torch.broadcast_tensors(circle, square, triangle))
    chosen: torch.Tensor = distances[kinds, torch.arange(len(kinds))]
    return chosen
