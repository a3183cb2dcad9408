"""A WebP's pixels by libwebp itself, the one that Pillow brings.

Pillow takes a WebP for an animation: 20 bytes of memory for each pixel, and the interpreter's lock
held as it copies them, 100 ms for the largest picture. Called from here, libwebp writes them where
they stay, without the lock.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable

import numpy as np
from PIL import Image, _webp

from lpw_sdxl.schema import ImageSize

CHANNELS = 4

_DecodeInto = Callable[[bytes, int, ctypes.c_void_p, int, int], int | None]


def decode_webp(content: bytes, size: ImageSize) -> Image.Image | None:
    """Decode a WebP of one picture.

    Args:
        content: of the whole file.
        size: as its header states it.

    Returns:
        The image, in mode RGBA. None where libwebp can't decode the file so: it is damaged, or an
        animation, which may have one frame; or Pillow was built with libwebp inside it.
    """
    decode_into = _find_decoder()
    if decode_into is None:
        return None
    pixels = np.zeros((*size, CHANNELS), np.uint8)  # never what the memory held before
    place = ctypes.c_void_p(pixels.ctypes.data)
    if not decode_into(content, len(content), place, pixels.nbytes, size.width * CHANNELS):
        return None
    return Image.fromarray(pixels)


@functools.cache
def _find_decoder() -> _DecodeInto | None:
    """Find WebPDecodeRGBAInto in the library that Pillow's module is linked with.

    Its signature has been the same since libwebp 0.1 (src/webp/decode.h). It fails where the
    picture is larger than the memory for it.
    """
    try:
        function = ctypes.CDLL(_webp.__file__).WebPDecodeRGBAInto
    except (OSError, AttributeError):
        return None
    function.argtypes = (
        ctypes.c_char_p,
        ctypes.c_size_t,
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_int,
    )
    function.restype = ctypes.c_void_p
    return function
