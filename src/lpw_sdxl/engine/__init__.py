"""Many different requests at once, stepped together on one device."""

from lpw_sdxl.engine.engine import Engine
from lpw_sdxl.engine.job import GeneratedImage
from lpw_sdxl.engine.progress import ImageProgress, Listener
from lpw_sdxl.engine.upscaled_image import UpscaledImage

__all__ = ["Engine", "GeneratedImage", "ImageProgress", "Listener", "UpscaledImage"]
