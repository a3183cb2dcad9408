"""Decoded pixels of any mode to sRGB on white, and their transparency.

It works in bands of rows: a picture needs little more memory than its pixels, and numpy and Pillow
hold the interpreter's lock for milliseconds at most.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from lpw_sdxl.imaging.colour_profile import make_conversion
from lpw_sdxl.imaging.pixels import bands

Pixels = npt.NDArray[np.uint8]

WHITE = 255
GREY_MODES = ("1", "L", "I;16")


class FlatPixels(NamedTuple):
    """Colours on white, and how opaque they were.

    Attributes:
        colours: `[height, width, 3]`, sRGB.
        alpha: `[height, width]`, 255 is opaque; None where all of it is.
    """

    colours: Pixels
    alpha: Pixels | None


def flatten(image: Image.Image, icc_profile: bytes = b"", bit_depth: int = 8) -> FlatPixels:
    """Convert an image to sRGB, on white where it is transparent.

    Of 16-bit levels the upper 8 bits are kept: Pillow's decoder keeps no more of coloured ones.
    CMYK without a profile is converted by the plain formula, (1 - ink) times (1 - black).

    Args:
        image: decoded; of mode 1, L, LA, I;16, P, RGB, RGBA or CMYK.
        icc_profile: of the colours, or nothing.
        bit_depth: of a PNG's samples, in which it states its transparent colour.
    """
    colours = np.empty((image.height, image.width, 3), np.uint8)
    alpha = np.empty((image.height, image.width), np.uint8) if _has_alpha(image) else None
    convert = make_conversion(_model_of(image), icc_profile) if icc_profile else None
    for top, band in bands(image):
        rows = slice(top, top + band.height)
        opaque = _split_alpha(band, bit_depth)
        colour = _without_alpha(band)
        rgb = colour.convert("RGB") if convert is None else convert(colour)
        if alpha is not None and opaque is not None:
            alpha[rows] = np.asarray(opaque)
            rgb = Image.composite(rgb, Image.new("RGB", rgb.size, (WHITE, WHITE, WHITE)), opaque)
        colours[rows] = np.asarray(rgb)
    if alpha is not None and alpha.min() == WHITE:
        alpha = None
    return FlatPixels(colours, alpha)


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ("LA", "RGBA") or "transparency" in image.info


def _model_of(image: Image.Image) -> str:
    """Return the mode of the colours alone: L, RGB or CMYK."""
    if image.mode == "CMYK":
        return "CMYK"
    return "L" if image.mode in (*GREY_MODES, "LA") else "RGB"


def _without_alpha(band: Image.Image) -> Image.Image:
    """Return a band's colours in mode L, RGB or CMYK, as if all were opaque."""
    if band.mode == "I;16":
        return Image.fromarray((np.asarray(band) >> 8).astype(np.uint8))
    if band.mode == "P":
        # Pillow would spoil the colours of transparent entries, which may be half opaque.
        return band.convert("RGBA").convert("RGB") if _has_alpha(band) else band.convert("RGB")
    band.info.pop("transparency", None)
    return band.convert(_model_of(band))


def _split_alpha(band: Image.Image, bit_depth: int) -> Image.Image | None:
    """Return how opaque a band is, in mode L; None where it has nothing that says so."""
    transparent = band.info.get("transparency")
    if band.mode in ("LA", "RGBA"):
        return band.getchannel("A")
    if transparent is None:
        return None
    if band.mode == "P":
        return band.convert("RGBA").getchannel("A")
    if band.mode == "RGB":
        # Of 16 bits only the upper ones are left of the pixels.
        levels = [level >> max(0, bit_depth - 8) & 255 for level in transparent]
    elif band.mode == "L":
        levels = [transparent * 255 // (2**bit_depth - 1)]
    else:
        levels = [transparent]
    channels = np.asarray(band.convert("L") if band.mode == "1" else band)
    differs = channels.reshape(band.height, band.width, -1) != np.array(levels)
    return Image.fromarray(differs.any(axis=2).astype(np.uint8) * WHITE)
