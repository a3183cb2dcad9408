"""A picture that was enlarged, not yet a file."""

from __future__ import annotations

from dataclasses import dataclass

from lpw_sdxl.imaging.files import encode_plain
from lpw_sdxl.imaging.resizing import Pixels
from lpw_sdxl.schema import ImageSize
from lpw_sdxl.upscale_request import UpscaleRequest


@dataclass(frozen=True)
class UpscaledImage:
    """An enlarged picture.

    Attributes:
        pixels: uint8, `[height, width, 3]`.
        request: of it, without the picture's file.
        parameters: the text of A1111's that the picture's file had; empty for none.
    """

    pixels: Pixels
    request: UpscaleRequest
    parameters: str = ""

    @property
    def size(self) -> ImageSize:
        """Return its size, pixels."""
        return ImageSize(*self.pixels.shape[:2])

    def encode(self) -> bytes:
        """Encode to the requested format; CPU work for a worker thread."""
        request = self.request
        return encode_plain(self.pixels, request.image_format, self.parameters, request.quality)
