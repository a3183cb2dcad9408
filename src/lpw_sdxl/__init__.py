"""LPW-SDXL: serve SDXL checkpoints with long, weighted prompts, many requests at a time."""

__version__ = "0.1.0"
