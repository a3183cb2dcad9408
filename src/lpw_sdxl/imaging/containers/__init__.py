"""PNG, JPEG and WebP files, taken apart without decoding a pixel.

Each file here walks through the parts of one kind of file in bounded time. What is found there
(size, colour profile, Exif) is known before the decoder is started, and the decoder is passed only
the parts that decide the pixels.
"""

from lpw_sdxl.imaging.containers.container import Container, PictureKind
from lpw_sdxl.imaging.containers.recognition import read_container

__all__ = ["Container", "PictureKind", "read_container"]
