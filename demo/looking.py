"""Recognition of a picture's scene by its pixels alone: nearest colours, areas and outlines.

Made for pictures like the demo model's; it knows nothing of models and prompts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from demo.scene import (
    CENTRE_OFFSETS,
    COLOURS,
    PICTURE_PIXELS,
    RADII,
    SHAPES,
    Scene,
    signed_distance,
)

Pixels = NDArray[np.uint8]
Colour = NDArray[np.float64]  # [3], 0 to 255

BORDER_PIXELS = 3
LEAST_CONTRAST = 40.0
"""Least distance of a shape's colour from its background's, levels of 255."""
LEAST_AREA = 100
"""Least area of a shape, pixels; less is a speck."""
_AREA = {"circle": np.pi, "square": np.pi, "triangle": 2.26}
"""Of a shape with radius 1, as `scene.py` draws it."""
_CENTROID = {"circle": 0.0, "square": 0.0, "triangle": 0.33}
"""Of the same, down from the middle of its box."""


@dataclass(frozen=True)
class Seen:
    """The scene recognised in a picture.

    Attributes:
        scene: the nearest names; None where there is no shape to be seen.
        colour: of the shape, or of the middle where there is none.
        background: of the border.
        outlines: for each shape, how much of it the outline is, 0 to 1: for a circle its
            isoperimetric quotient over that of a drawn circle, else the overlap (intersection over
            union) with the drawn shape of its area and centroid.
    """

    scene: Scene | None
    colour: Colour
    background: Colour
    outlines: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(SHAPES, 0.0))


def look(pixels: Pixels) -> Seen:
    """Recognise the scene in a picture.

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
        return Seen(None, np.median(middle, axis=0), background)
    filled = ndimage.binary_fill_holes(shape)
    inner = ndimage.binary_erosion(shape, iterations=2)
    colour = np.median(image[inner if inner.sum() > LEAST_AREA / 4 else shape], axis=0)
    area = float(filled.sum())
    rows, columns = np.nonzero(filled)
    overlaps = {name: _overlap(filled, name) for name in SHAPES}
    name = max(overlaps, key=lambda one: overlaps[one])
    radius = (area / _AREA[name]) ** 0.5
    size = min(RADII, key=lambda one: abs(RADII[one] - radius))
    middle_of_box = [(axis.min() + axis.max() + 1) / 2 for axis in (rows, columns)]
    offset = np.array(middle_of_box) - PICTURE_PIXELS / 2
    place = min(CENTRE_OFFSETS, key=lambda one: float(np.linalg.norm(offset - CENTRE_OFFSETS[one])))
    scene = Scene(nearest_colour(colour), nearest_colour(background), name, size, place)
    near: NDArray[np.bool_] = ndimage.binary_dilation(filled, iterations=3)
    inked = _inked(image, background, colour) * near
    inked[ndimage.binary_erosion(filled, iterations=2)] = 1.0
    roundness = isoperimetric_quotient(inked) / _drawn_quotient(radius=(area / np.pi) ** 0.5)
    return Seen(scene, colour, background, overlaps | {"circle": min(1.0, roundness)})


def isoperimetric_quotient(coverage: NDArray[np.float64]) -> float:
    """Compute 4 pi times the area within the outline at half coverage over its length squared.

    It is 1 for a circle and less for all else: 0.79 for a square, 0.60 for a triangle.

    Args:
        coverage: `[h, w]`, 0 to 1; the border of the picture is 0.
    """
    area, length = _area_and_length(coverage - 0.5)
    return 4 * np.pi * area / length**2 if length else 0.0


def nearest_colour(colour: Colour) -> str:
    """Return the name of the nearest colour."""
    return min(COLOURS, key=lambda name: distance_to(colour, name))


def distance_to(colour: Colour, name: str) -> float:
    """Compute the distance of a colour to the named one, levels of 255 in three dimensions."""
    return float(np.linalg.norm(colour - np.array(COLOURS[name])))


def _overlap(mask: NDArray[np.bool_], name: str) -> float:
    """Compute a mask's intersection over union with a shape of the same area and centroid."""
    radius = (mask.sum() / _AREA[name]) ** 0.5
    y, x = (axis.mean() + 0.5 for axis in np.nonzero(mask))
    centre = torch.tensor([[y - _CENTROID[name] * radius, x]], dtype=torch.float32)
    kind, radii = torch.tensor([SHAPES.index(name)]), torch.tensor([radius], dtype=torch.float32)
    drawn = signed_distance(kind, centre, radii)[0].numpy() < 0
    return float((mask & drawn).sum() / (mask | drawn).sum())


def _inked(image: NDArray[np.float64], background: Colour, colour: Colour) -> NDArray[np.float64]:
    """Return how far each pixel's colour is from the background's to the shape's, 0 to 1."""
    step = colour - background
    length = max(float(step @ step), 1.0)
    share: NDArray[np.float64] = ((image - background) @ step / length).clip(0, 1)
    return share


def _drawn_quotient(radius: float) -> float:
    """Compute the isoperimetric quotient of a circle as `scene.py` draws it, amid pixels."""
    centre = torch.tensor([[PICTURE_PIXELS / 2, PICTURE_PIXELS / 2]])
    distance = signed_distance(
        torch.tensor([SHAPES.index("circle")]), centre, torch.tensor([radius])
    )
    return isoperimetric_quotient((0.5 - distance[0].double()).clamp(0, 1).numpy())


def _area_and_length(height: NDArray[np.float64]) -> tuple[float, float]:
    """Measure where a field is above 0: the area, and the length of its border.

    Each square between four neighbours is divided into four triangles around its middle, in which
    the field is linear.
    """
    corners = [height[:-1, :-1], height[:-1, 1:], height[1:, 1:], height[1:, :-1]]
    middle: NDArray[np.float64] = np.mean(corners, axis=0)
    area = length = 0.0
    for one, other in zip(corners, [*corners[1:], corners[0]], strict=True):
        values = np.stack([middle, one, other]).reshape(3, -1)
        points = np.array([[0.5, 0.5], [0.0, 0.0], [0.0, 1.0]])  # alike for all four by turning
        above = values > 0
        for corner in range(3):
            first, second = (corner + 1) % 3, (corner + 2) % 3
            alone = (above[corner] != above[first]) & (above[corner] != above[second])
            ratios = [
                values[corner, alone] / (values[corner, alone] - values[end, alone])
                for end in (first, second)
            ]
            sides = [points[end] - points[corner] for end in (first, second)]
            cut = ratios[0][:, None] * sides[0] - ratios[1][:, None] * sides[1]
            length += float(np.linalg.norm(cut, axis=1).sum())
            tip = 0.25 * ratios[0] * ratios[1]
            is_above = above[corner, alone]
            area += float(tip[is_above].sum() + (0.25 - tip[~is_above]).sum())
        area += 0.25 * float(above.all(axis=0).sum())
    return area, length


def _border_colour(image: NDArray[np.float64]) -> Colour:
    inside = np.zeros(image.shape[:2], dtype=bool)
    inside[BORDER_PIXELS:-BORDER_PIXELS, BORDER_PIXELS:-BORDER_PIXELS] = True
    colour: Colour = np.median(image[~inside], axis=0)
    return colour


def _largest_part(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the largest connected part of a mask."""
    parts, count = ndimage.label(mask)
    if count == 0:
        return mask
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    largest: NDArray[np.bool_] = parts == sizes.argmax()
    return largest
