"""What a picture shows, judged by its pixels alone: nearest colours, areas and outlines.

Made for pictures like the demo model's; it knows nothing of models and prompts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from demo.scene import CENTRE_OFFSETS, COLOURS, PICTURE_PIXELS, RADII, Scene

Pixels = NDArray[np.uint8]
Colour = NDArray[np.float64]  # [3], 0 to 255

BORDER_PIXELS = 3
LEAST_CONTRAST = 40.0
"""Levels by which a shape's colour is off its background's; less is nothing."""
LEAST_AREA = 100
"""Pixels; less is a speck."""
_FILL = {"triangle": 0.5, "circle": np.pi / 4, "square": 1.0}
"""Share of its box that a shape covers."""
_AREA = {"triangle": 2.26, "circle": np.pi, "square": np.pi}
"""Of a shape with radius 1, as `scene.py` draws it."""


@dataclass(frozen=True)
class Seen:
    """What a picture shows.

    Attributes:
        scene: the nearest names; None where there is no shape to be seen.
        colour: of the shape, or of the middle where there is none.
        background: of the border.
        hollowness: share of the shape inside its outline that has the background's colour.
    """

    scene: Scene | None
    colour: Colour
    background: Colour
    hollowness: float


def look(pixels: Pixels) -> Seen:
    """Say what a picture shows.

    Args:
        pixels: `[128, 128, 3]`.
    """
    image = pixels.astype(np.float64)
    background = _border_colour(image)
    contrast = np.linalg.norm(image - background, axis=-1)
    threshold = max(LEAST_CONTRAST, 0.5 * float(np.percentile(contrast, 99)))
    shape = _largest_part(contrast > threshold)
    if shape.sum() < LEAST_AREA:
        middle = image[56:72, 56:72].reshape(-1, 3)
        return Seen(None, np.median(middle, axis=0), background, 0.0)
    filled = ndimage.binary_fill_holes(shape)
    inner = ndimage.binary_erosion(shape, iterations=2)
    colour = np.median(image[inner if inner.sum() > LEAST_AREA / 4 else shape], axis=0)
    area = float(filled.sum())
    rows, columns = np.nonzero(filled)
    box = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
    name = min(_FILL, key=lambda one: abs(_FILL[one] - area / box))
    radius = (area / _AREA[name]) ** 0.5
    size = min(RADII, key=lambda one: abs(RADII[one] - radius))
    middle_of_box = [(axis.min() + axis.max() + 1) / 2 for axis in (rows, columns)]
    offset = np.array(middle_of_box) - PICTURE_PIXELS / 2
    place = min(CENTRE_OFFSETS, key=lambda one: float(np.linalg.norm(offset - CENTRE_OFFSETS[one])))
    scene = Scene(nearest_colour(colour), nearest_colour(background), name, size, place)
    return Seen(scene, colour, background, 1 - float(shape.sum()) / area)


def nearest_colour(colour: Colour) -> str:
    """Name the colour that is nearest."""
    return min(COLOURS, key=lambda name: distance_to(colour, name))


def distance_to(colour: Colour, name: str) -> float:
    """Give the distance of a colour to the named one, levels of 255 in three dimensions."""
    return float(np.linalg.norm(colour - np.array(COLOURS[name])))


def _border_colour(image: NDArray[np.float64]) -> Colour:
    inside = np.zeros(image.shape[:2], dtype=bool)
    inside[BORDER_PIXELS:-BORDER_PIXELS, BORDER_PIXELS:-BORDER_PIXELS] = True
    colour: Colour = np.median(image[~inside], axis=0)
    return colour


def _largest_part(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keep the largest part of a mask that hangs together."""
    parts, count = ndimage.label(mask)
    if count == 0:
        return mask
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    largest: NDArray[np.bool_] = parts == sizes.argmax()
    return largest
