"""Many different requests at once, stepped together on one device.

What of it describes requests and images imports without torch; the engine itself does not.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lpw_sdxl.engine.engine import Engine
    from lpw_sdxl.engine.job import GeneratedImage
    from lpw_sdxl.engine.progress import ImageProgress, Listener
    from lpw_sdxl.engine.upscaled_image import UpscaledImage

__all__ = ["Engine", "GeneratedImage", "ImageProgress", "Listener", "UpscaledImage"]

_MODULES = {
    "Engine": "engine",
    "GeneratedImage": "job",
    "ImageProgress": "progress",
    "Listener": "progress",
    "UpscaledImage": "upscaled_image",
}


def __getattr__(name: str) -> object:
    """Import a name's module, and mostly torch with it, at its first use."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
