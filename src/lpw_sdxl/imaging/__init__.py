"""Pixels to the bytes of an image file that states how the image was made; pictures to pixels.

What reads pictures is imported from its own files: it needs numpy, which the supervisor, importing
this, starts without.
"""

from lpw_sdxl.imaging.files import (
    MEDIA_TYPES,
    MediaType,
    check_fits,
    check_sides,
    check_texts,
    encode_image,
    encode_preview,
)
from lpw_sdxl.imaging.record import EmbeddingUse, ImageRecord, PictureUse, parameters_text

__all__ = [
    "MEDIA_TYPES",
    "EmbeddingUse",
    "ImageRecord",
    "MediaType",
    "PictureUse",
    "check_fits",
    "check_sides",
    "check_texts",
    "encode_image",
    "encode_preview",
    "parameters_text",
]
