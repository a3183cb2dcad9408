"""Upscalers that every server has, by name: resizes of pixels and of latents; no torch.

Imported models have names of their own beside these.
"""

from __future__ import annotations

from enum import StrEnum

from lpw_sdxl.spelling import Spellings


class PixelUpscaler(StrEnum):
    """A resize of a picture's pixels."""

    NONE = "none"
    """A1111's `None`, which resizes as `lanczos` does."""
    NEAREST = "nearest"
    LANCZOS = "lanczos"


class LatentUpscaler(StrEnum):
    """A resize of latents."""

    LATENT = "latent"
    LATENT_ANTIALIASED = "latent_antialiased"
    LATENT_BICUBIC = "latent_bicubic"
    LATENT_BICUBIC_ANTIALIASED = "latent_bicubic_antialiased"
    LATENT_NEAREST = "latent_nearest"
    LATENT_NEAREST_EXACT = "latent_nearest_exact"


_PIXELS = Spellings("upscaler", PixelUpscaler, {})
_LATENTS = Spellings("upscaler", LatentUpscaler, {})


def find_pixel_upscaler(name: str) -> PixelUpscaler | None:
    """Return the resize of pixels that a name in any spelling stands for; None for no such."""
    return _PIXELS.find(name)


def find_latent_upscaler(name: str) -> LatentUpscaler | None:
    """Return the resize of latents that a name in any spelling stands for; None for no such.

    A1111's `Latent (bicubic antialiased)` is one of the spellings.
    """
    return _LATENTS.find(name.translate(_NO_BRACKETS))


def is_built_in(name: str) -> bool:
    """Return whether a name in any spelling is that of an upscaler that every server has."""
    return (find_pixel_upscaler(name) or find_latent_upscaler(name)) is not None


_NO_BRACKETS = str.maketrans("", "", "()")
