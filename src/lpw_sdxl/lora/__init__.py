"""LoRA files: their contents, their fit to SDXL, and their effect on the weights."""
