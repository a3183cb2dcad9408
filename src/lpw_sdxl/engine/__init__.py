"""Many different requests at once, stepped together on one device."""

from lpw_sdxl.engine.engine import Engine
from lpw_sdxl.engine.job import GeneratedImage, Listener, Progress

__all__ = ["Engine", "GeneratedImage", "Listener", "Progress"]
