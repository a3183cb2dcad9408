"""The orientation that a camera notes in Exif, and how pixels are turned by it.

Format: CIPA DC-008 (Exif 2.32), section 4.6.2; the block is a TIFF file (revision 6.0, section 2).
"""

from __future__ import annotations

import struct
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from lpw_sdxl.imaging.exif import ENTRY_BYTES, PREFIX

ORIENTATION_TAG = 0x0112
SHORT = 3  # the type of a number of 16 bits


class Orientation(IntEnum):
    """Which sides of the scene the first row and the first column of the stored pixels are."""

    TOP_LEFT = 1
    TOP_RIGHT = 2
    BOTTOM_RIGHT = 3
    BOTTOM_LEFT = 4
    LEFT_TOP = 5
    RIGHT_TOP = 6
    RIGHT_BOTTOM = 7
    LEFT_BOTTOM = 8


SIDES_SWAPPED = frozenset(one for one in Orientation if one >= Orientation.LEFT_TOP)
"""Where the stored rows are the scene's columns."""


def read_orientation(exif: bytes) -> Orientation:
    """Read the orientation from an Exif block.

    A block without one, and one that can't be read, leave the picture as it is stored: so do other
    programs, and much that writes Exif writes it badly.
    """
    block = exif.removeprefix(PREFIX)
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None or len(block) < 8:
        return Orientation.TOP_LEFT
    (start,) = struct.unpack_from(order + "I", block, 4)
    directory = block[start:]
    if len(directory) < 2:
        return Orientation.TOP_LEFT
    (count,) = struct.unpack_from(order + "H", directory)
    entries = directory[2 : 2 + count * ENTRY_BYTES]
    whole = len(entries) - len(entries) % ENTRY_BYTES
    for tag, kind, _, value in struct.iter_unpack(order + "HHIH2x", entries[:whole]):
        if (tag, kind) == (ORIENTATION_TAG, SHORT) and value in set(Orientation):
            return Orientation(value)
    return Orientation.TOP_LEFT


def turn(pixels: npt.NDArray[np.uint8], orientation: Orientation) -> npt.NDArray[np.uint8]:
    """Turn and mirror stored pixels, `[h, w]` or `[h, w, c]`, so that the scene stands upright."""
    if orientation in SIDES_SWAPPED:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
