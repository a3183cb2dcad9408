"""Colours of an ICC profile to sRGB."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageChops, ImageCms

if TYPE_CHECKING:
    import numpy.typing as npt

Conversion = Callable[[Image.Image], Image.Image]

LEVELS = 256
PROBE_LEVELS = 17  # of each channel

_log = logging.getLogger(__name__)


def make_conversion(model: str, icc_profile: bytes) -> Conversion | None:
    """Make the conversion to sRGB of images with a profile.

    A profile that can't be used, such as one of colours in a grey picture, is ignored as in
    browsers, and logged.

    Args:
        model: mode of the images: L, RGB or CMYK.
        icc_profile: in the file format of the ICC.

    Returns:
        A function of images to images in mode RGB. None where the profile changes nothing, so that
        a picture in sRGB, as most are, keeps its pixels bit for bit; and where it can't be used.
    """
    try:
        convert = _convert_grey(icc_profile) if model == "L" else _transform(model, icc_profile)
        probe = _make_probe(model)
        changed = ImageChops.difference(convert(probe), probe.convert("RGB"))
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        _log.info("A picture's colour profile can't be used and is ignored: %s", error)
        return None
    return convert if np.asarray(changed).max() > 1 else None


def _convert_grey(icc_profile: bytes) -> Conversion:
    """Make a table of all levels: LittleCMS's quick way is up to 10 levels off in dark grey."""
    exact = _transform("L", icc_profile, ImageCms.Flags.NOOPTIMIZE)
    ramp = Image.fromarray(np.arange(LEVELS, dtype=np.uint8)[None])
    table: npt.NDArray[np.uint8] = np.array(exact(ramp))[0]
    return lambda image: Image.fromarray(table[np.asarray(image)])


def _transform(
    model: str, icc_profile: bytes, flags: ImageCms.Flags = ImageCms.Flags.NONE
) -> Conversion:
    profile = ImageCms.ImageCmsProfile(io.BytesIO(icc_profile))
    srgb = ImageCms.createProfile("sRGB")
    transform = ImageCms.buildTransform(profile, srgb, model, "RGB", flags=flags)

    def convert(image: Image.Image) -> Image.Image:
        converted = ImageCms.applyTransform(image, transform)
        assert converted is not None  # only a transform in place returns none
        return converted

    return convert


def _make_probe(model: str) -> Image.Image:
    """Make an image of colours from all over the space."""
    if model != "RGB":
        return Image.linear_gradient("L").convert(model)
    levels = np.linspace(0, LEVELS - 1, PROBE_LEVELS).astype(np.uint8)
    grid = np.stack(np.meshgrid(levels, levels, levels), axis=-1)
    return Image.fromarray(grid.reshape(PROBE_LEVELS, PROBE_LEVELS**2, 3))
